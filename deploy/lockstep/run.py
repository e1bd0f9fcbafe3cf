"""A lockstep run: all parts in one process and in a fixed order, so that the same seed gives the same bits.

    Learner.run:   stream.next() -> update -> periodic actions -> stream.next() -> ...
                   |                          |
                   an actor's chunk,          weights for the next chunk; log, status, checkpoint by wall-clock time
                   then the replay's batch

Wall-clock time determines only logs, status and checkpoints, which do not change what is learnt. No part waits.
"""

from __future__ import annotations

import logging

import msgspec

from actor_node.collection.rollout_worker import check_chunk_size
from actor_node.config import ActorConfig
from common.errors import ConfigError
from common.process.monitoring.health import Health
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.state import State, select_prefix, with_prefix
from common.transitions import transition_dtype
from deploy.local.config import TrainConfig
from deploy.local.launcher import LOCKSTEP
from deploy.local.live_display import Display
from deploy.lockstep.actor import LockstepActor
from deploy.lockstep.snapshots import LoadedSnapshot, ReproducibilitySettings, Snapshot, SnapshotStore, library_versions
from deploy.lockstep.stream import LockstepBroadcast, LockstepStream
from learner_node.config import LearnerConfig
from learner_node.devices import choose_device, use_threads
from learner_node.learner import Learner
from learner_node.persistence.checkpoints import checkpointed_updates
from learner_node.persistence.state import Counters
from learner_node.reporting.metrics import Metrics
from learner_node.timing import schedule

_log = logging.getLogger(__name__)


