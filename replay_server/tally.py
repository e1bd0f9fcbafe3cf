"""What was not taken in, by reason."""

from __future__ import annotations

import logging
from collections import Counter

_log = logging.getLogger(__name__)


class Tally:
    """Counts duplicates and rejections of this life of the server."""

    def __init__(self) -> None:
        self.duplicate_chunks = 0
        self.rejected: Counter[str] = Counter()
        self.last_error = ""

    def reject(self, reason: str, detail: str) -> None:
        """Counts a rejection, and logs it each time the count of its kind has doubled."""
        self.rejected[reason] += 1
        self.last_error = detail
        if self.rejected[reason].bit_count() == 1:
            _log.warning("rejected reason=%s count=%d detail=%s", reason, self.rejected[reason], detail)
