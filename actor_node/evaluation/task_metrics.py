"""Metrics of an episode in addition to its return: distances, collisions, touches and successes, as in the papers.

Each scenario has one function: EpisodeBatch -> {name: one number an episode}. The functions use only rewards and
benchmark data, which are equal in the batched worlds and in mpe2, so either of the two may play the episodes. The
MADDPG paper (Lowe et al. 2017, arXiv 1706.02275) names such metrics but does not define "reached"; here it means
touching: nearer than the sum of both radii, at the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actor_node.evaluation.rollouts.episodes import EpisodeBatch, Float64s

Metrics = dict[str, Float64s]

_NEAR = 0.2
"""The distance within which a goal is near. The paper's 84.0 % of targets reached at an average distance of 0.133 fit
about this one, if distances have Rayleigh's distribution: 1 - exp(-pi / 4 * (0.2 / 0.133)^2) = 0.83."""

MEANINGS = {
    "distance": "distance to the goal (simple_spread: summed over landmarks, of the nearest agent), mean over steps",
    "final_distance": "that distance at the last step",
    "reached": "fraction of goals touched at the last step",
    "near": "fraction of goals that are nearer than 0.2 at the last step",
    "collisions": "pairs of agents that touch, summed over steps",
    "occupied_landmarks": "landmarks with an agent within 0.1, at the last step",
    "all_occupied": "fraction of episodes that end with every landmark occupied",
    "touches": "adversaries touching agents, summed over steps",
    "agent_success": "fraction of episodes that end with an agent at the goal",
    "adversary_success": "fraction of episodes that end with the adversary at the goal",
    "agent_distance": "distance of the nearest agent to the goal at the last step",
    "adversary_distance": "distance of the adversary to the goal at the last step",
    "bob_success": "fraction of messages that bob decodes: his largest symbol is the message's, at the last step",
    "eve_success": "fraction of messages that eve decodes: her largest symbol is the message's, at the last step",
    "bob_error": "squared error of bob's message at the last step",
    "eve_error": "squared error of eve's message at the last step",
}
"""Name of each metric -> its meaning."""


def measure(scenario: str, options: Mapping[str, Any], batch: EpisodeBatch) -> Metrics:
    """Returns the metrics of a scenario, name -> [E]; empty if the scenario has none.

    scenario: its name without a prefix. options: those of its world; `dynamics` decides what the rewards mean.
    """
    if scenario in _BY_REWARD:
        return _BY_REWARD[scenario](batch, options)
    return _BY_SCENARIO[scenario](batch) if scenario in _BY_SCENARIO else {}


def _mean(batch: EpisodeBatch, values: Float64s) -> Float64s:
    """Returns the mean over each episode's steps of values [E, T]."""
    mean: Float64s = np.where(batch.played, values, 0.0).sum(axis=1) / batch.played.sum(axis=1)
    return mean


def _last(batch: EpisodeBatch, values: Float64s) -> Float64s:
    """Returns values [E, T, ...] at each episode's last step."""
    taken: Float64s = values[np.arange(len(values)), batch.last]
    return taken


def _distances(batch: EpisodeBatch, distance: Float64s, reach: float) -> Metrics:
    """Returns the metrics of distances [E, T] to a goal that counts as reached within `reach`."""
    final = _last(batch, distance)
    return {"distance": _mean(batch, distance), "final_distance": final, "reached": (final < reach).astype(float)}


def _simple(batch: EpisodeBatch) -> Metrics:
    return _distances(batch, np.sqrt(-batch.reward[..., 0]), 0.05 + 0.05)


def _spread(batch: EpisodeBatch) -> Metrics:
    distance, occupied = batch.metrics["min_dists"][..., 0], batch.metrics["occupied_landmarks"][..., 0]
    at_end = _last(batch, occupied)
    return {
        "distance": _mean(batch, distance),
        "final_distance": _last(batch, distance),
        # Each of the two that touch counts the other.
        "collisions": batch.metrics["collisions"].sum(axis=(1, 2)) / 2,
        "occupied_landmarks": at_end,
        "all_occupied": (at_end == batch.reward.shape[-1]).astype(float),
    }


