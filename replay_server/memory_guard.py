"""Memory beyond what the server holds itself: what peers have sent of messages that are not whole yet. Pure.

libzmq keeps a message to itself until its last part has come, and bounds neither the number of its parts nor their sum
(its high-water mark counts whole messages, ZMQ_MAXMSGSIZE bounds one part). So a peer that never ends a message could
fill the memory. Nobody can look at what it has sent; but the process has grown by it, and gets it back when the
connection ends.
"""

from __future__ import annotations

BYTES_BESIDE_A_RECORD = 40
"""Most that sampler and episodes keep for each."""


class MemoryGuard:
    """Tells when a process has grown by more than the records it holds, and a bound on top."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._own: int | None = None
        """What it takes beside its records when no peer is connected."""

    def beyond(self, used_bytes: int, records_bytes: int) -> int:
        """Returns how much more than the bound is in use, 0 if it is less; the first call tells what is its own."""
        rest = used_bytes - records_bytes
        if self._own is None:
            self._own = rest
        return max(rest - self._own - self._most, 0)

    def alone(self, used_bytes: int, records_bytes: int) -> None:
        """Takes note of what is in use while nobody is connected."""
        self._own = used_bytes - records_bytes
