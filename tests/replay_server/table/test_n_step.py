"""Samples of several steps, one promise at a time; random histories stand in test_n_step_histories.py."""

from __future__ import annotations

from collections import defaultdict

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.run.run import Run
from common.transitions import transition_dtype
from common.wire.codec import checksum
from common.wire.messages import Batch, Chunk, Hello, Open, Refused, SampleRequest
from replay_server.config import ReplayConfig
from replay_server.durability.recovery import recover
from replay_server.replay import Replay
from replay_server.table.table import Table
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.runs import DTYPE, make_chunk, make_message, make_run, records

DISCOUNT = 0.5


def table_of(n_step: int = 3, capacity: int = 100) -> Table:
    run = make_run(discount=DISCOUNT, capacity=capacity, min_size=1, n_step=n_step)
    return Table(run, run.spec.replay, seed=0)


def extended(table: Table) -> np.ndarray:
    """Returns all that a table holds as it would be drawn, oldest first."""
    slots = table.ring.order()
    batch = table.ring.gather(slots)
    assert table._n_step
    table._n_step.extend(batch, slots)
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


def chunk(seq: int, count: int, copies: int = 1, over: tuple[int, ...] = (), actor: str = "a") -> Chunk:
    return make_message(actor, 1, seq, copies, np.packbits(np.isin(np.arange(count), over)).tobytes())


