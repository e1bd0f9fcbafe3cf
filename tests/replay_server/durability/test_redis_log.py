"""The chunk log over a real Valkey."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from common.errors import ConfigError, PeerError
from common.process.stop import Stop
from replay_server.config import ReplayConfig
from replay_server.durability import redis_connection as redis_link
from replay_server.durability.chunk_log import StoreRun, StoreSamples, StoreWeights
from replay_server.durability.committer import Committer
from replay_server.durability.log_index import LogState
from replay_server.durability.recovery import RecoveryResult, recover
from replay_server.durability.redis_connection import (
    WaitInterrupted,
    make_client,
    redacted,
    refuse_second_server,
    refuse_unsafe,
    wait_for_redis,
)
from replay_server.durability.redis_log import RedisLog
from replay_server.replay import Replay
from tests.conftest import wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.durability.test_log_index import chunk_write
from tests.replay_server.runs import make_run, make_weights, numbers

RUN = make_run(capacity=50)


def make_log(valkey: Valkey, name: str = "test", *, fsync: bool = False) -> RedisLog:
    return RedisLog(make_client(valkey.url, f"test:{name}"), name, fsync=fsync)


def fill(log: RedisLog, chunks: int) -> None:
    """Writes a run, weights, and chunks that number their records from 0 on."""
    log.execute(log.prepare([StoreRun(RUN, 50, replaces_run=True), StoreWeights(3, make_weights(RUN, 3))]))
    for number in range(chunks):
        log.execute(log.prepare([chunk_write(number, first=number * 10)]))
    log.execute(log.prepare([StoreSamples(77)]))


def rebuilt(valkey: Valkey) -> tuple[Replay, RecoveryResult]:
    replay = Replay(ReplayConfig(durability="redis"), 0.0)
    log = make_log(valkey)
    try:
        return replay, recover(log, replay, lambda _: None)
    finally:
        log.close()


def test_what_is_written_is_recovered(valkey: Valkey) -> None:
    log = make_log(valkey)
    assert log.read() is None
    fill(log, 7)
    log.close()
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(20, 70))
    assert (recovered.chunks, recovered.damaged, recovered.missing) == (5, 0, 0)
    assert (replay.table.limiter.inserts, replay.table.limiter.samples) == (70, 77)
    assert replay.actors.sessions["a"].durable == 7
    assert replay.weights.version == 3
    assert {key.decode() for key in valkey.client().scan_iter()} == {
        *(f"shoal:{{test}}:{name}" for name in ("state", "actors", "run", "weights")),
        *(f"shoal:{{test}}:chunk:{number}" for number in range(2, 7)),
    }


def test_many_chunks_are_read_in_parts(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("replay_server.durability.redis_log.READ_BYTES", 2_000)
    log = make_log(valkey)
    log.execute(log.prepare([StoreRun(make_run(capacity=500), 500, replaces_run=True)]))
    log.execute(log.prepare([chunk_write(number, first=number * 10) for number in range(50)]))
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(500))
    assert recovered.chunks == 50


def test_names_do_not_touch_each_other(valkey: Valkey) -> None:
    one, other = make_log(valkey, "one"), make_log(valkey, "one-more")
    fill(one, 2)
    fill(other, 2)
    assert one.discard() == 6
    assert one.read() is None
    kept = other.read()
    assert kept
    assert kept.state == LogState(head=2, inserts=20, samples=77)


def test_something_else_under_the_name_is_not_taken_for_a_log(valkey: Valkey) -> None:
    valkey.client().set("shoal:{test}:run", b"{}")
    with pytest.raises(ConfigError, match="--fresh, or choose another --name"):
        make_log(valkey).read()


def test_a_killed_redis_is_found_again_with_its_data(make_valkey: Callable[..., Valkey]) -> None:
    valkey = make_valkey("--appendonly", "yes", "--appendfsync", "always")
    log = make_log(valkey)
    fill(log, 3)
    valkey.kill()
    transaction = log.prepare([chunk_write(3, first=30)])
    for _ in range(2):
        with pytest.raises(PeerError):
            log.execute(transaction)
    valkey.start()
    log.execute(transaction)
    log.execute(log.prepare([chunk_write(4, first=40)]))
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(50))
    assert recovered.missing == 0


def test_a_redis_that_lost_its_data_gets_the_definitions_again(valkey: Valkey) -> None:
    log = make_log(valkey)
    fill(log, 3)
    valkey.kill()
    transaction = log.prepare([chunk_write(3, first=30)])
    with pytest.raises(PeerError):
        log.execute(transaction)
    valkey.start()
    log.execute(transaction)
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(30, 40))
    assert (recovered.missing, replay.actors.sessions["a"].durable, replay.weights.version) == (3, 4, 3)
    assert replay.table.limiter.samples == 77


def test_a_full_redis_takes_all_or_nothing_and_is_tried_again(valkey: Valkey) -> None:
    log = make_log(valkey)
    fill(log, 1)
    valkey.client().config_set("maxmemory", 1)
    transaction = log.prepare([chunk_write(1), StoreSamples(99)])
    with pytest.raises(PeerError, match="out of memory; raise its maxmemory"):
        log.execute(transaction)
    kept = make_log(valkey).read()
    assert kept
    assert (kept.state.head, kept.state.samples) == (1, 77)
    valkey.client().config_set("maxmemory", 0)
    log.execute(transaction)
    kept = make_log(valkey).read()
    assert kept
    assert (kept.state.head, kept.state.samples) == (2, 99)


def test_a_wrong_type_under_a_key_is_an_error_and_not_an_acknowledgement(valkey: Valkey) -> None:
    log = make_log(valkey)
    valkey.client().set(log.index.keys.actors, "not a hash")
    with pytest.raises(PeerError, match="WRONGTYPE"):
        log.execute(log.prepare([chunk_write(0)]))


def test_a_redis_that_does_not_answer_is_an_error(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 0.2)
    log = make_log(valkey)
    fill(log, 1)
    valkey.pause()
    transaction = log.prepare([chunk_write(1)])
    with pytest.raises(PeerError, match="does not answer"):
        log.execute(transaction)
    valkey.resume()
    log.execute(transaction)
    assert valkey.client().hget(log.index.keys.state, "head") == b"2"


@pytest.mark.slow
def test_the_committer_goes_on_when_redis_does(make_valkey: Callable[..., Valkey]) -> None:
    valkey = make_valkey("--appendonly", "yes", "--appendfsync", "always")
    log = make_log(valkey)
    fill(log, 0)
    committer = Committer(log)
    reported = []
    try:
        for number in range(30):
            if number == 10:
                valkey.kill()
            committer.submit([chunk_write(number, first=number * 10)])
            if number == 20:
                wait_until(lambda: committer.error, "the failure")
                valkey.start()
        wait_until(lambda: committer.idle, "the commits")
        reported = committer.take_reports()
    finally:
        committer.close()
    assert reported[-1].number == 29
    assert committer.error == ""
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(250, 300))
    assert recovered.missing == 0


# ---- fsync --------------------------------------------------------------------------------------------------------


def test_fsync_needs_an_append_only_file(valkey: Valkey) -> None:
    with pytest.raises(ConfigError, match="start it with --appendonly yes"):
        refuse_unsafe(make_client(valkey.url, "test"), valkey.url, fsync=True)
    refuse_unsafe(make_client(valkey.url, "test"), valkey.url, fsync=False)


@pytest.mark.slow
def test_at_fsync_nothing_is_lost_with_redis(make_valkey: Callable[..., Valkey]) -> None:
    """Flushes come each second: what is acknowledged has waited for one, and survives a kill right after."""
    valkey = make_valkey("--appendonly", "yes", "--appendfsync", "everysec")
    refuse_unsafe(make_client(valkey.url, "test"), valkey.url, fsync=True)
    log = make_log(valkey, fsync=True)
    log.execute(log.prepare([StoreRun(RUN, 50, replaces_run=True), *(chunk_write(i, first=i * 10) for i in range(5))]))
    valkey.kill()
    valkey.start()
    replay, recovered = rebuilt(valkey)
    assert replay.table
    assert numbers(replay.table.ring.in_order()) == list(range(50))
    assert recovered.missing == 0


# ---- the way there ------------------------------------------------------------------------------------------------


def reach(url: str, wait_s: float = 0.0, stop: Stop | None = None) -> None:
    wait_for_redis(make_client(url, "test"), url, wait_s, stop or Stop(), lambda _: None)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:port"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"write redis://HOST:PORT/DB"):
        make_client(url, "test")


def test_no_redis_is_a_missing_peer_with_the_way_out() -> None:
    with pytest.raises(PeerError, match=r"start one .*--redis none"):
        reach("redis://127.0.0.1:1")


def test_the_wait_for_redis_ends_on_request() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(WaitInterrupted):
        reach("redis://127.0.0.1:1", wait_s=60.0, stop=stop)


def test_passwords_are_wanted_but_never_shown(make_valkey: Callable[..., Valkey]) -> None:
    valkey = make_valkey()
    valkey.client().config_set("requirepass", "right")
    for url in (valkey.url, valkey.url + "?password=wr0ng"):
        with pytest.raises(ConfigError, match="SHOAL_REDIS") as error:
            reach(url)
        assert "wr0ng" not in str(error.value)
    reach(valkey.url + "?password=right")


def test_a_user_with_few_rights_is_enough(valkey: Valkey) -> None:
    rights = "~shoal:* +@read +@write +@transaction +ping +client|setname"
    valkey.client().execute_command("ACL", "SETUSER", "replay", "on", ">right", *rights.split())
    url = f"unix://replay@{valkey.socket}?password=right"
    reach(url)
    client = make_client(url, "shoal-replay:x")
    refuse_unsafe(client, url, fsync=False)
    refuse_second_server(client, "shoal-replay:x", "x", 0.0, Stop())
    log = RedisLog(client, "test", fsync=False)
    fill(log, 3)
    assert log.read()
    assert log.discard() == 7


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://user:secret@host:6379/2", "redis://host:6379/2"),
        ("rediss://:secret@host/0?password=secret", "rediss://host/0"),
        (":secret@host:6379", "(this)"),
        ("redis://:sec/ret@host:6379", "redis://(an address that cannot be read)"),
        ("redis://user:sec?ret@host", "redis://(an address that cannot be read)"),
        ("unix://user@/run/redis.sock?db=1&password=secret", "unix:///run/redis.sock"),
    ],
)
def test_addresses_are_shown_without_secrets(url: str, expected: str) -> None:
    assert redacted(url) == expected


def test_a_redis_that_evicts_is_refused(valkey: Valkey) -> None:
    client = valkey.client()
    client.config_set("maxmemory-policy", "allkeys-lru")
    refuse_unsafe(client, valkey.url, fsync=False)
    client.config_set("maxmemory", 2**30)
    with pytest.raises(ConfigError, match="set it to noeviction"):
        refuse_unsafe(client, valkey.url, fsync=False)


def test_a_second_server_under_the_same_name_is_refused_while_the_first_lives(valkey: Valkey) -> None:
    first, second, other = (make_client(valkey.url, f"shoal-replay:{name}") for name in ("x", "x", "y"))
    for client in (first, second, other):
        client.ping()
    refuse_second_server(other, "shoal-replay:y", "y", 0.0, Stop())
    with pytest.raises(ConfigError, match="--name x is in use by another replay server"):
        refuse_second_server(second, "shoal-replay:x", "x", 0.0, Stop())
    first.close()
    started = time.monotonic()
    refuse_second_server(second, "shoal-replay:x", "x", 5.0, Stop())
    assert time.monotonic() - started < 2.0
