"""The server's Prometheus metrics: read from the replay at each scrape, timings noted where they are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from replay_server.committer import Committer
from replay_server.recovery import Recovered
from replay_server.replay import Replay
from replay_server.table import Table

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)

# name, help, kind, value
_OF_TABLE: tuple[tuple[str, str, type[Metric], Callable[[Table], float]], ...] = (
    ("transitions", "Transitions held.", GaugeMetricFamily, lambda table: table.size),
    ("capacity_transitions", "Transitions that fit.", GaugeMetricFamily, lambda table: table.ring.capacity),
    ("ingested_transitions", "Transitions ever inserted.", CounterMetricFamily, lambda table: table.limiter.inserts),
    ("sampled_transitions", "Transitions ever sampled.", CounterMetricFamily, lambda table: table.limiter.samples),
    ("samples_per_insert", "Samples per insert since min_size.", GaugeMetricFamily, lambda t: t.limiter.realised),
    (
        "target_samples_per_insert",
        "Samples per insert to be held.",
        GaugeMetricFamily,
        lambda table: table.limiter.spec.samples_per_insert,
    ),
    ("rate_limiter_error", "Samples the learner is behind.", GaugeMetricFamily, lambda table: table.limiter.error),
    (
        "rate_limiter_error_bound",
        "Samples either side may be behind before the other waits.",
        GaugeMetricFamily,
        lambda table: table.limiter.half_width,
    ),
)


class ReplayCollector(Collector):
    """Reads the replay from the HTTP thread: plain numbers, each read at once."""

    def __init__(self, replay: Replay, clock: Callable[[], float]) -> None:
        self._replay, self._clock = replay, clock

    def collect(self) -> Iterable[Metric]:
        """Yields the replay's metrics."""
        replay, now = self._replay, self._clock()
        if table := replay.table:
            for name, text, kind, value in _OF_TABLE:
                yield kind(f"shoal_replay_{name}", text, value=value(table))  # type: ignore[call-arg]
            yield InfoMetricFamily("shoal_replay_run", "The run held.", value={"run": table.run.id})
        peers = GaugeMetricFamily("shoal_replay_peers", "Connected peers that hold their lease.", labels=["role"])
        peers.add_metric(["actor"], sum(1 for _ in list(replay.actors.live(now))))
        peers.add_metric(["learner"], len(replay.learners))
        yield peers
        rejected = CounterMetricFamily("shoal_replay_rejected", "Messages not taken in.", labels=["reason"])
        for reason, count in list(replay.tally.rejected.items()):
            rejected.add_metric([reason], count)
        yield rejected
        blocked = CounterMetricFamily(
            "shoal_replay_blocked_seconds", "Time in which a side had to wait, by cause.", labels=["side", "cause"]
        )
        for wait in (replay.actors_wait, replay.learner_wait):
            for cause, seconds in list(wait.seconds.items()):
                blocked.add_metric([wait.who, cause], seconds)
        yield blocked
        duplicates = replay.tally.duplicate_chunks
        yield CounterMetricFamily("shoal_replay_duplicate_chunks", "Chunks that had come before.", value=duplicates)
        yield GaugeMetricFamily("shoal_replay_uncommitted_chunks", "Chunks not yet durable.", value=len(replay.journal))


class CommitterCollector(Collector):
    """Reads the committer at each scrape."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer

    def collect(self) -> Iterable[Metric]:
        """Yields the log's metrics."""
        errors, up = self._committer.errors, not self._committer.error
        yield CounterMetricFamily("shoal_replay_redis_errors", "Commits that failed and were tried again.", errors)
        yield GaugeMetricFamily("shoal_replay_redis_up", "Whether the last commit succeeded.", float(up))


class Timings:
    """What is measured where it happens."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.commit = Histogram(
            "shoal_replay_redis_commit_seconds", "One group commit.", buckets=_SECONDS, registry=registry
        )
        self.turn = Histogram(
            "shoal_replay_turn_seconds", "One busy turn of the server's loop.", buckets=_SECONDS, registry=registry
        )
        self._recovered = {
            name: Gauge(f"shoal_replay_{name}", text, registry=registry)
            for name, text in (
                ("recovery_seconds", "Time the recovery at the start took."),
                ("recovered_transitions", "Transitions recovered at the start."),
                ("recovery_skipped_chunks", "Chunks damaged or missing in the log at the start."),
            )
        }

    def recovery(self, recovered: Recovered) -> None:
        """Notes what was recovered at the start."""
        self._recovered["recovery_seconds"].set(recovered.seconds)
        self._recovered["recovered_transitions"].set(recovered.transitions)
        self._recovered["recovery_skipped_chunks"].set(recovered.damaged + recovered.missing)
