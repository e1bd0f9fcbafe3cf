"""Samples of several steps equal a slow literal twin, over random histories of actors, chunks and the ring."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.messages import Batch, Hello, Open, Refused, SampleRequest
from common.run import Run
from common.wire import checksum
from replay_server.episodes import Origin
from replay_server.recovery import recover
from replay_server.replay import Replay
from replay_server.settings import ReplaySettings
from replay_server.table import Table
from tests.replay_server.dict_log import DictLog
from tests.replay_server.runs import DTYPE, make_chunk, make_run, records

DISCOUNT = 0.5
"""With rewards in eighths every product and sum here is exact in float32."""


@dataclass
class Step:
    """One record, and what its actor knows of it."""

    actor: str
    incarnation: int
    copy: int
    time: int
    """Steps of this copy before it."""
    over: bool
    record: np.ndarray
    told: bool = True
    """Whether its chunk told of copies and ends."""


@dataclass
class Worker:
    """Plays copies whose episodes end, and whose agents come and go, at random."""

    name: str
    copies: int
    incarnation: int = 1
    seq: int = 0
    time: int = 0
    chunk: tuple[Origin, list[Step]] = field(default_factory=lambda: (Origin("", 0, 0, 0, b""), []))

    def collect(self, steps: int, number: int, rng: np.random.Generator, *, told: bool) -> None:
        """Makes the next chunk; its records count from `number`."""
        count = steps * self.copies
        block = records(count, number)
        block["obs"][:, 0], block["next_obs"][:, 0] = np.arange(number, number + count), -np.arange(count) - number
        block["reward"] = rng.integers(-8, 9, block["reward"].shape) / 8
        block["discount"] = rng.choice([0.0, 0.5, 1.0, 1.0, 1.0, 1.0], block["discount"].shape)
        block["present"] = rng.random(block["present"].shape) < 0.9
        over = rng.random(count) < 0.15
        self.seq += 1
        copies, ends = (self.copies, np.packbits(over).tobytes()) if told else (0, b"")
        made = [
            Step(self.name, self.incarnation, i % self.copies, self.time + i // self.copies, over[i], block[i], told)
            for i in range(count)
        ]
        self.time += steps
        self.chunk = Origin(self.name, self.incarnation, self.seq, copies, ends), made


def follows(step: Step, other: Step) -> bool:
    """Says whether `other` is the next step of the same copy, and nothing has ended between them."""
    same = (step.actor, step.incarnation, step.copy) == (other.actor, other.incarnation, other.copy)
    if not same or other.time != step.time + 1 or step.over or not (step.told and other.told):
        return False
    a, b = step.record, other.record
    left = (a["present"] == 1.0) & (a["discount"] > 0.0) & (b["present"] == 0.0)
    return not left.any()


def spanning(step: Step, held: list[Step], n_step: int) -> np.ndarray:
    """Returns the record of up to n steps from `step` on, agent by agent, as it is written in the books."""
    span = [step]
    while len(span) < n_step and (found := [other for other in held if follows(span[-1], other)]):
        span += found[:1]
    record = step.record.copy()
    for agent in range(2):
        gain, weight = 0.0, 1.0
        for one in span:
            gain += weight * float(one.record["reward"][agent])
            weight *= DISCOUNT * float(one.record["discount"][agent])
        record["reward"][agent], record["discount"][agent] = gain, weight / DISCOUNT
    record["next_obs"] = span[-1].record["next_obs"]
    return record


class Histories(RuleBasedStateMachine):
    """Lets hypothesis decide who brings what, what is lost, and what the ring goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng(0)
        self.n_step, self.capacity, self.made = 3, 40, 0
        self.workers = {"a": Worker("a", 1), "b": Worker("b", 3), "c": Worker("c", 2)}
        self.log: list[tuple[Origin, list[Step]]] = []
        self.held: list[Step] = []
        """What the ring holds, oldest first."""
        self.table = self.new_table()

    def new_table(self) -> Table:
        run = self.run_of()
        return Table(run, run.spec.replay, seed=0)

    def run_of(self) -> Run:
        return make_run(discount=DISCOUNT, capacity=self.capacity, min_size=1, n_step=self.n_step)

    def store(self, table: Table, origin: Origin, steps: list[Step]) -> None:
        table.keep(np.array([step.record for step in steps], DTYPE), origin)
        self.held = (self.held + steps)[-self.capacity :]

    @rule(
        name=st.sampled_from("abc"),
        steps=st.integers(1, 6),
        seed=st.integers(0, 2**20),
        told=st.sampled_from([0] + 8 * [1]),
    )
    def bring(self, name: str, steps: int, seed: int, told: int) -> None:
        worker = self.workers[name]
        worker.collect(steps, self.made, np.random.default_rng(seed), told=bool(told))
        self.made += len(worker.chunk[1])
        self.log.append(worker.chunk)
        self.store(self.table, *worker.chunk)

    @rule(name=st.sampled_from("abc"), copies=st.integers(1, 3))
    def start_again(self, name: str, copies: int) -> None:
        """A worker's new incarnation begins its episodes anew."""
        self.workers[name] = Worker(name, copies, self.workers[name].incarnation + 1)

    @rule(name=st.sampled_from("abc"))
    def lose_a_chunk(self, name: str) -> None:
        """A server that forgot takes the actor's word for what it had."""
        self.workers[name].collect(1, self.made, self.rng, told=True)

    @rule(missing=st.sets(st.integers(0, 30), max_size=3))
    def restart(self, missing: set[int]) -> None:
        """The server is rebuilt from its log, in which some chunks are damaged."""
        self.held = []
        self.table = self.new_table()
        for number, chunk in enumerate(self.log):
            if number not in missing:
                self.store(self.table, *chunk)

    @rule(capacity=st.sampled_from([7, 20, 40, 60]), n_step=st.sampled_from([2, 3, 10]))
    def redefine(self, capacity: int, n_step: int) -> None:
        self.capacity, self.n_step = capacity, n_step
        self.held = self.held[-capacity:]
        run = self.run_of()
        self.table = self.table.redefined(run, run.spec.replay)

    @precondition(lambda self: self.held)
    @rule()
    def put_away_and_back(self) -> None:
        """What is kept of a table makes another one of the same records go on like it."""
        state, ring = self.table.state(), self.table.ring
        table = self.new_table()
        table.ring.next_slot = (ring.next_slot - ring.size) % ring.capacity
        table.keep(ring.in_order())
        table.restore(state)
        self.table = table

    @invariant()
    def spans_are_right(self) -> None:
        slots = self.table.ring.order()
        batch = self.table.ring.gather(slots)
        assert self.table._n_step
        self.table._n_step.lengthen(batch, slots)
        assert len(batch) == len(self.held)
        for record, step in zip(batch, self.held, strict=True):
            expected = spanning(step, self.held, self.n_step)
            assert record.tobytes() == expected.tobytes(), f"{record} is not {expected}"


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


