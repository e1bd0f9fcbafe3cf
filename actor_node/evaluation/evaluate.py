"""Evaluation of a trained team: its returns over whole episodes, without exploration.

A return is the sum of rewards over an episode. `return_mean` (S) is also summed over agents. On simple_spread with
mpe2's defaults, an evaluation also contains the scales of published tables: P = 2S - 75 (Papoudakis et al. 2021, arXiv
2006.07869) and 3P (the mean episode reward that openai/maddpg prints). Both are exact only for three agents and 25
steps.

Episode e of an evaluation starts from `reset(seed=seed + e)`. Training never resets by a seed: generators seeded by the
run's seed and the actor's name draw its starts, so no training episode equals an episode of an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.evaluation.rollouts.batched import play_episodes
from actor_node.evaluation.rollouts.episodes import (
    Actor,
    Float64s,
    ProgressCallback,
    RolloutStats,
    Watcher,
    ignore_progress,
)
from actor_node.evaluation.rollouts.rollout import PlayOptions, RolloutResult, RolloutTask, run_rollouts
from actor_node.evaluation.task import (
    FOREIGN_DYNAMICS,
    Dynamics,
    EvalTask,
    changed_world_options,
    short_name,
)
from actor_node.evaluation.task_metrics import measure
from actor_node.evaluation.teams import Team, load_run_team
from common.run.directory import RunDirectory
from common.run.run import Run, RunSpec
from common.worlds import World, is_foreign

BATCHED_EPISODES = 1_000
"""Default number of episodes in a batched world."""
FIRST_SEED = 1_000_000
"""Default seed of the first episode."""
Choices = Literal["greedy", "drawn"]
_RESAMPLES = 2_000
_MAX_DRAWS = 1_000_000
"""Largest number of values that a bootstrap draws at once."""


class Estimate(msgspec.Struct, frozen=True):
    """A mean over episodes with its interval."""

    mean: float
    ci95: tuple[float, float]
    """Bootstrap percentile interval of the mean."""


class Comparison(msgspec.Struct, frozen=True):
    """The return of another way to act, to compare an evaluation with."""

    name: str
    """drawn, greedy or random."""
    episodes: int
    return_mean: float
    return_ci95: tuple[float, float]


class Reference(msgspec.Struct, frozen=True):
    """The return of a reference team on a scale."""

    name: str
    """random, untrained, frozen or scripted."""
    episodes: int
    return_mean: float
    return_ci95: tuple[float, float]
    """Bootstrap percentile interval of the mean."""


class SideScale(msgspec.Struct, frozen=True):
    """The scale that the return of one side stands on: the returns of reference teams on this side."""

    side: str
    """Name of the side; empty in a world with one side."""
    opponents: str
    """The team that played all other sides, for the team and its references; empty in a world with one side."""
    return_mean: float
    """The team's return: summed over agents in a world with one side, else the mean over the side's agents."""
    return_ci95: tuple[float, float]
    """Bootstrap percentile interval of the mean."""
    references: list[Reference]
    top: str = ""
    """The reference at the upper end of the scale; empty if none is clearly better than random actions."""
    fraction: float | None = None
    """How far the team is from random actions (0) to the upper end (1); None without an upper end."""

    def reference(self, name: str) -> Reference | None:
        """Returns the reference team of a name; None if the scale has none."""
        return next((one for one in self.references if one.name == name), None)

    @property
    def weakest_that_is_not_beaten(self) -> str:
        """The first of random actions and the untrained team whose return is not clearly below the team's; else empty.

        Clearly: the intervals do not overlap.
        """
        for name in ("random", "untrained"):
            if (one := self.reference(name)) is not None and one.return_ci95[1] >= self.return_ci95[0]:
                return name
        return ""


class Evaluation(msgspec.Struct, frozen=True):
    """A team's results over whole episodes."""

    scenario: str
    world: str
    """The environment that was stepped."""
    episodes: int
    seed: int
    updates: int
    """Number of updates that trained the evaluated policies."""
    weights_hash: str
    """Digest of the evaluated weights: equal for equal bits."""
    return_mean: float
    """Mean over episodes of the return summed over agents."""
    return_ci95: tuple[float, float]
    """Bootstrap percentile interval of the mean."""
    return_std: float
    return_per_agent: dict[str, float]
    published_scales: dict[str, float]
    """S, P and 3P on simple_spread; empty elsewhere."""
    dynamics: str = "mpe2"
    """mpe2 or legacy; `own` for an environment that is not one of MPE."""
    metrics: dict[str, Estimate] = {}
    """Metrics by name, of the papers (task_metrics.py) or from the environment's infos; empty if it has none."""
    return_team: float | None = None
    """The team's mean return if all agents received equal rewards in every step; else None."""
    choices: Choices = "greedy"
    """How Categorical parts were chosen: greedy: by the largest logit; drawn: from the policy's softmax."""
    length_mean: float = 0.0
    """Mean number of steps of an episode."""
    failed_episodes: int = 0
    """Episodes in which the environment failed; no result contains them."""
    first_failure: str = ""
    """The exception of the first failed episode."""
    truncated_episodes: int = 0
    """Episodes that the limit on steps cut off; the results contain their played steps."""
    max_episode_steps: int = 0
    """The limit on steps of an episode; 0: there was none."""
    checked_in_mpe2: int = 0
    """Number of episodes in the batched world that were also played in mpe2, with equal rewards."""
    compared: list[Comparison] = []
    """The team with the other `choices`, and random actions, over fewer episodes; empty if not requested."""
    scale: list[SideScale] = []
    """The returns of reference teams, one entry a side; empty if they were not measured."""


