"""Measures TorchRL's replay buffer with its storage in Redis (`StoreStorage`).

Runs in TorchRL's virtual environment and imports nothing of Shoal. An element is one transition: a row of float32, the
bytes of Shoal's record. The buffer writes and samples in one process; the elements are in the Redis of the benchmark.

usage: torchrl_replay.py client SOCKET RECORDS ROW_BYTES          answers requests, one JSON array a line
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tensordict import TensorDict
from torchrl.data import ReplayBuffer
from torchrl.data.replay_buffers import StoreStorage

CAPACITY = 200_000
CHUNK = 256
"""Elements that are written together: the transitions of one of Shoal's chunks."""
BATCH = 1024


class Client:
    """Answers the requests of the benchmark; each method is one of them."""

    def __init__(self, socket: str, records: Path, row_bytes: int) -> None:
        rows = np.frombuffer(records.read_bytes(), np.float32).reshape(-1, row_bytes // 4)[:CHUNK].copy()
        self._chunk = TensorDict({"row": torch.from_numpy(rows)}, batch_size=[CHUNK])
        self._buffer = ReplayBuffer(storage=StoreStorage(CAPACITY, unix_socket_path=socket), batch_size=BATCH)

    def ingest(self, seconds: float) -> float:
        """Returns the elements written per second for the given time."""
        written, started_at = 0, time.perf_counter()
        while time.perf_counter() - started_at < seconds:
            self._buffer.extend(self._chunk)
            written += CHUNK
        return written / (time.perf_counter() - started_at)

    def confirmations(self, repeats: int) -> list[float]:
        """Returns the seconds that writing a chunk takes, for each repeat."""
        return [_seconds_of(lambda: self._buffer.extend(self._chunk)) for _ in range(repeats)]

    def sample(self, seconds: float) -> float:
        """Returns the elements per second that are sampled for the given time."""
        drawn, started_at = 0, time.perf_counter()
        while time.perf_counter() - started_at < seconds:
            self._buffer.sample()
            drawn += BATCH
        return drawn / (time.perf_counter() - started_at)

    def round_trips(self, repeats: int) -> list[float]:
        """Returns the seconds that each of some batches takes."""
        return [_seconds_of(self._buffer.sample) for _ in range(repeats)]


def _seconds_of(call: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def main() -> None:
    """Answers requests until the input ends."""
    _, socket, records, row_bytes = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: ends with the benchmark
    torch.set_num_threads(1)
    client = Client(socket, Path(records), int(row_bytes))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        request: Callable[..., object] = getattr(client, name)
        print(json.dumps(request(*arguments)), flush=True)  # noqa: T201  (the harness reads it)


if __name__ == "__main__":
    main()
