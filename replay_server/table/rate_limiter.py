"""The rate limiter: keeps a fixed ratio of samples to inserted transitions, with Reverb's arithmetic.

    error = (inserts - min_size) * samples_per_insert - samples        -half_width <= error <= half_width

error, inserts and samples are counts of transitions. If the error is positive the learner is behind and actors wait; if
it is negative the actors are behind and the learner waits. Reverb counts from the first insert and centres its band on
`samples_per_insert * min_size` (reverb/rate_limiters.py). Here counting starts at `min_size`, so that the band is
centred on 0 and samples / (inserts - min_size) tends to the target.

`half_width` is half of the width of the band. The setting `replay.error_buffer` (Reverb's name) is this half width;
with 0 Shoal chooses it.

Actors and learner never wait for each other, if the band is wide enough. A chunk of c transitions is inserted if
error + c * samples_per_insert <= half_width, and a batch of b is sampled if error - b >= -half_width, so one of the two
is always possible if 2 * half_width >= b + c * samples_per_insert. At the end of the warm-up the chunk that crosses
min_size must be possible at error 0 too: c * samples_per_insert <= half_width. Example: with b = 1,024, c = 256 and 4
samples per insert, half_width must be at least 1,024.

The default band has room for one batch and one chunk of every actor on either side of 0: with less, actors that are
filling their chunks would block those that have filled theirs.

With `samples_per_insert = auto` the ratio is free between two bounds, `min_ratio` and `max_ratio` (`FreeRatio`).
Outside `auto`, min_ratio = max_ratio = samples_per_insert.
"""

from __future__ import annotations

import math

from common.errors import ConfigError
from common.run.run import UNLIMITED_ROWS, ReplaySpec

SURPLUS_FRACTION = 0.1
"""Part of the ring that actors may fill under `auto` while the learner samples nothing, if it had been ahead before."""


class FreeRatio:
    """The balance of `samples_per_insert = auto`: the learner samples as fast as it can, between two bounds.

        debt       samples by which the learner is below the least ratio; actors wait while it exceeds the band
        allowance  samples that the learner may take up to the highest ratio; the learner waits without allowance

    Both forget old counts: an old surplus does not let actors overwrite what the learner has not seen, and slow actors
    of the past do not let the learner overuse the data of today. A surplus (negative debt) is capped at
    SURPLUS_FRACTION of the ring, an allowance at one batch and one chunk of every actor.

    The two sides never wait for each other: actors wait only while debt > 0, and then the learner may always sample.
    """

    def __init__(self, spec: ReplaySpec) -> None:
        self._least, self._most = spec.min_ratio, spec.max_ratio
        self._surplus = SURPLUS_FRACTION * spec.capacity * self._least
        self._inserts = self._samples = 0
        self.debt = self.allowance = 0.0

    def start(self, inserts: int, samples: int) -> None:
        """Starts with an even balance at these counts."""
        self._inserts, self._samples = inserts, samples
        self.debt = self.allowance = 0.0

    def update(self, inserts: int, samples: int, max_allowance: float) -> None:
        """Counts the inserts and samples since the last call."""
        new_inserts, new_samples = inserts - self._inserts, samples - self._samples
        self._inserts, self._samples = inserts, samples
        self.debt = max(self.debt + new_inserts * self._least - new_samples, -self._surplus)
        self.allowance = max(min(self.allowance + new_inserts * self._most, max_allowance) - new_samples, 0.0)

    def may_sample(self, rows: int) -> bool:
        """Says whether a batch of `rows` may be sampled."""
        return self.allowance >= rows or self.debt > 0.0

    def insert_shortfall(self, rows: int) -> int:
        """Returns how many transitions must be inserted before a batch of `rows` may be sampled."""
        return 0 if self.may_sample(rows) else math.ceil((rows - self.allowance) / self._most)