def evaluate(
    directory: RunDirectory | Path | str,
    episodes: int,
    seed: int,
    progress: Callable[[int], object] = ignore_progress,
    task: EvalTask = EvalTask(),  # noqa: B008  (immutable)
) -> Evaluation:
    """Plays `episodes` episodes with the run's policies; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of finished episodes. Raises ConfigError if the directory has no policies, and for
    a task that the run's world does not support.

    Example: evaluate("runs/spread", 1_000, FIRST_SEED, task=EvalTask(fast=True)).return_mean
    """
    if not isinstance(directory, RunDirectory):
        directory = RunDirectory(directory)
    return evaluate_team(*load_run_team(directory), episodes, seed, task, progress=progress)


def evaluate_team(
    run: Run,
    team: Team,
    episodes: int,
    seed: int,
    task: EvalTask,
    *,
    progress: Callable[[int], object] = ignore_progress,
    options: PlayOptions = PlayOptions(),  # noqa: B008  (immutable)
    choices: Choices = "greedy",
    watcher: Watcher | None = None,
) -> Evaluation:
    """Plays episodes as `evaluate` does, with any team in the world of the run, trained or not.

    episodes: 0 takes the number that `options` and the world determine. choices: `drawn` draws Categorical parts from
    the policy's softmax, soft vectors with Gumbel noise, and Box parts of stochastic players from its Gaussian; for a
    team without any it is `greedy`.
    """
    make_actor = team.make_sampled_actor if choices == "drawn" and team.make_sampled_actor else team.make_actor
    rollout = RolloutTask(run, team.name, make_actor, seed, task)
    result = run_rollouts(rollout, options._replace(episodes=episodes), watcher or ProgressCallback(progress))
    played_as: Choices = "drawn" if make_actor is team.make_sampled_actor else "greedy"
    return _evaluation(run, team, result, seed=seed, task=task, choices=played_as)


def _evaluation(
    run: Run, team: Team, result: RolloutResult, *, seed: int, task: EvalTask, choices: Choices
) -> Evaluation:
    spec, rollouts = run.spec, result.rollouts
    total = rollouts.returns.sum(axis=1)
    means = rollouts.returns.mean(axis=0)
    cut = int(rollouts.cut.sum())
    return Evaluation(
        scenario=spec.scenario,
        world=result.world,
        episodes=len(total),
        seed=seed,
        updates=team.updates,
        weights_hash=team.weights_hash,
        return_mean=float(total.mean()),
        return_ci95=bootstrap_interval(total, seed),
        return_std=float(total.std()),
        return_per_agent={agent.name: float(r) for agent, r in zip(run.joint.agents, means, strict=True)},
        published_scales={} if cut else _published_scales(spec, float(total.mean()), task.dynamics),
        dynamics=FOREIGN_DYNAMICS if is_foreign(spec.scenario) else task.dynamics,
        metrics=metric_estimates(spec, task, rollouts, seed),
        return_team=float(means[0]) if rollouts.shared else None,
        choices=choices,
        length_mean=float(rollouts.lengths.mean()),
        failed_episodes=len(rollouts.failures),
        first_failure=rollouts.failures[0].failure if rollouts.failures else "",
        truncated_episodes=cut,
        max_episode_steps=result.max_steps,
        checked_in_mpe2=result.checked,
    )


def play(
    world: World, team: Actor, episodes: int, seed: int, progress: Callable[[int], object]
) -> npt.NDArray[np.float64]:
    """Plays `episodes` episodes and returns their returns `[episodes, agents]`."""
    return play_episodes(world, team, episodes, seed, progress).returns


def estimate(values: npt.NDArray[np.float64], seed: int) -> Estimate:
    """Returns the mean over episodes of `values` [episodes], with its interval."""
    return Estimate(float(values.mean()), bootstrap_interval(values, seed))


def metric_estimates(spec: RunSpec, task: EvalTask, rollouts: RolloutStats, seed: int) -> dict[str, Estimate]:
    """Returns the metrics of the scenario, or those from the environment's infos, over the episodes that have them."""
    options = {**spec.world, "dynamics": task.dynamics}
    metrics: Mapping[str, Float64s] = rollouts.info_metrics
    if rollouts.steps and not is_foreign(spec.scenario):
        metrics = measure(short_name(spec.scenario), options, rollouts.steps)
    return {name: estimate(values[np.isfinite(values)], seed) for name, values in metrics.items()}


def bootstrap_interval(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean over bootstrap resamples (Efron 1979)."""
    rng = np.random.default_rng(seed)
    # In parts, so that memory stays small for any number of episodes.
    at_once = max(1, _MAX_DRAWS // len(values))
    sizes = [min(at_once, _RESAMPLES - first) for first in range(0, _RESAMPLES, at_once)]
    means = np.concatenate([rng.choice(values, (size, len(values))).mean(axis=1) for size in sizes])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _published_scales(spec: RunSpec, total: float, dynamics: Dynamics) -> dict[str, float]:
    """Returns the published scales of S; the original environment pays each of three agents the sum, which is P."""
    if short_name(spec.scenario) != "simple_spread" or set(changed_world_options(spec)) - {"continuous_actions"}:
        return {}
    published = total / 3 if dynamics == "legacy" else 2 * total - 75
    return {"S": (published + 75) / 2, "P": published, "3P": 3 * published}


def save(evaluation: Evaluation, path: Path) -> None:
    """Writes an evaluation into a JSON file."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n")
