"""`simple_line`: N agents line up evenly between two landmarks."""

from __future__ import annotations

import numpy as np

from common.worlds.particle.assignment import assigned_costs
from common.worlds.particle.geometry import blas_norm, mean_over_agents
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, Drawn, ModernOptions, Scenario
from common.worlds.world import BoolArray, Float64Array

LENGTH = 1.25
REACHED = 0.05
MAX_DISTANCE = 2.0


class SimpleLineOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_line."""

    N: Count = 4
    """Number of agents."""
    terminate_on_success: bool = False
    """Whether the episode ends once every agent is within 0.05 of its assigned position."""


class SimpleLine(Scenario[SimpleLineOptions]):
    """N agents line up evenly between two landmarks."""

    options_type = SimpleLineOptions
    mpe2_module = "simple_line_v1"
    reward_meaning = "shared: -mean distance of the agents to their assigned positions, each at most 2"

    def __init__(self, options: SimpleLineOptions) -> None:
        super().__init__(options)
        self.agents = [Agent(f"agent_{i}", size=0.03, collides=True) for i in range(options.N)]
        self.landmarks = [Landmark(size=0.02), Landmark(size=0.02)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws agents from [-1, 1], the first landmark from [-0.25, 0.25] and the direction of the second."""
        agents = rng.uniform(-1.0, 1.0, (self.options.N, 2, copies))
        start = rng.uniform(-0.25, 0.25, (2, copies))
        angle = rng.uniform(0.0, 2 * np.pi, copies)
        while True:
            direction = np.stack([np.cos(angle), np.sin(angle)])
            end = start + LENGTH * direction
            outside = (np.abs(end) >= 1.0).any(axis=0)
            if not outside.any():
                break
            angle[outside] += np.radians(5)
        gap = LENGTH / (self.options.N - 1) if self.options.N > 1 else 0.0
        targets = np.stack([start + i * gap * direction for i in range(self.options.N)])
        return {"places": targets, "pos": np.concatenate([agents, start[None], end[None]])}

    def reward(self, world: Particles) -> Float64Array:
        """Returns minus the mean distance to the assigned positions."""
        distances = np.clip(self._distance_to_target(world), 0.0, MAX_DISTANCE)
        return np.broadcast_to(-mean_over_agents(distances), (world.agents, world.copies))

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, position, both landmarks."""
        return [world.vel[agent], world.pos[agent], world.rel[agent, world.agents :]]

    def terminated(self, world: Particles) -> BoolArray | None:
        """Returns whether every agent is at its assigned position."""
        if not self.options.terminate_on_success:
            return None
        arrived: BoolArray = np.logical_and.reduce(self._distance_to_target(world) < REACHED)
        return arrived

    def _distance_to_target(self, world: Particles) -> Float64Array:
        """Returns each agent's distance to its assigned position, `[agents, copies]`."""
        return assigned_costs(blas_norm(world.pos[: world.agents, None] - world.drawn["places"][None]))
