"""`simple`: one agent goes to one landmark; for debugging."""

from __future__ import annotations

import numpy as np

from common.worlds.particle.geometry import squared_norm
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Drawn, ModernOptions, Scenario
from common.worlds.world import Float64Array


class SimpleOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple."""


class Simple(Scenario[SimpleOptions]):
    """One agent goes to one landmark; for debugging."""

    options_type = SimpleOptions
    mpe2_module = "simple_v3"
    reward_meaning = "-(distance to the landmark)^2"

    def __init__(self, options: SimpleOptions) -> None:
        super().__init__(options)
        self.agents = [Agent("agent_0")]
        self.landmarks = [Landmark()]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws both positions uniformly from the square [-1, 1]."""
        return {"pos": rng.uniform(-1.0, 1.0, (2, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns minus the squared distance to the landmark."""
        return -squared_norm(world.rel[:, 1])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns the velocity and the landmark's relative position."""
        return [world.vel[agent], world.rel[agent, 1]]
