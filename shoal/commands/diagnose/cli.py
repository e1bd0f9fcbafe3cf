"""The command `shoal diagnose`, and the warnings printed at the end of `shoal train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Protocol

import click
import msgspec
from msgspec import Meta
from rich.console import Console
from rich.table import Table

from actor_node.evaluation.evaluate import Evaluation
from common.process import command
from common.process.shell_command import shell_command
from common.run.directory import RunDirectory
from shoal.commands.diagnose.diagnosis import SEED, Diagnosis, diagnose
from shoal.commands.diagnose.warning import DiagnosisWarning
from shoal.commands.evaluate.episode_options import CopiesOption
from shoal.commands.evaluate.text import choice_lines
from shoal.run_paths import run_directory

MAX_EPISODES, MIN_EPISODES = 100, 10
"""Bounds of the number of episodes of the diagnosis at the end of `shoal train`."""
_PART_NAMES = {"course": "training log"}
"""Names of the parts of a diagnosis on the terminal that differ from their JSON keys."""
_screen = Console(markup=False, emoji=False, stderr=True)


class DiagnosisResult(Protocol):
    """The part of a diagnosis that is printed after training: a Diagnosis, or the result of a process that made one."""

    @property
    def updates(self) -> int:
        """Number of updates of the diagnosed policies."""

    @property
    def warnings(self) -> list[DiagnosisWarning]:
        """Warnings of the diagnosis."""


class DiagnoseConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal diagnose`."""

    episodes: Annotated[
        int,
        Meta(ge=10, le=10_000, description="Number of episodes, with original and with changed messages."),
    ] = 200
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = SEED
    copies: CopiesOption = 0
    max_episode_steps: Annotated[
        int,
        Meta(ge=0, description="Longest episode in a world that is not batched [steps]; 0 plays all steps needed."),
    ] = 0
    json: Annotated[bool, Meta(description="Print all figures and warnings as JSON.")] = False


