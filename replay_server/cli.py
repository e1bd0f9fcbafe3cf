"""The command `replay`: one replay server."""

from __future__ import annotations

import logging
import time

import click
from prometheus_client import CollectorRegistry

from common import command
from common.process import Health, HttpPort, Stop, die_with_parent, start_logging
from replay_server.config import NO_REDIS, ReplayConfig
from replay_server.metrics import ReplayCollector, Timings
from replay_server.replay import Replay
from replay_server.server import Server

_log = logging.getLogger(__name__)


@click.command()
@command.options(ReplayConfig)
def replay(**values: object) -> int:
    r"""Remember transitions, hand out batches, and hold the ratio between the two.

    Keeps the newest transitions in RAM and, before it acknowledges them, in Redis: after a restart everything
    acknowledged is there again. The first learner to connect says what the run is. Ends on Ctrl-C or SIGTERM, after
    what has come is committed.

    \b
    Example:  replay --redis redis://redis-host:6379/0
              replay --redis none
    """
    config = command.build(ReplayConfig, values)
    config.check()
    start_logging("replay")
    if config.parent:
        die_with_parent(config.parent)
    stop = Stop()
    stop.on_signals()
    serve(config, stop)
    return stop.exit_code


def serve(config: ReplayConfig, stop: Stop) -> None:
    """Runs one replay server until asked to stop."""
    registry = CollectorRegistry()
    health = Health()
    http = HttpPort(config.metrics_host, config.metrics_port, registry, health)
    memory = Replay(config.settings(http.url), time.monotonic())
    registry.register(ReplayCollector(memory, time.monotonic))
    committer = None
    if config.redis != NO_REDIS:
        raise NotImplementedError
    server = Server(memory, config.bind, committer, Timings(registry))
    try:
        _log.info("serving endpoint=%s durability=%s metrics=%s", server.endpoint, config.level, http.url)
        server.run(stop, health)
    finally:
        server.close()
        http.close()


def main() -> None:
    """Runs `replay` and ends the process."""
    command.main(replay, "replay")
