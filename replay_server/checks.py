"""Payloads before they are taken in: what is wrong with them, in the tally's and in a person's words. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from common.wire.codec import Buffer
from common.wire.messages import Chunk, Priorities
from common.wire.sample_info import SAMPLE_INFO
from replay_server.rejections import Rejection, Rejections
from replay_server.table.next_steps import Origin
from replay_server.table.table import Table


class Unfit(NamedTuple):
    """Why a payload cannot be taken in, now or ever."""

    reason: Rejection
    words: str


def unfit_chunk(chunk: Chunk, payload: Buffer, table: Table) -> Unfit | None:
    """Says what is wrong with a chunk for this table; None if nothing is. Damage on the way is looked for elsewhere."""
    if chunk.data_hash != table.data_hash:
        return Unfit("world", f"{chunk.actor} sent transitions of another world")
    if not len(payload) == chunk.count * table.ring.dtype.itemsize > 0:
        return Unfit("size", f"{chunk.actor} sent a chunk whose size is not that of its transitions")
    if not origin_of(chunk).fits(chunk.count):
        return Unfit("size", f"{chunk.actor} sent a chunk whose steps are not those of its transitions")
    return None


def origin_of(chunk: Chunk) -> Origin:
    """Returns whose records a chunk holds."""
    return Origin(chunk.actor, chunk.incarnation, chunk.seq, chunk.copies, chunk.ends)


def update_priorities(message: Priorities, payload: Buffer, table: Table, tally: Rejections) -> None:
    """Makes TD errors that a learner sends priorities, and counts those that came late or cannot be any.

    Learning goes on without: they are no reason to send the learner away.
    """
    if len(payload) != message.count * SAMPLE_INFO.itemsize:
        tally.reject("size", "TD errors came whose size is not that of their places")
        return
    places = np.frombuffer(payload, SAMPLE_INFO)
    if np.isfinite(places["value"]).all() and (places["value"] >= 0.0).all():
        tally.late_priorities += table.sampler.prioritise(places)
    else:
        tally.reject("priorities", "TD errors came that are negative or no numbers")
