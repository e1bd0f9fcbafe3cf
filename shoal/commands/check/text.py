"""The result of a check as text for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from common.process.shell_command import shell_command
from common.run.players import players
from common.run.run import RunSpec
from common.spec import AgentSpec, Box
from shoal.commands.check.check import WorldCheck
from shoal.commands.check.figures import ObservationColumn, StepRate
from shoal.commands.check.findings import Suggestion
from shoal.commands.check.measurements import mean_with_error
from shoal.number_format import ascii_number, duration

_LEVEL_TEXTS = {"error": "ERROR", "warning": "warning", "note": "note"}
_AGENT_COLUMNS = ("agent", "side", "observes", "acts", "smallest", "largest", "constant", "rewards")
_ACTORS = 2
"""Workers of `shoal train` by default."""


def print_check(check: WorldCheck, spec: RunSpec, screen: Console, options: Sequence[str] = ()) -> None:
    """Prints the check: agents, episodes, speed, findings, and the command to train with.

    options: words of the options that the check was made with and that training needs, too, as in `--set world.N=5`.
    """
    for part in _parts(check, spec, options):
        screen.print(part, soft_wrap=True, highlight=False)


def _parts(check: WorldCheck, spec: RunSpec, options: Sequence[str]) -> Iterable[RenderableType]:
    if check.agents is not None:
        yield _agents(check, spec)
    if check.state_dim:
        yield Text(
            f"state(): {check.state_dim:,} numbers. Critics read them with --set algorithm.critic_sees=state, or "
            "beside the observations with --set algorithm.critic_sees=both."
        )
    if check.plays:
        yield _episodes(check)
    if (random := check.plays.get("random")) and random.steps:
        yield _speed(check.rate or StepRate(1, random.steps, random.seconds))
    if check.preset:
        yield Text(f"preset: shoal train chooses {check.preset}, because {check.preset_reason}")
        yield Text(f"settings: {check.preset_settings}")
    for test in check.contract:
        result = f"skipped: {test.skipped}" if test.skipped else test.problem or "passed"
        yield Text(f"contract: {test.test}: {result}")
    for finding in check.findings:
        yield Text(f"{_LEVEL_TEXTS[finding.level]} ({finding.topic}): {_with_advice(finding.seen, finding.to_do)}")
    if not check.findings:
        yield Text("Nothing to fix was found.")
    yield Text(_next(check, options))


def _agents(check: WorldCheck, spec: RunSpec) -> Table:
    table = Table(*_AGENT_COLUMNS, box=None, pad_edge=False)
    if check.agents is None:
        return table
    play = check.plays.get("random")
    for i, agent in enumerate(check.agents.agents):
        columns = play.observations[i] if play and play.observations else ()
        table.add_row(
            agent.name,
            agent.team,
            f"{agent.obs_dim} numbers",
            _actions(agent),
            *_scales(columns),
            ascii_number(play.reward_size[i]) if play else "",
        )
    names = ", ".join(player.name for player in players(check.agents, spec.algorithm.variants).agents)
    table.caption = f"players: {names}" if len(names) < 200 else None
    table.caption_justify = "left"
    return table


def _scales(columns: tuple[ObservationColumn, ...]) -> tuple[str, str, str]:
    """Returns smallest and largest number of the observations, and how many numbers never changed."""
    if not columns:
        return "", "", ""
    constant = sum(column.low == column.high for column in columns)
    low, high = min(column.low for column in columns), max(column.high for column in columns)
    return ascii_number(low), ascii_number(high), f"{constant} of {len(columns)}"


def _actions(agent: AgentSpec) -> str:
    parts = []
    for part in agent.parts:
        if isinstance(part, Box):
            parts.append(f"{part.size} in [{min(part.low):g}, {max(part.high):g}]")
        else:
            parts.append(f"1 of {part.n}")
    return ", ".join(parts) if len(parts) <= 4 else f"{', '.join(parts[:3])} and {len(parts) - 3} more"


def _episodes(check: WorldCheck) -> Table:
    table = Table("actions", "return", "95 % +-", "episodes", "length", "ended by", box=None, pad_edge=False)
    for kind, play in check.plays.items():
        mean, half = mean_with_error(play.returns)
        lengths = f"{min(play.lengths)} to {max(play.lengths)}" if play.lengths else f"over {play.steps:,}"
        ends = (
            f"{play.terminated} terminated, {len(play.lengths) - play.terminated} truncated"
            if play.lengths
            else "nothing"
        )
        table.add_row(kind, ascii_number(mean, 4), ascii_number(half), str(len(play.lengths)), lengths, ends)
    return table


def _speed(measured: StepRate) -> Text:
    rate = measured.steps / max(measured.seconds, 1e-9)
    copies = f"{measured.copies} copies" if measured.copies > 1 else "one copy"
    return Text(
        f"speed: {ascii_number(rate)} steps/s in one process with {copies}; {_ACTORS} actors make a million steps in"
        f" {duration(1e6 / (rate * _ACTORS))}, if each has a core and the learner keeps up"
    )


def _next(check: WorldCheck, options: Sequence[str]) -> str:
    if not check.ok:
        return f"checked in {duration(check.seconds)}: fix the errors before training."
    suggested = [word for one in check.suggestions for word in _option(one)]
    train = shell_command("shoal", "train", check.world, *options, *suggested)
    reasons = "".join(f"\n  {one.setting}: {one.reason}" for one in check.suggestions)
    return f"checked in {duration(check.seconds)}. Next: {train}{reasons}"


def _option(one: Suggestion) -> tuple[str, str]:
    """Returns the option of a suggested setting and its value."""
    value = str(one.value).lower() if isinstance(one.value, bool) else str(one.value)
    return ("--max-episode-steps", value) if one.setting == "episode.max_steps" else ("--set", f"{one.setting}={value}")


def _with_advice(seen: str, to_do: str) -> str:
    """Returns both as one line, or the advice on its own line after lines of the user's code."""
    if "\n" in seen:
        return f"{seen}\n{to_do}".rstrip()
    return f"{_sentence(seen)} {to_do}".rstrip()


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
