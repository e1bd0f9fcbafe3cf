"""How good a trained team is: whole episodes in the real mpe2, without exploration.

Returns are summed over an episode. `return_mean` (S) sums them over agents too. On simple_spread with mpe2's defaults
the same team is also stated on the scales of published tables: P = 2S - 75 (Papoudakis et al. 2021, arXiv 2006.07869)
and 3P (openai/maddpg's printed mean episode reward); both are exact only for three agents and 25 steps.

Episode e of an evaluation starts from `reset(seed=seed + e)`. Training never resets by a seed: its starts are drawn
from generators seeded by the run's seed and the actor's name, so no training episode is one of an evaluation's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.entrants import Entrant, enter_run
from actor_node.episodes import Acts, play_episodes
from actor_node.games import Dynamics, Game, Ground, plain, playground, rules
from actor_node.measures import measure
from common.run import RunSpec
from common.run_directory import RunDirectory
from common.worlds import World

COPIES = 50
"""Environments stepped side by side, so that a policy's forward pass serves many.

The batched world takes as many: the same products of the same sizes then give the same bits as in mpe2.
"""
FIRST_SEED = 1_000_000
"""Of the first episode, where nobody names another."""
_RESAMPLES = 2_000
_DRAWN_AT_ONCE = 1_000_000


class Figure(msgspec.Struct, frozen=True):
    """A mean over episodes."""

    mean: float
    ci95: tuple[float, float]
    """Bootstrap percentile interval of that mean."""


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
    metrics: dict[str, Figure] = {}
    """The papers' figures, by name (actor_node/measures.py); empty where none are defined."""


def evaluate(
    directory: RunDirectory,
    episodes: int,
    seed: int,
    progress: Callable[[int], object] = int,
    ground: Ground = Ground(),  # noqa: B008  (immutable)
) -> Evaluation:
    """Plays `episodes` episodes with the run's policies; episode e starts from `reset(seed=seed + e)`.

    progress: called with the number of episodes done. Raises ConfigError when the directory holds no policies, and for
    a ground that its world does not have.
    """
    return evaluate_entrant(*enter_run(directory), episodes, seed, ground, progress=progress)


def evaluate_entrant(
    game: Game, entrant: Entrant, episodes: int, seed: int, ground: Ground, *, progress: Callable[[int], object] = int
) -> Evaluation:
    """Plays as `evaluate` does with a team of that game, be it trained or not."""
    spec, joint = game
    world = playground(game, min(COPIES, episodes), seed, ground, entrant.name)
    try:
        played = play_episodes(world, entrant.team(), episodes, seed, progress)
    finally:
        world.close()
    total = played.returns.sum(axis=1)
    means = played.returns.mean(axis=0)
    measured = measure(plain(spec.scenario), {**spec.world, "dynamics": ground.dynamics}, played)
    return Evaluation(
        scenario=spec.scenario,
        world=world.name,
        episodes=episodes,
        seed=seed,
        updates=entrant.updates,
        weights_hash=entrant.weights_hash,
        return_mean=float(total.mean()),
        return_ci95=bootstrap_interval(total, seed),
        return_std=float(total.std()),
        return_per_agent={agent.name: float(r) for agent, r in zip(joint.agents, means, strict=True)},
        published_scales=_published_scales(spec, float(total.mean()), ground.dynamics),
        dynamics=ground.dynamics,
        metrics={name: figure(values, seed) for name, values in measured.items()},
    )


def play(
    world: World, policy: Acts, episodes: int, seed: int, progress: Callable[[int], object]
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
    if plain(spec.scenario) != "simple_spread" or set(rules(spec)) - {"continuous_actions"}:
        return {}
    published = total / 3 if dynamics == "legacy" else 2 * total - 75
    return {"S": (published + 75) / 2, "P": published, "3P": 3 * published}


def save(evaluation: Evaluation, path: Path) -> None:
    """Writes an evaluation as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)) + b"\n")
