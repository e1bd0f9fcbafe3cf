"""Prometheus metrics of an actor node, summed over its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from actor_node.monitoring.shared_metrics import ACK_BUCKETS, ACK_SECONDS, WorkerMetrics
from common.process.monitoring import metrics as process_metrics

_WAITS = ("replay", "weights", "credit")

# column -> (metric, help): counters, summed over workers.
_COUNTERS = {
    "env_steps": ("env_steps", "Joint environment steps taken."),
    "episodes": ("episodes", "Episodes finished."),
    "chunks": ("chunks", "Chunks of transitions collected."),
    "chunk_bytes": ("chunk_bytes", "Bytes of transitions collected."),
    "chunks_resent": ("chunks_resent", "Chunks sent again after a reconnection or a gap."),
    "weights_rejected": ("weights_rejected", "Weights rejected: damaged, or of another run."),
    "collecting_s": ("collecting_seconds", "Worker time spent collecting."),
}


class NodeCollector(Collector):
    """Reads the workers' shared metrics at each scrape."""

    def __init__(self, metrics: WorkerMetrics, pids: Callable[[], Sequence[int]], restarts: Callable[[], int]) -> None:
        self._metrics, self._pids, self._restarts = metrics, pids, restarts

    def collect(self) -> Iterable[Metric]:
        """Yields the node's metrics."""
        if labels := self._metrics.run:
            yield process_metrics.run_info(labels)
        yield from self._counters()
        yield from self._gauges()

    def _counters(self) -> Iterable[Metric]:
        for column, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(f"shoal_actor_{name}", text, value=self._sum(column))
        waits = CounterMetricFamily(
            "shoal_actor_waiting_seconds", "Worker time spent waiting, by what it waits for.", labels=["for"]
        )
        for peer in _WAITS:
            waits.add_metric([peer], self._sum(f"waiting_for_{peer}_s"))
        yield waits
        yield SummaryMetricFamily(
            "shoal_actor_episode_return",
            "Returns of finished episodes, summed over agents.",
            count_value=int(self._sum("episodes")),
            sum_value=self._sum("episode_return_sum"),
        )
        counts = list(accumulate(self._sum(bucket) for bucket in ACK_BUCKETS))
        yield HistogramMetricFamily(
            "shoal_actor_chunk_ack_seconds",
            "Time from a chunk's collection to its acknowledgement.",
            buckets=list(zip([*map(str, ACK_SECONDS), "+Inf"], counts, strict=True)),
            sum_value=self._sum("ack_s"),
        )

    def _gauges(self) -> Iterable[Metric]:
        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(f"shoal_actor_{name}", text, value=float(value))

        column = self._metrics.column
        yield gauge("chunks_unacknowledged", "Chunks not yet acknowledged.", self._sum("chunks_unacknowledged"))
        yield gauge("weights_version", "Oldest weights version in use.", column("weights_version").min())
        yield gauge(
            "weights_age_seconds", "Longest time since a worker received weights.", column("weights_age_s").max()
        )
        yield gauge("workers", "Worker processes configured.", len(column("env_steps")))
        yield gauge("workers_alive", "Worker processes running.", len(self._pids()))
        yield CounterMetricFamily("shoal_actor_worker_restarts", "Worker restarts.", value=self._restarts())

    def _sum(self, column: str) -> float:
        return float(self._metrics.column(column).sum())


def make_registry(
    metrics: WorkerMetrics, pids: Callable[[], Sequence[int]], restarts: Callable[[], int]
) -> CollectorRegistry:
    """Returns a registry with the node's metrics.

    pids: returns the process ids of the running workers. restarts: returns how often workers were restarted.
    """
    registry = process_metrics.make_registry("actor", pids)
    registry.register(NodeCollector(metrics, pids, restarts))
    return registry
