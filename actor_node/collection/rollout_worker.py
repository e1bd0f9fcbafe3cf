"""The rollouts of one worker: its world copies, its random generators, and the counts that it reports.

An actor process (`worker.py`) and an actor of a lockstep run (`deploy/lockstep/actor.py`) both collect through
`RolloutWorker`. They differ in who hands over the weights and who takes the chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from actor_node.collection.collector import Collector, FinishedEpisodes
from actor_node.collection.exploration import ladder_factors
from common.errors import ConfigError
from common.policy.network import Policy
from common.run.run import Run
from common.state import State
from common.transitions import transition_dtype
from common.wire.codec import MAX_PEER_FRAME_BYTES, checksum
from common.wire.messages import ActorReport
from common.wire.weights import WeightsHeader
from common.worlds import World, make_world


class RolloutWorker:
    """Collects chunks of transitions from one batch of world copies, and counts what was collected.

    Example:
        rollouts = RolloutWorker("node-0", index=0, workers=4, copies=32)
        rollouts.start(run, seed=incarnation)
        records, episodes = rollouts.collect(policy, weights.header, steps=8)
        report = rollouts.report(incarnation, weights.header.version)
    """

    def __init__(self, name: str, *, index: int, workers: int, copies: int) -> None:
        """index: number of this worker among the `workers` of its node. copies: number of world copies."""
        self.name, self.copies = name, copies
        self._index, self._workers = index, workers
        self.world: World | None = None
        """The copies, from the moment they are made."""
        self._collector: Collector | None = None
        self.env_steps = self.episodes = 0
        self._shared_reward = True
        self._return_sums: npt.NDArray[np.float64] = np.zeros(0)

    @property
    def started(self) -> bool:
        """Whether the copies are made and reset."""
        return self._collector is not None

    @property
    def return_sums(self) -> tuple[float, ...]:
        """Returns of all finished episodes, summed for each agent; empty before `start`."""
        return tuple(float(total) for total in self._return_sums)

    def start(
        self,
        run: Run,
        seed: int,
        *,
        on_made: Callable[[int], object] | None = None,
        on_fault: Callable[[BaseException], object] | None = None,
        before_reset: Callable[[World], object] = lambda _world: None,
    ) -> None:
        """Makes the copies and resets them.

        seed: differs each time a worker of this name starts in the run, so that no two starts play the same episodes.
        on_made: called with the index of each copy after the copy was made. on_fault: called with the exception of a
        constructor, before the copies made so far are closed. before_reset: called with the world once it is made.
        """
        first_steps = first_episode_steps(run.spec.episode.stagger_steps, self._index, self._workers, self.copies)
        rng = np.random.default_rng([run.spec.seed, checksum(self.name.encode()), seed])
        self.world = make_world(
            run.spec.scenario,
            self.copies,
            seed=int(rng.integers(2**32)),
            options=run.spec.world,
            max_episode_steps=run.spec.episode.max_steps,
            state_dim=run.joint.state_dim,
            first_episode_steps=first_steps,
            on_made=on_made,
            on_fault=on_fault,
        )
        before_reset(self.world)
        factors = ladder_factors(run.spec.exploration.ladder, self._index, self._workers, self.copies)
        self._collector = Collector(run, self.world, rng, factors, first_steps)
        self._return_sums = np.zeros(len(run.joint.agents))

    def collect(
        self,
        policy: Policy,
        weights: WeightsHeader,
        steps: int,
        should_continue: Callable[[], bool] = lambda: True,
    ) -> tuple[npt.NDArray[np.void], FinishedEpisodes]:
        """Steps all copies up to `steps` times, and counts; returns the records and the episodes that ended.

        should_continue: called after each step but the last; False ends the chunk.
        """
        if self._collector is None:
            raise RuntimeError("collect() before start()")
        records, episodes = self._collector.collect(policy, weights, steps, should_continue)
        self.env_steps += len(records)
        self.episodes += episodes.ended
        self._shared_reward = episodes.shared_reward
        self._return_sums += episodes.return_sums
        return records, episodes

    def report(self, incarnation: int, weights_version: int) -> ActorReport:
        """Returns a report with the counts. Its fields on waiting are empty; a worker that waits replaces them."""
        return ActorReport(
            actor=self.name,
            incarnation=incarnation,
            env_steps=self.env_steps,
            episodes=self.episodes,
            return_sum=float(self._return_sums.sum()),
            return_sums=self.return_sums,
            weights_version=weights_version,
            weights_age_s=0.0,
            waiting_for="",
            waited_s=0.0,
            metrics_url="",
            shared_reward=self._shared_reward,
        )

    def state(self) -> State:
        """Returns the state of all episodes and of the exploration; without the world's if that is not Restorable."""
        if self._collector is None:
            raise RuntimeError("state() before start()")
        return self._collector.state()

    def restore(
        self, env_steps: int, episodes: int, return_sums: Sequence[float], state: Mapping[str, npt.NDArray[Any]]
    ) -> bool:
        """Continues with saved counts and episodes.

        Returns False if the world is not Restorable: the counts continue, and new episodes start.
        """
        if self._collector is None:
            raise RuntimeError("restore() before start()")
        self.env_steps, self.episodes, self._return_sums = env_steps, episodes, np.array(return_sums)
        return self._collector.restore(state)

    def close(self) -> None:
        """Closes the copies."""
        if self.world is not None:
            self.world.close()


def first_episode_steps(length: int, worker: int, workers: int, copies: int) -> tuple[int, ...]:
    """Returns where each copy's first episode is truncated, so that the episodes of all workers do not end together.

    The ends are `length / (workers * copies)` steps apart. Episodes that start together also end together, and recent
    transitions are then all of one phase. Isaac Gym's learners start episodes at random lengths for that reason (Rudin
    et al. 2022). worker: number among the `workers` of a node. length 0 returns nothing; 0 truncates nowhere.
    """
    total = workers * copies
    shares = [copy * workers + worker + 1 for copy in range(copies)]
    return tuple(length * share // total if share < total else 0 for share in shares) if length else ()


def check_chunk_size(run: Run, rows: int) -> None:
    """Raises ConfigError for chunks that no replay server accepts, or that never fit into the rate limiter's band."""
    chunk_bytes, max_bytes = rows * transition_dtype(run.joint).itemsize, MAX_PEER_FRAME_BYTES
    if chunk_bytes > max_bytes:
        raise ConfigError(
            f"a chunk of {rows:,} transitions is {chunk_bytes / 2**20:.0f} MiB, and a replay server accepts "
            f"{max_bytes / 2**20:.0f} MiB; lower --copies and --chunk-rows"
        )
    replay = run.spec.replay
    if rows > (largest := replay.max_chunk_rows(replay.batch)):
        raise ConfigError(
            f"chunks of {rows:,} transitions never fit into replay.error_buffer {replay.error_buffer:g}, which allows "
            f"{largest:,} at {replay.min_ratio:g} samples per insert; lower --copies and --chunk-rows, or "
            "leave the buffer at 0 to have it chosen"
        )
