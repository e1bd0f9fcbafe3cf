"""The verdict: what a ledger says of the promises of delivery. Pure.

A server's history is played through: what it stores it holds; what its next life does not find again is lost, unless
newer transitions had taken its place (outgrown).

    held --store--> held + chunk                 again what is held or outgrown: a duplicate
    held --next life finds R--> R                of the newest `capacity` transitions all must be in R
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from replay_server.sessions.session import WINDOW_CHUNKS
from shoal.commands.audit.ledger import Key, Ledger, ServerLife


class Verdict(msgspec.Struct, frozen=True):
    """The figures, in chunks."""

    sent: int
    acknowledged: int
    stored: int
    held: int
    """By the newest lives of the servers, or by Redis where it was asked."""
    outgrown: int
    """Stored, and overwritten by newer ones since."""
    acknowledged_lost: int
    """Acknowledged at a level that promises to keep it, and gone."""
    acknowledged_lost_with_ram: int
    """Acknowledged at level ram by a server that has ended since."""
    unacknowledged_lost: int
    """Sent, not acknowledged, not stored: lost with the actor."""
    most_lost_with_an_actor: int
    """The most of them in one life of a worker."""
    duplicates: int
    out_of_order: int
    altered: int
    """Stored with other records than any that were sent, by an actor whose audit is here."""
    worker_lives: int
    server_lives: int
    torn_files: int
    broken: list[str]
    """Promises that do not hold, in words; empty when all do."""


class _Played(NamedTuple):
    """What became of one server's chunks."""

    safe: set[Key]
    """Held or outgrown."""
    held: int
    lost_with_ram: set[Key]
    duplicates: int
    out_of_order: int


def judge(ledger: Ledger) -> Verdict:
    """Returns the verdict over a ledger."""
    played = [_play(lives) for lives in ledger.servers.values()]
    safe = set[Key]().union(*(one.safe for one in played))
    lost_with_ram = set[Key]().union(*(one.lost_with_ram for one in played))
    sent = {chunk.key: chunk.acknowledged for life in ledger.sent for chunk in life}
    gone = {key for key, acknowledged in sent.items() if acknowledged and key not in safe}
    unacknowledged = [sum(not c.acknowledged and c.key not in safe for c in life) for life in ledger.sent]
    stored = [key for lives in ledger.servers.values() for life in lives for key, _ in life.stored]
    audited = {(key.actor, key.incarnation) for key in sent}
    held = sum(one.held for one in played)
    figures = {
        "sent": len(sent),
        "acknowledged": sum(sent.values()),
        "stored": len(stored),
        "held": held,
        "outgrown": len(safe) - held,
        "acknowledged_lost": len(gone - lost_with_ram),
        "acknowledged_lost_with_ram": len(gone & lost_with_ram),
        "unacknowledged_lost": sum(unacknowledged),
        "most_lost_with_an_actor": max(unacknowledged, default=0),
        "duplicates": sum(one.duplicates for one in played),
        "out_of_order": sum(one.out_of_order for one in played),
        "altered": sum(key not in sent and (key.actor, key.incarnation) in audited for key in stored),
    }
    return Verdict(
        **figures,
        worker_lives=len(ledger.sent),
        server_lives=sum(len(lives) for lives in ledger.servers.values()),
        torn_files=ledger.torn,
        broken=_broken(figures),
    )


def _broken(figures: dict[str, int]) -> list[str]:
    promises = {
        "acknowledged_lost": "acknowledged chunks are lost",
        "duplicates": "chunks are stored twice",
        "out_of_order": "chunks are stored out of their order",
        "altered": "chunks are stored that no actor sent so",
    }
    broken = [f"{figures[name]} {words}" for name, words in promises.items() if figures[name]]
    if figures["most_lost_with_an_actor"] > WINDOW_CHUNKS:
        broken.append(f"{figures['most_lost_with_an_actor']} chunks are lost with one worker, not {WINDOW_CHUNKS}")
    return broken


def _play(lives: Iterable[ServerLife]) -> _Played:
    held: dict[Key, int] = {}
    outgrown, lost_with_ram = set[Key](), set[Key]()
    duplicates = out_of_order = capacity = 0
    durability = ""
    for life in lives:
        if durability:
            found = dict(life.recovered)
            duplicates += len(life.recovered) - len(found)
            needed = _newest(held, capacity)
            outgrown |= held.keys() - found.keys() - needed
            if durability == "ram":
                lost_with_ram |= needed - found.keys()
            held = found
        last = {(key.actor, key.incarnation): key.seq for key in held}
        arrived = set[tuple[str, int]]()
        for key, rows in life.stored:
            again = key in held or key in outgrown
            duplicates += again
            if not again:
                out_of_order += _breaks_order(key, last, arrived)
            held[key] = rows
        durability, capacity = life.durability, life.capacity or capacity
    inside = _newest(held, capacity) if capacity else held.keys()
    return _Played(outgrown | held.keys(), len(inside), lost_with_ram, duplicates, out_of_order)


def _newest(held: dict[Key, int], capacity: int) -> set[Key]:
    """Returns the newest chunks that fit into `capacity` transitions whole."""
    newest, rows = set[Key](), 0
    for key in reversed(held):
        rows += held[key]
        if rows > capacity:
            break
        newest.add(key)
    return newest


def _breaks_order(key: Key, last: dict[tuple[str, int], int], arrived: set[tuple[str, int]]) -> bool:
    """Says whether a chunk is not the next one of its actor's incarnation; notes that it has come.

    The first one in a server's life may follow chunks that the server has lost: that is a loss, not a disorder.
    """
    whose = (key.actor, key.incarnation)
    expected = last.get(whose, 0) + 1
    breaks = key.seq < expected or (whose in arrived and key.seq != expected)
    arrived.add(whose)
    last[whose] = key.seq
    return breaks
