"""What an episode is measured by beside its return: distances, collisions, touches, successes, as the papers have them.

A scenario is one function: EpisodeBatch -> {name: one number an episode}. All of them use only rewards and benchmark
data, which the batched worlds and mpe2 give alike, so it makes no difference in which of the two an episode was played.
The MADDPG paper (Lowe et al. 2017, arXiv 1706.02275) names such figures but not how near "reached" is; here it is
touching: nearer than the sum of both radii, at the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from actor_node.evaluation.batched_rollouts import EpisodeBatch, Float64s

Measures = dict[str, Float64s]

MEANINGS = {
    "distance": "distance to the goal (simple_spread: summed over landmarks, of the nearest agent), mean over steps",
    "final_distance": "the same at the last step",
    "reached": "share of goals touched at the last step",
    "collisions": "pairs of agents that touch, summed over steps",
    "occupied_landmarks": "landmarks with an agent within 0.1, at the last step",
    "all_occupied": "share of episodes that end with every landmark occupied",
    "touches": "adversaries touching agents, summed over steps",
    "agent_success": "share of episodes that end with an agent at the goal",
    "adversary_success": "share of episodes that end with the adversary at the goal",
    "agent_distance": "distance of the nearest agent to the goal at the last step",
    "adversary_distance": "distance of the adversary to the goal at the last step",
    "bob_success": "share of messages bob reads right: the symbol he says loudest, at the last step",
    "eve_success": "the same of eve",
    "bob_error": "squared error of bob's words at the last step",
    "eve_error": "the same of eve",
}
"""What each measure means, by name."""


def measure(scenario: str, options: Mapping[str, Any], played: EpisodeBatch) -> Measures:
    """Returns the measures of a scenario, name -> [E]; empty where none are defined.

    scenario: without its prefix. options: of its world; `dynamics` says which rewards there are.
    """
    if scenario in _BY_REWARD:
        return _BY_REWARD[scenario](played, options)
    return _BY_SCENARIO[scenario](played) if scenario in _BY_SCENARIO else {}


def _mean(played: EpisodeBatch, values: Float64s) -> Float64s:
    """Returns the mean over each episode's steps of values [E, T]."""
    mean: Float64s = np.where(played.played, values, 0.0).sum(axis=1) / played.played.sum(axis=1)
    return mean


def _last(played: EpisodeBatch, values: Float64s) -> Float64s:
    """Returns values [E, T, ...] at each episode's last step."""
    taken: Float64s = values[np.arange(len(values)), played.last]
    return taken


def _distances(played: EpisodeBatch, distance: Float64s, reach: float) -> Measures:
    """Measures distances [E, T] to a goal that is reached nearer than `reach`."""
    final = _last(played, distance)
    return {"distance": _mean(played, distance), "final_distance": final, "reached": (final < reach).astype(float)}


def _simple(played: EpisodeBatch) -> Measures:
    return _distances(played, np.sqrt(-played.reward[..., 0]), 0.05 + 0.05)


def _spread(played: EpisodeBatch) -> Measures:
    distance, occupied = played.metrics["min_dists"][..., 0], played.metrics["occupied_landmarks"][..., 0]
    at_end = _last(played, occupied)
    return {
        "distance": _mean(played, distance),
        "final_distance": _last(played, distance),
        # Each of the two that touch counts the other.
        "collisions": played.metrics["collisions"].sum(axis=(1, 2)) / 2,
        "occupied_landmarks": at_end,
        "all_occupied": (at_end == played.reward.shape[-1]).astype(float),
    }


def _speaker_listener(played: EpisodeBatch, options: Mapping[str, Any]) -> Measures:
    shared = 2.0 if options.get("dynamics") == "legacy" else 1.0
    return _distances(played, np.sqrt(-played.reward[..., 0] / shared), 0.075 + 0.04)


def _reference(played: EpisodeBatch, options: Mapping[str, Any]) -> Measures:
    """Solves the two blended rewards for the distances; the original's sum of squares does not tell them."""
    ratio = float(options.get("local_ratio", 0.5))
    if options.get("dynamics") == "legacy" or ratio == 0.0:
        return {}
    both = played.reward.sum(axis=-1)
    apart = (played.reward[..., 0] - played.reward[..., 1]) / ratio
    distances = np.stack([-(both + apart) / 2, -(both - apart) / 2], axis=-1)
    reached = (_last(played, distances) < 0.05 + 0.05).mean(axis=1)
    return _distances(played, distances.mean(axis=-1), 0.0) | {"reached": reached}


def _push(played: EpisodeBatch) -> Measures:
    adversary, agent = _last(played, played.reward).T
    return _contest(agent=-agent, adversary=-agent - adversary, reach=0.05 + 0.05)


def _adversary(played: EpisodeBatch) -> Measures:
    distances = np.sqrt(_last(played, played.metrics["goal"]))
    return _contest(agent=distances[:, 1:].min(axis=1), adversary=distances[:, 0], reach=0.15 + 0.08)


def _contest(*, agent: Float64s, adversary: Float64s, reach: float) -> Measures:
    """Measures who is at the goal in the end, by the distances [E] of both sides."""
    return {
        "agent_success": (agent < reach).astype(float),
        "adversary_success": (adversary < reach).astype(float),
        "agent_distance": agent,
        "adversary_distance": adversary,
    }


def _chase(played: EpisodeBatch) -> Measures:
    return {"touches": played.metrics["collisions"].sum(axis=(1, 2))}


def _crypto(played: EpisodeBatch) -> Measures:
    """Measures what eve (agent 0) and bob (agent 1) say; who says nothing has read nothing."""

    def symbols(name: str) -> Float64s:
        keys = sorted(key for key in played.metrics if key.startswith(name))
        return np.stack([_last(played, played.metrics[key]) for key in keys], axis=-1)

    said, message = symbols("said_"), symbols("message_")
    right = (said.argmax(axis=-1) == message.argmax(axis=-1)) & said.any(axis=-1)
    error = np.square(said - message).sum(axis=-1)
    return {
        "bob_success": right[:, 1].astype(float),
        "eve_success": right[:, 0].astype(float),
        "bob_error": error[:, 1],
        "eve_error": error[:, 0],
    }


def _shape(played: EpisodeBatch) -> Measures:
    distance = -played.reward[..., 0]
    return {"distance": _mean(played, distance), "final_distance": _last(played, distance)}


_BY_SCENARIO: dict[str, Callable[[EpisodeBatch], Measures]] = {
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
_BY_REWARD: dict[str, Callable[[EpisodeBatch, Mapping[str, Any]], Measures]] = {
    "simple_reference": _reference,
    "simple_speaker_listener": _speaker_listener,
}
"""Those whose rewards mean something else under other options."""
