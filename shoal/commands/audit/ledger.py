"""The ledger: a directory of audit files, and what a Redis holds, read into who sent and who stored which chunk."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError, ProtocolError
from common.transitions import transition_dtype
from common.wire.audit import SUFFIX, Acknowledged, Event, Life, Recovered, Sent, Serving, Stored, digest, read_events
from replay_server.durability.chunk_format import unpack_chunk
from replay_server.durability.redis_connection import make_client
from replay_server.durability.redis_log import RedisLog


class Key(NamedTuple):
    """Names a chunk and its very records."""

    actor: str
    incarnation: int
    seq: int
    digest: str


class SentChunk(NamedTuple):
    """A chunk as its actor knows it."""

    key: Key
    acknowledged: bool


class ServerLife(NamedTuple):
    """One life of a replay server."""

    durability: str
    recovered: list[tuple[Key, int]]
    """Chunks found at the start, oldest first, with their rows."""
    stored: list[tuple[Key, int]]
    capacity: int
    """Transitions its ring held at last; 0: it stored nothing."""


class Ledger(NamedTuple):
    """All that is known of a run's deliveries."""

    sent: list[list[SentChunk]]
    """By life of a worker."""
    servers: dict[str, list[ServerLife]]
    """By name, in order."""
    torn: int
    """Files whose last line was not written whole."""


def read_sent(directory: Path) -> tuple[list[list[SentChunk]], int]:
    """Returns what the actors of a directory noted, and in how many files the last line was torn."""
    lives, torn = [], 0
    for file in sorted(directory.glob(f"actor-*{SUFFIX}")):
        events, was_torn = read_events(file)
        torn += was_torn
        acknowledged: dict[int, int] = defaultdict(int)
        for event in events:
            if isinstance(event, Acknowledged):
                acknowledged[event.incarnation] = max(acknowledged[event.incarnation], event.seq)
        lives.append(
            [
                SentChunk(_key(event), event.seq <= acknowledged[event.incarnation])
                for event in events
                if isinstance(event, Sent)
            ]
        )
    return lives, torn


def read_servers(directory: Path) -> tuple[dict[str, list[ServerLife]], int]:
    """Returns what the replay servers of a directory noted, and in how many files the last line was torn.

    A life that has not read all of its log, or was killed at it, says nothing of what there is: it is left out.
    """
    servers: dict[str, list[ServerLife]] = defaultdict(list)
    torn = 0
    for file in sorted(directory.glob(f"replay-*{SUFFIX}")):
        events, was_torn = read_events(file)
        torn += was_torn
        if events:
            name, life = _server_life(events)
            servers[name] += [life] if any(isinstance(event, Serving) for event in events) else []
    return dict(servers), torn


def read_redis(url: str, name: str) -> list[tuple[Key, int]]:
    """Returns the chunks that a Redis holds under a name, oldest first; ConfigError, PeerError."""
    log = RedisLog(make_client(url, "shoal-audit"), name, fsync=False)
    try:
        kept = log.read()
        if kept is None:
            return []
        record_bytes = transition_dtype(kept.run.joint).itemsize
        found = []
        for number, value in log.chunks(kept.state):
            try:
                chunk, payload = unpack_chunk(value or b"", number, record_bytes)
            except ProtocolError:
                continue
            found.append((Key(chunk.actor, chunk.incarnation, chunk.seq, digest(payload)), chunk.count))
        return found
    finally:
        log.close()


def read_ledger(directory: Path, redis_url: str, name: str) -> Ledger:
    """Reads everything; ConfigError when nothing was noted.

    Actors come first and servers last: what is acknowledged in the one is then stored in the others, even if the run
    goes on. What Redis holds counts as what the server's next life would find.
    """
    sent, torn_sent = read_sent(directory)
    in_redis = read_redis(redis_url, name) if redis_url else None
    servers, torn_servers = read_servers(directory)
    if not sent and not servers:
        raise ConfigError(f"{directory} holds no audit; start `shoal train`, `replay` and `actor` with --audit")
    if in_redis is not None:
        if name not in servers:
            known = ", ".join(servers) or "none"
            raise ConfigError(f"no audit of a replay server named {name} (there is: {known}); give its --name")
        servers[name].append(ServerLife("redis", in_redis, [], 0))
    return Ledger(sent, servers, torn_sent + torn_servers)


def _server_life(events: list[Event]) -> tuple[str, ServerLife]:
    life = events[0]
    if not isinstance(life, Life):
        raise ConfigError("an audit file does not begin with its owner; it is damaged")
    recovered = [(_key(event), event.rows) for event in events if isinstance(event, Recovered)]
    stored = [(event, event.capacity) for event in events if isinstance(event, Stored)]
    capacity = stored[-1][1] if stored else 0
    return life.name, ServerLife(
        life.durability, recovered, [(_key(event), event.rows) for event, _ in stored], capacity
    )


def _key(event: Sent | Stored | Recovered) -> Key:
    return Key(event.actor, event.incarnation, event.seq, event.digest)