class LockstepRun:
    """A run whose learner, replay and actors run in a fixed order."""

    def __init__(
        self, directory: RunDirectory, run: Run, config: TrainConfig, checkpoint_every_s: float = 20.0
    ) -> None:
        """Locks the directory against other learners and restores its snapshot, if there is one.

        ConfigError if another learner has the lock, chunks are too large, or the number of actors or copies differs.
        ShoalError for a damaged snapshot.
        """
        self._directory, self._run, self._config = directory, run, config
        # A separate learner on this directory would overwrite the checkpoints.
        self._learner_lock = RunDirectory(directory.path)
        self._learner_lock.lock("learner")
        chunk_steps = ActorConfig(copies=config.copies, chunk_rows=config.chunk_rows).chunk_steps
        check_chunk_size(run, chunk_steps * config.copies)
        if run.spec.budget.seconds:
            _log.warning("--time ends the run by wall-clock time; pass only --steps to get the same bits again")
        self._threads_before = use_threads(config.threads)
        self._reproducibility = ReproducibilitySettings(
            config.copies, chunk_steps, config.threads, run.spec, library_versions()
        )
        self._snapshots = SnapshotStore(directory.path / LOCKSTEP, transition_dtype(run.joint).itemsize)
        self._broadcast = LockstepBroadcast()
        self._learner = Learner(
            run,
            directory,
            LearnerConfig(threads=config.threads, checkpoint_every=checkpoint_every_s, track=config.track),
            choose_device(gpu=False),
            metrics=Metrics(),
            broadcast=self._broadcast,
            make_replay_client=self._open_stream,
            before_saving=self._save_snapshot,
            fixed_episodes=True,
        )

    def train(self, stop: Stop, display: Display) -> bool:
        """Runs until the budget is used (returns True) or a stop is requested (returns False)."""
        self._stream.on_status = lambda status: display.show(status, ())
        try:
            self._learner.run(stop, Health())
        finally:
            display.close()
            self._learner.close()
            self._snapshots.close()
            self._learner_lock.release()
            use_threads(self._threads_before)
        return self._directory.finished_file.exists()

    # ---- start and resume -----------------------------------------------------------------------------------------

    def _open_stream(self, counters: Counters) -> LockstepStream:
        """Returns the stream, restored from the snapshot of the checkpoint if there is one."""
        setting, count = self._reproducibility, self._config.actors
        actors = [
            LockstepActor(
                self._run, i, count, copies=setting.copies, chunk_steps=setting.chunk_steps, since=counters.env_steps
            )
            for i in range(count)
        ]
        loaded = self._snapshots.load(counters.updates)
        # A snapshot restores the replay's counters after its transitions.
        inserts_and_samples = (0, 0) if loaded else (counters.env_steps, counters.samples)
        self._stream = self._broadcast.stream = LockstepStream(self._run, actors, inserts_and_samples)
        if loaded:
            self._restore(self._stream, loaded)
            return self._stream
        if counters.env_steps:
            _warn_bits_differ("no transitions were stored with its checkpoint; the replay starts empty")
        self._stream.admit_actors()
        return self._stream

    def _restore(self, stream: LockstepStream, loaded: LoadedSnapshot) -> None:
        snapshot, table = loaded.snapshot, stream.table
        self._compare_settings(snapshot.setting, len(snapshot.sessions))
        if snapshot.capacity == table.ring.capacity:
            table.ring.next_slot = (snapshot.next_slot - snapshot.size) % table.ring.capacity
        for rows in loaded.records:
            table.append(rows.reshape(-1).view(table.ring.dtype))
        try:
            table.restore(select_prefix("replay", loaded.arrays))
        except (KeyError, ValueError) as e:
            _warn_bits_differ(f"batches are sampled in a different way now ({e})")
        episodes_continue = [
            actor.restore(session, select_prefix(actor.name, loaded.arrays))
            for actor, session in zip(stream.actors, snapshot.sessions, strict=True)
        ]
        if not all(episodes_continue):
            _warn_bits_differ(f"the state of {self._run.spec.scenario} cannot be stored; its episodes start again")
        stream.resume(snapshot.limits, snapshot.sessions, published=snapshot.published)

    def _compare_settings(self, old: ReproducibilitySettings, actors: int) -> None:
        """Logs settings that change the bits; ConfigError for a different number of actors or copies."""
        new = self._reproducibility
        if (actors, old.copies) != (self._config.actors, new.copies):
            raise ConfigError(
                f"--run {self._directory.path} was interrupted with --actors {actors} --copies {old.copies}, "
                f"not --actors {self._config.actors} --copies {new.copies}; resume it with the former."
            )
        if old.threads != new.threads:
            _warn_bits_differ(f"--threads was {old.threads}")
        # Evaluations do not change what is learnt.
        if old.spec != msgspec.structs.replace(new.spec, evaluation=old.spec.evaluation):
            _warn_bits_differ("its settings were changed")
        for name, version in old.versions.items():
            if version != new.versions.get(name):
                _warn_bits_differ(f"{name} was {version}")

    # ---- snapshots ------------------------------------------------------------------------------------------------

    def _save_snapshot(self, counters: Counters) -> None:
        """Stores the state of actors and replay, before the learner's checkpoint; nothing once the budget is used."""
        if schedule.progress(self._run.spec.budget, counters.env_steps, counters.trained_s) >= 1.0:
            return
        stream, table = self._stream, self._stream.table
        snapshot = Snapshot(
            updates=counters.updates,
            limits=stream.limiter_counters(),
            capacity=table.ring.capacity,
            size=table.size,
            next_slot=table.ring.next_slot,
            published=stream.published,
            sessions=stream.actor_snapshots(),
            setting=self._reproducibility,
        )
        first = max(self._snapshots.end, snapshot.start)
        wanted = checkpointed_updates(self._directory.checkpoints)
        self._snapshots.save(snapshot, _state(stream), first, stream.records_from(first), wanted)


def _state(stream: LockstepStream) -> State:
    state = with_prefix("replay", stream.table.state())
    for actor in stream.actors:
        state |= with_prefix(actor.name, actor.state())
    return state


def _warn_bits_differ(reason: str) -> None:
    _log.warning("the resumed run will differ from the uninterrupted one: %s", reason)
