"""`simple_speaker_listener`: a speaker that cannot move tells a listener which landmark to go to."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.worlds.particle.geometry import pick, squared_norm
from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Drawn, Options, Scenario
from common.worlds.world import Float64Array

SPEAKER, LISTENER = range(2)
COLORS = np.array([[0.65, 0.15, 0.15], [0.15, 0.65, 0.15], [0.15, 0.15, 0.65]])


class SimpleSpeakerListenerOptions(Options, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_speaker_listener."""


class SimpleSpeakerListener(Scenario[SimpleSpeakerListenerOptions]):
    """A speaker that cannot move tells a listener which landmark to go to."""

    options_type = SimpleSpeakerListenerOptions
    mpe2_module = "simple_speaker_listener_v4"
    reward_meaning = "shared: -(distance of the listener to the landmark the speaker knows)^2"
    utterance = 3

    def __init__(self, options: SimpleSpeakerListenerOptions) -> None:
        super().__init__(options)
        self.agents = [
            Agent("speaker_0", side="team", size=0.075, moves=False, speaks=True),
            Agent("listener_0", side="team", size=0.075),
        ]
        self.landmarks = [Landmark(size=0.04) for _ in COLORS]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws the landmark the speaker knows, and all positions uniformly from the square [-1, 1]."""
        goal = rng.integers(len(COLORS), size=copies)
        return {"goal": goal, "pos": rng.uniform(-1.0, 1.0, (5, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns minus the squared distance for both agents; the original gives both the sum over both."""
        square = squared_norm(pick(world.rel[LISTENER, 2:], world.drawn["goal"]))
        return np.stack([-2.0 * square if self.legacy else -square] * 2)

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns the goal's colour for the speaker; velocity, landmarks and the speaker's message for the listener."""
        if agent == SPEAKER:
            return [COLORS.T[:, world.drawn["goal"]]]
        return [world.vel[agent], world.rel[agent, 2:], world.said[SPEAKER]]

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns the reward, which is mpe2's benchmark data."""
        return {"reward": self.reward(world)}
