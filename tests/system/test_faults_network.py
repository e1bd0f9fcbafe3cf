"""A bad network between actors and replay server: what is acknowledged is stored once, and all come back (P1, P3).

Each cut is made in the middle of a flow, by a proxy; what became of every chunk is proven from the audits.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.actor_node.processes import Node
from tests.conftest import wait_until

from .proxy import Proxy
from .site import ROWS, Site, kept, made_site, memory, told

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

Record = Callable[[str, object], None]


@contextlib.contextmanager
def behind_a_proxy(workers: int = 1, **replay: object) -> Iterator[tuple[Site, Proxy, Node]]:
    """Yields a site at level ram whose actors reach the replay server through a proxy."""
    with made_site(None, "ram", tcp=True, **replay) as site:
        site.begin()
        proxy = Proxy(int(site.processes.replay_url.rpartition(":")[2]))
        try:
            node = site.node(workers, "--replay", proxy.url)
            site.more(1_000)
            yield site, proxy, node
        finally:
            proxy.close()


def test_cuts_of_every_kind(record_property: Record) -> None:
    """T7."""
    with behind_a_proxy() as (site, proxy, node):
        cuts = {"held": proxy.hold, "forgotten": proxy.forget, "refused": proxy.refuse}
        for name, cut in cuts.items():
            said = node.log.count("reconnecting")
            cut()
            began = time.monotonic()
            if name != "refused":
                wait_until(
                    lambda said=said: node.log.count("reconnecting") > said,  # type: ignore[misc]
                    "its notice",
                )
            noticed_s = time.monotonic() - began
            proxy.heal()
            told(record_property, **{f"{name}_noticed_s": noticed_s, f"{name}_again_s": site.more(ROWS)})
        assert node.end() == 0
        told(record_property, **kept(site.audit_result()))


@pytest.mark.soak
@pytest.mark.parametrize("cut", ["hold", "forget", "refuse"])
def test_a_cut_of_half_a_minute(record_property: Record, cut: str) -> None:
    """T7."""
    with behind_a_proxy(workers=2) as (site, proxy, node):
        getattr(proxy, cut)()
        before = site.inserts() or 0
        time.sleep(30.0)  # the length of the cut is what is tried here
        assert site.processes.status().actor_count == (2 if cut == "forget" else 0)
        assert (site.inserts() or 0) - before <= 2 * 8 * ROWS or cut == "forget"
        proxy.heal()
        told(record_property, again_s=site.more(ROWS))
        wait_until(lambda: site.processes.status().actor_count == 2, "both actors")
        assert node.end() == 0
        told(record_property, **kept(site.audit_result()))


def test_a_slow_network_slows_the_actors_and_fills_nothing(record_property: Record) -> None:
    """T8."""
    with behind_a_proxy() as (site, proxy, node):
        [worker] = node.workers()
        before, waited = memory(worker.pid), node.metric('waiting_seconds_total{for="credit"}')
        proxy.bytes_per_s, began, forwarded = 1e5, time.monotonic(), proxy.forwarded
        wait_until(lambda: proxy.forwarded > forwarded + 600_000, "600 kB")
        rate = (proxy.forwarded - forwarded) / (time.monotonic() - began)
        grown = memory(worker.pid) - before
        waited = node.metric('waiting_seconds_total{for="credit"}') - waited
        told(record_property, bytes_per_s=rate, memory_grown_mib=grown / 2**20, waited_for_credit_s=waited)
        assert rate < 1.2e5
        assert grown < 4 * 2**20
        assert waited > 0.5 * (time.monotonic() - began)
        proxy.bytes_per_s = 0.0
        assert node.end() == 0
        told(record_property, **kept(site.audit_result()))


def test_every_flipped_bit_of_a_payload_is_found_and_the_chunk_sent_again(record_property: Record) -> None:
    """T9."""
    with behind_a_proxy() as (site, proxy, node):
        for count in range(1, 11):
            # One at a time: what follows a damaged chunk is a hole, and not looked at until it comes again.
            proxy.payloads_to_flip = 1
            wait_until(
                lambda count=count: site.processes.status().rejected.get("checksum") == count,  # type: ignore[misc]
                "a damaged chunk is found",
            )
            site.more(ROWS)
        assert node.end() == 0
        rejected = site.processes.status().rejected
        verdict = site.audit_result()
        told(record_property, flipped=proxy.flipped, rejected=rejected["checksum"], **kept(verdict))
        assert rejected == {"checksum": proxy.flipped}
        assert verdict.altered == 0


def test_flipped_bits_anywhere_break_connections_and_nothing_else(record_property: Record) -> None:
    """T9: in lengths, headers and commands too."""
    with behind_a_proxy() as (site, proxy, node):
        proxy.flip_anything = 0.01
        for _ in range(5):
            flipped = proxy.flipped
            wait_until(lambda flipped=flipped: proxy.flipped > flipped, "a flip")  # type: ignore[misc]
            site.more(ROWS)
        proxy.flip_anything = 0.0
        proxy.refuse()
        proxy.heal()
        site.more(10 * ROWS)
        assert node.end() == 0
        verdict = site.audit_result()
        told(record_property, flipped=proxy.flipped, **kept(verdict))
        assert verdict.altered == 0
