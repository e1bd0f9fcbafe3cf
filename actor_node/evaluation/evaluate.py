"""How good a trained team is: whole episodes in its world, without exploration.

Returns are summed over an episode. `return_mean` (S) sums them over agents too. On simple_spread with mpe2's defaults
the same team is also stated on the scales of published tables: P = 2S - 75 (Papoudakis et al. 2021, arXiv 2006.07869)
and 3P (openai/maddpg's printed mean episode reward); both are exact only for three agents and 25 steps.

Episode e of an evaluation starts from `reset(seed=seed + e)`. Training never resets by a seed: its starts are drawn
from generators seeded by the run's seed and the actor's name, so no training episode is one of an evaluation's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.evaluation.batched_rollouts import Actor, Reporting, Watcher, play_episodes
from actor_node.evaluation.rollouts import PlayOptions, RolloutResult, RolloutTask, run_rollouts
from actor_node.evaluation.task import Dynamics, EvalGame, EvalTask, changed_world_options, is_foreign, short_name
from actor_node.evaluation.task_metrics import measure
from actor_node.evaluation.teams import Team, load_run_team
from common.run.directory import RunDirectory
from common.run.run import RunSpec
from common.worlds import World

BATCHED_EPISODES = 1_000
"""Played in a batched world where no number is given."""
FIRST_SEED = 1_000_000
"""Of the first episode, where nobody names another."""
Choices = Literal["greedy", "drawn"]
_RESAMPLES = 2_000
_DRAWN_AT_ONCE = 1_000_000


class Figure(msgspec.Struct, frozen=True):
    """A mean over episodes."""

    mean: float
    ci95: tuple[float, float]
    """Bootstrap percentile interval of that mean."""


class Compared(msgspec.Struct, frozen=True):
    """A return beside that of the evaluation."""

    name: str
    """drawn, greedy or random."""
    episodes: int
    return_mean: float
    return_ci95: tuple[float, float]


class Evaluation(msgspec.Struct, frozen=True):
    """A team's figures over whole episodes."""

    scenario: str
    world: str
    """The environment that was stepped."""
    episodes: int
    seed: int
    updates: int
    """Updates the evaluated policies had seen."""
    weights_hash: str
    """Digest of the evaluated weights: the same for the same bits."""
    return_mean: float
    """Mean over episodes of the return summed over agents."""
    return_ci95: tuple[float, float]
    """Bootstrap percentile interval of that mean."""
    return_std: float
    return_per_agent: dict[str, float]
    published_scales: dict[str, float]
    """S, P and 3P on simple_spread; empty elsewhere."""
    dynamics: str = "mpe2"
    """mpe2 or legacy; own of an environment that is not one of MPE."""
    metrics: dict[str, Figure] = {}
    """The papers' figures, by name (actor_node/evaluation/task_metrics.py); empty where none are defined."""
    return_team: float | None = None
    """Mean return of one agent where all agents had equal rewards in every step: the team's. None elsewhere."""
    choices: Choices = "greedy"
    """How Categorical parts were chosen: by the largest logit, or drawn from the policy's softmax as in training."""
    length_mean: float = 0.0
    """Mean steps of an episode."""
    failed_episodes: int = 0
    """Episodes that the environment failed in; they are in no figure."""
    first_failure: str = ""
    """What the first of them failed with."""
    truncated_episodes: int = 0
    """Episodes that the limit on steps cut off; the figures are of what was played."""
    max_episode_steps: int = 0
    """That limit; 0 = none."""
    checked_in_mpe2: int = 0
    """Of episodes in the batched world: how many were also played in mpe2 and gave the same."""
    compared: list[Compared] = []
    """The same team with its choices made otherwise, and random actions, over fewer episodes; empty where not asked."""


def evaluate(
    directory: RunDirectory | Path | str,
    episodes: int,
    seed: int,
    progress: Callable[[int], object] = int,
    ground: EvalTask = EvalTask(),  # noqa: B008  (immutable)
) -> Evaluation:
    """Plays `episodes` episodes with the run's policies; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of episodes done. Raises ConfigError when the directory holds no policies, and for
    a ground that its world does not have.
    """
    if not isinstance(directory, RunDirectory):
        directory = RunDirectory(directory)
    return evaluate_entrant(*load_run_team(directory), episodes, seed, ground, progress=progress)


