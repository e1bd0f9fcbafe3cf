"""The audit ledger: which chunks were sent and which were stored, read from audit files and from Redis."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError, ProtocolError
from common.transitions import transition_dtype
from common.wire.audit import (
    SUFFIX,
    Acknowledged,
    Event,
    ProcessStart,
    Recovered,
    Sent,
    Serving,
    Stored,
    digest,
    read_events,
)
from replay_server.durability.chunk_format import unpack_chunk
from replay_server.durability.redis_connection import make_client
from replay_server.durability.redis_log import RedisLog


class ChunkKey(NamedTuple):
    """Identifies a chunk by its sender, its sequence number and the digest of its records."""

    actor: str
    incarnation: int
    seq: int
    digest: str


class SentChunk(NamedTuple):
    """A chunk that an actor sent, and whether the actor received the acknowledgement."""

    key: ChunkKey
    acknowledged: bool


class ServerLife(NamedTuple):
    """One life of a replay server: from its start to its end."""

    durability: str
    recovered: list[tuple[ChunkKey, int]]
    """Chunks recovered at the start, oldest first, each with its number of transitions."""
    stored: list[tuple[ChunkKey, int]]
    """Chunks stored after the start, oldest first, each with its number of transitions."""
    capacity: int
    """Capacity of the ring at the last stored chunk, in transitions; 0 if nothing was stored."""


class AuditLedger(NamedTuple):
    """The deliveries of a run, as its actors and replay servers recorded them."""

    sent: list[list[SentChunk]]
    """Sent chunks, one list for each life of a worker."""
    servers: dict[str, list[ServerLife]]
    """Lives of each replay server in order, by server name."""
    torn: int
    """Number of files whose last line is incomplete."""


def read_sent(directory: Path) -> tuple[list[list[SentChunk]], int]:
    """Returns the chunks that the actors of a directory sent, and the number of files with an incomplete last line."""
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
    """Returns the lives of a directory's replay servers, and the number of files with an incomplete last line.

    Leaves out a life that was still recovering, or was killed while recovering: its list of chunks is incomplete.
    """
    servers: dict[str, list[ServerLife]] = defaultdict(list)
    torn = 0
    for file in sorted(directory.glob(f"replay-*{SUFFIX}")):
        events, was_torn = read_events(file)
        torn += was_torn
        if events:
            name, life = _server_life(file, events)
            servers[name] += [life] if any(isinstance(event, Serving) for event in events) else []
    return dict(servers), torn


def read_redis(url: str, name: str) -> list[tuple[ChunkKey, int]]:
    """Returns the chunks stored in a Redis under a name, oldest first, each with its number of transitions.

    Raises ConfigError or PeerError.
    """
    log = RedisLog(make_client(url, "shoal-audit"), name, fsync=False)
    try:
        stored = log.read()
        if stored is None:
            return []
        record_bytes = transition_dtype(stored.run.joint).itemsize
        found = []
        for number, value in log.chunks(stored.state):
            try:
                chunk, payload = unpack_chunk(value or b"", number, record_bytes)
            except ProtocolError:
                continue
            found.append((ChunkKey(chunk.actor, chunk.incarnation, chunk.seq, digest(payload)), chunk.count))
        return found
    finally:
        log.close()


def read_ledger(directory: Path, redis_url: str, name: str) -> AuditLedger:
    """Reads the ledger of a run; raises ConfigError if there are no audit files.

    Reads the actors' files first and the servers' last, so that every chunk that an actor saw acknowledged is already
    in a server's file, even while the run continues. The chunks in Redis count as what the server's next life would
    recover.
    """
    sent, torn_sent = read_sent(directory)
    in_redis = read_redis(redis_url, name) if redis_url else None
    servers, torn_servers = read_servers(directory)
    if not sent and not servers:
        raise ConfigError(
            f"{directory} contains no audit files. Start `shoal train`, or `replay` and `actor`, with --audit."
        )
    if in_redis is not None:
        if name not in servers:
            known = ", ".join(servers) or "none"
            raise ConfigError(
                f"No audit file of a replay server named {name} (found: {known}). Pass its name with --name."
            )
        servers[name].append(ServerLife("redis", in_redis, [], 0))
    return AuditLedger(sent, servers, torn_sent + torn_servers)


def _server_life(file: Path, events: list[Event]) -> tuple[str, ServerLife]:
    start = events[0]
    if not isinstance(start, ProcessStart):
        raise ConfigError(
            f"{file} is damaged: its first line does not name its process. Move it away to check the rest."
        )
    recovered = [(_key(event), event.rows) for event in events if isinstance(event, Recovered)]
    stored = [(event, event.capacity) for event in events if isinstance(event, Stored)]
    capacity = stored[-1][1] if stored else 0
    return start.name, ServerLife(
        start.durability, recovered, [(_key(event), event.rows) for event, _ in stored], capacity
    )


def _key(event: Sent | Stored | Recovered) -> ChunkKey:
    return ChunkKey(event.actor, event.incarnation, event.seq, event.digest)
