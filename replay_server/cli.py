"""The command `replay`: one replay server."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import click

from common.process import command
from common.process.children.parent import die_with_parent
from common.process.monitoring.health import Health, HttpPort
from common.process.monitoring.logs import start_logging
from common.process.monitoring.resources import allow_many_connections, retain_freed_memory
from common.process.posix import require_posix
from common.process.stop import Stop
from common.wire.codec import Buffer
from common.wire.keys import Keys, load_keys
from common.wire.messages import Chunk
from common.wire.socket_file import SocketFile
from replay_server.audit import ReplayAudit
from replay_server.config import NO_REDIS, ReplayConfig
from replay_server.durability.committer import Committer
from replay_server.durability.recovery import RingChunks, recover
from replay_server.durability.redis_connection import (
    WaitInterrupted,
    make_client,
    redis_errors_as_peer_errors,
    refuse_second_server,
    refuse_unsafe,
    wait_for_redis,
)
from replay_server.durability.redis_log import RedisLog
from replay_server.metrics import CommitterCollector, ReplayCollector, Timings, make_registry
from replay_server.not_ready import NotReadyServer
from replay_server.replay import Replay
from replay_server.server import Server

SECOND_SERVER_WAIT_S = 3.0
"""Time [s] for which Redis may still list the connection of a killed server."""

_log = logging.getLogger(__name__)


@click.command()
@command.options(ReplayConfig)
def replay(**values: object) -> int:
    """Store transitions, serve batches, and control the ratio of samples to inserts.

    Stores the newest transitions in RAM and, before it acknowledges them, in Redis: after a restart every acknowledged
    transition is recovered. A learner defines the run; once that run is finished, the next learner may open another
    one. Ends on Ctrl-C or SIGTERM, once the received chunks are committed.

    \b
    Example:  replay --redis redis://redis-host:6379/0
              replay --redis none
    """  # noqa: D301  (click does not wrap the lines after a real backspace)
    config = command.build(ReplayConfig, values)
    config.check()
    require_posix("The command `replay`")
    keys = load_keys(config.keys)
    start_logging("replay")
    allow_many_connections()
    retain_freed_memory()
    if config.parent:
        die_with_parent(config.parent)
    stop = Stop()
    stop.on_signals()
    serve(config, stop, keys)
    return stop.exit_code


def serve(config: ReplayConfig, stop: Stop, keys: Keys | None = None) -> None:
    """Runs one replay server until a stop is requested: recovers, then binds, then serves."""
    registry, health = make_registry(), Health()
    http = HttpPort(config.metrics_host, config.metrics_port, registry, health)
    timings = Timings(registry)
    replay = Replay(config, time.monotonic(), http.url)
    registry.register(ReplayCollector(replay, time.monotonic))
    with contextlib.ExitStack() as stack:
        stack.callback(http.close)
        audit = ReplayAudit(Path(config.audit), config.name, replay) if config.audit else None
        if audit:
            stack.callback(audit.close)
        committer = None
        # Uses a separate replay: its thread must not read the replay that the recovery fills.
        not_ready = NotReadyServer(Replay(config, replay.started_at, http.url), config.bind, keys)
        stack.callback(not_ready.close)
        if config.redis != NO_REDIS:
            try:
                on_chunk = audit.write_recovered if audit else None
                log = open_and_recover_log(
                    config, replay, timings, stop, health, on_chunk=on_chunk, set_reason=not_ready.set_reason
                )
            except WaitInterrupted:
                return
            stack.callback(log.close)
            committer = Committer(log)
            stack.callback(committer.close)
            registry.register(CommitterCollector(committer))
        if audit:
            audit.write_serving()
        not_ready.close()
        server = Server(replay, not_ready.endpoint, committer, timings, keys, peer_bytes=config.peer_memory * 2**20)
        stack.callback(SocketFile(server.endpoint).remove)
        stack.callback(server.close)
        _log.info("serving endpoint=%s durability=%s metrics=%s", server.endpoint, config.level, http.url)
        server.run(stop, health)


def open_and_recover_log(
    config: ReplayConfig,
    replay: Replay,
    timings: Timings,
    stop: Stop,
    health: Health,
    *,
    on_chunk: Callable[[Chunk, Buffer], None] | None,
    set_reason: Callable[[str], None],
) -> RedisLog:
    """Opens the chunk log in Redis, fills the replay with its chunks, and returns it.

    on_chunk: called with every chunk that is recovered. set_reason: called with the reason why the server is not ready.
    Raises ConfigError for a Redis that cannot be used, PeerError if it does not answer, and WaitInterrupted after a
    request to stop.
    """

    def progress(reason: str) -> None:
        health.beat()
        health.not_ready = reason
        set_reason(reason)
        if stop.requested:
            raise WaitInterrupted

    client_name = f"shoal-replay:{config.name}"
    client = make_client(config.redis, client_name, config.redis_password, config.redis_ca_file)
    wait_for_redis(client, config.redis, config.redis_wait, stop, progress)
    with redis_errors_as_peer_errors(config.redis):
        refuse_unsafe(client, config.redis, fsync=config.level == "fsync")
        refuse_second_server(client, client_name, config.name, SECOND_SERVER_WAIT_S, stop)
    log = RedisLog(client, config.name, fsync=config.level == "fsync")
    if config.fresh:
        _log.info("discarded keys=%d name=%s", log.discard(), config.name)
    recovered = recover(log, replay, progress, on_chunk)
    log.refill_source = RingChunks(replay).value
    timings.set_recovery(recovered)
    if recovered.transitions:
        _log.info(
            "recovered transitions=%d chunks=%d damaged=%d missing=%d seconds=%.2f",
            recovered.transitions,
            recovered.chunks,
            recovered.damaged,
            recovered.missing,
            recovered.seconds,
        )
    return log


def main() -> None:
    """Runs `replay` and exits the process."""
    command.main(replay, "replay")
