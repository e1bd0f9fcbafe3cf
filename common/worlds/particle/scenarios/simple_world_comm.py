"""`simple_world_comm`: adversaries with a leader who sees all and speaks chase agents between food and forests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.worlds.particle.chase import catches_of_each, caught_by, out_of_bounds
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, CountOrZero, Drawn, ModernOptions, Scenario, others
from common.worlds.world import BoolArray, Float64Array

LEADER = 0
CAUGHT = 5.0
FOOD_REWARD = 2.0
FOREST_SIZE = 0.3
FOOD_SIZE = 0.03


class SimpleWorldCommOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_world_comm."""

    num_good: Count = 2
    """Agents that are chased."""
    num_adversaries: Count = 4
    """Agents that chase, the leader among them."""
    num_obstacles: CountOrZero = 1
    """Large landmarks in the way."""
    num_food: Count = 2
    """Number of food landmarks, which reward chased agents."""
    num_forests: CountOrZero = 2
    """Number of forests, which hide the agents in them from agents outside."""


class SimpleWorldComm(Scenario[SimpleWorldCommOptions]):
    """Adversaries with a leader who sees all and speaks chase agents between food and forests."""

    options_type = SimpleWorldCommOptions
    mpe2_module = "simple_world_comm_v3"
    reward_meaning = (
        "adversaries: +5 for each catch, -0.1 distance to the nearest agent; "
        "agents: -5 for each catch, +2 at food, -0.05 distance to food, a penalty for leaving the square"
    )
    utterance = 4

    def __init__(self, options: SimpleWorldCommOptions) -> None:
        super().__init__(options)
        names = ["leadadversary_0", *(f"adversary_{i}" for i in range(options.num_adversaries - 1))]
        self.agents = [
            Agent(name, side="adversary", size=0.075, collides=True, speaks=i == LEADER, accel=3.0, max_speed=1.0)
            for i, name in enumerate(names)
        ] + [Agent(f"agent_{i}", size=0.045, collides=True, accel=4.0, max_speed=1.3) for i in range(options.num_good)]
        self.landmarks = (
            [Landmark(size=0.2, collides=True) for _ in range(options.num_obstacles)]
            + [Landmark(size=FOOD_SIZE) for _ in range(options.num_food)]
            + [Landmark(size=FOREST_SIZE) for _ in range(options.num_forests)]
        )
        self._first_food = len(self.agents) + options.num_obstacles
        self._first_forest = self._first_food + options.num_food

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws agents uniformly from the square [-1, 1], landmarks from [-0.9, 0.9], then food and forests again."""
        agents = rng.uniform(-1.0, 1.0, (len(self.agents), 2, copies))
        landmarks = rng.uniform(-0.9, 0.9, (len(self.landmarks), 2, copies))
        again = rng.uniform(-0.9, 0.9, (self.options.num_food + self.options.num_forests, 2, copies))
        return {"pos": np.concatenate([agents, landmarks[: self.options.num_obstacles], again])}

    def reward(self, world: Particles) -> Float64Array:
        """Returns rewards for catches, equal for all adversaries, added in mpe2's order for equal bits."""
        chasing = self.options.num_adversaries
        caught = self._caught(world)
        adversaries = -0.1 * world.dist[:chasing, chasing : world.agents].min(axis=1)
        for catch in caught.reshape(-1, world.copies):
            adversaries = adversaries + CAUGHT * catch
        x, y = out_of_bounds(world.pos[chasing : world.agents])
        good = -CAUGHT * caught.sum(axis=1) - 2 * x - 2 * y
        to_food = world.dist[chasing:, self._first_food : self._first_forest]
        for i in range(self.options.num_food):
            good = good + FOOD_REWARD * (to_food[:, i] < self.agents[chasing].size + FOOD_SIZE)
        return np.concatenate([adversaries, good - 0.05 * to_food.min(axis=1)])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, position, landmarks, other agents, velocities of the chased, forests, the leader's message.

        Hidden agents are zeros; only adversaries observe the message.
        """
        chasing = self.options.num_adversaries
        inside = self._in_forest(world)
        visible = self._visible(inside, agent)[:, None]
        seen = np.where(visible, world.rel[agent, : world.agents], 0.0)
        running = np.where(visible, world.vel, 0.0)[chasing:]
        if agent >= chasing:
            running = others(running, agent - chasing, self.options.num_good)
        landmarks, seen = world.rel[agent, world.agents :], others(seen, agent, world.agents)
        here = np.where(inside[agent], 1.0, -1.0)
        rest = [running, here, world.said[LEADER]] if agent < chasing else [here, running]
        return [world.vel[agent], world.pos[agent], landmarks, seen, *rest]

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns the number of chased agents that each adversary touches."""
        return {"collisions": catches_of_each(self._caught(world))}

    def _caught(self, world: Particles) -> BoolArray:
        """Returns `[good, adversaries, copies]`: whether the adversary touches the good agent."""
        return caught_by(world, self.agents, self.options.num_adversaries)

    def _in_forest(self, world: Particles) -> BoolArray:
        """Returns `[agents, forests, copies]`: whether the agent is in the forest."""
        reach = np.array([agent.size + FOREST_SIZE for agent in self.agents])
        inside: BoolArray = world.dist[:, self._first_forest :] < reach[:, None, None]
        return inside

    def _visible(self, inside: BoolArray, agent: int) -> BoolArray:
        """Returns `[agents, copies]`: whether an agent observes the others; forests separate them from the open."""
        if agent == LEADER:
            return np.ones((len(inside), inside.shape[-1]), np.bool_)
        together = (inside & inside[agent]).any(axis=1)
        in_the_open: BoolArray = np.logical_not(inside.any(axis=1))
        visible: BoolArray = together | (in_the_open & in_the_open[agent])
        return visible
