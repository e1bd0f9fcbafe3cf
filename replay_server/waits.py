"""Who waits for whom: the reasons in words, and for how long they have lasted. Pure."""

from __future__ import annotations

from typing import NamedTuple

from replay_server.table import Table


class Reason(NamedTuple):
    """Why a side waits: `cause` is one of a few words (a metric's label), `text` tells a person."""

    cause: str
    text: str


NOTHING = Reason("", "")


class Wait:
    """One side's waiting: since when, for what, and how long in all by cause."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.reason = NOTHING
        self.seconds: dict[str, float] = {}
        self._since = self._last = 0.0

    def update(self, reason: Reason, now: float) -> None:
        """Notes at monotonic time `now` what is being waited for; NOTHING ends the wait."""
        if self.reason.cause:
            self.seconds[self.reason.cause] = self.seconds.get(self.reason.cause, 0.0) + now - self._last
        if reason.cause != self.reason.cause:
            self._since = now
        self.reason, self._last = reason, now

    def told(self, now: float) -> str:
        """Returns the wait in words; empty when there is none."""
        return f"{self.who}: {self.reason.text} (for {now - self._since:.0f} s)" if self.reason.cause else ""


def why_no_credit(
    table: Table, *, storage_error: str, journal_room: int, batch: int, chunk_rows: int, learner_alive: bool
) -> Reason:
    """Says why an actor with chunks of `chunk_rows` may send nothing more."""
    if storage_error:
        return Reason("redis", f"waiting for Redis: {storage_error}")
    limiter = table.limiter
    if chunk_rows > limiter.largest_chunk(batch):
        return Reason(
            "band",
            f"chunks of {chunk_rows} transitions never fit into replay.error_buffer {limiter.half_width:g};"
            " start the learner with a larger one, or with 0 to have it chosen",
        )
    if not limiter.may_insert(chunk_rows, table.size):
        absent = "" if learner_alive else "; none is connected"
        return Reason("learner", f"waiting for the learner: {_short(limiter.error)} samples behind{absent}")
    if journal_room < chunk_rows:
        return Reason("redis", "waiting for Redis to commit the chunks already sent")
    return Reason("turn", "waiting for the other actors' chunks to come in or be committed")


def why_no_batch(table: Table, count: int, *, actors_alive: int) -> Reason:
    """Says why a batch of `count` transitions does not come yet."""
    absent = "" if actors_alive else "; none is connected"
    least = table.limiter.spec.min_size
    if table.size < least:
        return Reason("warm_up", f"waiting for actors: {table.size:,} of {least:,} transitions to begin with{absent}")
    missing = table.limiter.insert_shortfall(count, table.size)
    return Reason("actors", f"waiting for actors: {missing:,} more transitions keep the ratio{absent}")


def _short(number: float) -> str:
    for unit, scale in (("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:.1f} {unit}"
    return f"{number:.0f}"