class RateLimiter:
    """Counts inserts and samples of one run and decides which are allowed; `size`: number of stored transitions."""

    def __init__(self, spec: ReplaySpec) -> None:
        """Starts a run with both counters at 0; ConfigError when the settings would deadlock."""
        self.spec = spec
        self.inserts = self.samples = 0
        self.ratio_origin = (0, 0)
        """Inserts and samples that the ratio leaves out: those before the run lost its transitions, or (0, 0)."""
        self.half_width = spec.error_buffer or choose_half_width(spec.batch, spec.min_ratio, 1)
        self._free = FreeRatio(spec) if spec.is_auto else None
        self._max_allowance = spec.error_buffer or choose_half_width(spec.batch, spec.max_ratio, 1)
        refuse_deadlock(spec)

    @property
    def error(self) -> float:
        """Samples the learner is behind (positive) or ahead (negative); under `auto`, of the least ratio."""
        if self._free:
            return self._free.debt
        inserts, samples = self._since_origin
        return (inserts - self.spec.min_size) * self.spec.min_ratio - samples

    @property
    def lowest_error(self) -> float:
        """The error at which the learner waits."""
        return self._free.debt - self._free.allowance if self._free else -self.half_width

    @property
    def realised(self) -> float:
        """Samples per insert since the replay first stored `min_size` transitions; 0.0 before."""
        inserts, samples = self._since_origin
        after = inserts - self.spec.min_size
        return samples / after if after > 0 else 0.0

    @property
    def _since_origin(self) -> tuple[int, int]:
        return self.inserts - self.ratio_origin[0], self.samples - self.ratio_origin[1]

    def catch_up(self, inserts: int, samples: int, size: int) -> None:
        """Continues with the counters of a run that has `size` stored transitions, perhaps fewer than were inserted.

        With fewer than `min_size` stored, the run warms up again: with the old balance the learner would wait for
        `min_size` and the actors for the learner.
        """
        self.inserts, self.samples = inserts, samples
        self.ratio_origin = (inserts - size, samples) if size < self.spec.min_size else (0, 0)
        if self._free:
            self._free.start(*self._counts)

    def fit_band(self, batch: int, rows_in_flight: int) -> None:
        """Chooses the band for the batches and chunks in use, unless the run sets `error_buffer`."""
        if not self.spec.error_buffer:
            self.half_width = choose_half_width(batch, self.spec.min_ratio, rows_in_flight)
            self._max_allowance = choose_half_width(batch, self.spec.max_ratio, rows_in_flight)

    def may_insert(self, rows: int, size: int) -> bool:
        """Says whether `rows` more may be inserted."""
        if self.spec.limit == "off" or size + rows <= self.spec.min_size:
            return True
        self._update()
        return self.error + rows * self.spec.min_ratio <= self.half_width

    def may_sample(self, rows: int, size: int) -> bool:
        """Says whether a batch of `rows` may be sampled."""
        if size < self.spec.min_size:
            return False
        if self.spec.limit != "strict":
            return True
        self._update()
        return self._free.may_sample(rows) if self._free else self.error - rows >= -self.half_width

    def room(self, size: int) -> int:
        """Returns the most rows that may be inserted now, 0 or more."""
        if self.spec.limit == "off":
            return UNLIMITED_ROWS
        self._update()
        rows = math.floor((self.half_width - self.error) / self.spec.min_ratio)
        return max(rows, self.spec.min_size - size, 0)

    def insert_shortfall(self, rows: int, size: int) -> int:
        """Returns how many transitions must be inserted before a batch of `rows` may be sampled."""
        self._update()
        if self._free:
            missing = self._free.insert_shortfall(rows)
        else:
            missing = math.ceil((rows - self.half_width - self.error) / self.spec.min_ratio)
        return max(missing if self.spec.limit == "strict" else 0, self.spec.min_size - size, 0)

    def max_chunk_rows(self, batch: int) -> int:
        """Returns the most rows a chunk may have for chunks and batches of `batch` to alternate for ever."""
        return self.spec.max_chunk_rows(batch)

    @property
    def _counts(self) -> tuple[int, int]:
        """Inserts since the table held `min_size` transitions, and samples."""
        inserts, samples = self._since_origin
        return max(inserts - self.spec.min_size, 0), samples

    def _update(self) -> None:
        if self._free:
            self._free.update(*self._counts, self._max_allowance)


def choose_half_width(batch: int, samples_per_insert: float, rows_in_flight: int) -> float:
    """Returns half of a band, in samples, with room for one batch and one chunk of every actor on either side of 0."""
    return batch + samples_per_insert * max(rows_in_flight, 1)


def refuse_deadlock(spec: ReplaySpec) -> None:
    """Raises ConfigError for settings under which both sides would wait for each other."""
    if spec.min_size > spec.capacity:
        raise ConfigError(
            f"replay.min_size {spec.min_size:,} is more than the capacity {spec.capacity:,}: sampling would never"
            " start; raise --capacity or lower replay.min_size."
        )
    ratio = spec.min_ratio
    min_error_buffer = max(ratio, (spec.batch + ratio) / 2)
    if spec.limit != "off" and 0 < spec.error_buffer < min_error_buffer:
        raise ConfigError(
            f"replay.error_buffer {spec.error_buffer:g} would deadlock: with batch {spec.batch} and"
            f" samples_per_insert {ratio:g} it must be at least {min_error_buffer:g};"
            " set it to 0 to choose it automatically."
        )
