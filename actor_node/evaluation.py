"""How good a trained team is: whole episodes in the real mpe2, without exploration.

Returns are summed over an episode. `return_mean` (S) sums them over agents too. On simple_spread with mpe2's defaults
the same team is also stated on the scales of published tables: P = 2S - 75 (Papoudakis et al. 2021, arXiv 2006.07869)
and 3P (openai/maddpg's printed mean episode reward); both are exact only for three agents and 25 steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.policy import Policy
from common.policy_file import load_policy
from common.run import RunSpec
from common.run_directory import RunDirectory
from common.worlds import FOREIGN, REAL_MPE2, World, make_world

COPIES = 50
"""Environments stepped side by side, so that a policy's forward pass serves many."""
_RESAMPLES = 2_000


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


def evaluate(directory: RunDirectory, episodes: int, seed: int, progress: Callable[[int], object] = int) -> Evaluation:
    """Plays `episodes` episodes with the run's policies; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of episodes done. Raises ConfigError when the directory holds no policies.
    """
    directory.run  # noqa: B018  (a directory that holds no run is told apart from one without policies)
    stored = load_policy(directory.policy_file)
    run = stored.run
    policy = Policy(run.players, run.spec.network, stored.flat)
    name = reference_world(run.spec.scenario)
    world = make_world(name, min(COPIES, episodes), seed=seed, **_reference_options(run.spec))
    try:
        if world.spec != run.joint:
            raise ConfigError(f"{directory.path}: the installed {name} is not the world this team was trained in")
        returns = play(world, policy, episodes, seed, progress)
    finally:
        world.close()
    total = returns.sum(axis=1)
    return Evaluation(
        scenario=run.spec.scenario,
        world=name,
        episodes=episodes,
        seed=seed,
        updates=stored.updates,
        weights_hash=stored.digest,
        return_mean=float(total.mean()),
        return_ci95=bootstrap_interval(total, seed),
        return_std=float(total.std()),
        return_per_agent={a.name: float(r) for a, r in zip(run.joint.agents, returns.mean(axis=0), strict=True)},
        published_scales=_published_scales(run.spec.scenario, run.spec.world, float(total.mean())),
    )


def play(
    world: World, policy: Policy, episodes: int, seed: int, progress: Callable[[int], object]
) -> npt.NDArray[np.float64]:
    """Returns the returns of `episodes` episodes, [episodes, agents]."""
    returns = np.zeros((episodes, len(world.spec.agents)))
    for first in range(0, episodes, world.copies):
        ours = slice(first, min(first + world.copies, episodes))
        count = ours.stop - ours.start
        obs = world.reset(range(seed + first, seed + first + world.copies))
        running = np.ones(world.copies, bool)
        while running[:count].any():
            step = world.step(policy.act(obs))
            returns[ours] += (step.reward * running[:, None])[:count]
            running &= ~step.episode_over
            obs = step.obs
        progress(ours.stop)
    return returns


def reference_world(scenario: str) -> str:
    """Returns the name of the environment a scenario is published on: mpe2's own of that name.

    A world that is not batched here (`pettingzoo:`, `mpe2:`) is its own reference.
    """
    return scenario if scenario.startswith((FOREIGN, REAL_MPE2)) else f"{REAL_MPE2}{scenario}"


def bootstrap_interval(values: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """Returns the 95 % percentile interval of the mean over bootstrap resamples (Efron 1979)."""
    rng = np.random.default_rng(seed)
    means = np.array([rng.choice(values, len(values)).mean() for _ in range(_RESAMPLES)])
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _reference_options(spec: RunSpec) -> dict[str, Any]:
    """Returns the options as the reference takes them: mpe2 knows no dynamics."""
    if spec.scenario.startswith(FOREIGN):
        return dict(spec.world)
    return {name: value for name, value in spec.world.items() if name != "dynamics"}


def _published_scales(scenario: str, options: Mapping[str, Any], total: float) -> dict[str, float]:
    changed = set(options) - {"continuous_actions"}
    if scenario != "simple_spread" or changed:
        return {}
    return {"S": total, "P": 2 * total - 75, "3P": 3 * (2 * total - 75)}


def save(evaluation: Evaluation, path: Path) -> None:
    """Writes an evaluation as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n")
