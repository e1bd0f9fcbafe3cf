"""The command `shoal export-results`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from common.errors import ConfigError
from common.files import write_atomically
from common.process import command
from shoal.commands.export_results.formats import to_csv, to_marl_eval
from shoal.commands.export_results.results import OverAgents, RunResults, read_results
from shoal.run_paths import find_runs

_screen = Console(markup=False, emoji=False, stderr=True)


class ExportResultsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of `shoal export-results`."""

    format: Annotated[
        Literal["marl-eval", "csv"] | None,
        Meta(
            description="marl-eval: The JSON of the package marl-eval. csv: One line for each figure.  [default: csv if"
            " the name of --output ends with .csv, else marl-eval]"
        ),
    ] = None
    over_agents: Annotated[
        OverAgents,
        Meta(
            description="How the metric `return` combines the agents' returns; mean is right beside tools that count a"
            " shared reward once."
        ),
    ] = "sum"
    environment: Annotated[
        str,
        Meta(
            description="Name of the environment in the file.  [default: mpe, or the family of the world]",
            extra={"metavar": "NAME"},
        ),
    ] = ""
    task: Annotated[
        str,
        Meta(
            description="Name of the task in the file, if all RUNs have one world.  [default: the world's name]",
            extra={"metavar": "NAME"},
        ),
    ] = ""


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write.  [default: standard output]"
)
@command.options(ExportResultsConfig)
def export_results(runs: tuple[Path, ...], output: Path | None, **values: Any) -> None:
    """Write the evaluations of RUN, or of several, for other tools.

    The format marl-eval has the evaluations while each run trained, and the final one as its absolute metrics. Many
    tools write it, so the curves of MAPPO or QMIX can stand beside Shoal's. RUN is a run's directory or a directory of
    runs, such as a sweep.

    \b
    Examples:
      shoal export-results sweeps/spread -o shoal.json
      shoal export-results runs/a runs/b -o results.csv
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(ExportResultsConfig, values)
    found = _renamed(read_results(find_runs(runs)), config)
    if config.format == "csv" or (config.format is None and output is not None and output.suffix == ".csv"):
        text = to_csv(found, config.over_agents).encode()
    else:
        text = to_marl_eval(found, config.over_agents, lambda line: _screen.print(f"note: {line}", soft_wrap=True))
    if output is None:
        command.result(text, nl=False)
        return
    try:
        write_atomically(output, text)
    except OSError as e:
        raise ConfigError(f"-o {output} cannot be written: {e.strerror}.") from e
    command.result(f"{output}: {len(found)} run{'s' if len(found) > 1 else ''}")


def _renamed(found: Sequence[RunResults], config: ExportResultsConfig) -> list[RunResults]:
    worlds = sorted({one.record.run.spec.scenario for one in found})
    if config.task and len(worlds) > 1:
        raise ConfigError(f"--task {config.task!r}: the runs have {len(worlds)} worlds: {', '.join(worlds)}.")
    return [
        one._replace(environment=config.environment.lower() or one.environment, task=config.task.lower() or one.task)
        for one in found
    ]
