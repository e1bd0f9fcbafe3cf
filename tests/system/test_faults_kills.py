"""Processes that die: nothing acknowledged is lost, nothing stored twice, whoever is killed and however often (P1, P2).

What became of every chunk is proven from the audits of all lives of all processes and from what Redis holds.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import psutil
import pytest

from replay_server.sessions.session import LEASE_S
from tests.actor_node.processes import Node
from tests.conftest import PATIENCE_S, wait_until
from tests.replay_server.conftest import Valkey

from .site import ROWS, kept, made_site, told

pytestmark = [pytest.mark.system, pytest.mark.timeout(1800)]

MakeValkey = Callable[..., Valkey]
Record = Callable[[str, object], None]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def kill_a_worker(node: Node, rng: random.Random) -> float:
    """Kills any worker; returns the seconds until as many run as before, without the delay that is on purpose."""
    workers = node.workers()
    victim = rng.choice(workers)
    restarts = len(delays_s(node))
    killed_at = time.monotonic()
    victim.kill()
    # The log is asked first: the processes alone may seem to have changed before the node has noticed anything.
    wait_until(
        lambda: len(delays_s(node)) > restarts and len(node.workers()) >= len(workers),
        "another worker",
    )
    return time.monotonic() - killed_at - delays_s(node)[-1]


def delays_s(node: Node) -> list[float]:
    """Returns the delays of all restarts that the node has announced."""
    return [float(delay) for delay in re.findall(r"restarts in (\d+\.\d+) s", node.log)]


def test_one_kill_of_each(make_valkey: MakeValkey, record_property: Record) -> None:
    rng = random.Random(0)
    with made_site(make_valkey) as site:
        assert site.valkey
        site.begin()
        node = site.node(2)
        site.more(2_000)
        kill_a_worker(node, rng)
        site.more(1_000)
        site.kill(site.replay)
        site.serve()
        site.more(1_000)
        site.valkey.kill()
        site.valkey.start()
        site.more(1_000)
        site.kill(site.replay)
        site.serve()
        site.more(1_000)
        assert node.end() == 0
        told(record_property, **kept(site.audit_result()))


@pytest.mark.soak
def test_workers_killed(make_valkey: MakeValkey, record_property: Record) -> None:
    """T1."""
    rng, kills = random.Random(1), 20
    with made_site(make_valkey) as site:
        site.begin()
        node = site.node(5)
        wait_until(lambda: len(site.processes.status().actors) == 5, "five actors")
        back: list[float] = []
        for _ in range(kills):
            site.more(rng.randrange(64, 4_000))
            back.append(kill_a_worker(node, rng))
        site.more(1_000)
        assert node.end() == 0
        verdict = site.audit_result()
        told(record_property, kills=kills, **kept(verdict), most_lost_with_one=verdict.most_lost_with_an_actor)
        told(record_property, respawn_s=max(back))
        # One that is killed while it starts has written nothing yet.
        assert verdict.worker_lives > 5


@pytest.mark.soak
def test_supervisors_killed(make_valkey: MakeValkey, record_property: Record) -> None:
    """T2."""
    rng, kills = random.Random(2), 20
    with made_site(make_valkey) as site:
        site.begin()
        gone: list[float] = []
        for _ in range(kills):
            node = site.node(1)
            site.more(rng.randrange(64, 4_000))
            workers = node.workers()
            began = time.monotonic()
            site.kill(node)
            wait_until(lambda workers=workers: all(is_gone(worker) for worker in workers), "no orphans")
            gone.append(time.monotonic() - began)
        wait_until(lambda: site.processes.status().actor_count == 0, "no actors left", within_s=LEASE_S + PATIENCE_S)
        told(record_property, kills=kills, **kept(site.audit_result()), orphans_gone_s=max(gone))


@pytest.mark.soak
@pytest.mark.parametrize("level", ["redis", "fsync"])
def test_replay_servers_killed(make_valkey: MakeValkey, record_property: Record, level: str) -> None:
    """T3."""
    rng, kills = random.Random(3), 20
    with made_site(make_valkey, level) as site:
        site.begin()
        node = site.node(2)
        resumed: list[float] = []
        for _ in range(kills):
            site.more(rng.randrange(64, 2_000))
            site.kill(site.replay)
            site.serve()
            resumed.append(site.more(ROWS))
        assert node.end() == 0
        verdict = site.audit_result()
        told(record_property, kills=kills, **kept(verdict), acting_again_s=max(resumed))
        assert verdict.server_lives == kills + 2, "each life, and what Redis holds now"
        assert verdict.unacknowledged_lost == 0


@pytest.mark.soak
@pytest.mark.parametrize("file", [True, False], ids=["with a file", "without"])
def test_redis_killed_while_the_replay_server_lives(
    make_valkey: MakeValkey, record_property: Record, file: bool
) -> None:
    """T4, level redis: what the file had not on disk, without one everything, is written again from the ring."""
    rng, kills = random.Random(4), 20
    with made_site(make_valkey, file=file) as site:
        assert site.valkey
        site.begin()
        node = site.node(2)
        for _ in range(kills):
            site.more(rng.randrange(64, 3_000))
            site.valkey.kill()
            site.valkey.start()
            site.replay.logged("chunk log commits again")
            # The next life has nothing but Redis, which must hold all by now.
            site.kill(site.replay)
            site.serve()
        site.more(ROWS)
        assert node.end() == 0
        told(record_property, kills=kills, **kept(site.audit_result()))


@pytest.mark.soak
def test_redis_and_replay_server_killed_together(make_valkey: MakeValkey, record_property: Record) -> None:
    """T4, level fsync: what was acknowledged is on disk, whatever else is gone."""
    rng, kills = random.Random(5), 20
    with made_site(make_valkey, "fsync") as site:
        assert site.valkey
        site.begin()
        node = site.node(2)
        for _ in range(kills):
            site.more(rng.randrange(64, 2_000))
            site.valkey.kill()
            site.kill(site.replay)
            site.valkey.start()
            site.serve()
        site.more(ROWS)
        assert node.end() == 0
        told(record_property, kills=kills, **kept(site.audit_result()))


@pytest.mark.soak
def test_redis_and_replay_server_killed_together_at_level_redis(
    make_valkey: MakeValkey, record_property: Record
) -> None:
    """T4: two seconds of acknowledged chunks may go with both, and no more."""
    rng, kills = random.Random(6), 20
    lost: list[int] = []
    rates: list[float] = []
    with made_site(make_valkey) as site:
        assert site.valkey
        site.begin()
        node = site.node(2)
        for _ in range(kills):
            seconds = site.more(rows := rng.randrange(1_000, 4_000))
            rates.append(rows / seconds)
            before = site.inserts() or 0
            site.valkey.kill()
            site.kill(site.replay)
            site.valkey.start()
            site.serve()
            lost.append(max(before - (site.inserts() or 0), 0))
        assert node.end() == 0
        verdict = site.audit_result()
        told(record_property, kills=kills, most_rows_lost=max(lost), rows_per_s=max(rates))
        told(record_property, acknowledged_lost=verdict.acknowledged_lost, duplicates=verdict.duplicates)
        assert verdict.duplicates == verdict.out_of_order == verdict.altered == 0
        assert verdict.acknowledged_lost * ROWS <= 2.0 * max(rates) * kills


def test_the_audit_finds_a_chunk_that_is_gone(make_valkey: MakeValkey) -> None:
    """An audit that could not fail would prove nothing: a chunk taken out of Redis is found out."""
    with made_site(make_valkey) as site:
        assert site.valkey
        site.begin()
        node = site.node(1)
        site.more(500)
        assert node.end() == 0
        client = site.valkey.client()
        head = int(client.hget("shoal:{default}:state", "head") or 0)
        client.delete(f"shoal:{{default}}:chunk:{head - 2}")
        verdict = site.audit_result()
        assert verdict.acknowledged_lost == 1
        assert verdict.broken == ["1 acknowledged chunks are lost"]
