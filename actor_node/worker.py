"""One worker process: waits until it may collect, collects a chunk, hands it to its link; and again.

Waits before collecting, not after, so that a chunk is acted with the newest weights there are.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.collector import Collector, FinishedEpisodes, Interrupted
from actor_node.environment_calls import Call, CallTable, WatchedEnv, in_words
from actor_node.exploration import scale_share
from actor_node.replay_session import ReplaySession
from actor_node.shared_metrics import AckTimes, Shared, WorkerMetrics
from actor_node.worker_exits import WorkerFailure, failure_of
from common.errors import ConfigError, PeerError, ShoalError
from common.policy.network import Policy
from common.process.exit import DONE, FAILED
from common.process.logs import WaitLog, start_logging
from common.process.metrics import run_labels, software_version
from common.process.parent import die_with_parent
from common.process.stop import Stop
from common.run.run import Run
from common.transitions import transition_dtype
from common.wire.audit import AuditFile, Life
from common.wire.codec import MAX_PEER_FRAME_BYTES, checksum
from common.wire.keys import load_keys
from common.wire.messages import ActorReport
from common.worlds import World, make_world

REPORT_PERIOD_S = 1.0
IDLE_POLL_S = 0.05
CHUNK_S = 1.0
"""A chunk that has taken so long ends with the step at hand, whatever its rows."""
LISTEN_PERIOD_S = 0.25
"""How often a worker listens while its environments are at work, at most."""
ORPHAN_PERIOD_S = 1.0
"""How often a worker looks whether its node is still there."""
ORPHAN_ENDS_S = 5.0
"""A worker without its node that takes longer to end is killed, with what its environment started."""
AWAY_S = 1.0
"""With the environments at work for longer, what the link did not hear counts as not listened to."""

_log = logging.getLogger(__name__)


@runtime_checkable
class Wrappable(Protocol):
    """A world of separate environments."""

    def wrap(self, around: Callable[[Any], Any]) -> None:
        """Puts something around every environment."""
        ...


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a supervisor tells one worker."""

    index: int
    workers: int
    """Of its node."""
    name: str
    copies: int
    chunk_steps: int
    replay: str
    weights: str
    keys: str
    """Directory; empty = none."""
    drain_s: float
    peer_timeout_s: float
    metrics_url: str
    supervisor: int
    """Process id."""
    audit: str = ""
    """Directory of the audit; empty = none."""
    restarts: int = 0
    """How often this worker was started again."""
    last_fault: str = ""
    """Why it was last, in one line."""


class WorkerStop(Stop):
    """A worker's request to end; the second signal also breaks off the call of the user's code that runs.

    Without its node, the first one does: nobody is there to send a second.
    """

    def __init__(self, supervisor: int) -> None:
        super().__init__()
        self._supervisor = supervisor
        self.in_call = False
        """Whether the user's code runs, in the main thread."""

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        again = self.requested or os.getppid() != self._supervisor
        self.request(DONE)
        if again and self.in_call:
            self.in_call = False
            raise Interrupted


def work(config: WorkerConfig, shared: Shared, pipe: Connection) -> None:
    """Is the main function of a worker process; reports a failure through `pipe` before it ends.

    The process is an ordinary one: it may start threads and processes, and what these leave behind ends with it. It
    leads a session of its own, so that a terminal's Ctrl-C does not hit the environment's simulators, and what the
    environment prints goes where the log goes.
    """
    os.setsid()
    die_with_parent(config.supervisor)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    start_logging(f"actor/{config.index}")
    stop = WorkerStop(config.supervisor)
    stop.on_signals()
    threading.Thread(target=_end_without, args=(config.supervisor,), name="node-watch", daemon=True).start()
    reporter = FailureReporter(pipe)
    code, worker = DONE, None
    try:
        worker = Worker(config, shared, stop, reporter)
        worker.run()
        if stop.requested and not shared.stop_at[0]:
            reporter.send(WorkerFailure("other", "ended by a signal that its node did not send"))
    except BaseException as e:  # noqa: BLE001  (the process ends here; its supervisor shows the words)
        reporter.send(failure_of(e))
        code = e.exit_code if isinstance(e, ShoalError) else FAILED
    if worker is not None:
        worker.close()
    _leave(config, code)


