"""Shoal's replay server beside dm-reverb's and TorchRL's, in one run, with the same items.

An item is a transition of simple_spread. Shoal writes every transition to Redis and its append-only file before it
acknowledges it. dm-reverb has items in RAM, and writes a checkpoint when a client asks for one. TorchRL's
`StoreStorage` writes and reads Redis from one process.

    ingest        four writers send as fast as they may
    ingest/p99    256 items until their confirmation, nothing else in flight
    serve         batches of 1,024, drawn uniformly, with prefetch; p99: single round trips
    memory        resident memory of the server with STORED items (Shoal: with its Redis)
    recovery      SIGKILL, then the time from the start of a server to its first answer with the stored items
    lost          confirmed items that are gone after that, of STORED; a tenth came after dm-reverb's checkpoint
"""

from __future__ import annotations

import contextlib
import json
import re
import select
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from common.errors import ConfigError, ShoalError
from common.run.run import Run
from common.transitions import transition_dtype
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.data_plane.load_generator import LoadGenerator, RecordedChunk, fill
from shoal.commands.bench.data_plane.sampling_load import BATCH, SamplingClient
from shoal.commands.bench.measurements import BenchFailure, BenchProgress, BenchRow, compare, rate, row
from shoal.commands.bench.memory import resident_mib
from shoal.commands.bench.peers import PEERS
from shoal.commands.bench.peers.environment import Peer, install_missing
from shoal.commands.bench.processes import Processes, ReplayServer, StartedProcess

REVERB = Peer("reverb", ("dm-reverb==0.14.0", "tensorflow==2.15.1"))
TORCHRL = next(peer for peer in PEERS if peer.name == "torchrl")
ACTORS = 4
SECONDS = 1.0
ROUND_TRIPS = 50
STORED = 50_000
GOAL = 20.0
_ANSWER_TIMEOUT_S = 120.0
_PORT = re.compile(r"^port (\d+)", re.MULTILINE)


def rows(
    config: BenchConfig, run: Run, recorded: Sequence[RecordedChunk]
) -> Iterator[BenchRow | BenchFailure | BenchProgress]:
    """Yields replay/peers/PEER/FIGURE of each peer, or why there are no further figures of the peer."""
    for peer, measured in ((REVERB, _beside_reverb), (TORCHRL, _beside_torchrl)):
        try:
            python = yield from install_missing(peer, config)
            with Processes() as processes:
                yield from measured(_Setting(processes, peer, python, run, recorded))
        except ConfigError:
            raise
        except ShoalError as e:
            yield BenchFailure(f"replay/peers/{peer.name}", str(e))


class _Setting(NamedTuple):
    processes: Processes
    peer: Peer
    python: Path
    run: Run
    recorded: Sequence[RecordedChunk]

    @property
    def script(self) -> Path:
        return Path(__file__).parent / "scripts" / f"{self.peer.name}_replay.py"

    @property
    def row_bytes(self) -> int:
        return transition_dtype(self.run.joint).itemsize

    @property
    def capacity(self) -> int:
        return self.run.spec.replay.capacity

    def figure(self, name: str, unit: str, ours: float, theirs: float, goal: float = 0.0) -> BenchRow:
        return row(f"replay/peers/{self.peer.name}/{name}", unit, ours, (self.peer.packages[0], theirs), goal)

    def client(self, address: object) -> PeerClient:
        """Starts the peer's client, which reads the recorded transitions from a file."""
        records = self.processes.directory / "records"
        records.write_bytes(b"".join(one.payload for one in self.recorded))
        return PeerClient(
            [str(self.python), str(self.script), "client", str(address), str(records), str(self.row_bytes)]
        )


