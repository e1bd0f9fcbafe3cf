"""The command `shoal diagnose`, and the warnings at the end of `shoal train`."""

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
from common.run.directory import RunDirectory
from shoal.commands.diagnose import SEED, Diagnosis, diagnose
from shoal.commands.diagnose.warning import DiagnosisWarning
from shoal.commands.evaluate.progress import CopiesOption
from shoal.commands.evaluate.text import choice_lines

SHORT_EPISODES, FEWEST_EPISODES = 100, 10
"""Of the diagnosis at the end of `shoal train`."""
_screen = Console(markup=False, emoji=False, stderr=True)


class Diagnosed(Protocol):
    """What is printed of a diagnosis."""

    @property
    def updates(self) -> int:
        """Updates of the run."""

    @property
    def warnings(self) -> list[DiagnosisWarning]:
        """What the diagnosis warns of."""


class DiagnoseConfig(msgspec.Struct, frozen=True):
    """Settings of `shoal diagnose`."""

    episodes: Annotated[int, Meta(ge=10, le=10_000, description="Episodes of each variant that is played.")] = 200
    seed: Annotated[int, Meta(ge=0, lt=2**31, description="Seed of the first episode; episode e has SEED + e.")] = SEED
    copies: CopiesOption = 0
    max_episode_steps: Annotated[
        int, Meta(ge=0, description="Steps of an episode that is looked at, at most, in a world that is not batched.")
    ] = 0
    json: Annotated[bool, Meta(description="Print JSON.")] = False


