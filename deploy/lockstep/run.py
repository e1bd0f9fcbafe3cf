"""A whole run in this one process, in a fixed order: same seed, same bits.

    Learner.run:   stream.next() -> update -> what is due -> stream.next() -> ...
                   |                          |
                   an actor's chunk,          weights for the next chunk; by the clock: log, status, checkpoint
                   then the replay's batch

What the clock decides (log, status, checkpoints) changes nothing of what is learnt. Nothing waits for anything.
"""

from __future__ import annotations

import logging

from actor_node.config import ActorConfig
from actor_node.worker import refuse_large_chunks
from common.errors import ConfigError
from common.process.health import Health
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.state import State, select_prefix, with_prefix
from common.transitions import transition_dtype
from deploy.local.config import TrainConfig
from deploy.local.launcher import LOCKSTEP
from deploy.local.live_display import Display
from deploy.lockstep.actor import LockstepActor
from deploy.lockstep.snapshots import LoadedSnapshot, Setting, Snapshot, SnapshotStore, versions
from deploy.lockstep.stream import Handover, LockstepStream
from learner_node import schedule
from learner_node.checkpoints import checkpointed_updates
from learner_node.config import LearnerConfig
from learner_node.devices import choose_device, use_threads
from learner_node.learner import Learner
from learner_node.metrics import Metrics
from learner_node.state import Counters

_log = logging.getLogger(__name__)


class LockstepRun:
    """A run whose learner, replay and actors take turns."""

    def __init__(
        self, directory: RunDirectory, run: Run, config: TrainConfig, checkpoint_every_s: float = 20.0
    ) -> None:
        """Takes the learner's role in the directory and puts back what was kept there.

        ConfigError while another has it, for chunks too large and for other actors than before; ShoalError for damage.
        """
        self._directory, self._run, self._config = directory, run, config
        # A learner of its own on this directory would overwrite the checkpoints.
        self._learner_role = RunDirectory(directory.path)
        self._learner_role.lock("learner")
        chunk_steps = ActorConfig(copies=config.copies, chunk_rows=config.chunk_rows).chunk_steps
        refuse_large_chunks(run, chunk_steps * config.copies)
        if run.spec.budget.seconds:
            _log.warning("with --time the end depends on the clock: the same bits come again only with --steps alone")
        self._threads_before = use_threads(config.threads)
        self._setting = Setting(config.copies, chunk_steps, config.threads, run.spec, versions())
        self._keeper = SnapshotStore(directory.path / LOCKSTEP, transition_dtype(run.joint).itemsize)
        self._handover = Handover()
        self._learner = Learner(
            run,
            directory,
            LearnerConfig(threads=config.threads, checkpoint_every=checkpoint_every_s, track=config.track),
            choose_device(gpu=False),
            metrics=Metrics(),
            broadcast=self._handover,
            open_stream=self._open,
            before_saving=self._keep,
        )

    def train(self, stop: Stop, display: Display) -> bool:
        """Runs until the budget is used (True) or a stop is asked for (False)."""
        self._stream.show = lambda status: display.show(status, ())
        try:
            self._learner.run(stop, Health())
        finally:
            display.close()
            self._learner.close()
            self._keeper.close()
            self._learner_role.release()
            use_threads(self._threads_before)
        return self._directory.finished_file.exists()

    # ---- where it begins ------------------------------------------------------------------------------------------

    def _open(self, done: Counters) -> LockstepStream:
        """Returns the stream, with all that was kept at that many updates put back."""
        setting, count = self._setting, self._config.actors
        actors = [
            LockstepActor(
                self._run, i, count, copies=setting.copies, chunk_steps=setting.chunk_steps, since=done.env_steps
            )
            for i in range(count)
        ]
        kept = self._keeper.load(done.updates)
        clock = (0, 0) if kept else (done.env_steps, done.samples)
        self._stream = self._handover.stream = LockstepStream(self._run, actors, clock)
        if kept:
            self._restore(self._stream, kept)
            return self._stream
        if done.env_steps:
            _warn_of("no transitions were kept with its checkpoint: the replay is filled anew")
        self._stream.admit_actors()
        return self._stream

    def _restore(self, stream: LockstepStream, kept: LoadedSnapshot) -> None:
        moment, table = kept.snapshot, stream.table
        self._compare(moment.setting, len(moment.sessions))
        if moment.capacity == table.ring.capacity:
            table.ring.next_slot = (moment.next_slot - moment.size) % table.ring.capacity
        for rows in kept.records:
            table.append(rows.reshape(-1).view(table.ring.dtype))
        try:
            table.restore(select_prefix("replay", kept.arrays))
        except (KeyError, ValueError) as e:
            _warn_of(f"batches are drawn in another way now ({e})")
        go_on = [
            actor.restore(session, select_prefix(actor.name, kept.arrays))
            for actor, session in zip(stream.actors, moment.sessions, strict=True)
        ]
        if not all(go_on):
            _warn_of(f"{self._run.spec.scenario} cannot be kept: its episodes begin anew")
        stream.go_on(moment.limits, moment.sessions, published=moment.published)

    def _compare(self, then: Setting, actors: int) -> None:
        """Warns of what makes other bits; ConfigError for what does not fit at all."""
        now = self._setting
        if (actors, then.copies) != (self._config.actors, now.copies):
            raise ConfigError(
                f"--run {self._directory.path} was interrupted with --actors {actors} --copies {then.copies}, "
                f"not {self._config.actors} and {now.copies}; resume it with those"
            )
        if then.threads != now.threads:
            _warn_of(f"--threads was {then.threads}")
        if then.spec != now.spec:
            _warn_of("its settings were changed")
        for name, version in then.versions.items():
            if version != now.versions.get(name):
                _warn_of(f"{name} was {version}")

    # ---- where it is interrupted ----------------------------------------------------------------------------------

    def _keep(self, done: Counters) -> None:
        """Keeps all that the checkpoint about to be written does not hold; nothing when the budget is used."""
        if schedule.progress(self._run.spec.budget, done.env_steps, done.trained_s) >= 1.0:
            return
        stream, table = self._stream, self._stream.table
        moment = Snapshot(
            updates=done.updates,
            limits=stream.limits(),
            capacity=table.ring.capacity,
            size=table.size,
            next_slot=table.ring.next_slot,
            published=stream.published,
            sessions=stream.sessions(),
            setting=self._setting,
        )
        first = max(self._keeper.end, moment.start)
        wanted = checkpointed_updates(self._directory.checkpoints)
        self._keeper.save(moment, _state(stream), first, stream.records_from(first), wanted)


def _state(stream: LockstepStream) -> State:
    state = with_prefix("replay", stream.table.state())
    for actor in stream.actors:
        state |= with_prefix(actor.name, actor.state())
    return state


def _warn_of(reason: str) -> None:
    _log.warning("the resumed run will not be the uninterrupted one bit for bit: %s", reason)
