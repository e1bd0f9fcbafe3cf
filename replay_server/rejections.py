"""What was not taken in, by reason."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal

Rejection = Literal[
    "malformed",
    "unread",
    "credit",
    "world",
    "size",
    "checksum",
    "run",
    "batch",
    "weights",
    "priorities",
    "key",
    "endless",
]
"""Why a message was not taken in, or a reply not read: a metric's label."""

_log = logging.getLogger(__name__)


class Rejections:
    """Counts duplicates and rejections of this life of the server."""

    def __init__(self) -> None:
        self.duplicate_chunks = 0
        self.late_priorities = 0
        """TD errors of records that were gone when they came."""
        self.rejected: Counter[str] = Counter()
        self.last_error = ""

    def reject(self, reason: Rejection, detail: str) -> None:
        """Counts a rejection, and logs it each time the count of its kind has doubled."""
        self.rejected[reason] += 1
        self.last_error = detail
        if self.rejected[reason].bit_count() == 1:
            _log.warning("rejected reason=%s count=%d detail=%s", reason, self.rejected[reason], detail)
