"""N-step samples: records that span several environment steps, assembled when they are drawn.

Of the steps j = 0 ... k - 1 of one episode, k <= n, agent by agent, with the run's discount g and the records' own d_j:

    reward   = sum over j of (g^j d_0 ... d_(j-1)) r_j          next_obs = that of step k - 1
    discount = g^(k-1) d_0 ... d_(k-1)                          the rest   is that of step 0

so that the one-step target `reward + g * discount * q(next_obs)` is the k-step one.
"""

from __future__ import annotations

import numpy as np

from common.transitions import field_columns
from replay_server.table.next_steps import Episodes, Slots
from replay_server.table.ring import Records, Ring


class NStep:
    """Lengthens what is drawn from one ring."""

    def __init__(self, ring: Ring, episodes: Episodes, n_step: int, discount: float) -> None:
        self.episodes = episodes
        self._ring, self._n_step, self._discount = ring, n_step, discount
        columns = field_columns(ring.dtype)
        self._agents = columns["discount"].start - columns["reward"].start
        self._gains = slice(columns["reward"].start, columns["discount"].stop)

    def lengthen(self, batch: Records, slots: Slots) -> None:
        """Makes the records `[B]`, gathered from `slots`, span up to n steps each, in place."""
        rewards, discounts = batch["reward"].astype(np.float64), batch["discount"].astype(np.float64)
        # What overflows here is thrown away where it would do harm: the learner looks at every batch.
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self._n_step - 1):
                has_next, slots = self.episodes.next_of(slots)
                if not has_next.any():
                    break
                gains = self._ring.columns(slots, self._gains)
                weights = discounts * (self._discount * has_next)[:, None]
                rewards += weights * gains[:, : self._agents]
                weights *= gains[:, self._agents :]
                np.copyto(discounts, weights, where=has_next[:, None])
            batch["reward"], batch["discount"] = rewards, discounts
        batch["next_obs"] = self._ring.gather(slots)["next_obs"]
