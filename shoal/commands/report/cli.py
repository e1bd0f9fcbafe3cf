"""The command `shoal report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated, Any

import click
import msgspec
from msgspec import Meta
from rich.console import Console

from common.process import command
from shoal.commands.report import REPORT_FILE, write_report
from shoal.number_format import file_size
from shoal.run_paths import find_runs

_screen = Console(markup=False, emoji=False, stderr=True)


class ReportConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal report`."""

    open: Annotated[bool, Meta(description="Open the report in a browser.")] = False
    json: Annotated[bool, Meta(description="Print the path, size and runs of the report as JSON.")] = False


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    envvar="SHOAL_OUTPUT",
    type=click.Path(dir_okay=False, path_type=Path),
    help=f"HTML file to write.  [default: RUN/{REPORT_FILE}; with several RUNs {REPORT_FILE}]",
)
@command.options(ReportConfig)
def report(runs: tuple[Path, ...], output: Path | None, **values: Any) -> None:
    """Write the results of RUN, or of several, as one HTML page.

    The page is self-contained: result, film, learning curves, rates, settings and machine. RUN is a run's directory or
    a directory of runs, such as a sweep. Runs that differ only by their seed become one curve with a 95 % band; other
    runs are compared side by side.

    \b
    Examples:
      shoal report runs/spread --open
      shoal report runs/seed-* -o seeds.html
      shoal report sweeps/spread
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(ReportConfig, values)
    directories = [directory.path for directory in find_runs(runs)]
    written = write_report(directories, output or (runs[0] / REPORT_FILE if len(runs) == 1 else Path(REPORT_FILE)))
    if config.json:
        command.result(msgspec.json.encode(written))
    else:
        command.result(f"{written.path} ({file_size(written.bytes)})")
    if config.open and not webbrowser.open(Path(written.path).resolve().as_uri()):
        _screen.print(f"No browser found. Open {Path(written.path).resolve()} in one.", soft_wrap=True, markup=False)
