"""Catches, and the penalty for leaving the square: shared by simple_tag and simple_world_comm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.worlds.particle.physics import Agent, Particles
from common.worlds.world import BoolArray, Float64Array


def caught_by(world: Particles, agents: Sequence[Agent], adversaries: int) -> BoolArray:
    """Returns `[good, adversaries, copies]`: whether the adversary touches the good agent.

    The first `adversaries` agents are the adversaries.
    """
    sizes = np.array([agent.size for agent in agents])
    reach = sizes[adversaries:, None] + sizes[None, :adversaries]
    caught: BoolArray = world.dist[adversaries:, :adversaries] < reach[..., None]
    return caught


def catches_of_each(caught: BoolArray) -> Float64Array:
    """Returns `[agents, copies]`: the number of touches of each adversary, then zeros for the good agents."""
    return np.concatenate([caught.sum(axis=0), np.zeros(caught[:, 0].shape)])


def out_of_bounds(pos: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Returns the penalties along x and along y, each `[agents, copies]`, of positions `[agents, 2, copies]`.

    The penalty is zero up to 0.9, a ramp up to 1, then exponential, at most 10, so that agents do not flee.
    """
    far = np.abs(pos)
    ramp = (far - 0.9) * 10
    beyond = np.minimum(np.exp(2 * far - 2), 10.0)
    penalty = np.where(far < 0.9, 0.0, np.where(far < 1.0, ramp, beyond))
    return penalty[:, 0], penalty[:, 1]
