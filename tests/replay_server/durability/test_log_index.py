"""What is written to the log, and what comes back from it, without a Redis."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ProtocolError
from common.wire.messages import LearnerReport
from common.wire.weights import unpack_weights
from replay_server.config import ReplayConfig
from replay_server.durability.chunk_format import pack_chunk, unpack_chunk
from replay_server.durability.chunk_log import (
    ForgetActor,
    LoggedChunk,
    ReleaseChunks,
    StoreFinished,
    StoreRun,
    StoreSamples,
    StoreWeights,
    Write,
)
from replay_server.durability.log_index import ChunkLogIndex, LogState, RedisKeys
from replay_server.durability.recovery import RecoveryResult, recover
from replay_server.replay import Replay
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.runs import DTYPE, make_chunk, make_run, make_weights, numbers

RUN = make_run(capacity=50)


def chunk_write(number: int, rows: int = 10, actor: str = "a", first: int = 0) -> LoggedChunk:
    return LoggedChunk(number, *make_chunk(RUN, actor, number + 1, rows, first=first), inserts=(number + 1) * rows)


def filled_log(chunks: int, rows: int = 10) -> DictLog:
    """Returns a log of a run with weights, samples and chunks that number their records from 0 on."""
    log = DictLog()
    log.execute(log.prepare([StoreRun(RUN, 50, replaces_run=True), StoreWeights(3, make_weights(RUN, 3))]))
    for number in range(chunks):
        log.execute(log.prepare([chunk_write(number, rows, "ab"[number % 2], number * rows)]))
    log.execute(log.prepare([StoreSamples(77)]))
    return log


def rebuilt(log: DictLog, capacity: int = 0) -> tuple[Replay, RecoveryResult]:
    replay = Replay(ReplayConfig(durability="redis", capacity=capacity), 0.0)
    return replay, recover(log.after_restart(), replay, lambda _: None)


@given(st.data(), st.integers(0, 300), st.text(min_size=1, max_size=20), st.sampled_from([(), (3, b"\xa0")]))
def test_a_packed_chunk_opens_and_a_flipped_bit_does_not(
    data: st.DataObject, number: int, actor: str, steps: tuple[int, bytes] | tuple[()]
) -> None:
    write = chunk_write(number, 3, actor)
    write = write._replace(
        chunk=msgspec.structs.replace(write.chunk, **dict(zip(("copies", "ends"), steps, strict=False)))
    )
    packed = b"".join(pack_chunk(write))
    chunk, payload = unpack_chunk(packed, number, DTYPE.itemsize)
    assert chunk == msgspec.structs.replace(write.chunk, data_hash="", run="")
    assert bytes(payload) == write.payload
    bit = data.draw(st.integers(0, len(packed) * 8 - 1))
    damaged = bytearray(packed)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolError):
        unpack_chunk(bytes(damaged), number, DTYPE.itemsize)


@given(st.binary(max_size=120))
def test_anything_else_is_a_protocol_error(value: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_chunk(value, 0, DTYPE.itemsize)


def test_a_chunk_under_anothers_number_is_damaged() -> None:
    with pytest.raises(ProtocolError, match="another chunk's"):
        unpack_chunk(b"".join(pack_chunk(chunk_write(1))), 2, DTYPE.itemsize)


def test_a_chunk_without_steps_is_kept_as_before_there_were_any() -> None:
    packed = b"".join(pack_chunk(chunk_write(0)))
    assert packed[4:8] == b"\1\0\0\0"
    assert unpack_chunk(packed, 0, DTYPE.itemsize)[0].copies == 0


def test_a_chunk_whose_steps_are_not_those_of_its_records_is_damaged() -> None:
    write = chunk_write(0)
    packed = pack_chunk(write._replace(chunk=msgspec.structs.replace(write.chunk, copies=3, ends=b"\0\0")))
    with pytest.raises(ProtocolError, match="steps"):
        unpack_chunk(b"".join(packed), 0, DTYPE.itemsize)


def test_a_group_is_a_few_commands() -> None:
    book = ChunkLogIndex(RedisKeys("x"))
    book.capacity = 100
    transaction = book.transaction([chunk_write(0), chunk_write(1, actor="b"), StoreSamples(5)])
    assert [command[0] for command in transaction.commands] == ["MSET", "HSET", "HSET"]
    assert transaction.commands[1] == ("HSET", "shoal:{x}:actors", "a", "1:1", "b", "1:2")
    assert transaction.commands[2] == ("HSET", "shoal:{x}:state", "head", 2, "inserts", 20, "samples", 5)
    assert transaction.last_number == 1


@given(st.lists(st.lists(st.integers(1, 40), max_size=12), max_size=12))
def test_the_log_holds_about_its_capacity(groups: list[list[int]]) -> None:
    log, rows = DictLog(), []
    log.execute(log.prepare([StoreRun(RUN, 50, replaces_run=True)]))
    for group in groups:
        writes = [chunk_write(len(rows) + i, count) for i, count in enumerate(group)]
        rows += group
        log.execute(log.prepare(writes))
        kept = log.read()
        assert kept
        held = [value for _, value in log.chunks(kept.state)]
        assert all(held)
        assert len([key for key in log.values if ":chunk:" in key]) == len(held)
        total = sum(rows[len(rows) - len(held) :])
        assert total >= min(50, sum(rows))
        assert not held or total - rows[len(rows) - len(held)] < 50


def test_a_transaction_executed_twice_changes_nothing_more() -> None:
    log = filled_log(3)
    transaction = log.prepare([chunk_write(3), ForgetActor("b")])
    log.execute(transaction)
    values, hashes = dict(log.values), {key: dict(fields) for key, fields in log.hashes.items()}
    log.execute(transaction)
    assert (log.values, log.hashes) == (values, hashes)


def test_another_run_takes_the_place_of_an_empty_one() -> None:
    log = filled_log(0)
    log.execute(log.prepare([StoreRun(make_run("run-2"), 50, replaces_run=True)]))
    kept = log.read()
    assert kept
    assert (kept.run.id, kept.weights) == ("run-2", None)


REPORT = LearnerReport("learner-1", 500, 10.0, 3, 1.0, math.nan, 0.5, "", 0.0, 1.0, finished=True, metrics_url="")


def test_a_released_run_has_its_counters_and_its_end_and_no_chunk() -> None:
    log = filled_log(4)
    log.execute(log.prepare([StoreFinished(REPORT), chunk_write(4), ReleaseChunks()]))
    assert not [key for key in log.values if ":chunk:" in key]
    replay, recovered = rebuilt(log)
    assert recovered.transitions == 0
    status = replay.status(0.0)
    assert (status.run, status.size, status.inserts, status.samples) == (RUN, 0, 50, 77)
    assert status.learner is not None
    assert (status.learner.finished, status.learner.updates) == (True, 500)
    assert math.isnan(status.learner.critic_loss)
    assert replay.actors.sessions["a"].received == 5


def test_a_run_that_continues_is_not_finished_after_a_restart() -> None:
    log = filled_log(2)
    log.execute(log.prepare([StoreFinished(REPORT)]))
    assert rebuilt(log)[0].learners.finished
    log.execute(log.prepare([StoreFinished(None)]))
    assert not rebuilt(log)[0].learners.finished


def test_a_release_of_many_chunks_is_several_commands_of_one_transaction() -> None:
    index = ChunkLogIndex(RedisKeys("x"))
    index.capacity = 10**6
    index.transaction([chunk_write(number, 1) for number in range(10_001)])
    release = index.transaction([ReleaseChunks()]).commands
    assert [(command[0], len(command)) for command in release] == [("UNLINK", 10_001), ("UNLINK", 2), ("HSET", 6)]


@given(st.data())
def test_a_server_killed_between_any_two_transactions_never_mixes_two_runs(data: st.DataObject) -> None:
    """The chunks of run k number their records from 1,000 k on. The writes come in random groups."""
    writes: list[Write] = []
    number = 0
    for k in range(3):
        run = make_run(f"run-{k}", capacity=50)
        writes += [StoreRun(run, 50, replaces_run=True), StoreWeights(3, make_weights(run, 3))]
        for i in range(data.draw(st.integers(0, 8))):
            chunk = make_chunk(run, f"actor-{k}", i + 1, first=1_000 * k + 10 * i)
            writes.append(LoggedChunk(number, *chunk, inserts=10 * (i + 1)))
            number += 1
        writes += [StoreSamples(k + 1), StoreFinished(REPORT), *[ReleaseChunks()] * data.draw(st.integers(0, 2))]
    log = DictLog()
    while writes:
        size = data.draw(st.integers(1, len(writes)))
        log.execute(log.prepare(writes[:size]))
        del writes[:size]
        replay, recovered = rebuilt(log)
        assert replay.table is not None
        k = int(replay.table.run.id.removeprefix("run-"))
        assert {number // 1_000 for number in numbers(replay.table.ring.in_order())} <= {k}
        assert set(replay.actors.sessions) <= {f"actor-{k}"}
        assert (recovered.damaged, recovered.missing) == (0, 0)
        if replay.weights.frame:
            assert unpack_weights(replay.weights.frame).header.run == f"run-{k}"
        # No key is left behind that no later transaction would remove.
        assert len([key for key in log.values if ":chunk:" in key]) == recovered.chunks


def test_the_basis_is_all_but_the_chunks() -> None:
    log, empty = filled_log(4), DictLog()
    for command in log.index.metadata():
        empty._execute(*command)
    assert empty.hashes == log.hashes
    assert empty.values == {key: value for key, value in log.values.items() if ":chunk:" not in key}


def test_an_empty_log_recovers_nothing() -> None:
    replay, recovered = rebuilt(DictLog())
    assert replay.table is None
    assert recovered.transitions == 0


def test_recovery_rebuilds_ring_counters_actors_and_weights() -> None:
    replay, recovered = rebuilt(filled_log(4))
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(40))
    assert (replay.table.limiter.inserts, replay.table.limiter.samples) == (40, 77)
    assert {name: (s.incarnation, s.durable, s.received) for name, s in replay.actors.sessions.items()} == {
        "a": (1, 3, 3),
        "b": (1, 4, 4),
    }
    assert (replay.weights.version, replay.weights.frame) == (3, make_weights(RUN, 3))
    assert (recovered.chunks, recovered.damaged, recovered.missing) == (4, 0, 0)
    assert replay.journal.next_number == 4
    assert replay.journal.take_writes() == []


def test_recovery_skips_and_counts_what_is_damaged_or_missing() -> None:
    log = filled_log(5)
    key = log.index.keys.chunk(1)
    log.values[key] = log.values[key][:-1] + b"!"
    del log.values[log.index.keys.chunk(3)]
    replay, recovered = rebuilt(log)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == [*range(10), *range(20, 30), *range(40, 50)]
    assert (recovered.chunks, recovered.damaged, recovered.missing) == (3, 1, 1)
    assert replay.table.limiter.inserts == 50


def test_a_smaller_ring_recovers_the_newest() -> None:
    replay, _ = rebuilt(filled_log(5), capacity=25)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(25, 50))


def test_a_recovered_log_goes_on_where_it_ended() -> None:
    log = filled_log(5).after_restart()
    recover(log, Replay(ReplayConfig(durability="redis"), 0.0), lambda _: None)
    log.execute(log.prepare([chunk_write(5)]))
    kept = log.read()
    assert kept
    assert kept.state == LogState(head=6, tail=1, inserts=60, samples=77)
