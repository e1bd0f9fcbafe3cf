"""The server's Prometheus metrics: read from the replay at each scrape, or observed where they are measured.

Counters start at 0 with each server process. The counters of the run are gauges here: they are stored in Redis and
decrease when a crash loses chunks, which Prometheus would interpret as a restart from zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from common.process.monitoring import metrics as process_metrics
from replay_server.durability.committer import Committer
from replay_server.durability.recovery import RecoveryResult
from replay_server.recent_stats import LAG_BUCKETS, RecentStats
from replay_server.rejections import RejectionReason
from replay_server.replay import Replay
from replay_server.sessions.waits import CAUSES
from replay_server.table.table import Table

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0)


def _upper_bound(table: Table) -> float:
    return math.inf if table.limiter.spec.limit == "off" else table.limiter.half_width


def _lower_bound(table: Table) -> float:
    return table.limiter.lowest_error if table.limiter.spec.limit == "strict" else -math.inf


# name, help, kind, value
_TABLE_METRICS: tuple[tuple[str, str, type[Metric], Callable[[Table], float]], ...] = (
    ("transitions", "Transitions stored.", GaugeMetricFamily, lambda table: table.size),
    ("capacity_transitions", "Transitions that can be stored.", GaugeMetricFamily, lambda table: table.ring.capacity),
    (
        "min_size_transitions",
        "Transitions that must be stored before sampling starts.",
        GaugeMetricFamily,
        lambda table: table.limiter.spec.min_size,
    ),
    ("ingested_transitions", "Transitions inserted.", CounterMetricFamily, lambda table: table.inserted),
    ("sampled_transitions", "Transitions sampled.", CounterMetricFamily, lambda table: table.sampled),
    ("run_env_steps", "Transitions inserted in the whole run.", GaugeMetricFamily, lambda table: table.limiter.inserts),
    ("samples_per_insert", "Samples per insert since min_size.", GaugeMetricFamily, lambda t: t.limiter.realised),
    (
        "target_samples_per_insert",
        "Target of samples per insert; NaN for auto.",
        GaugeMetricFamily,
        lambda table: math.nan if table.limiter.spec.is_auto else table.limiter.spec.min_ratio,
    ),
    ("rate_limiter_error_samples", "Samples the learner is behind.", GaugeMetricFamily, lambda t: t.limiter.error),
    ("rate_limiter_upper_bound_samples", "Error at which actors wait.", GaugeMetricFamily, _upper_bound),
    ("rate_limiter_lower_bound_samples", "Error at which the learner waits.", GaugeMetricFamily, _lower_bound),
)


def make_registry() -> CollectorRegistry:
    """Returns a registry with the metrics that every process has."""
    return process_metrics.make_registry("replay")


class ReplayCollector(Collector):
    """Reads the replay in the HTTP server's thread, without a lock: each value is a single number."""

    def __init__(self, replay: Replay, clock: Callable[[], float]) -> None:
        self._replay, self._clock = replay, clock

    def collect(self) -> Iterable[Metric]:
        """Yields the replay's metrics."""
        replay, now = self._replay, self._clock()
        if table := replay.table:
            yield process_metrics.run_info(process_metrics.run_labels(table.run))
            for name, text, kind, value in _TABLE_METRICS:
                yield kind(f"shoal_replay_{name}", text, value=value(table))  # type: ignore[call-arg]
            yield from _recent_metrics(replay.recent, [agent.name for agent in table.run.joint.agents])
        yield from self._peers(now)
        yield from self._waits(now)
        yield from self._messages()

    def _peers(self, now: float) -> Iterable[Metric]:
        replay = self._replay
        peers = GaugeMetricFamily("shoal_replay_peers", "Connected peers with a valid lease.", labels=["role"])
        peers.add_metric(["actor"], sum(session.live(now) for session in list(replay.actors.sessions.values())))
        peers.add_metric(["learner"], len(replay.learners.live(now)))
        yield peers
        finished = float(replay.learners.finished)
        yield GaugeMetricFamily("shoal_replay_run_finished", "Whether the learner has used its budget.", finished)

    def _waits(self, now: float) -> Iterable[Metric]:
        labels = ["side", "cause"]
        blocked = CounterMetricFamily(
            "shoal_replay_blocked_seconds", "Time in which a side had to wait, by cause.", labels=labels
        )
        standstill = GaugeMetricFamily(
            "shoal_replay_standstill_seconds", "Time since a waiting side made progress.", labels=labels
        )
        for wait in (self._replay.actors_wait, self._replay.learner_wait):
            for cause in CAUSES[wait.side]:
                blocked.add_metric([wait.side, cause], wait.seconds[cause])
                standstill.add_metric([wait.side, cause], wait.duration_s(now) if cause == wait.reason.cause else 0.0)
        yield blocked
        yield standstill

    def _messages(self) -> Iterable[Metric]:
        rejections, waiting = self._replay.rejections, len(self._replay.journal)
        rejected = CounterMetricFamily(
            "shoal_replay_rejected", "Messages refused, and replies dropped.", labels=["reason"]
        )
        for reason in get_args(RejectionReason):
            rejected.add_metric([reason], rejections.rejected[reason])
        yield rejected
        duplicates = rejections.duplicate_chunks
        yield CounterMetricFamily("shoal_replay_duplicate_chunks", "Chunks that had arrived before.", value=duplicates)
        late = rejections.late_priorities
        yield CounterMetricFamily("shoal_replay_late_priorities", "TD errors of overwritten transitions.", value=late)
        yield GaugeMetricFamily("shoal_replay_uncommitted_chunks", "Chunks not yet durable.", value=waiting)


