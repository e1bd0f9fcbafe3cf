"""The node's Prometheus metrics, summed over its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from actor_node.counters import Counters

_WAITS = ("replay", "weights", "credit")

# figure -> (metric, help): counters, summed over workers.
_TOTALS = {
    "env_steps": ("shoal_actor_env_steps", "Joint environment steps taken."),
    "episodes": ("shoal_actor_episodes", "Episodes finished."),
    "episode_return_sum": ("shoal_actor_episode_return_sum", "Sum of returns of finished episodes, over agents."),
    "chunks": ("shoal_actor_chunks", "Chunks of transitions collected."),
    "chunk_bytes": ("shoal_actor_chunk_bytes", "Bytes of transitions collected."),
    "chunks_resent": ("shoal_actor_chunks_resent", "Chunks sent again after a reconnection or a gap."),
    "weights_rejected": ("shoal_actor_weights_rejected", "Weights refused: damaged, or of another run."),
    "collecting_s": ("shoal_actor_collecting_seconds", "Worker time spent collecting."),
}


class NodeCollector(Collector):
    """Reads the shared figures at each scrape."""

    def __init__(self, counters: Counters, alive: Callable[[], int], restarts: Callable[[], int]) -> None:
        self._counters, self._alive, self._restarts = counters, alive, restarts

    def collect(self) -> Iterable[Metric]:
        """Yields the node's metrics."""
        for figure, (name, text) in _TOTALS.items():
            # A sum of returns falls as well as rises: a gauge in Prometheus' terms.
            kind = GaugeMetricFamily if figure == "episode_return_sum" else CounterMetricFamily
            yield kind(name, text, value=float(self._counters.column(figure).sum()))
        waits = CounterMetricFamily(
            "shoal_actor_waiting_seconds", "Worker time spent waiting, by whom for.", labels=["for"]
        )
        for who in _WAITS:
            waits.add_metric([who], float(self._counters.column(f"waiting_for_{who}_s").sum()))
        yield waits
        unacked = float(self._counters.column("chunks_unacknowledged").sum())
        yield GaugeMetricFamily("shoal_actor_chunks_unacknowledged", "Chunks not yet acknowledged.", value=unacked)
        version = self._counters.column("weights_version").min()
        yield GaugeMetricFamily("shoal_actor_weights_version", "Oldest weights version in use.", value=float(version))
        age = self._counters.column("weights_age_s").max()
        yield GaugeMetricFamily("shoal_actor_weights_age_seconds", "Longest time since weights came.", value=float(age))
        yield GaugeMetricFamily("shoal_actor_workers_alive", "Worker processes running.", value=self._alive())
        yield CounterMetricFamily("shoal_actor_worker_restarts", "Workers started again.", value=self._restarts())


def make_registry(counters: Counters, alive: Callable[[], int], restarts: Callable[[], int]) -> CollectorRegistry:
    """Returns a registry with the node's metrics."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(counters, alive, restarts))
    return registry
