"""`simple_formation`: N agents form a circle around a landmark."""

from __future__ import annotations

import numpy as np

from common.worlds.particle.assignment import assigned_costs
from common.worlds.particle.geometry import blas_norm, mean_over_agents
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, Drawn, ModernOptions, Scenario
from common.worlds.world import BoolArray, Float64Array

RADIUS = 0.5
REACHED = 0.05
MAX_DISTANCE = 2.0


class SimpleFormationOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_formation."""

    N: Count = 4
    """Number of agents."""
    terminate_on_success: bool = False
    """Whether the episode ends once every agent is within 0.05 of its assigned position."""


class SimpleFormation(Scenario[SimpleFormationOptions]):
    """N agents form a circle of radius 0.5 around a landmark."""

    options_type = SimpleFormationOptions
    mpe2_module = "simple_formation_v1"
    reward_meaning = "shared: -mean distance of the agents to their assigned positions, each at most 2"

    def __init__(self, options: SimpleFormationOptions) -> None:
        super().__init__(options)
        self.agents = [Agent(f"agent_{i}", collides=True) for i in range(options.N)]
        self.landmarks = [Landmark(size=0.03)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws agents uniformly from the square [-1, 1], the landmark from [-0.5, 0.5]."""
        agents = rng.uniform(-1.0, 1.0, (self.options.N, 2, copies))
        return {"pos": np.concatenate([agents, rng.uniform(-0.5, 0.5, (1, 2, copies))])}

    def reward(self, world: Particles) -> Float64Array:
        """Returns minus the mean distance to the assigned positions."""
        distances = np.clip(self._distance_to_target(world), 0.0, MAX_DISTANCE)
        return np.broadcast_to(-mean_over_agents(distances), (world.agents, world.copies))

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, position, and the landmark's relative position."""
        return [world.vel[agent], world.pos[agent], world.rel[agent, world.agents]]

    def terminated(self, world: Particles) -> BoolArray | None:
        """Returns whether every agent is at its assigned position."""
        if not self.options.terminate_on_success:
            return None
        arrived: BoolArray = np.logical_and.reduce(self._distance_to_target(world) < REACHED)
        return arrived

    def _distance_to_target(self, world: Particles) -> Float64Array:
        """Returns each agent's distance to its assigned position, `[agents, copies]`.

        The positions are evenly spaced on the circle, the first in the direction of the agent with the smallest angle.
        """
        n = world.agents
        agents, center = world.pos[:n], world.pos[n]
        angles = np.arctan2(agents[:, 1] - center[1], agents[:, 0] - center[0])
        first = np.where(angles < 0, angles + 2 * np.pi, angles).min(axis=0)
        angles = first + np.arange(n)[:, None] * (2 * np.pi / n)
        targets = center + RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return assigned_costs(blas_norm(agents[:, None] - targets[None]))
