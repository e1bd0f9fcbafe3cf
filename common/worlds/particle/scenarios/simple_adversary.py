"""`simple_adversary`: N good agents hide from one adversary which of N landmarks is the goal (physical deception)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.worlds.particle.geometry import nearest_few, pick, squared_norm
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Count, Drawn, Options, Scenario, others
from common.worlds.world import Float64Array

ADVERSARY = 0


class SimpleAdversaryOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_adversary."""

    N: Count = 2
    """Number of good agents, and of landmarks."""
    num_agent_neighbors: Count | None = None
    """Number of nearest other agents in the observation; None: all."""
    num_landmark_neighbors: Count | None = None
    """Number of nearest landmarks in the observation; None: all. Good agents also observe the goal."""


class SimpleAdversary(Scenario[SimpleAdversaryOptions]):
    """N good agents hide from one adversary which of N landmarks is the goal."""

    options_type = SimpleAdversaryOptions
    mpe2_module = "simple_adversary_v3"
    reward_meaning = "adversary: -distance to the goal; agents, shared: adversary's distance - nearest agent's distance"

    def __init__(self, options: SimpleAdversaryOptions) -> None:
        super().__init__(options)
        adversary = Agent("adversary_0", side="adversary", size=0.15)
        self.agents = [adversary, *(Agent(f"agent_{i}", size=0.15) for i in range(options.N))]
        self.landmarks = [Landmark(size=0.08) for _ in range(options.N)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the goal among the landmarks, and all positions uniformly from the square [-1, 1]."""
        n = self.options.N
        goal = rng.integers(n, size=copies)
        return {"goal": goal, "pos": rng.uniform(-1.0, 1.0, (1 + 2 * n, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns closeness to the goal; the original squares the distance in the adversary's reward."""
        landmarks = slice(world.agents, None)
        to_goal = np.stack([pick(world.dist[i, landmarks], world.drawn["goal"]) for i in range(world.agents)])
        adversary = -to_goal[ADVERSARY]
        if self.legacy:
            adversary = -squared_norm(pick(world.rel[ADVERSARY, landmarks], world.drawn["goal"]))
        good = -to_goal[1:].min(axis=0) + to_goal[ADVERSARY]
        return np.stack([adversary, *[good] * self.options.N])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns the goal (good agents only), landmarks, other agents."""
        rel, landmarks = world.rel[agent], world.rel[agent, world.agents :]
        goal = [] if agent == ADVERSARY else [pick(landmarks, world.drawn["goal"])]
        return [
            *goal,
            nearest_few(landmarks, self.options.num_landmark_neighbors),
            nearest_few(others(rel, agent, world.agents), self.options.num_agent_neighbors),
        ]

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns the squared distances to each landmark and to the goal."""
        squares = squared_norm(world.rel[:, world.agents :])
        goal = np.stack([pick(row, world.drawn["goal"]) for row in squares])
        return {f"landmark_{i}": squares[:, i] for i in range(self.options.N)} | {"goal": goal}