# ---- one promise at a time ----------------------------------------------------------------------------------------


def table_of(n_step: int = 3, capacity: int = 100) -> Table:
    run = make_run(discount=DISCOUNT, capacity=capacity, min_size=1, n_step=n_step)
    return Table(run, run.spec.replay, seed=0)


def lengthened(table: Table) -> np.ndarray:
    """Returns all that a table holds as it would be drawn, oldest first."""
    slots = table.ring.order()
    batch = table.ring.gather(slots)
    assert table._n_step
    table._n_step.lengthen(batch, slots)
    return batch


def steps(count: int, copies: int = 1, **fields: float) -> np.ndarray:
    """Returns records of agents that all act and go on; rewards 1, observations numbered."""
    block = records(count)
    block["reward"], block["discount"], block["present"] = 1.0, 1.0, 1.0
    block["obs"][:, 0] = np.arange(count)
    block["next_obs"][:, 0] = np.arange(count) + copies
    for name, value in fields.items():
        block[name] = value
    return block


def chunk(seq: int, count: int, copies: int = 1, over: tuple[int, ...] = (), actor: str = "a") -> Origin:
    return Origin(actor, 1, seq, copies, np.packbits(np.isin(np.arange(count), over)).tobytes())


def test_rewards_are_discounted_and_next_obs_is_that_of_the_last_step() -> None:
    table = table_of(3)
    table.insert(steps(5), chunk(1, 5))
    batch = lengthened(table)
    assert batch["reward"][:, 0].tolist() == [1.75, 1.75, 1.75, 1.5, 1.0]
    assert batch["discount"][:, 0].tolist() == [0.25, 0.25, 0.25, 0.5, 1.0]
    assert batch["next_obs"][:, 0].tolist() == [3.0, 4.0, 5.0, 5.0, 5.0]
    assert batch["obs"][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_one_step_target_of_a_span_is_its_n_step_target() -> None:
    table, rng = table_of(4), np.random.default_rng(0)
    block = steps(4)
    block["reward"][:, 0] = rng.normal(size=4)
    table.insert(block, chunk(1, 4))
    first, value = lengthened(table)[0], 7.0
    r, g = block["reward"][:, 0], DISCOUNT
    expected = r[0] + g * r[1] + g**2 * r[2] + g**3 * r[3] + g**4 * value
    assert first["reward"][0] + g * first["discount"][0] * value == pytest.approx(expected)


def test_a_span_ends_with_its_episode_at_a_time_limit() -> None:
    table = table_of(3)
    table.insert(steps(4), chunk(1, 4, over=(1,)))
    batch = lengthened(table)
    assert batch["reward"][:, 0].tolist() == [1.5, 1.0, 1.5, 1.0]
    assert batch["discount"][:, 0].tolist() == [0.5, 1.0, 0.5, 1.0]
    assert batch["next_obs"][:, 0].tolist() == [2.0, 2.0, 4.0, 4.0]


def test_an_agent_that_terminated_gains_nothing_more_while_the_others_go_on() -> None:
    table = table_of(3)
    block = steps(3)
    block["discount"][0, 1] = 0.0
    block["present"][1:, 1] = 0.0
    table.insert(block, chunk(1, 3))
    first = lengthened(table)[0]
    assert first["reward"].tolist() == [1.75, 1.0]
    assert first["discount"].tolist() == [0.25, 0.0]
    assert first["present"].tolist() == [1.0, 1.0]


def test_where_an_agent_leaves_without_terminating_the_span_ends_with_its_last_observation() -> None:
    table = table_of(3)
    block = steps(3)
    block["present"][1:, 1] = 0.0
    table.insert(block[:1], chunk(1, 1))
    table.insert(block[1:], chunk(2, 2))
    batch = lengthened(table)
    assert batch["reward"][:, 0].tolist() == [1.0, 1.5, 1.0]
    assert batch["next_obs"][:, 0].tolist() == [1.0, 3.0, 3.0]


def test_actors_that_take_turns_are_told_apart() -> None:
    table = table_of(3)
    for seq in (1, 2, 3):
        for actor, first in (("a", 0.0), ("b", 100.0)):
            block = steps(2, copies=2)
            block["obs"][:, 0] += first + 2 * (seq - 1)
            block["next_obs"][:, 0] += first + 2 * (seq - 1)
            table.insert(block, chunk(seq, 2, copies=2, actor=actor))
    batch = lengthened(table)[:4]
    assert batch["next_obs"][:, 0].tolist() == [6.0, 7.0, 106.0, 107.0]


@pytest.mark.parametrize(
    "other",
    [
        Origin("a", 1, 3, 2, b"\0"),
        Origin("a", 2, 2, 2, b"\0"),
        Origin("b", 1, 2, 2, b"\0"),
        Origin("a", 1, 2, 1, b"\0"),
        Origin("a", 1, 2, 0, b""),
    ],
    ids=["a chunk was lost", "another incarnation", "another actor", "other copies", "steps that are not told"],
)
def test_only_the_very_next_chunk_goes_on(other: Origin) -> None:
    table = table_of(3)
    table.insert(steps(2), chunk(1, 2, copies=2))
    table.insert(steps(2), other)
    assert lengthened(table)["reward"][:2, 0].tolist() == [1.0, 1.0]


def test_a_step_that_was_overwritten_before_the_next_one_came_leads_nowhere() -> None:
    table = table_of(3, capacity=8)
    table.insert(steps(3), chunk(1, 3, copies=3))
    table.insert(steps(6), chunk(1, 6, copies=6, actor="b"))
    table.insert(steps(3), chunk(2, 3, copies=3))
    assert lengthened(table)["reward"][:, 0].tolist() == [1.0] * 8


def test_chunks_larger_than_the_ring_are_no_trouble() -> None:
    table = table_of(3, capacity=5)
    for seq in (1, 2, 3):
        table.insert(steps(12, copies=3), chunk(seq, 12, copies=3))
        assert lengthened(table)["next_obs"][:, 0].tolist() == [13.0, 14.0, 12.0, 13.0, 14.0]


def test_what_is_known_of_actors_goes_with_their_records() -> None:
    table = table_of(3, capacity=50)
    for number in range(1_000):
        table.insert(steps(2), chunk(1, 2, actor=f"actor-{number}"))
        table.insert(steps(2), chunk(number, 2, actor="one that stays"))
    assert table._n_step
    assert len(table._n_step.episodes._tails) <= 14


def test_spans_of_one_step_cost_nothing_and_know_nothing() -> None:
    table = table_of(1)
    table.insert(steps(3), chunk(1, 3))
    assert table._n_step is None
    run = make_run(discount=DISCOUNT, capacity=100, min_size=1, n_step=2)
    longer = table.redefined(run, run.spec.replay)
    longer.insert(steps(3), chunk(2, 3))
    assert lengthened(longer)["reward"][:, 0].tolist() == [1.0, 1.0, 1.0, 1.5, 1.5, 1.0]


# ---- as messages --------------------------------------------------------------------------------------------------


def served(replay: Replay, run: Run) -> np.ndarray:
    replay.handle(b"L", SampleRequest(1, 200), None, 0.0)
    replies = [reply for reply in replay.tick(0.0) if isinstance(reply.message, Batch)]
    return np.frombuffer(replies[0].payload or b"", DTYPE)


@settings(max_examples=20)
@given(cut=st.integers(0, 6))
def test_spans_survive_a_restart_from_the_log(cut: int) -> None:
    run = make_run(discount=DISCOUNT, min_size=1, limit="off", n_step=3)
    log, replay = DictLog(), Replay(ReplaySettings(durability="redis"), 0.0)
    replay.handle(b"L", Open("l", run), None, 0.0)
    replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)
    for seq in range(1, 7):
        if seq == cut:
            log, replay = log.after_restart(), Replay(ReplaySettings(durability="redis"), 0.0)
            recover(log, replay, lambda _: None)
            replay.handle(b"L", Open("l", run), None, 0.0)
            replay.handle(b"A", Hello("a", 1, seq - 1, ""), None, 0.0)
        bring(replay, run, seq)
        replay.tick(0.0)
        log.execute(log.prepare(replay.journal.take_writes()))
        replay.journal.committed(seq)
    gains: dict[float, set[float]] = defaultdict(set)
    for record in served(replay, run):
        gains[float(record["obs"][0])].add(float(record["reward"][0]))
    assert gains == {time: {1.75 if time < 10 else 1.5 if time == 10 else 1.0} for time in map(float, range(12))}


def bring(replay: Replay, run: Run, seq: int) -> None:
    block = steps(2)
    block["obs"][:, 0] += 2 * (seq - 1)
    payload = block.tobytes()
    message = make_chunk(run, "a", seq, 2, copies=1)[0]
    assert replay.handle(b"A", msgspec.structs.replace(message, crc32c=checksum(payload)), payload, 0.0) == []


@pytest.mark.parametrize("told", [(3, b"\0"), (1, b""), (1, b"\0\0"), (0, b"\0")])
def test_steps_that_are_not_those_of_the_records_are_refused(told: tuple[int, bytes]) -> None:
    run, replay = make_run(n_step=2), Replay(ReplaySettings(), 0.0)
    replay.handle(b"L", Open("l", run), None, 0.0)
    replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)
    message, payload = make_chunk(run, "a", 1, 4)
    copies, ends = told
    replies = replay.handle(b"A", msgspec.structs.replace(message, copies=copies, ends=ends), payload, 0.0)
    assert isinstance(replies[0].message, Refused)
    assert replay.tally.rejected == {"size": 1}
