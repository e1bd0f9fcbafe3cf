"""`simple_reference`: each of two agents tells the other, in ten symbols, which of three landmarks to go to."""

from __future__ import annotations

import numpy as np

from common.worlds.particle.geometry import pick, squared_norm
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Drawn, Options, Ratio, Scenario
from common.worlds.world import Float64Array

COLORS = np.array([[0.75, 0.25, 0.25], [0.25, 0.75, 0.25], [0.25, 0.25, 0.75]])


class SimpleReferenceOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_reference."""

    local_ratio: Ratio = 0.5
    """Weight of the distance of an agent's own listener; the mean of both has weight 1 - local_ratio."""


class SimpleReference(Scenario[SimpleReferenceOptions]):
    """Each of two agents tells the other, in ten symbols, which of three landmarks to go to."""

    options_type = SimpleReferenceOptions
    mpe2_module = "simple_reference_v3"
    reward_meaning = "-(distance of the other agent to the landmark this one knows), blended with the mean of both"
    utterance = 10

    def __init__(self, options: SimpleReferenceOptions) -> None:
        super().__init__(options)
        self.agents = [Agent(f"agent_{i}", speaks=True) for i in range(2)]
        self.landmarks = [Landmark() for _ in COLORS]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the landmark each agent knows, and all positions uniformly from the square [-1, 1]."""
        goal = np.stack([rng.integers(len(COLORS), size=copies) for _ in range(2)])
        return {"goal": goal, "pos": rng.uniform(-1.0, 1.0, (5, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns a blend of the listener's distance and the mean; the original gives both the sum of squares."""
        goal, ratio = world.drawn["goal"], self.options.local_ratio
        if self.legacy:
            squares = [squared_norm(pick(world.rel[1 - i, 2:], goal[i])) for i in range(2)]
            return np.stack([-(squares[0] + squares[1])] * 2)
        local = -np.stack([pick(world.dist[1 - i, 2:], goal[i]) for i in range(2)])
        blended: Float64Array = (local[0] + local[1]) / 2 * (1 - ratio) + local * ratio
        return blended

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, landmarks, the colour of the other agent's goal, and the other agent's message."""
        color = COLORS.T[:, world.drawn["goal"][agent]]
        return [world.vel[agent], world.rel[agent, 2:], color, world.said[1 - agent]]
