"""`simple_crypto`: alice tells bob one of two messages under a shared key, and eve listens (covert communication)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from common.worlds.particle.physics import Agent, Landmark, Particles
from common.worlds.particle.scenario import Drawn, ModernOptions, Scenario, ordered_sum
from common.worlds.world import Float64Array

EVE, BOB, ALICE = range(3)
SYMBOLS = 4
MESSAGES = 2


class SimpleCryptoOptions(ModernOptions, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Options of simple_crypto."""


class SimpleCrypto(Scenario[SimpleCryptoOptions]):
    """Alice tells bob one of two messages under a shared key, and eve listens."""

    options_type = SimpleCryptoOptions
    mpe2_module = "simple_crypto_v3"
    reward_meaning = (
        "eve: -|eve's guess - message|^2; bob and alice: |eve's guess - message|^2 - |bob's guess - message|^2"
    )
    utterance = SYMBOLS

    def __init__(self, options: SimpleCryptoOptions) -> None:
        super().__init__(options)
        self.agents = [
            Agent("eve_0", side="adversary", moves=False, speaks=True),
            Agent("bob_0", moves=False, speaks=True),
            Agent("alice_0", moves=False, speaks=True),
        ]
        self.landmarks = [Landmark() for _ in range(MESSAGES)]

    def draw(self, rng: np.random.Generator, copies: int) -> Drawn:
        """Draws message and key, each one-hot among the first two symbols, and positions that no agent observes."""
        symbols = np.eye(SYMBOLS)
        message = symbols[:, rng.integers(MESSAGES, size=copies)]
        key = symbols[:, rng.integers(MESSAGES, size=copies)]
        return {"message": message, "key": key, "pos": rng.uniform(-1.0, 1.0, (3 + MESSAGES, 2, copies))}

    def reward(self, world: Particles) -> Float64Array:
        """Returns rewards from the squared error of each guess; a silent agent has error 0."""
        eve, bob = (self._error(world, agent) for agent in (EVE, BOB))
        good = eve - bob
        return np.stack([-eve, good, good])

    def observation(self, world: Particles, agent: int) -> list[Float64Array]:
        """Returns alice's symbols for eve; the key and alice's symbols for bob; the message and the key for alice."""
        said, key, message = world.said[ALICE], world.drawn["key"], world.drawn["message"]
        return {EVE: [said], BOB: [key, said], ALICE: [message, key]}[agent]

    def metrics(self, world: Particles) -> Mapping[str, Float64Array]:
        """Returns each agent's answer and the plain message, symbol by symbol."""
        said = {f"said_{i}": world.said[:, i].copy() for i in range(SYMBOLS)}
        message = world.drawn["message"]
        return said | {f"message_{i}": np.tile(message[i], (3, 1)) for i in range(SYMBOLS)}

    def _error(self, world: Particles, agent: int) -> Float64Array:
        said = world.said[agent]
        difference = said - world.drawn["message"]
        silent = (said == 0.0).all(axis=0)
        return np.where(silent, 0.0, ordered_sum(difference * difference))