def test_rewards_are_discounted_and_next_obs_is_that_of_the_last_step() -> None:
    table = table_of(3)
    table.insert(steps(5), chunk(1, 5))
    batch = extended(table)
    assert batch["reward"][:, 0].tolist() == [1.75, 1.75, 1.75, 1.5, 1.0]
    assert batch["discount"][:, 0].tolist() == [0.25, 0.25, 0.25, 0.5, 1.0]
    assert batch["next_obs"][:, 0].tolist() == [3.0, 4.0, 5.0, 5.0, 5.0]
    assert batch["obs"][:, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_the_one_step_target_of_a_span_is_its_n_step_target() -> None:
    table, rng = table_of(4), np.random.default_rng(0)
    block = steps(4)
    block["reward"][:, 0] = rng.normal(size=4)
    table.insert(block, chunk(1, 4))
    first, value = extended(table)[0], 7.0
    r, g = block["reward"][:, 0], DISCOUNT
    expected = r[0] + g * r[1] + g**2 * r[2] + g**3 * r[3] + g**4 * value
    assert first["reward"][0] + g * first["discount"][0] * value == pytest.approx(expected)


def test_a_span_ends_with_its_episode_at_a_time_limit() -> None:
    table = table_of(3)
    table.insert(steps(4), chunk(1, 4, over=(1,)))
    batch = extended(table)
    assert batch["reward"][:, 0].tolist() == [1.5, 1.0, 1.5, 1.0]
    assert batch["discount"][:, 0].tolist() == [0.5, 1.0, 0.5, 1.0]
    assert batch["next_obs"][:, 0].tolist() == [2.0, 2.0, 4.0, 4.0]


def test_an_agent_that_terminated_gains_nothing_more_while_the_others_go_on() -> None:
    table = table_of(3)
    block = steps(3)
    block["discount"][0, 1] = 0.0
    block["present"][1:, 1] = 0.0
    table.insert(block, chunk(1, 3))
    first = extended(table)[0]
    assert first["reward"].tolist() == [1.75, 1.0]
    assert first["discount"].tolist() == [0.25, 0.0]
    assert first["present"].tolist() == [1.0, 1.0]


def test_where_an_agent_leaves_without_terminating_the_span_ends_with_its_last_observation() -> None:
    table = table_of(3)
    block = steps(3)
    block["present"][1:, 1] = 0.0
    table.insert(block[:1], chunk(1, 1))
    table.insert(block[1:], chunk(2, 2))
    batch = extended(table)
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
    batch = extended(table)[:4]
    assert batch["next_obs"][:, 0].tolist() == [6.0, 7.0, 106.0, 107.0]


@pytest.mark.parametrize(
    "other",
    [
        make_message("a", 1, 3, 2, b"\0"),
        make_message("a", 2, 2, 2, b"\0"),
        make_message("b", 1, 2, 2, b"\0"),
        make_message("a", 1, 2, 1, b"\0"),
        make_message("a", 1, 2, 0, b""),
    ],
    ids=["a chunk was lost", "another incarnation", "another actor", "other copies", "steps that are not told"],
)
def test_only_the_very_next_chunk_goes_on(other: Chunk) -> None:
    table = table_of(3)
    table.insert(steps(2), chunk(1, 2, copies=2))
    table.insert(steps(2), other)
    assert extended(table)["reward"][:2, 0].tolist() == [1.0, 1.0]


def test_a_step_that_was_overwritten_before_the_next_one_came_leads_nowhere() -> None:
    table = table_of(3, capacity=8)
    table.insert(steps(3), chunk(1, 3, copies=3))
    table.insert(steps(6), chunk(1, 6, copies=6, actor="b"))
    table.insert(steps(3), chunk(2, 3, copies=3))
    assert extended(table)["reward"][:, 0].tolist() == [1.0] * 8


def test_chunks_larger_than_the_ring_are_no_trouble() -> None:
    table = table_of(3, capacity=5)
    for seq in (1, 2, 3):
        table.insert(steps(12, copies=3), chunk(seq, 12, copies=3))
        assert extended(table)["next_obs"][:, 0].tolist() == [13.0, 14.0, 12.0, 13.0, 14.0]


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
    longer = table.with_settings(run, run.spec.replay)
    longer.insert(steps(3), chunk(2, 3))
    assert extended(longer)["reward"][:, 0].tolist() == [1.0, 1.0, 1.0, 1.5, 1.5, 1.0]


# ---- as messages --------------------------------------------------------------------------------------------------


def served(replay: Replay, run: Run) -> np.ndarray:
    replay.handle(b"L", SampleRequest(1, 200), None, 0.0)
    replies = [reply for reply in replay.advance(0.0) if isinstance(reply.message, Batch)]
    return np.frombuffer(replies[0].payload or b"", DTYPE)


@settings(max_examples=20)
@given(cut=st.integers(0, 6))
def test_spans_survive_a_restart_from_the_log(cut: int) -> None:
    run = make_run(discount=DISCOUNT, min_size=1, limit="off", n_step=3)
    log, replay = DictLog(), Replay(ReplayConfig(durability="redis"), 0.0)
    replay.handle(b"L", Open("l", run), None, 0.0)
    replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)
    for seq in range(1, 7):
        if seq == cut:
            log, replay = log.after_restart(), Replay(ReplayConfig(durability="redis"), 0.0)
            recover(log, replay, lambda _: None)
            replay.handle(b"L", Open("l", run), None, 0.0)
            replay.handle(b"A", Hello("a", 1, seq - 1, ""), None, 0.0)
        bring(replay, run, seq)
        replay.advance(0.0)
        log.execute(log.prepare(replay.journal.take_writes()))
        replay.journal.mark_durable(seq)
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
    run, replay = make_run(n_step=2), Replay(ReplayConfig(durability="ram"), 0.0)
    replay.handle(b"L", Open("l", run), None, 0.0)
    replay.handle(b"A", Hello("a", 0, 0, ""), None, 0.0)
    message, payload = make_chunk(run, "a", 1, 4)
    copies, ends = told
    replies = replay.handle(b"A", msgspec.structs.replace(message, copies=copies, ends=ends), payload, 0.0)
    assert isinstance(replies[0].message, Refused)
    assert replay.rejections.rejected == {"size": 1}


def test_next_state_is_that_of_the_last_step() -> None:
    run = make_run(discount=DISCOUNT, capacity=100, min_size=1, n_step=3)
    run = msgspec.structs.replace(run, joint=msgspec.structs.replace(run.joint, state_dim=2))
    table = Table(run, run.spec.replay, seed=0)
    block, plain = np.zeros(5, transition_dtype(run.joint)), steps(5)
    for name in DTYPE.names or ():
        block[name] = plain[name]
    block["state"], block["next_state"] = np.arange(5)[:, None], np.arange(1, 6)[:, None]
    table.insert(block, chunk(1, 5))
    batch = extended(table)
    assert batch["next_state"][:, 1].tolist() == [3.0, 4.0, 5.0, 5.0, 5.0]
    assert batch["state"][:, 1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
