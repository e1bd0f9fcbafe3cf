"""What every process tells of itself on /metrics: its build, its run, and what it takes of the machine.

A process may speak for others: an actor node's supervisor counts its workers' memory and CPU time with its own.
Memory and CPU time are read from Linux' /proc; elsewhere those metrics are absent.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterable
from functools import cache
from importlib import metadata

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from common.process.resources import cpu_seconds, memory_limit_bytes, private_bytes
from common.run.run import Run

RUN_LABELS = ("run", "scenario", "algorithm")

_LABEL_CHARACTERS = 200


def make_registry(
    role: str, children: Callable[[], Iterable[int]] = tuple, *, libraries: Iterable[str] = ()
) -> CollectorRegistry:
    """Returns a registry with what every process tells of itself.

    children: ids of the processes it speaks for; libraries: distributions whose versions matter to the role.
    """
    # Prometheus has no use for a gauge of each counter's birth; it would be a third of all series.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(_Vitals(role, children, ("numpy", "pyzmq", *libraries)))
    ProcessCollector(registry=registry)
    return registry


def run_info(labels: dict[str, str]) -> Metric:
    """Returns the metric that tells which run a process works for: other metrics are joined with it by instance."""
    return InfoMetricFamily("shoal_run", "The run this process works for.", value=labels)


def run_labels(run: Run) -> dict[str, str]:
    """Returns what `run_info` tells of a run: the values of RUN_LABELS."""
    values = (run.id, run.spec.scenario, run.spec.algorithm.name)
    return {name: value[:_LABEL_CHARACTERS] for name, value in zip(RUN_LABELS, values, strict=True)}


class _Vitals(Collector):
    """Reads the system at each scrape."""

    def __init__(self, role: str, children: Callable[[], Iterable[int]], libraries: Iterable[str]) -> None:
        self._children = children
        versions = {name: _version(name) for name in libraries}
        self._build = {"role": role, "version": software_version(), "python": platform.python_version(), **versions}
        self._spent_s = 0.0

    def collect(self) -> Iterable[Metric]:
        """Yields build, memory and CPU time."""
        yield InfoMetricFamily("shoal_build", "Versions of this process.", value=self._build)
        if not sys.platform.startswith("linux"):
            return
        pids = [os.getpid(), *self._children()]
        used = sum(map(private_bytes, pids))
        # A worker that ends while they are read is in neither sum for once: a counter must not go back for that.
        self._spent_s = max(self._spent_s, round(sum(map(cpu_seconds, pids)), 2))
        yield GaugeMetricFamily("shoal_memory_bytes", "Private memory of the process and its workers.", used)
        limit = memory_limit_bytes()
        yield GaugeMetricFamily("shoal_memory_limit_bytes", "Memory there may be: its cgroup's, or all.", limit)
        yield CounterMetricFamily("shoal_cpu_seconds", "CPU time of the process and its workers.", self._spent_s)


@cache
def software_version() -> str:
    """Returns the version of Shoal that this process runs."""
    return _version("shoal")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
