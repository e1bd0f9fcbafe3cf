"""`simple_tag`: slower adversaries chase faster agents around obstacles (predator-prey)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from common.worlds.particle.chase import catches_of_each, caught_by, out_of_bounds
from common.worlds.particle.geometry import in_order, nearest, nearest_few
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, CountOrZero, Drawn, Options, Scenario, others
from common.worlds.world import BoolArray, Float64Array

PREY_SPEED_BY_STAGE = (0.5, 0.75, 1.0)
CAUGHT = 10.0


class SimpleTagOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_tag."""

    num_good: Count = 1
    """Agents that are chased."""
    num_adversaries: Count = 3
    """Agents that chase."""
    num_obstacles: CountOrZero = 2
    """Large landmarks in the way."""
    curriculum: bool = False
    """Whether the stage limits the speed of the chased agents."""
    curriculum_stage: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    """Speed of the chased agents under the curriculum: 50 %, 75 %, 100 %."""
    terminate_on_success: bool = False
    """Whether the episode ends once all chased agents are caught at the same time."""
    num_agent_neighbors: Count | None = None
    """Number of nearest other agents in the observation; None: all."""
    num_landmark_neighbors: Count | None = None
    """Number of nearest obstacles in the observation; None: all."""


class SimpleTag(Scenario[SimpleTagOptions]):
    """Slower adversaries chase faster agents around obstacles."""

    options_type = SimpleTagOptions
    mpe2_module = "simple_tag_v3"
    reward_meaning = (
        "adversaries, shared: +10 for each catch; agents: -10 for each catch and a penalty for leaving the square"
    )

    def __init__(self, options: SimpleTagOptions) -> None:
        super().__init__(options)
        pace = PREY_SPEED_BY_STAGE[options.curriculum_stage] if options.curriculum else 1.0
        self.agents = [
            Agent(f"adversary_{i}", side="adversary", size=0.075, collides=True, accel=3.0, max_speed=1.0)
            for i in range(options.num_adversaries)
        ] + [
            Agent(f"agent_{i}", size=0.05, collides=True, accel=4.0 * pace, max_speed=1.3 * pace)
            for i in range(options.num_good)
        ]
        self.landmarks = [Landmark(size=0.2, collides=True) for _ in range(options.num_obstacles)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws agents uniformly from the square [-1, 1], obstacles from [-0.9, 0.9]."""
        agents = rng.uniform(-1.0, 1.0, (len(self.agents), 2, copies))
        obstacles = rng.uniform(-0.9, 0.9, (len(self.landmarks), 2, copies))
        return {"pos": np.concatenate([agents, obstacles])}

    def reward(self, world: Particles) -> Float64Array:
        """Returns rewards for catches, equal for all adversaries; the original has the same."""
        caught = self._caught(world)
        adversaries = np.broadcast_to(CAUGHT * caught.sum(axis=(0, 1)), (self.options.num_adversaries, world.copies))
        x, y = out_of_bounds(world.pos[self.options.num_adversaries : world.agents])
        return np.concatenate([adversaries, -CAUGHT * caught.sum(axis=1) - x - y])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, position, obstacles, other agents, and velocities of the other good agents."""
        options, adversaries = self.options, self.options.num_adversaries
        obstacles = nearest_few(world.rel[agent, world.agents :], options.num_landmark_neighbors)
        other_agents = others(world.rel[agent], agent, world.agents)
        if options.num_agent_neighbors is None:
            good_velocities = world.vel[adversaries:]
            if agent >= adversaries:
                good_velocities = others(good_velocities, agent - adversaries, options.num_good)
        else:
            # One slot for each observed neighbour; an adversary's velocity is zeros.
            order = nearest(other_agents, options.num_agent_neighbors)
            good_velocities = np.concatenate([np.zeros_like(world.vel[:adversaries]), world.vel[adversaries:]])
            good_velocities = in_order(others(good_velocities, agent, world.agents), order, options.num_agent_neighbors)
            other_agents = in_order(other_agents, order, options.num_agent_neighbors)
        return [world.vel[agent], world.pos[agent], obstacles, other_agents, good_velocities]

    def terminated(self, world: Particles) -> BoolArray | None:
        """Returns whether an adversary touches every good agent."""
        if not self.options.terminate_on_success:
            return None
        all_caught: BoolArray = np.logical_and.reduce(self._caught(world).any(axis=1))
        return all_caught

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns the number of good agents that each adversary touches."""
        return {"collisions": catches_of_each(self._caught(world))}

    def _caught(self, world: Particles) -> BoolArray:
        """Returns `[good, adversaries, copies]`: whether the adversary touches the good agent."""
        return caught_by(world, self.agents, self.options.num_adversaries)