class PeerClient:
    """The process of a peer's client, which answers requests: one JSON array a line, [method, argument, ...]."""

    def __init__(self, line: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Self:
        """Returns the client; leaving the context ends the process."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills the process, which has nothing to save, and closes its pipes."""
        self._process.kill()
        with contextlib.suppress(BrokenPipeError), self._process:
            pass

    def ask(self, *request: object) -> Any:
        """Returns the answer to a request; raises ShoalError if the process ends or does not answer in time."""
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise ShoalError(f"The peer's client ended before {request[0]!r}.") from None
        ready, _, _ = select.select([stdout], [], [], _ANSWER_TIMEOUT_S)
        if not (ready and (text := stdout.readline())):
            raise ShoalError(f"The peer's client did not answer {request[0]!r} within {_ANSWER_TIMEOUT_S:g} s.")
        return json.loads(text)


def _beside_reverb(setting: _Setting) -> Iterator[BenchRow | BenchProgress]:
    processes = setting.processes
    url, redis = processes.redis(), processes.newest
    ours = processes.replay(url)
    ours.open(setting.run)
    directory = processes.directory / "reverb"
    theirs = _start_reverb(setting, directory)
    with setting.client(_port(theirs)) as client:
        yield from _rates(setting, ours, client)
    ours.end()
    theirs.end()
    yield BenchProgress(f"replay: {STORED:,} items, then SIGKILL")
    yield from _recovery(setting, url, redis, directory)


def _beside_torchrl(setting: _Setting) -> Iterator[BenchRow | BenchProgress]:
    processes = setting.processes
    ours = processes.replay(processes.redis())
    ours.open(setting.run)
    socket = processes.redis().removeprefix("unix://")
    with setting.client(socket) as client:
        yield from _rates(setting, ours, client)


def _rates(setting: _Setting, ours: ReplayServer, client: PeerClient) -> Iterator[BenchRow | BenchProgress]:
    """Yields ingest, serve and their p99, measured in alternation."""
    yield BenchProgress(f"replay: ingesting, beside {setting.peer.packages[0]}")
    with closing(LoadGenerator(ours.endpoint, setting.run, ACTORS, setting.recorded)) as load:
        load.connect()
        _ingest(load)
        client.ask("ingest", SECONDS)
        rates = compare(lambda: _ingest(load), lambda: client.ask("ingest", SECONDS))
        yield setting.figure("ingest", "items/s", *rates, GOAL)
        confirmed = [load.confirmation_s() for _ in range(ROUND_TRIPS)]
        yield setting.figure("ingest/p99", "ms", _p99_ms(confirmed), _p99_ms(client.ask("confirmations", ROUND_TRIPS)))
    yield BenchProgress(f"replay: serving batches of {BATCH:,}, beside {setting.peer.packages[0]}")
    with closing(SamplingClient(ours.endpoint, setting.run)) as sampling:
        rates = compare(lambda: BATCH * rate(sampling.draw, SECONDS), lambda: client.ask("sample", SECONDS))
        yield setting.figure("serve", "items/s", *rates, GOAL)
        trips = sampling.round_trips(ROUND_TRIPS)
        yield setting.figure("serve/p99", "ms", _p99_ms(trips), _p99_ms(client.ask("round_trips", ROUND_TRIPS)))


def _ingest(load: LoadGenerator) -> float:
    """Returns the items per second of SECONDS of sending, until all of them are acknowledged."""
    before, started_at = load.acked_rows, time.monotonic()
    load.pump(SECONDS)
    load.settle()
    return (load.acked_rows - before) / (time.monotonic() - started_at)


def _recovery(setting: _Setting, url: str, redis: StartedProcess, directory: Path) -> Iterator[BenchRow]:
    """Yields memory, recovery and lost: both servers get STORED items, are killed and start again."""
    ours = setting.processes.replay(url)
    ours.open(setting.run)
    fill(ours.endpoint, setting.run, setting.recorded, STORED)
    confirmed = ours.status().size
    theirs = _start_reverb(setting, directory)
    with setting.client(_port(theirs)) as client:
        client.ask("insert", STORED - STORED // 10)
        client.ask("checkpoint")
        theirs_confirmed = client.ask("insert", STORED // 10)
    ours_mib = resident_mib(ours.started.process.pid) + resident_mib(redis.process.pid)
    yield setting.figure("memory", "MiB", ours_mib, resident_mib(theirs.process.pid))
    ours.started.kill()
    theirs.kill()
    started_at = time.monotonic()
    ours = setting.processes.replay(url)
    left = ours.status().size
    ours_s = time.monotonic() - started_at
    started_at = time.monotonic()
    theirs = _start_reverb(setting, directory)
    _port(theirs)
    theirs_s = time.monotonic() - started_at
    with setting.client(_port(theirs)) as client:
        theirs_left = client.ask("size")
    yield setting.figure("recovery", "s", ours_s, theirs_s)
    yield setting.figure("lost", "items", confirmed - left, theirs_confirmed - theirs_left)


def _start_reverb(setting: _Setting, directory: Path) -> StartedProcess:
    directory.mkdir(exist_ok=True)
    return setting.processes.program(
        setting.python, setting.script, "server", directory, setting.capacity, setting.row_bytes
    )


def _port(server: StartedProcess) -> str:
    return server.wait_for(_PORT)[1]


def _p99_ms(seconds: Sequence[float]) -> float:
    return float(np.percentile(seconds, 99)) * 1e3
