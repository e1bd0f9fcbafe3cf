"""`simple_spread`: N agents cover N landmarks together without touching each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec
import numpy as np

from common.worlds.particle.geometry import nearest_few
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, Drawn, Options, Ratio, Scenario, ordered_sum, others
from common.worlds.world import BoolArray, Float64Array

AGENT_SIZE = 0.15
COVERED = 0.1


class SimpleSpreadOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_spread."""

    N: Count = 3
    """Number of agents, and of landmarks."""
    local_ratio: Ratio = 0.5
    """Weight of an agent's own collisions; the shared distance reward has weight 1 - local_ratio."""
    curriculum: bool = False
    """Whether collisions have no penalty at stage 0."""
    curriculum_stage: Annotated[int, msgspec.Meta(ge=0, le=1)] = 0
    """Stage of the curriculum: 0 without, 1 with the penalty."""
    terminate_on_success: bool = False
    """Whether the episode ends once every landmark is covered."""
    num_agent_neighbors: Count | None = None
    """Number of nearest other agents in the observation; None: all."""
    num_landmark_neighbors: Count | None = None
    """Number of nearest landmarks in the observation; None: all."""


class SimpleSpread(Scenario[SimpleSpreadOptions]):
    """N agents cover N landmarks together without touching each other."""

    options_type = SimpleSpreadOptions
    mpe2_module = "simple_spread_v3"
    reward_meaning = "shared: -sum over landmarks of the nearest agent's distance; own: -1 for each agent touched"

    def __init__(self, options: SimpleSpreadOptions) -> None:
        super().__init__(options)
        self.agents = [Agent(f"agent_{i}", size=AGENT_SIZE, collides=True) for i in range(options.N)]
        self.landmarks = [Landmark() for _ in range(options.N)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws all positions uniformly from the square [-1, 1]."""
        return {"pos": rng.uniform(-1.0, 1.0, (2 * self.options.N, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns a blend of the shared distance to the landmarks and each agent's own collisions."""
        n, ratio = self.options.N, self.options.local_ratio
        shared = -ordered_sum(world.dist[:, n:].min(axis=0))
        # The count contains the agent itself; the original does not subtract it.
        touched = np.add.reduce(world.dist[:, :n] < 2 * AGENT_SIZE, axis=1, dtype=np.float64)
        if self.legacy:
            return np.broadcast_to(n * shared - ordered_sum(touched), touched.shape)
        penalized = not self.options.curriculum or self.options.curriculum_stage > 0
        local = 1.0 - touched if penalized else np.zeros_like(touched)
        blended: Float64Array = shared * (1 - ratio) + local * ratio
        return blended

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, position, landmarks, other agents, and zeros for the messages of the others."""
        n, rel = self.options.N, world.rel[agent]
        landmarks = nearest_few(rel[n:], self.options.num_landmark_neighbors)
        other_agents = nearest_few(others(rel, agent, n), self.options.num_agent_neighbors)
        silence = np.zeros_like(other_agents)
        return [world.vel[agent], world.pos[agent], landmarks, other_agents, silence]

    def terminated(self, world: Particles) -> BoolArray | None:
        """Returns whether every landmark has an agent within 0.1."""
        if not self.options.terminate_on_success:
            return None
        covered: BoolArray = (world.dist[:, self.options.N :].min(axis=0) < COVERED).all(axis=0)
        return covered

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns the unblended reward, touched agents, summed distances of the landmarks, covered landmarks."""
        n = self.options.N
        nearest_agent = world.dist[:, n:].min(axis=0)
        touches = world.dist[:, :n] < 2 * AGENT_SIZE
        touches[range(n), range(n)] = False
        distances = np.tile(ordered_sum(nearest_agent), (n, 1))
        reward = -distances
        for other in range(n):
            reward = reward - touches[:, other]
        return {
            "reward": reward,
            "collisions": touches.sum(axis=1).astype(float),
            "min_dists": distances,
            "occupied_landmarks": np.tile((nearest_agent < COVERED).sum(axis=0), (n, 1)).astype(float),
        }
