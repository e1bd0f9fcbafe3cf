"""The memory guard: detects memory that incomplete messages of peers take. Pure.

libzmq delivers a message only when its last part has arrived, and bounds neither the number of its parts nor their sum
(its high-water mark counts whole messages, ZMQ_MAXMSGSIZE bounds one part). So a peer that never ends a message could
fill the memory. The parts cannot be inspected; but the process has grown by them, and frees them when the connection
ends.
"""

from __future__ import annotations

MAX_EXTRA_BYTES_PER_RECORD = 40
"""Upper bound of the memory that sampler and n-step index take for each record in the ring [bytes]. The caller counts
it as memory of the records, so that the guard does not take it for memory of messages."""


class MemoryGuard:
    """Compares the memory of a process with a baseline, its records and a bound.

    Example:
        guard = MemoryGuard(max_bytes=2**30)
        guard.excess(used_bytes, records_bytes)    # sets the baseline
        if guard.excess(used_bytes, records_bytes): ...
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._baseline: int | None = None
        """Memory used apart from records while no peer is connected."""

    def excess(self, used_bytes: int, records_bytes: int) -> int:
        """Returns the bytes in use beyond the bound, 0 if there are none; the first call sets the baseline."""
        other_bytes = used_bytes - records_bytes
        if self._baseline is None:
            self._baseline = other_bytes
        return max(other_bytes - self._baseline - self._max_bytes, 0)

    def set_baseline(self, used_bytes: int, records_bytes: int) -> None:
        """Takes the memory in use as the baseline; call it while no peer is connected."""
        self._baseline = used_bytes - records_bytes
