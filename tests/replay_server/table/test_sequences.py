"""Sequences for recurrent policies: whole, in order, within one episode, each transition as often as any other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.run.run import Run, make_run_spec
from replay_server.table.table import Table
from tests.replay_server.runs import JOINT, make_message, records


def table_of(steps: int, burn_in: int, capacity: int = 100) -> Table:
    settings = {"batch": 10 * steps, "capacity": capacity, "min_size": 1, "sequence_steps": steps, "burn_in": burn_in}
    spec = make_run_spec({"scenario": "simple_spread", "network": {"recurrent": "gru"}, "replay": settings})
    return Table(Run("r", spec, JOINT), spec.replay, seed=0)


class Step(NamedTuple):
    """What identifies a record: the actor, the copy, its episode, and the number of the step within it."""

    actor: int
    copy: int
    episode: int
    number: int


class History:
    """Actors whose copies play episodes; records carry their Step in `obs`, and all rewards are 1."""

    def __init__(self, table: Table, copies: tuple[int, ...]) -> None:
        self.table, self.copies = table, copies
        self.now = [[(0, 0)] * count for count in copies]
        self.seq = [0] * len(copies)
        self.place: dict[Step, int] = {}
        """Steps between each step and the earliest one that the ring knew of when it arrived."""

    def insert(self, actor: int, ends: list[list[bool]]) -> None:
        """Inserts a chunk; ends: whether the episode of each copy ends, step by step."""
        copies, self.seq[actor] = self.copies[actor], self.seq[actor] + 1
        block = records(len(ends) * copies)
        block["reward"], block["discount"], block["present"] = 1.0, 1.0, 1.0
        kept = self.table.ring.capacity - len(block)
        known = set(stored_steps(self.table)[-kept:]) if kept > 0 else set()
        for t, over in enumerate(ends):
            for copy in range(copies):
                episode, number = self.now[actor][copy]
                block["obs"][t * copies + copy, :4] = step = Step(actor, copy, episode, number)
                before = step._replace(number=number - 1)
                self.place[step] = self.place[before] + 1 if before in known else 0
                known.add(step)
                self.now[actor][copy] = (episode + 1, 0) if over[copy] else (episode, number + 1)
        bits = np.packbits(np.array(ends)).tobytes()
        self.table.insert(block, make_message(f"a{actor}", 1, self.seq[actor], copies, bits))


def step_of(record: np.void) -> Step | None:
    """Returns the step that a record is; None for padding."""
    if not record["present"].any():
        assert not record["obs"].any()
        assert not record["reward"].any()
        return None
    return Step(*(int(x) for x in record["obs"][:4]))


def sampled(table: Table, count: int) -> list[list[Step | None]]:
    spec = table.run.spec.replay
    batch = table.records(table.sample(count))
    assert len(batch) == count // spec.sequence_steps * (spec.sequence_steps + spec.burn_in)
    rows = [step_of(record) for record in batch]
    length = spec.sequence_steps + spec.burn_in
    return [rows[i : i + length] for i in range(0, len(rows), length)]


def stored_steps(table: Table) -> list[Step]:
    found = [step_of(record) for record in table.ring.in_order()]
    return [step for step in found if step is not None]


def assert_whole(sequence: list[Step | None], history: History, table: Table) -> None:
    """Asserts that a sample contains all stored steps of its episode that belong to it, in order, and no other."""
    steps, burn_in, stored = table.limiter.spec.sequence_steps, table.limiter.spec.burn_in, set(stored_steps(table))
    head = sequence[burn_in]
    assert head is not None
    before, place = head._replace(number=head.number - 1), history.place[head]
    assert place % steps == 0 or before not in stored
    expected: list[Step | None] = []
    for i in range(head.number - burn_in, head.number + steps):
        step = head._replace(number=i)
        is_later_sequence = i > head.number and (place + i - head.number) // steps > place // steps
        expected.append(step if i >= 0 and step in stored and not is_later_sequence else None)
    assert sequence == expected


@pytest.mark.parametrize("burn_in", [0, 2, 5])
def test_an_episode_is_cut_into_sequences_with_the_steps_before_each(burn_in: int) -> None:
    table = table_of(4, burn_in)
    History(table, (1,)).insert(0, [[i == 9] for i in range(12)])
    found = {tuple(one) for one in sampled(table, 400)}
    episode: list[Step | None] = [Step(0, 0, 0, i) for i in range(10)]
    padded = [None] * burn_in + episode + [None] * 2
    second = [None] * burn_in + [Step(0, 0, 1, 0), Step(0, 0, 1, 1), None, None]
    assert found == {tuple(padded[i : i + burn_in + 4]) for i in (0, 4, 8)} | {tuple(second)}


def test_every_transition_is_drawn_as_often_as_any_other() -> None:
    table = table_of(4, 3)
    History(table, (2,)).insert(0, [[i % 5 == 4, i % 7 == 6] for i in range(35)])
    drawn = [step for one in sampled(table, 40_000) for step in one[3:] if step is not None]
    counts = np.array([drawn.count(step) for step in stored_steps(table)])
    # 14 + 10 sequences and 10,000 draws: 417 each, with a standard deviation of 20.
    assert abs(counts - 10_000 / 24).max() < 100


def test_episodes_continue_over_chunks_of_several_actors() -> None:
    table = table_of(6, 2)
    history = History(table, (1, 2))
    for _ in range(3):
        history.insert(0, [[False]] * 2)
        history.insert(1, [[False, False]] * 2)
    found = {tuple(one) for one in sampled(table, 600)}
    expected = [[None, None, *(Step(actor, copy, 0, i) for i in range(6))] for actor, copy in ((0, 0), (1, 0), (1, 1))]
    assert found == {tuple(one) for one in expected}


def test_a_lost_chunk_ends_a_sequence() -> None:
    table = table_of(6, 2)
    history = History(table, (1,))
    history.insert(0, [[False]] * 2)
    history.seq[0] += 1
    history.insert(0, [[False]] * 2)
    heads = {one[2] for one in sampled(table, 120)}
    assert heads == {Step(0, 0, 0, 0), Step(0, 0, 0, 2)}


def test_records_without_their_message_are_sequences_of_one_step() -> None:
    table = table_of(3, 1)
    block = records(4)
    block["present"], block["obs"][:, 3] = 1.0, np.arange(4)
    table.insert(block)
    assert {tuple(one) for one in sampled(table, 90)} == {(None, Step(0, 0, 0, i), None, None) for i in range(4)}


@st.composite
def histories(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[int, list[list[bool]]]]]:
    copies = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    chunks = []
    for _ in range(draw(st.integers(1, 8))):
        actor = draw(st.integers(0, len(copies) - 1))
        steps = draw(st.integers(1, 4))
        over = st.sampled_from([False, False, True])
        chunks.append(
            (
                actor,
                draw(
                    st.lists(
                        st.lists(over, min_size=copies[actor], max_size=copies[actor]), min_size=steps, max_size=steps
                    )
                ),
            )
        )
    return copies, chunks


@settings(max_examples=40, deadline=None)
@given(histories(), st.integers(1, 4), st.integers(0, 4), st.integers(4, 30))
def test_samples_are_whole_after_any_history(
    history: tuple[tuple[int, ...], list[tuple[int, list[list[bool]]]]], steps: int, burn_in: int, capacity: int
) -> None:
    copies, chunks = history
    table = table_of(steps, burn_in, capacity)
    played = History(table, copies)
    for actor, ends in chunks:
        played.insert(actor, ends)
    for one in sampled(table, 8 * steps):
        assert_whole(one, played, table)
    smaller = table.with_settings(
        table.run,
        table.limiter.spec.__class__(
            batch=10 * steps, capacity=max(capacity // 2, 1), min_size=1, sequence_steps=steps, burn_in=burn_in
        ),
    )
    for one in sampled(smaller, 8 * steps):
        assert_whole(one, played, smaller)


def test_a_restored_table_draws_the_same_sequences() -> None:
    table, other = table_of(3, 2), table_of(3, 2)
    History(table, (2,)).insert(0, [[i % 5 == 4, False] for i in range(20)])
    other.append(table.ring.in_order())
    other.restore(table.state())
    assert sampled(other, 30) == sampled(table, 30)


def test_sequences_count_the_transitions_that_are_learnt_from() -> None:
    table = table_of(4, 8)
    History(table, (1,)).insert(0, [[False]] * 20)
    table.sample(40)
    assert (table.sampled, table.limiter.samples) == (40, 40)
