"""What machines do to a run: a full disk, a full memory, a learner that is away, a crowd, a clock that jumps."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actor_node.replay_session import ReplaySession
from tests.actor_node.conftest import made_processes
from tests.conftest import wait_until
from tests.replay_server.conftest import Valkey

from .site import ROWS, Site, kept, made_site, memory, told

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

MakeValkey = Callable[..., Valkey]
Record = Callable[[str, object], None]
ROOT = Path(__file__).parents[2]


def said(site: Site) -> str:
    """Returns what the replay server says is being waited for."""
    status = site.processes.status()
    return " ".join((*status.waiting, status.last_error))


# ---- Redis without room -------------------------------------------------------------------------------------------


def test_a_redis_without_memory_stops_the_actors_says_so_and_nothing_is_lost(
    make_valkey: MakeValkey, record_property: Record
) -> None:
    with made_site(make_valkey) as site:
        assert site.valkey
        client = site.valkey.client()
        site.begin()
        node = site.node(1)
        site.more(500)
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 300_000)
        wait_until(lambda: "out of memory" in said(site), "the reason")
        stood = site.inserts() or 0
        wait_until(lambda: site.processes.status().actors[0].seconds_since_seen < 2, "the actor reports")
        assert (site.inserts() or 0) - stood <= 8 * ROWS, "a window at most is taken in"
        client.config_set("maxmemory", 0)
        site.more(500)
        assert node.end() == 0
        told(record_property, **kept(site.audit_result()))


@contextlib.contextmanager
def small_disk(directory: Path, megabytes: int) -> Iterator[Path]:
    """Yields a file system of so many megabytes; skips the test where that cannot be had."""
    directory.mkdir()
    size = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", directory], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode().strip()}")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)


@pytest.mark.soak
def test_a_full_disk_under_redis_stops_the_actors_until_there_is_room(record_property: Record) -> None:
    """T19."""
    with made_processes() as processes, small_disk(processes.directory / "disk", 8) as disk:
        valkey = Valkey(disk, "--appendonly", "yes", "--appendfsync", "everysec")
        valkey.start()
        try:
            site = Site(processes, valkey)
            site.begin()
            node = site.node(1)
            wait_until(lambda: "No space left" in said(site), "the reason")
            reason = said(site)
            subprocess.run(["mount", "-o", "remount,size=512m", disk], check=True)
            site.more(2_000)
            assert node.end() == 0
            told(record_property, reason=reason, **kept(site.audit_result()))
        finally:
            valkey.kill()


# ---- who is away, and who comes -----------------------------------------------------------------------------------


@pytest.mark.soak
def test_while_the_learner_is_away_nothing_grows(record_property: Record) -> None:
    """T6: two minutes; then all goes on at once."""
    with made_site(None, "ram", limit="strict", samples_per_insert=1.0, min_size=1_000) as site:
        site.begin()
        node = site.node(2)
        wait_until(lambda: "the learner" in said(site), "the reason")
        # A chunk for which an actor had credit may still be on its way.
        site.replay.logged("none is connected: 10 s so far")
        pids = {"replay": site.replay.process.pid, **{f"worker{i}": w.pid for i, w in enumerate(node.workers())}}
        before, stood = {name: memory(pid) for name, pid in pids.items()}, site.inserts()
        time.sleep(120.0)  # the length of the absence is what is tried here
        assert site.inserts() == stood
        for name, pid in pids.items():
            grown = memory(pid) / before[name] - 1.0
            told(record_property, **{f"{name}_grown_percent": 100.0 * grown})
            assert abs(grown) < 0.05
        began = time.monotonic()
        site.learner.open()
        site.learner.draw(64)
        wait_until(lambda: (site.inserts() or 0) > (stood or 0), "transitions")
        told(record_property, going_on_after_s=time.monotonic() - began)


def test_a_crowd_that_joins_at_once_has_the_newest_weights_before_it_acts(record_property: Record) -> None:
    """T16."""
    crowd = 32
    with made_site(None, "ram") as site:
        site.begin()
        site.learner.publish(version=7)
        wait_until(site.processes.answers, "the server has taken them")
        began = time.monotonic()
        links = [ReplaySession(f"a{i}", site.processes.replay_url, site.processes.weights_url) for i in range(crowd)]
        joined: dict[int, float] = {}
        try:

            def all_joined() -> bool:
                for i, link in enumerate(links):
                    link.poll(time.monotonic())
                    if link.waiting_for()[0] == "":
                        joined.setdefault(i, time.monotonic() - began)
                return len(joined) == crowd

            wait_until(all_joined, "all have run, weights and credit")
            assert {link.weights.header.version for link in links if link.weights} == {7}
            assert {link.outbox.incarnation for link in links} == {1}
        finally:
            for link in links:
                link.close()
        told(record_property, joined=len(joined), last_after_s=max(joined.values()))


# ---- clocks and ends ----------------------------------------------------------------------------------------------


def test_no_decision_is_made_by_the_clock_on_the_wall() -> None:
    """T18: leases, waits and budgets go by clocks that nobody can set; the date only stands in names and logs."""
    wall = re.compile(r"time\.time\(|datetime|gmtime\(|localtime\(|strftime\(")
    found = {
        str(path.relative_to(ROOT))
        for folder in ("common", "actor_node", "learner_node", "replay_server")
        for path in (ROOT / folder).rglob("*.py")
        if wall.search(path.read_text())
    }
    assert found == {
        "actor_node/evaluation/evaluator_process.py",
        "common/run/directory.py",
        "learner_node/reporting/evaluation_log.py",
        "learner_node/reporting/metrics_log.py",
    }


@pytest.mark.parametrize("order", ["actor, replay", "replay, actor"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
@pytest.mark.soak
def test_roles_end_cleanly_in_any_order(
    make_valkey: MakeValkey, record_property: Record, order: str, number: signal.Signals
) -> None:
    """T21: with the documented codes, no process and no socket left, and nothing acknowledged lost."""
    with made_site(make_valkey) as site:
        site.begin()
        node = site.node(2)
        site.more(500)
        workers = [worker.pid for worker in node.workers()]
        roles = {"actor": node, "replay": site.replay}
        took: list[float] = []
        for role in order.split(", "):
            began = time.monotonic()
            assert roles[role].end(number) == (0 if number == signal.SIGTERM else 130)
            took.append(time.monotonic() - began)
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
        assert not os.path.lexists(site.processes.replay_url.removeprefix("ipc://"))
        verdict = site.audit_result()
        told(record_property, slowest_end_s=max(took), **kept(verdict))
        assert verdict.torn_files == 0