def _speaker_listener(batch: EpisodeBatch, options: Mapping[str, Any]) -> Metrics:
    # The legacy reward is the sum over both agents.
    terms = 2.0 if options.get("dynamics") == "legacy" else 1.0
    found = _distances(batch, np.sqrt(-batch.reward[..., 0] / terms), 0.075 + 0.04)
    return found | {"near": (found["final_distance"] < _NEAR).astype(float)}


def _reference(batch: EpisodeBatch, options: Mapping[str, Any]) -> Metrics:
    """Solves the two blended rewards for the distances; legacy rewards, a sum of squares, do not determine them."""
    ratio = float(options.get("local_ratio", 0.5))
    if options.get("dynamics") == "legacy" or ratio == 0.0:
        return {}
    both = batch.reward.sum(axis=-1)
    apart = (batch.reward[..., 0] - batch.reward[..., 1]) / ratio
    distances = np.stack([-(both + apart) / 2, -(both - apart) / 2], axis=-1)
    reached = (_last(batch, distances) < 0.05 + 0.05).mean(axis=1)
    return _distances(batch, distances.mean(axis=-1), 0.0) | {"reached": reached}


def _push(batch: EpisodeBatch) -> Metrics:
    adversary, agent = _last(batch, batch.reward).T
    return _contest(agent=-agent, adversary=-agent - adversary, reach=0.05 + 0.05)


def _adversary(batch: EpisodeBatch) -> Metrics:
    distances = np.sqrt(_last(batch, batch.metrics["goal"]))
    return _contest(agent=distances[:, 1:].min(axis=1), adversary=distances[:, 0], reach=0.15 + 0.08)


def _contest(*, agent: Float64s, adversary: Float64s, reach: float) -> Metrics:
    """Returns which side is at the goal at the last step, from the distances [E] of both sides."""
    return {
        "agent_success": (agent < reach).astype(float),
        "adversary_success": (adversary < reach).astype(float),
        "agent_distance": agent,
        "adversary_distance": adversary,
    }


def _chase(batch: EpisodeBatch) -> Metrics:
    return {"touches": batch.metrics["collisions"].sum(axis=(1, 2))}


def _crypto(batch: EpisodeBatch) -> Metrics:
    """Returns the success of eve (agent 0) and bob (agent 1); a silent agent has decoded nothing."""

    def symbols(name: str) -> Float64s:
        keys = sorted(key for key in batch.metrics if key.startswith(name))
        return np.stack([_last(batch, batch.metrics[key]) for key in keys], axis=-1)

    said, message = symbols("said_"), symbols("message_")
    right = (said.argmax(axis=-1) == message.argmax(axis=-1)) & said.any(axis=-1)
    error = np.square(said - message).sum(axis=-1)
    return {
        "bob_success": right[:, 1].astype(float),
        "eve_success": right[:, 0].astype(float),
        "bob_error": error[:, 1],
        "eve_error": error[:, 0],
    }


def _shape(batch: EpisodeBatch) -> Metrics:
    distance = -batch.reward[..., 0]
    return {"distance": _mean(batch, distance), "final_distance": _last(batch, distance)}


_BY_SCENARIO: dict[str, Callable[[EpisodeBatch], Metrics]] = {
    "simple": _simple,
    "simple_adversary": _adversary,
    "simple_crypto": _crypto,
    "simple_formation": _shape,
    "simple_line": _shape,
    "simple_push": _push,
    "simple_spread": _spread,
    "simple_tag": _chase,
    "simple_world_comm": _chase,
}
_BY_REWARD: dict[str, Callable[[EpisodeBatch, Mapping[str, Any]], Metrics]] = {
    "simple_reference": _reference,
    "simple_speaker_listener": _speaker_listener,
}
"""Scenarios whose rewards depend on the world's options."""
