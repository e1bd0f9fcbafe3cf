"""`simple_push`: an adversary pushes an agent away from a landmark that only the agent knows (keep-away)."""

from __future__ import annotations

import numpy as np

from common.worlds.particle.geometry import pick
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Drawn, Options, Scenario
from common.worlds.world import Float64Array

ADVERSARY, AGENT = range(2)
LANDMARK_COLORS = np.array([[0.1, 0.1 + 0.8, 0.1], [0.1, 0.1, 0.1 + 0.8]])
AGENT_COLORS = np.array([[0.25, 0.25 + 0.5, 0.25], [0.25, 0.25, 0.25 + 0.5]])


class SimplePushOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_push."""


class SimplePush(Scenario[SimplePushOptions]):
    """An adversary pushes an agent away from a landmark that only the agent knows."""

    options_type = SimplePushOptions
    mpe2_module = "simple_push_v3"
    reward_meaning = "agent: -distance to the goal; adversary: agent's distance - its own distance to the goal"

    def __init__(self, options: SimplePushOptions) -> None:
        super().__init__(options)
        self.agents = [Agent("adversary_0", side="adversary", collides=True), Agent("agent_0", collides=True)]
        self.landmarks = [Landmark(), Landmark()]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the goal among the landmarks, and all positions uniformly from the square [-1, 1]."""
        goal = rng.integers(2, size=copies)
        return {"goal": goal, "pos": rng.uniform(-1.0, 1.0, (4, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns closeness to the goal; equal in the original."""
        adversary, agent = (pick(world.dist[i, 2:], world.drawn["goal"]) for i in (ADVERSARY, AGENT))
        return np.stack([agent - adversary, -agent])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns velocity, landmarks and the other agent; the good agent also observes the goal and the colours."""
        rel, goal = world.rel[agent], world.drawn["goal"]
        landmarks, other = rel[2:], rel[1 - agent]
        if agent == ADVERSARY:
            return [world.vel[agent], landmarks, other]
        colors = np.tile(LANDMARK_COLORS.reshape(-1, 1), world.copies)
        return [world.vel[agent], pick(landmarks, goal), AGENT_COLORS.T[:, goal], landmarks, colors, other]
