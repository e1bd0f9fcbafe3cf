"""The ring: the newest `capacity` transitions in RAM, as records of one numpy dtype."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.process.monitoring.resources import available_memory_bytes

Records = npt.NDArray[np.void]
Slots = npt.NDArray[np.int64]

USABLE_FRACTION = 0.9
"""Fraction of the free memory that a ring may use. The rest is for messages, the interpreter and the page cache."""


class Ring:
    """Stores records in slots `[capacity]`; slot 0 follows the last one, and new records replace the oldest."""

    def __init__(self, dtype: np.dtype[np.void], capacity: int, extra_bytes: int = 0) -> None:
        """Reserves the slots, which the system backs with memory as they fill; ConfigError when it never could.

        extra_bytes: memory that the sampler and the n-step index need for each slot.
        """
        refuse_beyond_memory(dtype.itemsize + extra_bytes, capacity, available_memory_bytes())
        self.capacity = capacity
        self.size = 0
        self.next_slot = 0
        self.dtype = dtype
        # Stored as rows of bytes: numpy copies structured records field by field, fifty times as slowly.
        self._slots: npt.NDArray[np.uint8] = np.empty((capacity, dtype.itemsize), np.uint8)

    def append(self, records: Records) -> int:
        """Copies records `[n]` in, oldest first, and returns the slot of the first one that was stored."""
        newest = self._rows(records)[-self.capacity :]
        # The result equals writing all records: the earlier ones would be overwritten.
        first = (self.next_slot + len(records) - len(newest)) % self.capacity
        before_end = min(len(newest), self.capacity - first)
        self._slots[first : first + before_end] = newest[:before_end]
        self._slots[: len(newest) - before_end] = newest[before_end:]
        self.next_slot = (first + len(newest)) % self.capacity
        self.size = min(self.size + len(newest), self.capacity)
        return first

    def gather(self, slots: Slots, into: npt.NDArray[np.uint8] | None = None) -> Records:
        """Returns copies of the records in `slots` `[n]`, side by side in the bytes `into`, or in a new block."""
        block = np.empty(len(slots) * self.dtype.itemsize, np.uint8) if into is None else into
        # "clip" writes straight into the block; "raise" would go through a second buffer.
        np.take(self._slots, slots, axis=0, out=block.reshape(len(slots), self.dtype.itemsize), mode="clip")
        return block.view(self.dtype)

    def columns(self, slots: Slots, columns: slice) -> npt.NDArray[np.float32]:
        """Returns copies of some columns `[n, columns]` of the records in `slots` `[n]`, as float32 numbers."""
        return self._slots.view("<f4")[slots, columns]

    def order(self) -> Slots:
        """Returns the filled slots, oldest first `[size]`."""
        return (self.next_slot - self.size + np.arange(self.size)) % self.capacity

    def in_order(self) -> Records:
        """Returns copies of all records, oldest first `[size]`."""
        return self.gather(self.order())

    def clear(self) -> None:
        """Removes all records and returns their memory to the system."""
        self.size = self.next_slot = 0
        # One assignment: the committer's thread may be reading the slots.
        self._slots = np.empty_like(self._slots)

    def resized(self, capacity: int, extra_bytes: int = 0) -> Ring:
        """Returns a ring of another capacity that stores the newest records of this one. Raises ConfigError."""
        ring = Ring(self.dtype, capacity, extra_bytes)
        ring.append(self.in_order())
        return ring

    def _rows(self, records: Records) -> npt.NDArray[np.uint8]:
        return np.ascontiguousarray(records).view(np.uint8).reshape(-1, self.dtype.itemsize)


def refuse_beyond_memory(record_bytes: int, capacity: int, available_bytes: int) -> None:
    """Raises ConfigError when a full ring would not fit in memory."""
    max_capacity = int(available_bytes * USABLE_FRACTION) // record_bytes
    if capacity > max_capacity:
        needed, free = capacity * record_bytes / 2**30, available_bytes / 2**30
        raise ConfigError(
            f"replay.capacity {capacity:,} needs {needed:.1f} GiB at {record_bytes:,} bytes a transition and {free:.1f}"
            f" GiB are free; choose at most {max_capacity:,} (--set replay.capacity={max_capacity} for the run, or"
            f" replay --capacity {max_capacity})."
        )
