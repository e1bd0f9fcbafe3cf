"""Samples of several steps equal a slow literal twin, over random histories of actors, chunks and the ring."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from common.run.run import Run
from common.wire.messages import Chunk
from replay_server.table.table import Table
from tests.replay_server.runs import DTYPE, make_message, make_run, records

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
    chunk: tuple[Chunk, list[Step]] = field(default_factory=lambda: (make_message("", 0, 0, 0, b""), []))

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
        self.chunk = make_message(self.name, self.incarnation, self.seq, copies, ends), made


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
        self.log: list[tuple[Chunk, list[Step]]] = []
        self.held: list[Step] = []
        """What the ring holds, oldest first."""
        self.table = self.new_table()

    def new_table(self) -> Table:
        run = self.run_of()
        return Table(run, run.spec.replay, seed=0)

    def run_of(self) -> Run:
        return make_run(discount=DISCOUNT, capacity=self.capacity, min_size=1, n_step=self.n_step)

    def store(self, table: Table, chunk: Chunk, steps: list[Step]) -> None:
        table.append(np.array([step.record for step in steps], DTYPE), chunk)
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
        self.table = self.table.with_settings(run, run.spec.replay)

    @precondition(lambda self: self.held)
    @rule()
    def put_away_and_back(self) -> None:
        """What is kept of a table makes another one of the same records go on like it."""
        state, ring = self.table.state(), self.table.ring
        table = self.new_table()
        table.ring.next_slot = (ring.next_slot - ring.size) % ring.capacity
        table.append(ring.in_order())
        table.restore(state)
        self.table = table

    @invariant()
    def spans_are_right(self) -> None:
        slots = self.table.ring.order()
        batch = self.table.ring.gather(slots)
        assert self.table._n_step
        self.table._n_step.extend(batch, slots)
        assert len(batch) == len(self.held)
        for record, step in zip(batch, self.held, strict=True):
            expected = spanning(step, self.held, self.n_step)
            assert record.tobytes() == expected.tobytes(), f"{record} is not {expected}"


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