def _recent_metrics(recent: RecentStats, agents: list[str]) -> Iterable[Metric]:
    """Yields the policy lag, and the returns once an episode has finished."""
    counts = list(accumulate(recent.lag.chunks))
    yield HistogramMetricFamily(
        "shoal_replay_policy_lag_versions",
        "Versions between the newest weights and the weights that a chunk was collected with.",
        buckets=list(zip([*(f"{float(bound)}" for bound in LAG_BUCKETS), "+Inf"], counts, strict=True)),
        sum_value=recent.lag.total,
    )
    if math.isnan(mean := recent.returns.mean):
        return
    yield GaugeMetricFamily(
        "shoal_replay_episode_return", "Mean return of the last 100 episodes or more, summed over agents.", value=mean
    )
    by_agent = GaugeMetricFamily(
        "shoal_replay_agent_episode_return", "Mean return of the last 100 episodes or more, by agent.", labels=["agent"]
    )
    for agent, value in zip(agents, recent.returns.means, strict=False):
        by_agent.add_metric([agent], value)
    yield by_agent


class CommitterCollector(Collector):
    """Reads the committer at each scrape."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def collect(self) -> Iterable[Metric]:
        """Yields the log's metrics."""
        errors, up = self._committer.errors, not self._committer.error
        yield CounterMetricFamily("shoal_replay_redis_errors", "Commits that failed and were retried.", errors)
        yield GaugeMetricFamily("shoal_replay_redis_up", "Whether the last commit succeeded.", float(up))


class Timings:
    """Durations that the server's loop observes, and the result of the recovery."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commit = Histogram(
            "shoal_replay_redis_commit_seconds", "One group commit.", buckets=_SECONDS, registry=registry
        )
        self.iteration = Histogram(
            "shoal_replay_turn_seconds",
            "One iteration of the server's loop that took messages.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._recovered = {
            name: Gauge(f"shoal_replay_{name}", text, registry=registry)
            for name, text in (
                ("recovery_seconds", "Duration of the recovery at the start."),
                ("recovered_transitions", "Transitions recovered at the start."),
                ("recovery_skipped_chunks", "Chunks damaged or missing in the log at the start."),
            )
        }

    def set_recovery(self, recovered: RecoveryResult) -> None:
        """Sets the metrics of the result of the recovery at the start."""
        self._recovered["recovery_seconds"].set(recovered.seconds)
        self._recovered["recovered_transitions"].set(recovered.transitions)
        self._recovered["recovery_skipped_chunks"].set(recovered.damaged + recovered.missing)
