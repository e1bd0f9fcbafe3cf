"""Runs dm-reverb's replay server, or a client that measures it.

Runs in dm-reverb's virtual environment and imports nothing of Shoal. An item is one transition: a row of float32, the
bytes of Shoal's record. The server draws uniformly and removes the oldest item, as Shoal's replay does by default.

usage: reverb_replay.py server DIRECTORY CAPACITY ROW_BYTES       prints `port PORT` when it serves
       reverb_replay.py client PORT RECORDS ROW_BYTES             answers requests, one JSON array a line
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import reverb
import tensorflow as tf

TABLE = "transitions"
STREAMS = 4
"""Writers at the same time: the number of Shoal's simulated actors."""
PENDING = 64
"""Items of a stream that may be unconfirmed; the client warns if there are more."""
FLUSHED_TOGETHER = 256
"""Items whose confirmation is timed: the transitions of one of Shoal's chunks."""
BATCH = 1024
SAMPLING_WORKERS = 2


def serve(directory: str, capacity: int, row_bytes: int) -> None:
    """Serves one table until the process is killed; loads the newest checkpoint in the directory."""
    table = reverb.Table(
        name=TABLE,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=capacity,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature=tf.TensorSpec((row_bytes // 4,), tf.float32),
    )
    server = reverb.Server([table], checkpointer=reverb.checkpointers.DefaultCheckpointer(directory))
    print(f"port {server.port}", flush=True)  # noqa: T201  (the harness reads it)
    server.wait()


class Client:
    """Answers the requests of the benchmark; each method is one of them."""

    def __init__(self, port: int, records: Path, row_bytes: int) -> None:
        self._address = f"localhost:{port}"
        self._client = reverb.Client(self._address)
        self._rows = np.frombuffer(records.read_bytes(), np.float32).reshape(-1, row_bytes // 4)

    def ingest(self, seconds: float) -> float:
        """Returns the items inserted per second by several writers for the given time."""
        counts, started_at = [0] * STREAMS, time.perf_counter()

        def write(stream: int) -> None:
            with self._client.trajectory_writer(num_keep_alive_refs=1) as writer:
                while time.perf_counter() - started_at < seconds:
                    for _ in range(PENDING):
                        self._append(writer, counts[stream])
                        counts[stream] += 1
                    writer.flush(PENDING)
                writer.flush()

        threads = [threading.Thread(target=write, args=(stream,)) for stream in range(STREAMS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - started_at)

    def insert(self, items: int) -> int:
        """Inserts the given number of items, waits until they are confirmed, and returns the size of the table."""
        with self._client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for i in range(items):
                self._append(writer, i)
                if i % PENDING == PENDING - 1:
                    writer.flush(PENDING)
            writer.flush()
        return self.size()

    def confirmations(self, repeats: int) -> list[float]:
        """Returns the seconds from the first of FLUSHED_TOGETHER items to the confirmation of all, for each repeat."""
        found = []
        with self._client.trajectory_writer(num_keep_alive_refs=1) as writer:
            for _ in range(repeats):
                started_at = time.perf_counter()
                for i in range(FLUSHED_TOGETHER):
                    self._append(writer, i)
                writer.flush()
                found.append(time.perf_counter() - started_at)
        return found

    def sample(self, seconds: float) -> float:
        """Returns the items per second that a dataset of prefetched batches yields."""
        batches = iter(self._dataset(2 * BATCH))
        next(batches)
        drawn, started_at = 0, time.perf_counter()
        while time.perf_counter() - started_at < seconds:
            next(batches)
            drawn += BATCH
        return drawn / (time.perf_counter() - started_at)

    def round_trips(self, repeats: int) -> list[float]:
        """Returns the seconds that each of some batches takes, requested one at a time."""
        found = []
        for _ in range(repeats):
            started_at = time.perf_counter()
            for _ in self._client.sample(TABLE, BATCH, emit_timesteps=False):
                pass
            found.append(time.perf_counter() - started_at)
        return found

    def checkpoint(self) -> int:
        """Writes a checkpoint and returns the number of items in it."""
        self._client.checkpoint()
        return self.size()

    def size(self) -> int:
        """Returns the number of items in the table."""
        return int(self._client.server_info()[TABLE].current_size)

    def _append(self, writer: Any, item: int) -> None:
        writer.append(self._rows[item % len(self._rows)])
        writer.create_item(table=TABLE, priority=1.0, trajectory=writer.history[-1])

    def _dataset(self, in_flight: int) -> Any:
        dataset = reverb.TimestepDataset.from_table_signature(
            server_address=self._address,
            table=TABLE,
            max_in_flight_samples_per_worker=in_flight,
            num_workers_per_iterator=SAMPLING_WORKERS,
        )
        return dataset.batch(BATCH).as_numpy_iterator()


def main() -> None:
    """Runs the role that the command line names."""
    role, address, number, row_bytes = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: ends with the benchmark
    if role == "server":
        serve(address, int(number), int(row_bytes))
        return
    client = Client(int(address), Path(number), int(row_bytes))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        request: Callable[..., object] = getattr(client, name)
        print(json.dumps(request(*arguments)), flush=True)  # noqa: T201  (the harness reads it)


if __name__ == "__main__":
    main()