def evaluate_entrant(
    game: EvalGame,
    entrant: Team,
    episodes: int,
    seed: int,
    ground: EvalTask,
    *,
    progress: Callable[[int], object] = int,
    options: PlayOptions = PlayOptions(),  # noqa: B008  (immutable)
    choices: Choices = "greedy",
    watcher: Watcher | None = None,
) -> Evaluation:
    """Plays as `evaluate` does with a team of that game, be it trained or not.

    episodes: 0 = as many as `options` and the world say. choices: drawn is as greedy where nothing can be drawn.
    """
    make_team = entrant.drawn if choices == "drawn" and entrant.drawn else entrant.team
    task = RolloutTask(game, entrant.name, make_team, seed, ground)
    rolled = run_rollouts(task, options._replace(episodes=episodes), watcher or Reporting(progress))
    played_as: Choices = "drawn" if make_team is entrant.drawn else "greedy"
    return _evaluation(game, entrant, rolled, seed=seed, ground=ground, choices=played_as)


def _evaluation(
    game: EvalGame, entrant: Team, rolled: RolloutResult, *, seed: int, ground: EvalTask, choices: Choices
) -> Evaluation:
    spec, rollouts = game.spec, rolled.rollouts
    total = rollouts.returns.sum(axis=1)
    means = rollouts.returns.mean(axis=0)
    options = {**spec.world, "dynamics": ground.dynamics}
    measured = measure(short_name(spec.scenario), options, rollouts.steps) if rollouts.steps else {}
    cut = int(rollouts.cut.sum())
    return Evaluation(
        scenario=spec.scenario,
        world=rolled.world,
        episodes=len(total),
        seed=seed,
        updates=entrant.updates,
        weights_hash=entrant.weights_hash,
        return_mean=float(total.mean()),
        return_ci95=bootstrap_interval(total, seed),
        return_std=float(total.std()),
        return_per_agent={agent.name: float(r) for agent, r in zip(game.joint.agents, means, strict=True)},
        published_scales={} if cut else _published_scales(spec, float(total.mean()), ground.dynamics),
        dynamics="own" if is_foreign(spec) else ground.dynamics,
        metrics={name: figure(values, seed) for name, values in measured.items()},
        return_team=float(means[0]) if rollouts.shared else None,
        choices=choices,
        length_mean=float(rollouts.lengths.mean()),
        failed_episodes=len(rollouts.failures),
        first_failure=rollouts.failures[0].failure if rollouts.failures else "",
        truncated_episodes=cut,
        max_episode_steps=rolled.bound,
        checked_in_mpe2=rolled.checked,
    )


def play(
    world: World, policy: Actor, episodes: int, seed: int, progress: Callable[[int], object]
) -> npt.NDArray[np.float64]:
    """Returns the returns of `episodes` episodes, [episodes, agents]."""
    return play_episodes(world, policy, episodes, seed, progress).returns


def figure(values: npt.NDArray[np.float64], seed: int) -> Figure:
    """Returns the mean of one number an episode, with its interval."""
    return Figure(float(values.mean()), bootstrap_interval(values, seed))


def bootstrap_interval(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean over bootstrap resamples (Efron 1979)."""
    rng = np.random.default_rng(seed)
    # As many at once as stay small in memory, whatever the number of episodes.
    at_once = max(1, _DRAWN_AT_ONCE // len(values))
    sizes = [min(at_once, _RESAMPLES - first) for first in range(0, _RESAMPLES, at_once)]
    means = np.concatenate([rng.choice(values, (size, len(values))).mean(axis=1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _published_scales(spec: RunSpec, total: float, dynamics: Dynamics) -> dict[str, float]:
    """Returns the scales; the original environment pays all three agents the sum of them, which is P."""
    if short_name(spec.scenario) != "simple_spread" or set(changed_world_options(spec)) - {"continuous_actions"}:
        return {}
    published = total / 3 if dynamics == "legacy" else 2 * total - 75
    return {"S": (published + 75) / 2, "P": published, "3P": 3 * published}


def save(evaluation: Evaluation, path: Path) -> None:
    """Writes an evaluation as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n")
