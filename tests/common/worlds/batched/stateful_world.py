"""A user's vectorised world with a global state: `batched:tests.common.worlds.batched.stateful_world`."""

from __future__ import annotations

import msgspec
import numpy as np

from tests.common.worlds.batched.line_world import LineWorld


class StatefulLine(LineWorld):
    """A line world whose state is both positions and the number of the step."""

    def __init__(self, copies, seed, fault=None, **options):
        super().__init__(copies, seed, **options)
        self.state_fault = fault
        self.spec = msgspec.structs.replace(self.spec, state_dim=3)

    def global_state(self):
        return np.column_stack([self.position, self.steps])

    def step(self, actions):
        ended = []
        self.reset_copies, reset = lambda copies: ended.append(self.global_state()) or reset(copies), self.reset_copies
        step = super().step(actions)
        del self.reset_copies
        next_state = ended[0] if ended else self.global_state()
        if self.state_fault == "nan":
            next_state[1, 2] = np.nan
        if self.state_fault == "wide":
            next_state = np.column_stack([next_state, next_state])
        return step._replace(next_state=None if self.state_fault == "missing" else next_state)


make = StatefulLine
