"""The sum tree: values over slots, and draws in proportion to them (Schaul et al. 2016, B.2.1), vectorised.

                  1              nodes: node i is the sum of nodes 2 i and 2 i + 1
            2           3        leaves: the last half; slot s is node width + s
          4   5       6   7
         s0   s1     s2   s3

A sum is always computed from both children, never adjusted by a difference: rounding errors do not accumulate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from replay_server.table.ring import Slots

Values = npt.NDArray[np.float64]


class SumTree:
    """Values of `capacity` slots, all zero at first. A value must be finite and not negative."""

    def __init__(self, capacity: int) -> None:
        self._width = 1 << (capacity - 1).bit_length()
        self._nodes: Values = np.zeros(2 * self._width)
        self._pairs = self._nodes.reshape(-1, 2)

    @property
    def total(self) -> float:
        """The sum of all values."""
        return float(self._nodes[1])

    def values(self, slots: Slots) -> Values:
        """Returns the values of slots `[n]`."""
        return self._nodes[self._width + slots]

    def set(self, slots: Slots, values: Values) -> None:
        """Sets the values `[n]` of slots `[n]`; if a slot occurs twice, its last value counts."""
        nodes = self._width + slots
        self._nodes[nodes] = values
        width = self._width >> 1
        # Recomputes single nodes on large levels, and whole levels from where that is faster.
        while width > 4 * len(nodes):
            nodes >>= 1
            pairs = self._pairs[nodes]
            self._nodes[nodes] = pairs[:, 0] + pairs[:, 1]
            width >>= 1
        self._recompute(width, 2 * width)

    def fill(self, first: int, count: int, value: float) -> None:
        """Sets `count` slots from `first` on to one value; the range must not wrap."""
        start, stop = self._width + first, self._width + first + count
        self._nodes[start:stop] = value
        self._recompute(start >> 1, (stop + 1) >> 1)

    def find(self, masses: Values) -> Slots:
        """Returns the slots `[n]` in which the running sum of values, in slot order, passes masses `[n]`.

        A mass is at least 0 and less than the total, which must be positive. A slot of value 0 is never returned.
        """
        slots = self._descend(masses, skip_empty=False)
        empty = self.values(slots) == 0.0
        if empty.any():
            slots[empty] = self._descend(masses[empty], skip_empty=True)
        return slots

    def _descend(self, masses: Values, *, skip_empty: bool) -> Slots:
        """Walks down from the root. skip_empty: never enters an empty subtree, even if rounding changed the mass."""
        nodes, masses, width = np.ones(len(masses), np.int64), masses.copy(), 1
        while width < self._width:
            nodes <<= 1
            left = self._nodes.take(nodes)
            goes_right = masses >= left
            if skip_empty:
                goes_right &= self._nodes.take(nodes + 1) > 0.0
            left *= goes_right
            masses -= left
            nodes += goes_right
            width <<= 1
        return nodes - self._width

    def _recompute(self, start: int, stop: int) -> None:
        """Recomputes the nodes from `start` to before `stop`, all of one level, and all above them."""
        while start and start < stop:
            children = self._nodes[2 * start : 2 * stop]
            np.add(children[::2], children[1::2], out=self._nodes[start:stop])
            start, stop = start >> 1, (stop + 1) >> 1