@click.command("diagnose")
@click.argument("run", type=click.Path(path_type=Path))
@command.options(DiagnoseConfig)
def diagnose_run(run: Path, **values: Any) -> None:
    """Find problems in the training of RUN and suggest settings.

    Checks whether agents use each other's messages, compares Q-values with the returns that follow, looks for dead
    units and saturated actions, and reads the log for policy lag, gradients, replay ratio and falling returns. RUN can
    be finished or still training.

    \b
    Examples:
      shoal diagnose runs/talk
      shoal diagnose runs/talk --episodes 1000 --json
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(DiagnoseConfig, values)
    with _screen.status("diagnosing"):
        limits = {"copies": config.copies, "max_steps": config.max_episode_steps}
        found = diagnose(run_directory(run), config.episodes, config.seed, **limits)
    if config.json:
        command.result(msgspec.json.encode(found))
        return
    screen = Console(file=command.results(), markup=False, emoji=False)
    for table in _tables(found):
        screen.print(table)
        screen.print()
    for part, reason in found.skipped.items():
        screen.print(f"{_PART_NAMES.get(part, part)}: skipped: {reason}", soft_wrap=True, markup=False)
    for line in choice_comparison(RunDirectory(run)):
        screen.print(line, soft_wrap=True, markup=False, highlight=False)
    print_warnings(found.warnings, screen)


def choice_comparison(directory: RunDirectory) -> list[str]:
    """Returns how greedy and sampled choices compared in the last evaluation; empty if it did not compare them."""
    try:
        evaluated = msgspec.json.decode(directory.evaluation_file.read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return []
    return choice_lines(evaluated)


def print_warnings(warnings: list[DiagnosisWarning], screen: Console) -> None:
    """Prints for each warning the observation, its usual cause, and what to try."""
    if not warnings:
        screen.print("no warnings")
    for warning in warnings:
        screen.print(f"warning: {warning.seen}", style="yellow", soft_wrap=True, markup=False, highlight=False)
        screen.print(f"  usual cause: {warning.means}", soft_wrap=True, markup=False, highlight=False)
        screen.print(f"  try: {'; or '.join(warning.to_try)}", soft_wrap=True, markup=False, highlight=False)


def print_warnings_after_training(
    directory: RunDirectory, screen: Console, make_diagnosis: Callable[[RunDirectory, int], DiagnosisResult] = diagnose
) -> None:
    """Diagnoses a run that has just ended and prints its warnings, if any.

    make_diagnosis: makes the diagnosis of a run over a number of episodes.
    """
    with screen.status("diagnosing"):
        found = make_diagnosis(directory, episodes_after_training(len(directory.run.joint.agents)))
    if found.warnings and found.updates:
        print_warnings(found.warnings, screen)
        screen.print(f"details: {shell_command('shoal', 'diagnose', directory.path)}", soft_wrap=True, markup=False)


def episodes_after_training(agents: int) -> int:
    """Returns the episodes of a diagnosis after training: critics cost the square of the number of agents."""
    return min(MAX_EPISODES, max(MIN_EPISODES, MAX_EPISODES * 100 // agents**2))


def _tables(found: Diagnosis) -> list[Table]:
    tables = [_networks(found), _inputs(found)]
    if found.values:
        tables.insert(0, _values(found))
    if found.communication:
        tables.insert(0, _communication(found))
    if found.log is not None:
        tables.append(_log_table(found))
    return tables


def _communication(found: Diagnosis) -> Table:
    title = "Value of messages: return of a side, and its drop with shuffled or zeroed messages (95 % interval)"
    table = _table(title, ("speaker", "side", "return", "shuffled", "zeroed"), left=2)
    for row in found.communication:
        shuffled = _with_interval(row.shuffled_cost, row.shuffled_cost_ci95)
        zeroed = _with_interval(row.zeroed_cost, row.zeroed_cost_ci95)
        table.add_row(row.speaker, row.side, f"{row.return_with:.2f}", shuffled, zeroed)
    return table


def _values(found: Diagnosis) -> Table:
    title = "Q-values and the discounted returns that followed"
    table = _table(title, ("player", "Q", "return", "bias", "relative", "rank correlation"))
    for row in found.values:
        correlation = "constant" if row.rank_correlation is None else f"{row.rank_correlation:.2f}"
        bias = _with_interval(row.bias, row.bias_ci95)
        table.add_row(
            row.player, f"{row.value:.2f}", f"{row.realised:.2f}", bias, f"{row.relative_bias:+.0%}", correlation
        )
    return table


def _networks(found: Diagnosis) -> Table:
    columns = ("network", "inputs", "units", "dead", "logits", "saturated", "top choice", "entropy")
    table = _table("Networks on the visited states", columns)
    for row in found.networks:
        table.add_row(
            row.network,
            f"{row.inputs:,}",
            " ".join(map(str, row.hidden_units)),
            " ".join(f"{fraction:.0%}" for fraction in row.dead),
            _number(row.logit_size),
            _percent(row.saturated),
            _number(row.top_probability),
            _percent(row.entropy),
        )
    return table


def _inputs(found: Diagnosis) -> Table:
    title = "Network inputs; size: root mean square of the largest number, and of the rewards that are not 0"
    columns = ("agent", "observation", "spread", "size", "reward", "spread", "size")
    table = _table(title, columns)
    inputs = found.inputs
    of_obs = (inputs.obs_mean, inputs.obs_spread, inputs.obs_size)
    figures = (*of_obs, inputs.reward_mean, inputs.reward_spread, inputs.reward_size)
    for name, *row in zip(found.agents, *figures, strict=True):
        table.add_row(name, *(_number(value) for value in row))
    return table


def _log_table(found: Diagnosis) -> Table:
    log = found.log
    table = _table("The last quarter of the log", ("figure", "value"))
    if log is None:
        return table
    rows = [
        ("policy lag [versions]", _number(log.policy_lag)),
        ("critic gradient norm, largest of the players", _number(log.critic_gradient_norm)),
        ("policy gradient norm, largest of the players", _number(log.policy_gradient_norm)),
        ("updates with a clipped critic", _percent(log.critics_clipped)),
        ("updates with a clipped policy", _percent(log.policies_clipped)),
        ("critic loss", _number(log.critic_loss)),
        ("critic loss over that of the second quarter", _number(log.critic_loss_growth)),
        ("environment steps per update, whole log", _number(log.steps_per_update)),
        ("steps per episode", _number(log.episode_steps)),
        (f"samples per insert, target {_target(log.target_samples_per_insert)}", _number(log.samples_per_insert)),
        ("time that the learner waited, whole run", _percent(log.learner_waited)),
        ("time that the actors waited, whole run", _percent(log.actors_waited)),
    ]
    if log.returns is not None:
        rows.append(("return in training, best tenth of the run", _number(log.returns.best)))
        rows.append(("return in training, last tenth of the run", _number(log.returns.last)))
    for name, value in rows:
        table.add_row(name, value)
    return table


def _table(title: str, columns: tuple[str, ...], left: int = 1) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0), title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right", no_wrap=i < left)
    return table


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{value:+.2f} ± {(interval[1] - interval[0]) / 2:.2f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _target(ratio: float | None) -> str:
    return "auto" if ratio is None else f"{ratio:g}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