@click.command("diagnose")
@click.argument("run", type=click.Path(path_type=Path))
@command.options(DiagnoseConfig)
def diagnose_run(run: Path, **values: Any) -> None:
    """Look for what ails RUN, finished or not, and say what to try.

    Whether anybody listens to those who speak, Q-values against the returns that follow, dead units and saturated
    actions, and what the log shows: lag, gradients, ratio, fallen returns.

    \b
    Examples:
      shoal diagnose runs/talk
      shoal diagnose runs/talk --episodes 1000 --json
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    config = command.build(DiagnoseConfig, values)
    with _screen.status("playing and looking"):
        limits = {"copies": config.copies, "max_steps": config.max_episode_steps}
        found = diagnose(RunDirectory(run), config.episodes, config.seed, **limits)
    if config.json:
        command.result(msgspec.json.encode(found))
        return
    screen = Console(file=command.results(), markup=False, emoji=False)
    for table in _tables(found):
        screen.print(table)
        screen.print()
    for what, why in found.skipped.items():
        screen.print(f"{what}: not looked at: {why}", soft_wrap=True, markup=False)
    for line in choice_comparison(RunDirectory(run)):
        screen.print(line, soft_wrap=True, markup=False, highlight=False)
    print_warnings(found.warnings, screen)


def choice_comparison(directory: RunDirectory) -> list[str]:
    """Returns what the last evaluation found of greedy and drawn choices; empty where it did not compare them."""
    try:
        evaluated = msgspec.json.decode(directory.evaluation_file.read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return []
    return choice_lines(evaluated)


def print_warnings(warnings: list[DiagnosisWarning], screen: Console) -> None:
    """Says what was seen, what it usually means and what to try, warning by warning."""
    if not warnings:
        screen.print("no warnings")
    for warned in warnings:
        screen.print(f"warning: {warned.seen}", style="yellow", soft_wrap=True, markup=False, highlight=False)
        screen.print(f"  usually: {warned.means}", soft_wrap=True, markup=False, highlight=False)
        screen.print(f"  try: {'; or '.join(warned.to_try)}", soft_wrap=True, markup=False, highlight=False)


def print_warnings_after_training(
    directory: RunDirectory, screen: Console, look: Callable[[RunDirectory, int], Diagnosed] = diagnose
) -> None:
    """Diagnoses a run that has just ended and prints only its warnings.

    look: makes the diagnosis of a run over a number of episodes.
    """
    with screen.status("looking for what could be better"):
        found = look(directory, episodes_after_training(len(directory.run.joint.agents)))
    if found.warnings and found.updates:
        print_warnings(found.warnings, screen)
        screen.print(f"more: shoal diagnose {directory.path}", soft_wrap=True, markup=False)


def episodes_after_training(agents: int) -> int:
    """Returns how many episodes a diagnosis after a training looks at: critics cost the square of the agents."""
    return min(SHORT_EPISODES, max(FEWEST_EPISODES, SHORT_EPISODES * 100 // agents**2))


def _tables(found: Diagnosis) -> list[Table]:
    tables = [_networks(found), _inputs(found)]
    if found.values:
        tables.insert(0, _values(found))
    if found.communication:
        tables.insert(0, _communication(found))
    if found.course is not None:
        tables.append(_log_table(found))
    return tables


def _communication(found: Diagnosis) -> Table:
    title = "what messages are worth: a side's return, and by how much it falls without them (95 %)"
    table = _table(title, ("speaker", "side", "return", "shuffled", "zeroed"), left=2)
    for row in found.communication:
        shuffled = _with_interval(row.shuffled_cost, row.shuffled_cost_ci95)
        zeroed = _with_interval(row.zeroed_cost, row.zeroed_cost_ci95)
        table.add_row(row.speaker, row.side, f"{row.return_with:.2f}", shuffled, zeroed)
    return table


def _values(found: Diagnosis) -> Table:
    title = "Q-values against the discounted returns that followed"
    table = _table(title, ("player", "Q", "return", "bias", "relative", "rank correlation"))
    for row in found.values:
        order = "alike" if row.rank_correlation is None else f"{row.rank_correlation:.2f}"
        bias = _with_interval(row.bias, row.bias_ci95)
        table.add_row(row.player, f"{row.value:.2f}", f"{row.realised:.2f}", bias, f"{row.relative_bias:+.0%}", order)
    return table


def _networks(found: Diagnosis) -> Table:
    columns = ("network", "inputs", "units", "dead", "logits", "saturated", "top choice", "entropy")
    table = _table("networks on the states that were played", columns)
    for row in found.networks:
        table.add_row(
            row.network,
            f"{row.inputs:,}",
            " ".join(map(str, row.hidden_units)),
            " ".join(f"{share:.0%}" for share in row.dead),
            _number(row.logit_size),
            _share(row.saturated),
            _number(row.top_probability),
            _share(row.entropy),
        )
    return table


def _inputs(found: Diagnosis) -> Table:
    title = (
        "what networks are fed with; sizes are root mean squares, of the largest number and of rewards that are not 0"
    )
    columns = ("agent", "observation", "spread", "size", "reward", "spread", "size")
    table = _table(title, columns)
    own = found.inputs
    figures = (own.obs_mean, own.obs_spread, own.obs_size, own.reward_mean, own.reward_spread, own.reward_size)
    for name, *row in zip(found.agents, *figures, strict=True):
        table.add_row(name, *(_number(value) for value in row))
    return table


def _log_table(found: Diagnosis) -> Table:
    course = found.course
    table = _table("the last quarter of the log", ("figure", "value"))
    if course is None:
        return table
    rows = [
        ("policy lag, versions", _number(course.policy_lag)),
        ("critics' gradient norm, largest over players", _number(course.critic_gradient_norm)),
        ("policies' gradient norm, the same", _number(course.policy_gradient_norm)),
        ("updates with a clipped critic", _share(course.critics_clipped)),
        ("updates with a clipped policy", _share(course.policies_clipped)),
        ("critics' loss", _number(course.critic_loss)),
        ("... over that of the second quarter", _number(course.critic_loss_growth)),
        ("environment steps an update, whole log", _number(course.steps_per_update)),
        ("steps of an episode", _number(course.episode_steps)),
        (f"samples per insert, target {course.target_samples_per_insert:g}", _number(course.samples_per_insert)),
        ("time the learner waited, whole run", _share(course.learner_waited)),
        ("time the actors waited, whole run", _share(course.actors_waited)),
    ]
    if course.returns is not None:
        rows.append(("returns in training: best tenth", _number(course.returns.best)))
        rows.append(("... last tenth", _number(course.returns.last)))
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


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"
