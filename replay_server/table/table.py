"""The table: one run's transitions in a ring, with their sampler and their rate limiter."""

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
from common.wire.messages import Chunk
from common.wire.sample_info import SampleInfo
from replay_server.table.n_step import Episodes, NStep
from replay_server.table.rate_limiter import RateLimiter
from replay_server.table.ring import Records, Ring
from replay_server.table.samplers import Sampler, make_sampler
from replay_server.table.sequences import EpisodeSteps, SequenceSampler

_PRIORITY_BYTES = 36
"""Maximum memory of a slot's priority: up to four nodes of a sum tree, and a generation."""
_EPISODE_BYTES = 4
_SEQUENCE_BYTES = 12
"""Memory of a slot's neighbours in its episode: the steps after and before it, and the number of the step."""


class Table:
    """Stores chunks, draws batches, and counts both.

    Example:
        table = Table(run, run.spec.replay, seed=1)
        table.insert(table.records(payload), chunk)
        batch = table.records(table.sample(256))
    """

    def __init__(
        self,
        run: Run,
        spec: ReplaySpec,
        seed: int,
        *,
        limiter: RateLimiter | None = None,
        ring: Ring | None = None,
        sampler: Sampler | None = None,
        episodes: Episodes | None = None,
    ) -> None:
        """Makes a table of the given parts; a part that is None is made empty. Raises ConfigError.

        spec: the run's replay settings, with the server's overrides applied.
        """
        self.run = run
        self.data_hash = run.data_hash
        self.limiter = limiter or RateLimiter(spec)
        self.ring = ring or Ring(transition_dtype(run.joint), spec.capacity, _extra_bytes(run, spec))
        self.sampler = sampler or make_sampler(spec, seed)
        if not sampler and self.ring.size:
            self.sampler.insert(int(self.ring.order()[0]), self.ring.size)
        self._n_step, self._sequences = self._make_n_step(episodes), self._make_sequences(episodes)
        self.inserted = self.sampled = 0
        """Transitions since the server started; the limiter counts those of the whole run."""
        self._seed = seed

    def _make_n_step(self, episodes: Episodes | None = None) -> NStep | None:
        steps, ring = self.limiter.spec.n_step, self.ring
        # The learner sums the rewards of sequences.
        if steps == 1 or self.run.spec.network.recurrent:
            return None
        return NStep(ring, episodes or Episodes(ring.capacity), steps, self.run.spec.algorithm.discount)

    def _make_sequences(self, episodes: Episodes | None = None) -> SequenceSampler | None:
        spec, ring = self.limiter.spec, self.ring
        if not self.run.spec.network.recurrent:
            return None
        steps = episodes if isinstance(episodes, EpisodeSteps) else EpisodeSteps(ring.capacity)
        return SequenceSampler(ring, steps, steps=spec.sequence_steps, burn_in=spec.burn_in)

    @property
    def _episodes(self) -> Episodes | None:
        found = self._n_step or self._sequences
        return found.episodes if found else None

    @property
    def served_run(self) -> Run:
        """The run as actors receive it: with the replay settings that this server applies."""
        spec = msgspec.structs.replace(self.run.spec, replay=self.limiter.spec)
        return msgspec.structs.replace(self.run, spec=spec)

    @property
    def size(self) -> int:
        """Number of stored transitions."""
        return self.ring.size

    @property
    def max_chunk_rows(self) -> int:
        """Number of transitions in the largest chunk that a message can carry."""
        return max(1, MAX_PEER_FRAME_BYTES // self.ring.dtype.itemsize)

    def records(self, payload: Buffer) -> Records:
        """Returns a payload seen as records `[n]`, without a copy."""
        return np.frombuffer(payload, self.ring.dtype)

    def insert(self, records: Records, chunk: Chunk | None = None) -> None:
        """Stores records `[n]` and counts them. chunk: the message that brought them; None where it is unknown."""
        self.append(records, chunk)
        self.limiter.inserts += len(records)
        self.inserted += len(records)

    def append(self, records: Records, chunk: Chunk | None = None) -> None:
        """Stores records `[n]` that an earlier process has already counted."""
        first_slot = self.ring.append(records)
        self.sampler.insert(first_slot, min(len(records), self.ring.capacity))
        if self._episodes:
            self._episodes.insert(first_slot, records, chunk)

    def sample(self, count: int) -> Buffer:
        """Draws `count` records, counts them, and returns their bytes, followed by the sample info if there is any.

        In a run with recurrent policies the records are sequences with their burn-in (sequences.py).
        """
        block = self._sample_sequences(count, self._sequences) if self._sequences else self._sample_records(count)
        self.limiter.samples += count
        self.sampled += count
        return block.data

    def _sample_sequences(self, count: int, sequences: SequenceSampler) -> npt.NDArray[np.uint8]:
        block = np.empty(sequences.rows(count) * self.ring.dtype.itemsize, np.uint8)
        sequences.sample(self.sampler, count, block)
        return block

    def _sample_records(self, count: int) -> npt.NDArray[np.uint8]:
        slots = self.sampler.draw(count)
        info, records_bytes = self.sampler.sample_info(slots), count * self.ring.dtype.itemsize
        block = np.empty(records_bytes + (info.nbytes if info is not None else 0), np.uint8)
        batch = self.ring.gather(slots, block[:records_bytes])
        if self._n_step:
            self._n_step.extend(batch, slots)
        if info is not None:
            block[records_bytes:] = info.view(np.uint8)
        return block

    def update_priorities(self, samples: SampleInfo) -> int:
        """Sets priorities by the TD errors of samples `[n]`, finite and not negative.

        Returns how many of these samples have been overwritten.
        """
        return self.sampler.update_priorities(samples)

    def clear(self) -> None:
        """Removes all records and frees their memory. The counters stay: they are those of the run."""
        self.ring.clear()
        self.sampler = make_sampler(self.limiter.spec, self._seed)
        self._n_step, self._sequences = self._make_n_step(), self._make_sequences()
        self.limiter.catch_up(self.limiter.inserts, self.limiter.samples, 0)

    def with_settings(self, run: Run, spec: ReplaySpec) -> Table:
        """Returns this table under new settings of the same run, with its records and counters. Raises ConfigError.

        All priorities become equal if capacity, sampler or exponent change. N-step spans start with the chunks that
        arrive after they were asked for.
        """
        old = self.limiter.spec
        limiter = RateLimiter(spec)
        limiter.catch_up(self.limiter.inserts, self.limiter.samples, self.size)
        resized = spec.capacity != old.capacity
        ring = self.ring.resized(spec.capacity, _extra_bytes(run, spec)) if resized else self.ring
        same_draws = (spec.sampler, spec.priority_exponent) == (old.sampler, old.priority_exponent)
        sampler = self.sampler if same_draws and not resized else None
        episodes = self._episodes
        if episodes and resized:
            episodes = episodes.resized(self.ring.order(), spec.capacity)
        table = Table(run, spec, self._seed, limiter=limiter, ring=ring, sampler=sampler, episodes=episodes)
        table.inserted, table.sampled = self.inserted, self.sampled
        return table

    def state(self) -> State:
        """Returns what the next batches depend on, apart from the records and counters."""
        state = with_prefix("sampler", self.sampler.state())
        return state | with_prefix("episodes", self._episodes.state()) if self._episodes else state

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continues the draws of the table whose state this is; the ring must contain its records in the same slots.

        KeyError or ValueError when that table had other settings.
        """
        self.sampler.restore(select_prefix("sampler", state))
        if self._episodes:
            self._episodes.restore(select_prefix("episodes", state))


def _extra_bytes(run: Run, spec: ReplaySpec) -> int:
    if run.spec.network.recurrent:
        return _SEQUENCE_BYTES
    return _PRIORITY_BYTES * (spec.priority_exponent > 0) + _EPISODE_BYTES * (spec.n_step > 1)
