"""Who waits for whom: the reasons in words, and for how long they have lasted. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from replay_server.table.table import Table

Cause = Literal["", "learner", "turn", "redis", "band", "shutdown", "warm_up", "actors"]
CAUSES: dict[str, tuple[Cause, ...]] = {
    "actors": ("learner", "turn", "redis", "band", "shutdown"),
    "learner": ("warm_up", "actors"),
}
"""What each side may wait for."""


class Reason(NamedTuple):
    """What a side waits for: `cause` is a metric's label, `text` goes on from "waiting for"."""

    cause: Cause
    text: str


NOTHING = Reason("", "")


class Wait:
    """One side's waiting: since when, for what, and how long in all by cause."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.reason = NOTHING
        self.seconds: dict[Cause, float] = dict.fromkeys(CAUSES[who], 0.0)
        self.moved = False
        """Whether the side got further since the update before."""
        self._since = self._last = 0.0
        self._progress = 0

    def update(self, reason: Reason, now: float, progress: int) -> None:
        """Notes at monotonic time `now` what is being waited for; NOTHING ends the wait.

        progress: a count of what the side has got done. While it grows some of the side wait their turn, which is how
        the ratio is held; the wait lasts from when it grew last.
        """
        self.moved = progress != self._progress
        if self.reason.cause:
            self.seconds[self.reason.cause] += now - self._last
        if reason.cause != self.reason.cause or self.moved:
            self._since = now
        self.reason, self._last, self._progress = reason, now, progress

    def lasts_s(self, now: float) -> float:
        """Returns for how long the side has waited and got no further; 0 when it does not wait."""
        return max(now - self._since, 0.0) if self.reason.cause else 0.0

    def told(self, now: float) -> str:
        """Returns the wait in words; empty when there is none."""
        return f"{self.who} waiting for {self.reason.text} ({self.lasts_s(now):.0f} s)" if self.reason.cause else ""


def why_no_credit(
    table: Table, *, storage_error: str, log_behind: bool, batch: int, chunk_rows: int, learner_alive: bool
) -> Reason:
    """Says what an actor with chunks of `chunk_rows` waits for before it may send more."""
    if storage_error:
        return Reason("redis", f"Redis: {storage_error}")
    limiter = table.limiter
    if chunk_rows > limiter.largest_chunk(batch):
        return Reason(
            "band",
            f"a larger replay.error_buffer: chunks of {chunk_rows} transitions never fit into {limiter.half_width:g};"
            " start the learner with more, or with 0 to have it chosen",
        )
    if not limiter.may_insert(chunk_rows, table.size):
        absent = "" if learner_alive else "; none is connected"
        return Reason("learner", f"the learner: {_short(limiter.error)} samples behind{absent}")
    if log_behind:
        return Reason("redis", "Redis to take the chunks already sent")
    return Reason("turn", "room: other actors hold the credit there is")


def why_no_batch(table: Table, count: int, *, actors_alive: int) -> Reason:
    """Says what a batch of `count` transitions waits for."""
    absent = "" if actors_alive else "; none is connected"
    least = table.limiter.spec.min_size
    if table.size < least:
        return Reason("warm_up", f"actors: {table.size:,} of {least:,} transitions to begin with{absent}")
    missing = table.limiter.insert_shortfall(count, table.size)
    return Reason("actors", f"actors: {missing:,} more transitions keep the ratio{absent}")


def _short(number: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"
