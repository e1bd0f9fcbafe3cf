"""Checks an audit ledger against the delivery promises. Pure.

The check replays each server's history and maintains the set of chunks that are present on the server. A chunk that the
server's next life does not recover is lost, unless newer transitions had overwritten it (`overwritten`).

    present --store chunk--> present + chunk      a chunk that is already present or overwritten is a duplicate
    present --next life recovers R--> R           R must contain the newest `capacity` transitions
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from replay_server.sessions.session import MAX_WINDOW_CHUNKS
from shoal.commands.audit.ledger import AuditLedger, ChunkKey, ServerLife


class AuditResult(msgspec.Struct, frozen=True):
    """The outcome of an audit: numbers of chunks, and the promises that are broken."""

    sent: int
    acknowledged: int
    stored: int
    present: int = msgspec.field(name="held")
    """Chunks in the newest lives of the servers, or in Redis if the audit read it."""
    overwritten: int = msgspec.field(name="outgrown")
    """Chunks that were stored and later overwritten by newer ones."""
    acknowledged_lost: int
    """Chunks that were acknowledged at a level that promises durability, and are lost."""
    acknowledged_lost_with_ram: int
    """Chunks that were acknowledged at level ram by a server that has ended since."""
    unacknowledged_lost: int
    """Chunks that were sent but neither acknowledged nor stored: lost with the actor."""
    most_lost_with_an_actor: int
    """The largest number of unacknowledged lost chunks in one life of a worker."""
    duplicates: int
    out_of_order: int
    altered: int
    """Chunks stored with records that differ from all that the actor sent; only actors with an audit file count."""
    worker_lives: int
    server_lives: int
    torn_files: int
    broken: list[str]
    """Descriptions of the broken promises; empty if all hold."""


class _ServerHistory(NamedTuple):
    """The chunks of one server after replaying its history."""

    safe: set[ChunkKey]
    """Chunks that are present or overwritten."""
    present: int
    lost_with_ram: set[ChunkKey]
    duplicates: int
    out_of_order: int


def check_deliveries(ledger: AuditLedger) -> AuditResult:
    """Returns the result of checking a ledger against the delivery promises."""
    histories = [_replay_history(lives) for lives in ledger.servers.values()]
    safe = set[ChunkKey]().union(*(one.safe for one in histories))
    lost_with_ram = set[ChunkKey]().union(*(one.lost_with_ram for one in histories))
    sent = {chunk.key: chunk.acknowledged for life in ledger.sent for chunk in life}
    gone = {key for key, acknowledged in sent.items() if acknowledged and key not in safe}
    unacknowledged = [sum(not c.acknowledged and c.key not in safe for c in life) for life in ledger.sent]
    stored = [key for lives in ledger.servers.values() for life in lives for key, _ in life.stored]
    audited = {(key.actor, key.incarnation) for key in sent}
    present = sum(one.present for one in histories)
    figures = {
        "sent": len(sent),
        "acknowledged": sum(sent.values()),
        "stored": len(stored),
        "present": present,
        "overwritten": len(safe) - present,
        "acknowledged_lost": len(gone - lost_with_ram),
        "acknowledged_lost_with_ram": len(gone & lost_with_ram),
        "unacknowledged_lost": sum(unacknowledged),
        "most_lost_with_an_actor": max(unacknowledged, default=0),
        "duplicates": sum(one.duplicates for one in histories),
        "out_of_order": sum(one.out_of_order for one in histories),
        "altered": sum(key not in sent and (key.actor, key.incarnation) in audited for key in stored),
    }
    return AuditResult(
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
        "out_of_order": "chunks are stored out of order",
        "altered": "stored chunks differ from what the actor sent",
    }
    broken = [f"{figures[name]} {text}" for name, text in promises.items() if figures[name]]
    if figures["most_lost_with_an_actor"] > MAX_WINDOW_CHUNKS:
        broken.append(
            f"{figures['most_lost_with_an_actor']} chunks are lost with one worker; at most {MAX_WINDOW_CHUNKS} may be"
        )
    return broken


def _replay_history(lives: Iterable[ServerLife]) -> _ServerHistory:
    present: dict[ChunkKey, int] = {}
    overwritten, lost_with_ram = set[ChunkKey](), set[ChunkKey]()
    duplicates = out_of_order = capacity = 0
    durability = ""
    for life in lives:
        if durability:
            found = dict(life.recovered)
            duplicates += len(life.recovered) - len(found)
            needed = _newest(present, capacity)
            overwritten |= present.keys() - found.keys() - needed
            if durability == "ram":
                lost_with_ram |= needed - found.keys()
            present = found
        last = {(key.actor, key.incarnation): key.seq for key in present}
        arrived = set[tuple[str, int]]()
        for key, rows in life.stored:
            again = key in present or key in overwritten
            duplicates += again
            if not again:
                out_of_order += _breaks_order(key, last, arrived)
            present[key] = rows
        durability, capacity = life.durability, life.capacity or capacity
    inside = _newest(present, capacity) if capacity else present.keys()
    return _ServerHistory(overwritten | present.keys(), len(inside), lost_with_ram, duplicates, out_of_order)


def _newest(present: dict[ChunkKey, int], capacity: int) -> set[ChunkKey]:
    """Returns the newest chunks that fit entirely into `capacity` transitions."""
    newest, rows = set[ChunkKey](), 0
    for key in reversed(present):
        rows += present[key]
        if rows > capacity:
            break
        newest.add(key)
    return newest


def _breaks_order(key: ChunkKey, last: dict[tuple[str, int], int], arrived: set[tuple[str, int]]) -> bool:
    """Returns whether a chunk is not the next of its actor's incarnation, and records its arrival.

    The first chunk in a server's life may follow chunks that the server lost: a loss does not break the order.
    """
    sender = (key.actor, key.incarnation)
    expected = last.get(sender, 0) + 1
    breaks = key.seq < expected or (sender in arrived and key.seq != expected)
    arrived.add(sender)
    last[sender] = key.seq
    return breaks
