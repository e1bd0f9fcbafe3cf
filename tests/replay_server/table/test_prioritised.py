"""Prioritised sampling equals a slow literal twin, and its messages say what is drawn and what came too late."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.run.run import Run
from common.wire.messages import Batch, Hello, Open, Priorities, SampleRequest, Status, StatusRequest, Unknown
from common.wire.sample_info import SAMPLE_INFO, SampleInfo, with_values
from replay_server.config import ReplayConfig
from replay_server.durability.recovery import recover
from replay_server.replay import Replay
from replay_server.table.samplers import (
    MAX_TD_ERROR,
    TD_ERROR_EPSILON,
    PrioritisedSampler,
    UniformSampler,
    make_sampler,
)
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.runs import DTYPE, make_chunk, make_run, numbers

CAPACITY, ALPHA = 7, 0.6


class Histories(RuleBasedStateMachine):
    """Stores, draws and TD errors in any order, against a plain list of priorities."""

    def __init__(self) -> None:
        super().__init__()
        self.sampler = PrioritisedSampler(CAPACITY, ALPHA, seed=1)
        self.next_slot, self.size = 0, 0
        self.priorities = [0.0] * CAPACITY
        self.largest = 1.0
        self.times = [0] * CAPACITY
        self.drawn: list[tuple[SampleInfo, list[int]]] = []
        """SampleInfo of earlier draws, and how often each one's slot had been written by then."""

    @rule(count=st.integers(1, CAPACITY))
    def store(self, count: int) -> None:
        self.sampler.insert(self.next_slot, count)
        for i in range(count):
            slot = (self.next_slot + i) % CAPACITY
            self.priorities[slot] = self.largest
            self.times[slot] += 1
        self.next_slot, self.size = (self.next_slot + count) % CAPACITY, min(self.size + count, CAPACITY)

    @rule(count=st.integers(1, 9))
    def draw(self, count: int) -> None:
        if self.size:
            places = self.sampler.sample_info(self.sampler.draw(count))
            total = sum(self.priorities)
            expected = [self.priorities[slot] / total * self.size for slot in places["slot"]]
            np.testing.assert_allclose(places["value"], expected, rtol=1e-6)
            self.drawn.append((places, [self.times[slot] for slot in places["slot"]]))

    @rule(which=st.integers(0, 5), data=st.data())
    def learn(self, which: int, data: st.DataObject) -> None:
        if which >= len(self.drawn):
            return
        places, times = self.drawn.pop(which)
        some = st.floats(0.0, 2.0**40, width=32)
        errors = data.draw(st.lists(some, min_size=len(places), max_size=len(places)))
        late = 0
        for place, then, error in zip(places, times, errors, strict=True):
            slot = int(place["slot"])
            if self.times[slot] != then:
                late += 1
                continue
            self.priorities[slot] = (min(error, MAX_TD_ERROR) + TD_ERROR_EPSILON) ** ALPHA
            self.largest = max(self.largest, self.priorities[slot])
        assert self.sampler.update_priorities(with_values(places, np.array(errors, np.float32))) == late

    @invariant()
    def priorities_are_those_of_the_list(self) -> None:
        np.testing.assert_allclose(self.sampler.state()["priorities"], self.priorities, rtol=1e-12)


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# ---- the sampler --------------------------------------------------------------------------------------------------


def filled(errors: list[float], alpha: float = 1.0, seed: int = 0) -> PrioritisedSampler:
    """Returns a sampler of records with these TD errors."""
    sampler = PrioritisedSampler(len(errors), alpha, seed)
    sampler.insert(0, len(errors))
    places = sampler.sample_info(np.arange(len(errors)))
    sampler.update_priorities(with_values(places, np.array(errors, np.float32)))
    return sampler


@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_records_are_drawn_in_proportion_to_their_priorities(alpha: float) -> None:
    errors = [0.5, 4.0, 1.0, 0.0625, 2.0]
    sampler = filled(errors, alpha)
    counts = np.bincount(np.concatenate([sampler.draw(10) for _ in range(5_000)]), minlength=5)
    priorities = np.array(errors) ** alpha
    expected = 50_000 * priorities / priorities.sum()
    # Chi-square with 4 degrees of freedom: 18.5 is passed once in a thousand; strata only make it smaller.
    assert ((counts - expected) ** 2 / expected).sum() < 18.5
    np.testing.assert_allclose(sampler.sample_info(np.arange(5))["value"], expected / 10_000, rtol=1e-4)


