"""Turns the figures of a check into findings, and into settings to try. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from common.errors import ConfigError
from common.history import history_of, unstacked_spec
from common.run.players import players
from common.run.run import RunSpec
from common.spec import AgentsSpec
from learner_node.run_checks.inputs import MAX_RMS, MIN_RMS
from learner_node.run_checks.sizes import MIN_IMAGE_OBSERVATION
from shoal.commands.check.figures import ContractTest, ObservationColumn, PlayFigures
from shoal.commands.check.measurements import SEED_TEST, interval_of

MAX_GROWTH = 1024.0
"""Growth of memory that is not remarked on [bytes a step]: a million steps then take a gigabyte."""
SLOW_STEP_S = 0.02
MIN_STEPS = 200
"""Steps from which an episode without an end counts as endless."""
Level = Literal["error", "warning", "note"]
_LEVELS: tuple[Level, ...] = ("error", "warning", "note")


class Finding(msgspec.Struct, frozen=True):
    """One observation of `shoal check` about a world, before training, and what to do."""

    level: Level
    """error: training fails, or learns another task than meant. warning: it trains badly. note: good to know."""
    topic: str
    seen: str
    to_do: str = ""


class Suggestion(msgspec.Struct, frozen=True):
    """One setting that suits the world."""

    setting: str
    value: Any
    reason: str


def derive_findings(
    spec: RunSpec,
    agents: AgentsSpec | None,
    plays: Mapping[str, PlayFigures],
    contract: Sequence[ContractTest],
    warned: Sequence[str],
    *,
    fault: str,
) -> list[Finding]:
    """Returns the findings, the most serious first.

    plays: the figures of each kind of actions, such as "random", by this kind (`PlayFigures.actions`).
    """
    found: list[Finding] = []
    if fault:
        found.append(Finding("error", "fault", fault, "Fix the environment, then check it again."))
    found += [_broken(test) for test in contract if test.problem]
    found += [Finding("warning", "adapter", text) for text in warned]
    if agents is not None:
        # Undo history stacking first: an image is recognised by the length of a single observation.
        current = unstacked_spec(agents, history_of(spec.world))
        found += _on_agents(spec, current)
        if random := plays.get("random"):
            found += _on_play(current, random)
        found += _on_returns(plays)
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def suggest_settings(spec: RunSpec, plays: Mapping[str, PlayFigures]) -> list[Suggestion]:
    """Returns settings that suit the world, beyond what training chooses by itself."""
    found: list[Suggestion] = []
    random = plays.get("random")
    if random is None:
        return found
    if not random.lengths and not spec.episode.max_steps and random.steps >= MIN_STEPS:
        limit = _round_up(random.steps // 10)
        found.append(
            Suggestion("episode.max_steps", limit, f"no episode ended within {random.steps:,} steps of random actions")
        )
    return found


def _broken(test: ContractTest) -> Finding:
    if test.test == SEED_TEST:
        advice = (
            "Draw every random number from a generator that reset(seed=...) seeds, so that results can be repeated."
        )
        return Finding("warning", "contract", test.problem, advice)
    return Finding("note", "contract", f"{test.test}: {test.problem}", "Shoal can train on it nevertheless.")


def _on_agents(spec: RunSpec, agents: AgentsSpec) -> list[Finding]:
    found = []
    if images := [agent for agent in agents.agents if agent.obs_dim > MIN_IMAGE_OBSERVATION]:
        seen = (
            f"{_listed([agent.name for agent in images])}: {images[0].obs_dim:,} numbers observed, most likely an image"
        )
        advice = "Wrap the environment so that it observes features; Shoal's networks take vectors."
        found.append(Finding("error", "sizes", seen, advice))
    if masked := [agent.name for agent in agents.agents if agent.masked]:
        seen = f"{_listed(masked)}: action masks, which all choices respect"
        found.append(Finding("note", "action masks", seen))
    try:
        players(agents, spec.algorithm.variants)
    except ConfigError as e:
        found.append(Finding("error", "sides", str(e)))
    return found


def _on_play(agents: AgentsSpec, play: PlayFigures) -> list[Finding]:
    found = _on_episodes(play)
    about: dict[Finding, list[str]] = {}
    for agent, columns in zip(agents.agents, play.observations, strict=True):
        if agent.obs_dim > MIN_IMAGE_OBSERVATION:
            continue
        # An action mask may well be constant.
        for finding in _on_observations(columns[: agent.obs_dim - agent.mask_dim]):
            about.setdefault(finding, []).append(agent.name)
    for finding, names in about.items():
        found.append(msgspec.structs.replace(finding, seen=f"{_listed(names)}: {finding.seen}"))
    return found + _on_rewards(play) + _on_resources(play)


def _on_episodes(play: PlayFigures) -> list[Finding]:
    if not play.lengths:
        return [
            Finding(
                "warning",
                "episodes",
                f"no episode ended within {play.steps:,} steps of random actions",
                "If episodes may be endless, limit them with --max-episode-steps.",
            )
        ]
    if play.left_early:
        count = f"{play.left_early} of {len(play.lengths)} episodes"
        return [Finding("note", "episodes", f"agents left before the others in {count}")]
    return []


def _on_observations(columns: Sequence[ObservationColumn]) -> list[Finding]:
    """Returns the findings on one agent's observation, without its name."""
    found = []
    sizes = [math.hypot(column.mean, column.std) for column in columns]
    if large := [i for i, size in enumerate(sizes) if size > MAX_RMS]:
        found.append(_scale(large, max(sizes[i] for i in large), "reach"))
    if small := [i for i, size in enumerate(sizes) if 0.0 < size < MIN_RMS]:
        found.append(_scale(small, max(sizes[i] for i in small), "have"))
    if constant := [i for i, column in enumerate(columns) if column.low == column.high]:
        seen = f"{_columns(constant)} never changed in random play"
        found.append(Finding("note", "observations", seen, "Such numbers carry no information; training ignores them."))
    return found


