"""What simple_tag and simple_world_comm share: catching, and the penalty for leaving the square."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.worlds.physics import Agent, Particles
from common.worlds.world import BoolArray, Float64Array


def caught_by(world: Particles, agents: Sequence[Agent], adversaries: int) -> BoolArray:
    """Returns [good, adversaries, copies]: which good agent is touched by which adversary, who stand first."""
    sizes = np.array([agent.size for agent in agents])
    reach = sizes[adversaries:, None] + sizes[None, :adversaries]
    caught: BoolArray = world.dist[adversaries:, :adversaries] < reach[..., None]
    return caught


def catches_of_each(caught: BoolArray) -> Float64Array:
    """Returns how many each adversary touches, and zeros for the good agents after them, [agents, copies]."""
    return np.concatenate([caught.sum(axis=0), np.zeros(caught[:, 0].shape)])


def out_of_bounds(pos: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns the penalty along x and along y of positions [agents, 2, copies], each [agents, copies].

    Zero up to 0.9, a ramp up to 1, then exponential, at most 10. It keeps the chased from running away for ever.
    """
    far = np.abs(pos)
    ramp = (far - 0.9) * 10
    beyond = np.minimum(np.exp(2 * far - 2), 10.0)
    penalty = np.where(far < 0.9, 0.0, np.where(far < 1.0, ramp, beyond))
    return penalty[:, 0], penalty[:, 1]