def test_draws_are_stratified() -> None:
    sampler = PrioritisedSampler(8, 0.6, seed=0)
    sampler.insert(0, 8)
    assert sampler.draw(8).tolist() == list(range(8))
    assert (np.bincount(sampler.draw(32), minlength=8) == 4).all()


def test_a_record_learnt_already_is_drawn_again_now_and_then() -> None:
    sampler = filled([0.0, 0.0])
    assert set(sampler.draw(100).tolist()) == {0, 1}


def test_new_records_get_the_largest_priority_there_has_been() -> None:
    sampler = filled([8.0, 1.0, 1.0])
    sampler.update_priorities(with_values(sampler.sample_info(np.array([0])), np.array([1.0], np.float32)))
    sampler.insert(1, 1)
    np.testing.assert_allclose(sampler.state()["priorities"], [1.0, 8.0, 1.0], rtol=1e-5)


def test_one_enormous_error_spoils_no_sum() -> None:
    sampler = filled([3e38, 1.0, 1.0])
    assert sampler.state()["priorities"][0] == MAX_TD_ERROR + TD_ERROR_EPSILON
    assert np.isfinite(sampler.sample_info(sampler.draw(100))["value"]).all()


def test_places_of_another_life_are_late() -> None:
    before, after = filled([1.0, 2.0]), filled([1.0, 2.0])
    places = before.sample_info(np.array([0, 1]))
    assert after.update_priorities(places) == 2
    assert before.update_priorities(places) == 0


def test_a_slot_that_there_is_not_is_late() -> None:
    sampler = filled([1.0, 2.0])
    places = sampler.sample_info(np.array([0, 1]))
    places["slot"] = [2, 2**32 - 1]
    assert sampler.update_priorities(places) == 2


def test_a_restored_sampler_draws_the_same() -> None:
    sampler = filled([1.0, 3.0, 0.5, 8.0])
    sampler.draw(3)
    other = PrioritisedSampler(4, 1.0, seed=9)
    other.insert(0, 4)
    other.restore(sampler.state())
    for _ in range(3):
        assert (other.draw(20) == sampler.draw(20)).all()
        sampler.insert(0, 1)
        other.insert(0, 1)
    with pytest.raises(ValueError, match="priorities of 4 slots"):
        PrioritisedSampler(5, 1.0, seed=0).restore(sampler.state())


def test_the_settings_choose_the_sampler() -> None:
    assert isinstance(make_sampler(make_run().spec.replay, 0), UniformSampler)
    assert isinstance(make_sampler(make_run(priority_exponent=0.6).spec.replay, 0), PrioritisedSampler)


# ---- as messages --------------------------------------------------------------------------------------------------


class Room:
    """A replay with a learner and an actor, of a run that samples by priorities."""

    def __init__(self, log: DictLog | None = None, **replay: object) -> None:
        self.run = make_run(**{"priority_exponent": 1.0, "min_size": 1, "limit": "off", "capacity": 20, **replay})
        self.replay = Replay(ReplayConfig(durability="redis" if log else "ram"), 0.0)
        if log:
            recover(log, self.replay, lambda _: None)
        self.open(self.run)
        self.replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)

    def open(self, run: Run) -> None:
        self.replay.handle(b"L", Open("learner", run), None, 0.0)

    def bring(self, seq: int, count: int = 10) -> None:
        first = (seq - 1) * count
        assert not self.replay.handle(b"A", *make_chunk(self.run, "a", seq, count, first=first), 0.0)
        self.replay.advance(0.0)

    def draw(self, count: int = 16) -> tuple[list[int], SampleInfo]:
        """Returns the numbers of the records of a batch, and their places."""
        self.replay.handle(b"L", SampleRequest(1, count), None, 0.0)
        reply = next(reply for reply in self.replay.advance(0.0) if isinstance(reply.message, Batch))
        assert reply.payload is not None
        records_bytes = count * DTYPE.itemsize
        places = np.frombuffer(reply.payload, SAMPLE_INFO, offset=records_bytes)
        return numbers(bytes(reply.payload[:records_bytes])), places

    def tell(self, places: SampleInfo, error: Callable[[int], float] | float, peer: bytes = b"L") -> list[object]:
        errors = [error(i) if callable(error) else error for i in range(len(places))]
        payload = with_values(places, np.array(errors, np.float32)).tobytes()
        message = Priorities(len(places))
        return [reply.message for reply in self.replay.handle(peer, message, payload, 0.0)]

    def status(self) -> Status:
        status = self.replay.handle(b"S", StatusRequest(), None, 0.0)[0].message
        assert isinstance(status, Status)
        return status


