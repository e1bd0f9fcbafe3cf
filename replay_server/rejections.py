"""Which payloads the replay refuses and why, and the counts of refusals. Pure."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Literal, NamedTuple

import numpy as np

from common.wire.codec import Buffer
from common.wire.messages import Chunk, Priorities
from common.wire.sample_info import SAMPLE_INFO
from replay_server.table.n_step import has_valid_steps
from replay_server.table.table import Table

RejectionReason = Literal[
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
"""Why a message was refused, or a reply dropped: a metric's label."""

_log = logging.getLogger(__name__)


class Rejection(NamedTuple):
    """Why a payload is refused."""

    reason: RejectionReason
    detail: str


def check_chunk(chunk: Chunk, payload: Buffer, table: Table) -> Rejection | None:
    """Returns why a chunk does not fit this table, or None. Does not verify the checksum."""
    if chunk.data_hash != table.data_hash:
        return Rejection("world", f"{chunk.actor} sent transitions of another world")
    if chunk.run != table.run.id:
        return Rejection("run", f"{chunk.actor} sent transitions of the run {chunk.run}")
    if not len(payload) == chunk.count * table.ring.dtype.itemsize > 0:
        return Rejection("size", f"{chunk.actor} sent a chunk whose size does not match its number of transitions")
    if not has_valid_steps(chunk):
        return Rejection("size", f"{chunk.actor} sent a chunk whose steps do not match its transitions")
    return None


def check_priorities(message: Priorities, payload: Buffer) -> Rejection | None:
    """Returns why the TD errors of a learner cannot become priorities, or None."""
    if len(payload) != message.count * SAMPLE_INFO.itemsize:
        return Rejection("size", "the size of a learner's TD errors does not match their number")
    td_errors = np.frombuffer(payload, SAMPLE_INFO)["value"]
    if np.isfinite(td_errors).all() and (td_errors >= 0.0).all():
        return None
    return Rejection("priorities", "a learner sent TD errors that are negative or not finite")


class Rejections:
    """Counts duplicates and rejections since the server started."""

    def __init__(self) -> None:
        self.duplicate_chunks = 0
        self.late_priorities = 0
        """TD errors of records that had already been overwritten."""
        self.rejected: Counter[str] = Counter()
        self.last_error = ""

    def reject(self, reason: RejectionReason, detail: str) -> None:
        """Counts a rejection; logs the first, second, fourth, eighth, ... of each reason."""
        self.rejected[reason] += 1
        self.last_error = detail
        if self.rejected[reason].bit_count() == 1:
            _log.warning("rejected reason=%s count=%d detail=%s", reason, self.rejected[reason], detail)