def _on_rewards(play: PlayFigures) -> list[Finding]:
    found = []
    largest = max(play.reward_size, default=0.0)
    if largest > MAX_RMS or 0.0 < largest < MIN_RMS:
        seen = f"rewards have a size of {largest:.3g} (root mean square of those that are not 0)"
        advice = "Training normalises them by default (algorithm.normalise_rewards)."
        found.append(Finding("note", "rewards", seen, advice))
    if largest == 0.0 and play.steps > 1:
        seen = f"random actions never earned a reward in {play.steps:,} steps"
        advice = "Add rewards that random actions earn now and then; otherwise there is nothing to learn from."
        found.append(Finding("warning", "rewards", seen, advice))
    if play.common_reward:
        seen = "all agents receive the same reward, so the return, a sum over agents, counts it once for each agent"
        found.append(Finding("note", "rewards", seen))
    return found


def _on_resources(play: PlayFigures) -> list[Finding]:
    found = []
    if play.memory_growth > MAX_GROWTH:
        grown = f"{play.memory_growth:,.0f} bytes a step, {play.memory_growth * 1e6 / 2**30:.1f} GiB in a million steps"
        advice = "Find what the environment appends to and never clears."
        found.append(Finding("warning", "memory", f"memory grew by {grown}", advice))
    if play.printed_lines:
        seen = f"it printed {play.printed_lines:,} lines in {play.steps:,} steps, first: {play.printed[0]!r}"
        found.append(Finding("note", "prints", seen, "Remove the prints; they slow down every worker."))
    if play.steps and (step_s := play.seconds / play.steps) > SLOW_STEP_S:
        seen = (
            f"a step takes {1e3 * step_s:.0f} ms, so that a million steps take {step_s * 1e6 / 3600:,.0f} h on one core"
        )
        advice = "Make the step faster, or use more cores with --actors."
        found.append(Finding("warning", "speed", seen, advice))
    return found


def _on_returns(plays: Mapping[str, PlayFigures]) -> list[Finding]:
    random, half = interval_of(plays, "random")
    constants = {kind: interval_of(plays, kind) for kind in plays if kind != "random" and plays[kind].returns}
    if math.isnan(random) or not constants:
        return []
    best = max(constants, key=lambda kind: constants[kind][0])
    mean, error = constants[best]
    widths = [width for width in (half, error) if not math.isnan(width)]
    if mean - random <= sum(widths):
        return []
    return [
        Finding(
            "note",
            "returns",
            f"constant actions ({best}) return {mean:.4g}, random actions {random:.4g}",
            "A trained team must beat both.",
        )
    ]


def _scale(columns: Sequence[int], size: float, verb: str) -> Finding:
    seen = f"{_columns(columns)} {verb} a size of about {size:.1g} (root mean square)"
    return Finding(
        "note", "observations", seen, "Training normalises them by default (algorithm.normalise_observations)."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _columns(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:5])) + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")
    return f"number{'s' if len(indices) > 1 else ''} {shown} of the observation"


def _round_up(steps: int) -> int:
    """Returns a limit of one significant digit, at least 100."""
    digit: int = 10 ** int(math.log10(max(steps, 1)))
    return max(100, math.ceil(steps / digit) * digit)