def test_what_is_learnt_of_a_batch_decides_over_the_next_ones() -> None:
    room = Room()
    room.bring(1)
    drawn, places = room.draw(10)
    assert places["value"].tolist() == [1.0] * 10
    assert sorted(drawn) == list(range(10)), "stratified"
    assert room.tell(places, lambda i: 1.0 if drawn[i] == 3 else 0.0) == []
    drawn, places = room.draw(100)
    assert set(drawn) == {3}
    assert places["value"] == pytest.approx(10.0, rel=1e-3)


def test_errors_of_records_that_are_gone_are_counted_and_change_nothing() -> None:
    room = Room()
    room.bring(1)
    _, places = room.draw(10)
    room.bring(2)
    room.bring(3)
    assert room.tell(places, 1e9) == []
    assert room.status().late_priorities == 10
    assert room.draw(20)[1]["value"].tolist() == [1.0] * 20


@pytest.mark.parametrize("error", [float("nan"), float("inf"), -1.0])
def test_errors_that_are_none_are_counted_and_send_nobody_away(error: float) -> None:
    room = Room()
    room.bring(1)
    _, places = room.draw(10)
    assert room.tell(places, error) == []
    assert room.status().rejected == {"priorities": 1}
    assert room.draw(10)[1]["value"].tolist() == [1.0] * 10


@pytest.mark.parametrize("payload", [None, b"", b"12345678901"])
def test_errors_of_the_wrong_size_are_counted(payload: bytes | None) -> None:
    room = Room()
    assert room.replay.handle(b"L", Priorities(1), payload, 0.0) == []
    assert room.status().rejected == {"size": 1}


def test_strangers_set_no_priorities() -> None:
    room = Room()
    room.bring(1)
    _, places = room.draw(10)
    assert room.tell(places, 1.0, peer=b"X") == [Unknown()]


def test_where_all_are_drawn_alike_no_error_counts() -> None:
    room = Room(priority_exponent=0.0)
    room.bring(1)
    places = np.zeros(3, SAMPLE_INFO)
    assert room.tell(places, 1.0) == []
    assert room.status().late_priorities == 3
    assert len(room.draw(10)[1]) == 0


def test_after_a_restart_priorities_start_at_the_largest() -> None:
    log = DictLog()
    room = Room(log)
    room.bring(1)
    _, places = room.draw(10)
    room.tell(places, float)
    log.execute(log.prepare(room.replay.journal.take_writes()))
    again = Room(log.after_restart())
    assert again.draw(10)[1]["value"].tolist() == [1.0] * 10
    assert again.tell(places, 1.0) == []
    assert again.status().late_priorities == 10


def test_new_settings_keep_priorities_unless_they_are_about_them() -> None:
    room = Room()
    room.bring(1)
    _, places = room.draw(10)
    room.tell(places, lambda i: float(i == 0))
    room.open(make_run(priority_exponent=1.0, min_size=1, limit="off", capacity=20, batch=4))
    assert room.draw(10)[1]["value"] == pytest.approx(10.0, rel=1e-3)
    room.open(make_run(priority_exponent=1.0, min_size=1, limit="off", capacity=8))
    assert room.draw(8)[1]["value"].tolist() == [1.0] * 8
    assert room.tell(places, 5.0) == []
    assert room.status().late_priorities == 10
    room.bring(2, 2)
    assert len(set(room.draw(50)[0])) == 8


def test_spans_of_several_steps_carry_places_too() -> None:
    room = Room(n_step=3)
    room.bring(1)
    drawn, places = room.draw(10)
    assert sorted(drawn) == list(range(10))
    assert places["value"].tolist() == [1.0] * 10
