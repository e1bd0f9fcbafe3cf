"""The limiter against a literal model of Reverb's (rate_limiters.py and rate_limiter.cc), and against deadlock."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.run.run import ReplaySpec
from replay_server.table.rate_limiter import RateLimiter, choose_half_width, refuse_deadlock

# Quarters are exact in binary: the model and the limiter then compare the same numbers.
ratios = st.integers(1, 80).map(lambda quarters: quarters / 4)


@dataclass
class ReverbModel:
    """SampleToInsertRatio: names and formulas as in Reverb, inserts taken one item at a time."""

    samples_per_insert: float
    min_size_to_sample: int
    error_buffer: float
    inserts: int = 0
    samples: int = 0

    @property
    def min_diff(self) -> float:
        return self.samples_per_insert * self.min_size_to_sample - self.error_buffer

    @property
    def max_diff(self) -> float:
        return self.samples_per_insert * self.min_size_to_sample + self.error_buffer

    def can_insert(self, num_inserts: int) -> bool:
        if self.inserts + num_inserts <= self.min_size_to_sample:
            return True
        return (num_inserts + self.inserts) * self.samples_per_insert - self.samples <= self.max_diff

    def can_sample(self, num_samples: int) -> bool:
        if self.inserts < self.min_size_to_sample:
            return False
        return self.inserts * self.samples_per_insert - self.samples - num_samples >= self.min_diff


def make(spi: float = 2.0, min_size: int = 20, batch: int = 8, **settings: object) -> RateLimiter:
    return RateLimiter(ReplaySpec(10_000, batch, spi, min_size, **settings))  # type: ignore[arg-type]


@given(
    spi=ratios,
    min_size=st.integers(1, 60),
    half_width=st.integers(30, 200).map(float),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=120),
)
def test_equals_reverb(spi: float, min_size: int, half_width: float, steps: list[tuple[bool, int]]) -> None:
    spec = ReplaySpec(10_000, 1, spi, min_size, half_width)
    limiter, model = RateLimiter(spec), ReverbModel(spi, min_size, half_width)
    for inserting, rows in steps:
        size = limiter.inserts
        assert limiter.may_insert(rows, size) == model.can_insert(rows)
        assert limiter.may_sample(rows, size) == model.can_sample(rows)
        room = limiter.room(size)
        assert room == 0 or model.can_insert(room)
        assert not model.can_insert(room + 1)
        if inserting and model.can_insert(rows):
            limiter.inserts += rows
            model.inserts += rows
        if not inserting and model.can_sample(rows):
            limiter.samples += rows
            model.samples += rows


@given(
    spi=st.floats(0.05, 300),
    min_size=st.integers(1, 5_000),
    batch=st.integers(1, 2_000),
    chunks=st.lists(st.integers(1, 600), min_size=1, max_size=6),
    sampling_first=st.booleans(),
)
def test_the_chosen_band_never_deadlocks(
    spi: float, min_size: int, batch: int, chunks: list[int], sampling_first: bool
) -> None:
    """Whichever side pushes on for as long as it may, the other one may go when it stops."""
    limiter = make(spi, min_size, batch)
    limiter.fit_band(batch, sum(chunks))
    for turn in range(100):
        rows = chunks[turn % len(chunks)]
        moved = False
        for sampling in (sampling_first, not sampling_first):
            if sampling and limiter.may_sample(batch, limiter.inserts):
                limiter.samples += batch * max(int((limiter.error + limiter.half_width) // batch), 1)
                moved = True
            if not sampling and limiter.may_insert(rows, limiter.inserts):
                limiter.inserts += rows
                moved = True
        assert moved, f"deadlock at inserts {limiter.inserts}, samples {limiter.samples}"


@given(
    spi=ratios,
    min_size=st.integers(1, 500),
    batch=st.integers(1, 400),
    half_width=st.integers(1, 2_000).map(float),
    chunk=st.integers(1, 300),
)
def test_a_fixed_band_never_deadlocks_with_chunks_that_fit(
    spi: float, min_size: int, batch: int, half_width: float, chunk: int
) -> None:
    try:
        limiter = make(spi, min_size, batch, error_buffer=half_width)
    except ConfigError:
        return
    assert limiter.max_chunk_rows(batch) >= 1
    assume(chunk <= limiter.max_chunk_rows(batch))
    for _ in range(50):
        may_insert = limiter.may_insert(chunk, limiter.inserts)
        may_sample = limiter.may_sample(batch, limiter.inserts)
        assert may_insert or may_sample
        limiter.inserts += chunk * may_insert
        limiter.samples += batch * may_sample


@given(spi=st.floats(0.1, 64), batch=st.integers(1, 1_024), chunk=st.integers(1, 400), faster=st.sampled_from([1, 9]))
def test_the_realised_ratio_tends_to_the_target(spi: float, batch: int, chunk: int, faster: int) -> None:
    limiter = make(spi, 50, batch)
    limiter.fit_band(batch, 2 * chunk)
    for _ in range(400):
        for _ in range(faster):
            if limiter.may_insert(chunk, limiter.inserts):
                limiter.inserts += chunk
        if limiter.may_sample(batch, limiter.inserts):
            limiter.samples += int((limiter.error + limiter.half_width) // batch) * batch
    after = limiter.inserts - 50
    assume(after > 0)
    assert abs(limiter.samples - spi * after) <= limiter.half_width
    assume(after * spi > 20 * limiter.half_width)
    assert limiter.realised == pytest.approx(spi, rel=0.05)


def simulate(minutes: int, learner_rows_per_s: float, actor_rows_per_s: float) -> list[float]:
    """Returns the realised ratio minute by minute: 2 actors with chunks of 256 and a learner, each at its own pace."""
    limiter = make(16.0, 5_000, 256)
    limiter.fit_band(256, 2 * 256)
    ratios = []
    produced = drawn = 0.0
    for _ in range(minutes):
        inserts, samples = limiter.inserts, limiter.samples
        for _ in range(600):
            produced = min(produced + actor_rows_per_s / 10, 512)
            drawn = min(drawn + learner_rows_per_s / 10, 2_560)
            while produced >= 256 and limiter.may_insert(256, limiter.inserts):
                limiter.inserts, produced = limiter.inserts + 256, produced - 256
            while drawn >= 256 and limiter.may_sample(256, limiter.inserts):
                limiter.samples, drawn = limiter.samples + 256, drawn - 256
        ratios.append((limiter.samples - samples) / (limiter.inserts - inserts))
    return ratios


@pytest.mark.parametrize(("learner", "actors"), [(25_600, 20_000), (80_000, 2_000), (25_600, 1_600)])
def test_every_minute_is_within_ten_per_cent(learner: float, actors: float) -> None:
    for ratio in simulate(8, learner, actors)[1:]:
        assert ratio == pytest.approx(16.0, rel=0.1)


def test_only_the_strict_limit_holds_the_learner() -> None:
    strict, one_sided, off = make(), make(limit="insert_only"), make(limit="off")
    for limiter in (strict, one_sided, off):
        limiter.inserts, limiter.samples = 100, 10_000
    assert [limiter.may_sample(8, 100) for limiter in (strict, one_sided, off)] == [False, True, True]
    for limiter in (strict, one_sided, off):
        limiter.samples = 0
        limiter.inserts = 10_000
    assert [limiter.may_insert(8, 1_000) for limiter in (strict, one_sided, off)] == [False, False, True]


@pytest.mark.parametrize("limit", ["strict", "insert_only", "off"])
def test_nothing_is_sampled_before_min_size(limit: str) -> None:
    limiter = make(limit=limit)
    limiter.inserts = 19
    assert not limiter.may_sample(1, 19)
    assert limiter.insert_shortfall(1, 19) == 1
    limiter.inserts = 20
    assert limiter.may_sample(1, 20)


def test_the_shortfall_is_what_lets_a_batch_go() -> None:
    limiter = make()
    limiter.inserts, limiter.samples = 100, 170
    missing = limiter.insert_shortfall(8, 100)
    assert not limiter.may_sample(8, 100)
    limiter.inserts += missing - 1
    assert not limiter.may_sample(8, 100)
    limiter.inserts += 1
    assert limiter.may_sample(8, 100)


def test_counters_of_an_earlier_life_go_on() -> None:
    limiter = RateLimiter(ReplaySpec(1_000, 8, 2.0, 20))
    limiter.catch_up(500, 960, size=500)
    assert limiter.error == 0.0
    assert limiter.realised == 2.0


@pytest.mark.parametrize("chunk", [256, 200, 7])
def test_a_memory_that_was_lost_is_filled_again_and_learning_goes_on(chunk: int) -> None:
    """min_size is no multiple of the chunk: with the old balance kept, neither side could move."""
    spec = ReplaySpec(1_000_000, 256, 16.0, 5_000)
    limiter = RateLimiter(spec)
    limiter.fit_band(256, 2 * chunk)
    limiter.catch_up(478_720, 7_500_000, size=0)
    size = 0
    while size < 50_000:
        may_insert, may_sample = limiter.room(size) >= chunk, limiter.may_sample(256, size)
        assert may_insert or may_sample, f"both sides wait at {size}"
        if may_insert:
            limiter.inserts, size = limiter.inserts + chunk, size + chunk
        else:
            limiter.samples += 256
    assert limiter.realised == pytest.approx(16.0, rel=0.05)


@pytest.mark.parametrize(
    ("spec", "way_out"),
    [
        (ReplaySpec(100, 8, 2.0, 200), "raise --capacity or lower replay.min_size"),
        (ReplaySpec(1_000, 256, 16.0, 20, 100.0), "must be at least 136; set it to 0"),
    ],
)
def test_settings_that_would_deadlock_are_refused(spec: ReplaySpec, way_out: str) -> None:
    with pytest.raises(ConfigError, match=way_out):
        refuse_deadlock(spec)


def test_a_fixed_band_stays_and_a_chosen_one_follows() -> None:
    fixed, chosen = make(error_buffer=500.0), make()
    for limiter in (fixed, chosen):
        limiter.fit_band(32, 100)
    assert fixed.half_width == 500.0
    assert chosen.half_width == choose_half_width(32, 2.0, 100) == 232.0
    assert fixed.max_chunk_rows(32) == math.floor(min(500, 1_000 - 32) / 2)


# ---- auto ---------------------------------------------------------------------------------------------------------


def make_auto(batch: int = 8, min_size: int = 20, capacity: int = 10_000, **settings: object) -> RateLimiter:
    """Returns a limiter whose ratio is free between 0.1 and 1 update per inserted transition."""
    return RateLimiter(ReplaySpec(capacity, batch, "auto", min_size, **settings))  # type: ignore[arg-type]


@given(
    min_size=st.integers(1, 500),
    batch=st.integers(1, 500),
    error_buffer=st.sampled_from([0.0, 600.0]),
    steps=st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(1, 4)), max_size=60),
)
def test_no_side_of_a_free_ratio_waits_for_the_other_for_ever(
    min_size: int, batch: int, error_buffer: float, steps: list[tuple[bool, int, int]]
) -> None:
    """Whatever both did, and however many actors come and go, at least one of them may continue."""
    limiter = make_auto(batch, min_size, error_buffer=error_buffer)
    for inserting, rows_in_flight, times in steps:
        limiter.fit_band(batch, rows_in_flight)
        rows = min(rows_in_flight, limiter.max_chunk_rows(batch))
        for _ in range(times):
            may_insert = limiter.may_insert(rows, limiter.inserts)
            may_sample = limiter.may_sample(batch, limiter.inserts)
            assert may_insert or may_sample
            assert may_sample or limiter.insert_shortfall(batch, limiter.inserts) >= 1
            if may_insert and (inserting or not may_sample):
                limiter.inserts += rows
            else:
                limiter.samples += batch


@pytest.mark.parametrize(("learner_first", "updates_per_insert"), [(True, 1.0), (False, 0.1)])
def test_a_free_ratio_stays_between_its_bounds(learner_first: bool, updates_per_insert: float) -> None:
    limiter = make_auto()
    limiter.fit_band(8, 20)
    for _ in range(3_000):
        if learner_first and limiter.may_sample(8, limiter.inserts):
            limiter.samples += 8
        elif limiter.may_insert(10, limiter.inserts):
            limiter.inserts += 10
        else:
            limiter.samples += 8
    assert limiter.realised / 8 == pytest.approx(updates_per_insert, rel=0.02)


def test_between_its_bounds_no_side_waits() -> None:
    limiter = make_auto()
    limiter.fit_band(8, 20)
    limiter.inserts = 20
    for _ in range(500):
        assert limiter.may_insert(10, limiter.inserts)
        limiter.inserts += 10
        for _ in range(3):
            assert limiter.may_sample(8, limiter.inserts)
            limiter.samples += 8
    assert limiter.realised / 8 == pytest.approx(0.3, rel=0.01)


def test_a_learner_that_had_been_slow_does_not_overuse_the_data_later() -> None:
    limiter = make_auto()
    limiter.fit_band(8, 20)
    limiter.inserts = 20
    while limiter.inserts < 5_000:
        while limiter.may_insert(10, limiter.inserts):
            limiter.inserts += 10
        limiter.samples += 8
    updates = 0
    while limiter.may_sample(8, limiter.inserts):
        limiter.samples, updates = limiter.samples + 8, updates + 1
    assert updates <= 1 + 20 + limiter.half_width / 8, "one batch, one chunk of every actor, and what it was behind"


def test_actors_do_not_overwrite_what_a_learner_that_stopped_has_not_seen() -> None:
    limiter = make_auto(capacity=10_000)
    limiter.fit_band(8, 20)
    limiter.inserts = 20
    for _ in range(20_000):
        limiter.inserts += 1
        limiter.may_insert(1, limiter.inserts)
        limiter.samples += 8 * limiter.may_sample(8, limiter.inserts)
    stopped_at = limiter.inserts
    while limiter.may_insert(1, limiter.inserts):
        limiter.inserts += 1
    assert 1_000 <= limiter.inserts - stopped_at <= 1_000 + 20 + 10, "a tenth of the ring, and the band"


def test_a_free_ratio_starts_even_after_a_restart() -> None:
    limiter = make_auto()
    limiter.fit_band(8, 20)
    limiter.catch_up(50_000, 4_000, size=10_000)
    assert limiter.may_insert(10, 10_000)
    assert not limiter.may_sample(8, 10_000)
    limiter.inserts += 1
    assert limiter.may_sample(8, 10_000)
