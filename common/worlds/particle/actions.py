"""Converts joint actions into forces and messages.

A moving agent's part is [stay, left, right, down, up]; a speaking agent's message follows it, one number a symbol. In
a continuous world the numbers are clipped to [0, 1] and executed, so soft one-hot vectors act as in the original
environment; in a discrete world the largest number of each part is the choice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.spec import Box, Categorical, Part
from common.worlds.particle.physics import Agent
from common.worlds.world import Float32Array, Float64Array

MOVES = 5
_THRUST_X = np.array([0.0, -1.0, 1.0, 0.0, 0.0])
_THRUST_Y = np.array([0.0, 0.0, 0.0, -1.0, 1.0])


def action_parts(agent: Agent, utterance: int, *, continuous: bool) -> tuple[Part, ...]:
    """Returns the parts of an agent's action: the thrust if it moves, then the message if it speaks."""
    sizes = ([MOVES] if agent.moves else []) + ([utterance] if agent.speaks else [])
    if continuous:
        return tuple(Box((0.0,) * size, (1.0,) * size) for size in sizes)
    return tuple(Categorical(size) for size in sizes)


class Controls:
    """Converts joint actions `[copies, sum actions]` into the forces and messages of all agents."""

    def __init__(self, agents: Sequence[Agent], utterance: int, *, continuous: bool) -> None:
        self._continuous = continuous
        self._movers = [i for i, agent in enumerate(agents) if agent.moves]
        self._accel = np.array([agents[i].accel for i in self._movers])[:, None, None]
        self.messages: list[tuple[int, slice]] = []
        """Index of each speaking agent, and the slice of the joint action with its message."""
        first_rows = []
        start = 0
        for i, agent in enumerate(agents):
            if agent.moves:
                first_rows.append(start)
                start += MOVES
            if agent.speaks:
                self.messages.append((i, slice(start, start + utterance)))
                start += utterance
        first = np.array(first_rows, dtype=np.intp)
        self._moves = first[:, None] + np.arange(MOVES)
        self._left_down = self._moves[:, [1, 3]]
        self._right_up = self._moves[:, [2, 4]]

    def execute(self, actions: Float32Array, force: Float64Array, said: Float64Array) -> None:
        """Writes each agent's force `[agents, 2, copies]` and message `[agents, utterance, copies]`."""
        rows = np.array(actions.T, dtype=np.float32, order="C")
        if self._continuous:
            rows.clip(np.float32(0.0), np.float32(1.0), out=rows)
        if self._movers:
            force[self._movers] = self._thrust(rows) * self._accel
        for i, part in self.messages:
            said[i] = rows[part] if self._continuous else _one_hot(rows[part])

    def _thrust(self, rows: Float32Array) -> Float32Array | Float64Array:
        """Returns each moving agent's thrust along x and y, `[moving agents, 2, copies]`, between -1 and 1."""
        if self._continuous:
            # Like mpe2, subtract in float32, then scale in float64.
            return rows.take(self._right_up, axis=0) - rows.take(self._left_down, axis=0)
        choice = rows.take(self._moves, axis=0).argmax(axis=1)
        return np.stack([_THRUST_X.take(choice), _THRUST_Y.take(choice)], axis=1)


def _one_hot(rows: Float32Array) -> Float64Array:
    """Returns 1.0 at the largest entry of each column (at the first of equals), else 0.0."""
    chosen: Float64Array = (np.arange(len(rows))[:, None] == rows.argmax(axis=0)).astype(np.float64)
    return chosen