class FailureReporter:
    """Sends the worker's failure to its supervisor, once, and before anything that may hang."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._sent = pipe, False

    def send(self, failure: WorkerFailure) -> None:
        """Sends the first failure; later ones are ignored."""
        if self._sent:
            return
        self._sent = True
        with suppress(OSError):  # the supervisor is gone
            self._pipe.send_bytes(msgspec.json.encode(failure))


def _end_without(supervisor: int) -> None:
    """Ends the worker and its whole session once its node is gone, also where a call of the user's code holds it."""
    while os.getppid() == supervisor:
        time.sleep(ORPHAN_PERIOD_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN_ENDS_S)
    os.killpg(0, signal.SIGKILL)


def _leave(config: WorkerConfig, code: int) -> NoReturn:
    """Ends the process, and does not wait for threads and processes that the environment left behind."""
    for child in multiprocessing.active_children():
        child.kill()
    if os.getppid() != config.supervisor:
        # Nobody is left who would look after what the environment started.
        os.killpg(0, signal.SIGKILL)
    # os._exit runs none of them, and the usual end of a process waits for its threads first.
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class Worker:
    """Plays one batch of world copies against one replay server."""

    def __init__(self, config: WorkerConfig, shared: Shared, stop: WorkerStop, reporter: FailureReporter) -> None:
        self._config, self._counters, self._stop, self._reporter = config, WorkerMetrics(shared), stop, reporter
        self._doing, self._stop_at = CallTable(shared.doing), shared.stop_at
        audit = AuditFile(Path(config.audit), Life("actor", config.name)) if config.audit else None
        self._link = ReplaySession(config.name, config.replay, config.weights, audit, load_keys(config.keys))
        self._ack_times = AckTimes(self._counters, config.index)
        self._wait = WaitLog(_log)
        self._world: World | None = None
        self._collector: Collector | None = None
        self._policy: tuple[int, Policy] | None = None
        self._env_steps = self._episodes = 0
        self._shared_reward = True
        self._return_sums: np.ndarray[Any, np.dtype[np.float64]] = np.zeros(0)
        self._told: dict[str, int] = {}
        """What of the link's totals has been counted."""
        self._last_fault = config.last_fault
        self._trouble: ShoalError | None = None
        """What the link met while the environment was at work; raised once the environment has returned."""
        self._reported_at = self._listened_at = self._chunk_began = self._step_began = 0.0
        self._born_at = time.monotonic()

    def run(self) -> None:
        """Collects until asked to stop, then drains."""
        try:
            while not self._stopping:
                self._turn()
            self._drain()
        except Interrupted:
            self._drain()
        except (Exception, SystemExit) as e:
            self._stop.in_call = False
            self._last_fault = failure_of(e).line
            self._report(time.monotonic())
            raise

    def close(self) -> None:
        """Says good-bye, and closes the environments as a call that the supervisor sees, and ends in time."""
        self._link.close()
        self._closing()
        try:
            if self._world is not None:
                self._world.close()
        except (Exception, Interrupted) as e:  # noqa: BLE001  (the worker has done its work)
            _log.warning("closing the environments failed: %s", failure_of(e).text)
        finally:
            self._stop.in_call = False

    @property
    def _stopping(self) -> bool:
        """Whether the worker was asked to end: by a signal, or, where the user's code takes those, by its node."""
        return self._stop.requested or self._stop_at[0] > 0.0

    def _turn(self) -> None:
        now = time.monotonic()
        who, reason = self._link.waiting_for()
        self._listen(now, timeout_s=IDLE_POLL_S if who else 0.0)
        still_waits_for, reason = self._link.waiting_for()
        if still_waits_for:
            self._wait.waiting(reason, now)
            if self._link.run is None and 0 < self._config.peer_timeout_s < now - self._born_at:
                raise PeerError(f"waited {now - self._born_at:.0f} s for {reason}; is it running, and --replay right?")
            self._count(f"waiting_for_{still_waits_for}_s", time.monotonic() - now)
            return
        self._wait.done(now)
        self._collect()
        self._count("collecting_s", time.monotonic() - now)

    def _listen(self, now: float, timeout_s: float = 0.0) -> None:
        """Lets the link receive and send, and reports once a second."""
        if self._listened_at and now - self._listened_at > AWAY_S:
            self._link.was_away(now - self._listened_at)
        self._link.pump(now, timeout_s)
        self._listened_at = now
        self._ack_times.acknowledged(self._link.outbox.acked, time.monotonic())
        if now - self._reported_at >= REPORT_PERIOD_S:
            self._report(now)

    # ---- collecting -----------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        weights, run = self._link.weights, self._link.run
        if weights is None or run is None:
            raise RuntimeError("asked to collect before weights and run were known")
        if self._collector is None:
            self._collector = self._make_collector(run)
            return  # its weights may be old by now
        if self._policy is None or self._policy[0] != weights.header.version:
            self._policy = weights.header.version, Policy(run.players, run.spec.network, weights.flat)
        self._chunk_began = self._step_began = time.monotonic()
        self._doing.steps(self._config.index, self._chunk_began)
        records, episodes = self._collector.collect(
            self._policy[1], weights.header, self._config.chunk_steps, self._go_on
        )
        self._doing.idle(self._config.index, time.monotonic() - self._step_began)
        if len(records):
            self._hand_over(records, episodes, weights.header.version)
        self._raise_trouble()

    def _hand_over(self, records: npt.NDArray[np.void], episodes: FinishedEpisodes, version: int) -> None:
        self._note(len(records), episodes)
        self._count("chunk_bytes", records.nbytes)
        self._ack_times.sent(self._link.outbox.next_seq, time.monotonic())
        payload = records.view(np.uint8).data
        self._link.add_chunk(len(records), version, payload, copies=episodes.copies, ends=episodes.ends)

    def _go_on(self) -> bool:
        """Says, after a step of all copies, whether the chunk gets another: not at a stop, and not after CHUNK_S."""
        now = time.monotonic()
        if self._stopping or self._trouble or now - self._chunk_began >= CHUNK_S:
            return False
        self._step_began = now
        self._doing.steps(self._config.index, now)
        return True

    def _make_collector(self, run: Run) -> Collector:
        config = self._config
        refuse_large_chunks(run, config.chunk_steps * config.copies)
        self._counters.run = run_labels(run)
        # Name and incarnation are part of the seed: no two workers, and no restarted one, play the same episodes.
        rng = np.random.default_rng([run.spec.seed, checksum(config.name.encode()), self._link.outbox.incarnation])
        self._report(time.monotonic())

        def made(copy: int) -> None:
            self._returned()
            self._between_calls()
            if copy + 1 < config.copies:
                self._begin(Call.MAKING, copy + 1)

        self._begin(Call.MAKING, 0)
        self._world = make_world(
            run.spec.scenario,
            config.copies,
            seed=int(rng.integers(2**32)),
            options=run.spec.world,
            max_episode_steps=run.spec.episode.max_steps,
            on_made=made,
            on_fault=self._making_failed,
        )
        self._returned()
        self._watch(self._world)
        share = scale_share(run.spec.exploration.ladder, config.index, config.workers)
        collector = Collector(run, self._world, rng, share)
        self._doing.idle(config.index, 0.0)
        self._raise_trouble()
        return collector

    # ---- calls of the user's code ---------------------------------------------------------------------------------

    def _watch(self, world: World) -> None:
        """Has every environment of a world that steps them one by one say when it is called."""
        if not isinstance(world, Wrappable):
            return
        copies = itertools.count()

        def watched(env: Any) -> WatchedEnv:
            copy = next(copies)

            def began(call: Call) -> None:
                self._between_calls()
                self._begin(call, copy)

            return WatchedEnv(env, began, self._returned)

        world.wrap(watched)

    def _begin(self, call: Call, copy: int) -> None:
        self._doing.call(self._config.index, call, copy, self._config.copies, time.monotonic())
        self._stop.in_call = True

    def _returned(self) -> None:
        self._stop.in_call = False
        self._doing.returned(self._config.index)

    def _between_calls(self) -> None:
        """Hears and speaks between two calls of the user's code; Interrupted when it shall not be called again."""
        if self._stopping:
            raise Interrupted
        now = time.monotonic()
        if now - self._listened_at < LISTEN_PERIOD_S:
            return
        try:
            self._listen(now)
        except ShoalError as e:
            # Not from here: it would seem to be the environment's.
            self._trouble = e
            raise Interrupted from e

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def _making_failed(self, error: BaseException) -> None:
        """Says why, before the copies that were made are closed."""
        if not isinstance(error, Interrupted):
            self._reporter.send(failure_of(error))
        self._closing()

    def _closing(self) -> None:
        if self._doing.read(self._config.index).call is not Call.CLOSING:
            self._begin(Call.CLOSING, 0)

    def _note(self, env_steps: int, episodes: FinishedEpisodes) -> None:
        self._env_steps += env_steps
        self._episodes += episodes.ended
        self._shared_reward = episodes.shared_reward
        self._return_sums = episodes.return_sums + (self._return_sums if self._return_sums.size else 0.0)
        self._count("env_steps", env_steps)
        self._count("episodes", episodes.ended)
        self._count("episode_return_sum", float(episodes.return_sums.sum()))
        self._count("chunks", 1)

    def _report(self, now: float) -> None:
        self._reported_at = now
        link, weights = self._link, self._link.weights
        version = weights.header.version if weights else 0
        age_s = now - link.weights_at if weights else 0.0
        levels = {"chunks_unacknowledged": link.outbox.unacked, "weights_version": version, "weights_age_s": age_s}
        for figure, value in levels.items():
            self._counters.set(self._config.index, figure, value)
        for figure, total in {"chunks_resent": link.outbox.resent, "weights_rejected": link.weights_rejected}.items():
            self._count(figure, total - self._told.get(figure, 0))
            self._told[figure] = total
        link.report(
            ActorReport(
                actor=self._config.name,
                incarnation=link.outbox.incarnation,
                env_steps=self._env_steps,
                episodes=self._episodes,
                return_sum=float(self._return_sums.sum()),
                return_sums=tuple(float(x) for x in self._return_sums),
                weights_version=version,
                weights_age_s=age_s,
                waiting_for=self._wait.reason,
                waited_s=self._wait.total_s,
                metrics_url=self._config.metrics_url,
                software=software_version(),
                weights_refused=link.weights_refused,
                doing=in_words(self._doing.read(self._config.index), now),
                restarts=self._config.restarts,
                last_fault=self._last_fault,
                shared_reward=self._shared_reward,
            )
        )
        self._doing.spoke(self._config.index, link.outbox.incarnation, now)

    def _drain(self) -> None:
        """Waits a bounded time for acknowledgements of what was sent, and tells the last figures."""
        self._stop.in_call = False
        orphaned = os.getppid() != self._config.supervisor
        asked_at = self._stop_at[0] or time.monotonic()
        give_up_at = asked_at + (0.0 if orphaned else self._config.drain_s)
        self._raise_trouble()
        while self._link.outbox.unacked and (now := time.monotonic()) < give_up_at:
            self._link.pump(now, timeout_s=IDLE_POLL_S)
        if self._link.outbox.unacked:
            _log.warning("ended with %d chunks not acknowledged", self._link.outbox.unacked)
        self._report(time.monotonic())

    def _count(self, figure: str, amount: float) -> None:
        self._counters.add(self._config.index, figure, amount)


def refuse_large_chunks(run: Run, rows: int) -> None:
    """Raises ConfigError for chunks that no replay server takes, or that would never fit into the ratio's band."""
    size, most = rows * transition_dtype(run.joint).itemsize, MAX_PEER_FRAME_BYTES
    if size > most:
        raise ConfigError(
            f"a chunk of {rows:,} transitions is {size / 2**20:.0f} MiB, and a replay server takes {most / 2**20:.0f}; "
            "lower --copies and --chunk-rows"
        )
    replay = run.spec.replay
    if rows > (largest := replay.largest_chunk(replay.batch)):
        raise ConfigError(
            f"chunks of {rows:,} transitions never fit into replay.error_buffer {replay.error_buffer:g}, which takes "
            f"{largest:,} at {replay.samples_per_insert:g} samples per insert; lower --copies and --chunk-rows, or "
            "leave the buffer at 0 to have it chosen"
        )
