"""The table: one run's transitions with what decides over them: ring, sampler and rate limiter."""

from __future__ import annotations

import numpy as np

from common.run import ReplaySpec, Run
from common.transitions import transition_dtype
from common.wire import Buffer
from replay_server.rate_limiter import RateLimiter
from replay_server.ring import Records, Ring
from replay_server.samplers import Sampler, UniformSampler


class Table:
    """Takes chunks in and gives batches out, and counts both."""

    def __init__(self, run: Run, spec: ReplaySpec, seed: int) -> None:
        """Makes an empty table; `spec` is the run's with the server's own settings applied. Raises ConfigError."""
        self.run = run
        self.data_hash = run.data_hash
        self.limiter = RateLimiter(spec)
        self.ring = Ring(transition_dtype(run.joint), spec.capacity)
        self.sampler: Sampler = UniformSampler(spec.capacity, seed)
        self._seed = seed

    @property
    def size(self) -> int:
        """Transitions held."""
        return self.ring.size

    def records(self, payload: Buffer) -> Records:
        """Returns a payload seen as records `[n]`, without a copy."""
        return np.frombuffer(payload, self.ring.dtype)

    def insert(self, records: Records) -> None:
        """Stores records `[n]` and counts them."""
        self.keep(records)
        self.limiter.inserts += len(records)

    def keep(self, records: Records) -> None:
        """Stores records `[n]` that were counted in an earlier life of the server."""
        first_slot = self.ring.append(records)
        self.sampler.stored(first_slot, min(len(records), self.ring.capacity))

    def sample(self, count: int) -> Buffer:
        """Returns the bytes of a batch of `count` records and counts them."""
        batch = self.ring.gather(self.sampler.draw(count))
        self.limiter.samples += count
        return batch.view(np.uint8).data

    def redefined(self, run: Run, spec: ReplaySpec) -> Table:
        """Returns this table under new settings of the same run, with its records and counters. Raises ConfigError."""
        table = Table.__new__(Table)
        table.run, table.data_hash, table._seed = run, run.data_hash, self._seed
        table.limiter = RateLimiter(spec)
        table.limiter.catch_up(self.limiter.inserts, self.limiter.samples, self.size)
        if spec.capacity == self.ring.capacity:
            table.ring, table.sampler = self.ring, self.sampler
            return table
        table.ring = self.ring.resized(spec.capacity)
        table.sampler = UniformSampler(spec.capacity, self._seed)
        table.sampler.stored(0, table.ring.size)
        return table
