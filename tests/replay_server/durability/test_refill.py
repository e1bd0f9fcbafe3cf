"""A Redis that lost chunks while the replay server lives is given them again, before anything more is acknowledged."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from replay_server.config import ReplayConfig
from replay_server.durability.log_index import StoredChunk
from replay_server.durability.recovery import RingChunks, recover
from replay_server.replay import Replay
from tests.conftest import wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.durability.dict_log import DictLog
from tests.replay_server.durability.test_log_index import RUN as SMALL_RUN
from tests.replay_server.durability.test_log_index import chunk_write, filled_log
from tests.replay_server.peers import Actor, Peers, Server, stored
from tests.replay_server.runs import make_run, numbers

pytestmark = pytest.mark.slow

RUN = make_run(limit="off", capacity=300)
CHUNKS_HELD = 30


class Site:
    """A server over a Redis, and an actor that brings it chunks."""

    def __init__(self, server: Server, valkey: Valkey, peers: Peers) -> None:
        self.server, self.valkey = server, valkey
        peers.learner(RUN).open()
        self.actor: Actor = peers.actor(RUN)

    def logged(self, words: str) -> None:
        wait_until(lambda: words in self.server.log.read_text(), words)

    def found_again(self) -> list[int]:
        """Kills the server and returns the numbers of the records that its next life has, oldest first."""
        self.server.end(signal.SIGKILL)
        self.server.start()
        assert self.server.status().size >= RUN.spec.replay.capacity - 10
        return stored(self.valkey)["a"]


@pytest.fixture
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Valkey], Site]]:
    started: list[tuple[Server, Peers]] = []

    def make(valkey: Valkey) -> Site:
        server = Server(tmp_path_factory.mktemp("replay"), "--redis", valkey.url)
        server.start()
        started.append((server, Peers(server.endpoint)))
        return Site(server, valkey, started[-1][1])

    yield make
    for server, peers in started:
        peers.close()
        server.end()


def flush(valkey: Valkey) -> None:
    valkey.client().flushall()


def lose_memory(valkey: Valkey) -> None:
    valkey.kill()
    valkey.start()


@pytest.mark.parametrize("lose", [flush, lose_memory], ids=["flushed", "killed, without a file"])
def test_an_empty_redis_is_filled_again(
    make_site: Callable[[Valkey], Site], valkey: Valkey, lose: Callable[[Valkey], None]
) -> None:
    site = make_site(valkey)
    site.actor.deliver(50)
    lose(valkey)
    site.actor.deliver(53)
    site.logged("Redis is complete again")
    assert site.found_again() == list(range(54 - CHUNKS_HELD, 54))
    site.actor.deliver(60)
    assert site.found_again() == list(range(61 - CHUNKS_HELD, 61))


def test_a_redis_that_is_behind_gets_what_it_missed_and_nothing_outgrown_stays(
    make_site: Callable[[Valkey], Site], valkey: Valkey
) -> None:
    site = make_site(valkey)
    site.actor.deliver(40)
    valkey.client().save()
    site.actor.deliver(50)
    valkey.kill()
    valkey.start()
    site.actor.deliver(55)
    site.logged("Redis is complete again")
    keys = {key.decode().rpartition(":")[2] for key in valkey.client().scan_iter(match="*chunk:*")}
    assert keys == {str(number) for number in range(55 - CHUNKS_HELD, 55)}
    assert site.found_again() == list(range(56 - CHUNKS_HELD, 56))


def test_it_is_found_out_while_nothing_is_written(make_site: Callable[[Valkey], Site], valkey: Valkey) -> None:
    site = make_site(valkey)
    site.actor.deliver(40)
    flush(valkey)
    site.logged("Redis is complete again")
    assert site.found_again() == list(range(41 - CHUNKS_HELD, 41))


def test_what_it_was_given_again_and_has_lost_once_more_is_found_out_too(
    make_site: Callable[[Valkey], Site], valkey: Valkey
) -> None:
    """As when the machine fails while the file holds a part of the refill only: its counters are as they must be."""
    site = make_site(valkey)
    site.actor.deliver(40)
    flush(valkey)
    site.logged("Redis is complete again")
    client = valkey.client()
    assert client.unlink("shoal:{default}:chunk:20", "shoal:{default}:chunk:21") == 2
    client.hdel("shoal:{default}:state", "refills")
    again = "Redis is complete again"
    wait_until(lambda: site.server.log.read_text().count(again) == 2, again)
    assert site.found_again() == list(range(41 - CHUNKS_HELD, 41))


def test_the_first_transaction_over_an_empty_redis_is_no_loss(
    make_site: Callable[[Valkey], Site], valkey: Valkey
) -> None:
    site = make_site(valkey)
    site.actor.deliver(60)
    site.server.end(signal.SIGKILL)
    site.server.start()
    site.actor.deliver(70)
    site.server.end(signal.SIGTERM)
    assert "has lost" not in site.server.log.read_text()


# ---- chunks in the ring -------------------------------------------------------------------------------------------


def recovered(chunks: int) -> tuple[Replay, DictLog]:
    log = filled_log(chunks).after_restart()
    replay = Replay(ReplayConfig(durability="redis"), 0.0)
    recover(log, replay, lambda _: None)
    return replay, log


def test_a_chunk_in_the_ring_is_what_the_log_held() -> None:
    replay, log = recovered(7)
    ring = RingChunks(replay)
    held = log.index.chunks_from(0)
    assert [chunk.number for chunk in held] == [6, 5, 4, 3, 2]
    for chunk in held:
        assert ring.value(chunk) == log.values[log.index.keys.chunk(chunk.number)]


def test_a_chunk_that_is_partly_overwritten_is_gone() -> None:
    replay, log = recovered(7)
    assert replay.table
    oldest, newest = log.index.chunks_from(0)[-1], log.index.chunks_from(0)[0]
    replay.table.insert(replay.table.records(chunk_write(7, 3).payload))
    ring = RingChunks(replay)
    assert ring.value(oldest) is None
    assert ring.value(newest) == log.values[log.index.keys.chunk(newest.number)]


def test_what_is_not_what_the_header_says_is_never_given_out() -> None:
    replay, log = recovered(5)
    chunk = log.index.chunks_from(0)[0]
    displaced = StoredChunk(chunk.number, chunk.rows, chunk.header, chunk.end - 1)
    assert RingChunks(replay).value(displaced) is None


def test_missing_chunks_do_not_displace_the_others() -> None:
    log = filled_log(5)
    del log.values[log.index.keys.chunk(2)]
    log = log.after_restart()
    replay = Replay(ReplayConfig(durability="redis"), 0.0)
    recover(log, replay, lambda _: None)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == [*range(20), *range(30, 50)]
    assert SMALL_RUN.id == replay.table.run.id
    values = [RingChunks(replay).value(chunk) for chunk in log.index.chunks_from(0)]
    assert values == [log.values[log.index.keys.chunk(number)] for number in (4, 3, 1, 0)]


def test_only_what_an_older_log_may_hold_is_removed_from_it() -> None:
    book = filled_log(7).index
    assert book.chunks_from(0)[-1].number == 2
    assert book.evicted(range(1, 5)) == [book.keys.chunk(1)]
    assert book.evicted(range(1)) == [book.keys.chunk(0)]
    assert book.evicted(range(0)) == []
