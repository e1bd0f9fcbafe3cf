"""The waits of actors and learner: their reason as text, and their duration. Pure."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from replay_server.table.table import Table

WaitCause = Literal["", "learner", "turn", "redis", "band", "shutdown", "warm_up", "actors"]
CAUSES: dict[str, tuple[WaitCause, ...]] = {
    "actors": ("learner", "turn", "redis", "band", "shutdown"),
    "learner": ("warm_up", "actors"),
}
"""The possible causes of a wait, by side."""


class Reason(NamedTuple):
    """What a side waits for: `cause` is a metric's label, `text` continues "waiting for"."""

    cause: WaitCause
    text: str


NO_WAIT = Reason("", "")


class Wait:
    """The wait of one side (actors or learner): its reason, its duration, and the total time by cause."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.reason = NO_WAIT
        self.seconds: dict[WaitCause, float] = dict.fromkeys(CAUSES[side], 0.0)
        self.progressed = False
        """Whether the side made progress between the last two updates."""
        self._since = self._last = 0.0
        self._progress = 0

    def update(self, reason: Reason, now: float, progress: int) -> None:
        """Records at monotonic time `now` what the side waits for; NO_WAIT ends the wait.

        progress: a count of what the side has done. While it grows, the wait is the normal effect of the rate limiter:
        some peers wait for others. The duration therefore counts from the last growth.
        """
        self.progressed = progress != self._progress
        if self.reason.cause:
            self.seconds[self.reason.cause] += now - self._last
        if reason.cause != self.reason.cause or self.progressed:
            self._since = now
        self.reason, self._last, self._progress = reason, now, progress

    def duration_s(self, now: float) -> float:
        """Returns how long the side has waited without progress; 0 when it does not wait."""
        return max(now - self._since, 0.0) if self.reason.cause else 0.0

    def text(self, now: float) -> str:
        """Returns the wait as text; empty when the side does not wait."""
        return f"{self.side} waiting for {self.reason.text} ({self.duration_s(now):.0f} s)" if self.reason.cause else ""


def why_no_credit(
    table: Table, *, storage_error: str, log_behind: bool, batch: int, chunk_rows: int, learner_alive: bool
) -> Reason:
    """Returns what an actor with chunks of `chunk_rows` waits for before it may send more."""
    if storage_error:
        return Reason("redis", f"Redis: {storage_error}")
    limiter = table.limiter
    if chunk_rows > limiter.max_chunk_rows(batch):
        samples = chunk_rows * limiter.spec.min_ratio
        needed = math.ceil(max(samples, (batch + samples) / 2))
        return Reason(
            "band",
            f"a larger replay.error_buffer: chunks of {chunk_rows} transitions need at least {needed};"
            f" it is {limiter.half_width:g};"
            " start the learner with a larger one, or with 0 to choose it automatically",
        )
    if not limiter.may_insert(chunk_rows, table.size):
        absent = "" if learner_alive else "; none is connected"
        return Reason("learner", f"the learner: {_short(limiter.error)} samples behind{absent}")
    if log_behind:
        return Reason("redis", "Redis to commit the chunks already sent")
    return Reason("turn", "room: other actors have all the credit")


def why_no_batch(table: Table, count: int, *, actors_alive: int) -> Reason:
    """Returns what a batch of `count` transitions waits for."""
    absent = "" if actors_alive else "; none is connected"
    min_size = table.limiter.spec.min_size
    if table.size < min_size:
        return Reason("warm_up", f"actors: {table.size:,} of {min_size:,} transitions of the warm-up{absent}")
    missing = table.limiter.insert_shortfall(count, table.size)
    return Reason("actors", f"actors: {missing:,} more transitions are needed to keep the ratio{absent}")


def _short(number: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"
