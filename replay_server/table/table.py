"""The table: one run's transitions with what decides over them: ring, sampler and rate limiter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from common.run.run import ReplaySpec, Run
from common.state import State, select_prefix, with_prefix
from common.transitions import transition_dtype
from common.wire.codec import MAX_PEER_FRAME_BYTES, Buffer
from replay_server.table.n_step import NStep
from replay_server.table.next_steps import Episodes, Origin
from replay_server.table.rate_limiter import RateLimiter
from replay_server.table.ring import Records, Ring
from replay_server.table.samplers import make_sampler

_PRIORITY_BYTES = 36
"""Most that a slot's priority takes: up to four nodes of a sum tree, and a generation."""
_EPISODE_BYTES = 4


class Table:
    """Takes chunks in and gives batches out, and counts both."""

    def __init__(self, run: Run, spec: ReplaySpec, seed: int) -> None:
        """Makes an empty table; `spec` is the run's with the server's own settings applied. Raises ConfigError."""
        self.run = run
        self.data_hash = run.data_hash
        self.limiter = RateLimiter(spec)
        self.ring = Ring(transition_dtype(run.joint), spec.capacity, _beside_bytes(spec))
        self.sampler = make_sampler(spec, seed)
        self._n_step = _make_n_step(run, spec, self.ring, None)
        self.inserted = self.sampled = 0
        """Transitions in this life of the server; the limiter counts over all of them."""
        self._seed = seed

    @property
    def served_run(self) -> Run:
        """The run as actors are told it: with the replay settings that hold here, not those it was made with."""
        spec = msgspec.structs.replace(self.run.spec, replay=self.limiter.spec)
        return msgspec.structs.replace(self.run, spec=spec)

    @property
    def size(self) -> int:
        """Transitions held."""
        return self.ring.size

    @property
    def most_chunk_rows(self) -> int:
        """Transitions in the largest chunk that can come."""
        return max(1, MAX_PEER_FRAME_BYTES // self.ring.dtype.itemsize)

    def records(self, payload: Buffer) -> Records:
        """Returns a payload seen as records `[n]`, without a copy."""
        return np.frombuffer(payload, self.ring.dtype)

    def insert(self, records: Records, origin: Origin | None = None) -> None:
        """Stores records `[n]` and counts them; origin: whose they are, if that is known."""
        self.keep(records, origin)
        self.limiter.inserts += len(records)
        self.inserted += len(records)

    def keep(self, records: Records, origin: Origin | None = None) -> None:
        """Stores records `[n]` that were counted in an earlier life of the server."""
        first_slot = self.ring.append(records)
        self.sampler.stored(first_slot, min(len(records), self.ring.capacity))
        if self._n_step:
            self._n_step.episodes.stored(first_slot, records, origin)

    def sample(self, count: int) -> Buffer:
        """Returns the bytes of a batch of `count` records, their places behind them if need be, and counts them."""
        slots = self.sampler.draw(count)
        places, records_bytes = self.sampler.places(slots), count * self.ring.dtype.itemsize
        block = np.empty(records_bytes + (places.nbytes if places is not None else 0), np.uint8)
        batch = self.ring.gather(slots, block[:records_bytes])
        if self._n_step:
            self._n_step.lengthen(batch, slots)
        if places is not None:
            block[records_bytes:] = places.view(np.uint8)
        self.limiter.samples += count
        self.sampled += count
        return block.data

    def redefined(self, run: Run, spec: ReplaySpec) -> Table:
        """Returns this table under new settings of the same run, with its records and counters. Raises ConfigError.

        Priorities start anew where capacity or exponent have changed. Spans of several steps begin with the chunks that
        come after they are asked for.
        """
        table, old = Table.__new__(Table), self.limiter.spec
        table.run, table.data_hash, table._seed = run, run.data_hash, self._seed
        table.inserted, table.sampled = self.inserted, self.sampled
        table.limiter = RateLimiter(spec)
        table.limiter.catch_up(self.limiter.inserts, self.limiter.samples, self.size)
        resized = spec.capacity != old.capacity
        table.ring = self.ring.resized(spec.capacity, _beside_bytes(spec)) if resized else self.ring
        table.sampler = self.sampler
        if resized or spec.priority_exponent != old.priority_exponent:
            table.sampler = make_sampler(spec, self._seed)
            table.sampler.stored(0, table.ring.size)
        episodes = self._n_step.episodes if self._n_step else None
        if episodes and resized:
            episodes = episodes.resized(self.ring.order(), spec.capacity)
        table._n_step = _make_n_step(run, spec, table.ring, episodes)
        return table

    def state(self) -> State:
        """Returns what the next batches depend on, beside the records and counters."""
        state = with_prefix("sampler", self.sampler.state())
        return state | with_prefix("episodes", self._n_step.episodes.state()) if self._n_step else state

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Draws on as the table that the state was taken from, once it holds its records in the same slots.

        KeyError or ValueError when that had other settings.
        """
        self.sampler.restore(select_prefix("sampler", state))
        if self._n_step:
            self._n_step.episodes.restore(select_prefix("episodes", state))


def _beside_bytes(spec: ReplaySpec) -> int:
    return _PRIORITY_BYTES * (spec.priority_exponent > 0) + _EPISODE_BYTES * (spec.n_step > 1)


def _make_n_step(run: Run, spec: ReplaySpec, ring: Ring, episodes: Episodes | None) -> NStep | None:
    if spec.n_step == 1:
        return None
    return NStep(ring, episodes or Episodes(ring.capacity), spec.n_step, run.spec.algorithm.discount)
