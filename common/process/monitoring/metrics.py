"""The metrics that every process exports on /metrics: its build, its run, its memory and its CPU time.

A process may report for others: an actor node's supervisor adds its workers' memory and CPU time to its own.
Memory and CPU time are read from Linux' /proc; on other systems these metrics are absent.
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

from common.process.monitoring.resources import cpu_seconds, memory_limit_bytes, private_bytes
from common.run.run import Run

RUN_LABELS = ("run", "scenario", "algorithm")

_LABEL_CHARACTERS = 200


def make_registry(
    role: str, children: Callable[[], Iterable[int]] = tuple, *, libraries: Iterable[str] = ()
) -> CollectorRegistry:
    """Returns a registry with the metrics that every process exports.

    children: returns the ids of the processes to report for; libraries: distributions whose versions are exported.
    """
    # Prometheus does not use the creation time of counters; it would be a third of all series.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(_ProcessMetrics(role, children, ("numpy", "pyzmq", *libraries)))
    ProcessCollector(registry=registry)
    return registry


def run_info(labels: dict[str, str]) -> Metric:
    """Returns the metric that names a process's run; queries join other metrics with it by instance."""
    return InfoMetricFamily("shoal_run", "The run this process works for.", value=labels)


def run_labels(run: Run) -> dict[str, str]:
    """Returns the labels of `run_info` for a run: the values of RUN_LABELS."""
    values = (run.id, run.spec.scenario, run.spec.algorithm.name)
    return {name: value[:_LABEL_CHARACTERS] for name, value in zip(RUN_LABELS, values, strict=True)}


class _ProcessMetrics(Collector):
    """Reads the system at each scrape."""

    def __init__(self, role: str, children: Callable[[], Iterable[int]], libraries: Iterable[str]) -> None:
        self._children = children
        versions = {name: _version(name) for name in libraries}
        self._build = {"role": role, "version": software_version(), "python": platform.python_version(), **versions}
        self._cpu_s = 0.0

    def collect(self) -> Iterable[Metric]:
        """Yields build, memory and CPU time."""
        yield InfoMetricFamily("shoal_build", "Versions of this process.", value=self._build)
        if not sys.platform.startswith("linux"):
            return
        pids = [os.getpid(), *self._children()]
        used = sum(map(private_bytes, pids))
        # A worker that exits during the scrape is missing from the sum once; a counter must not decrease for that.
        self._cpu_s = max(self._cpu_s, round(sum(map(cpu_seconds, pids)), 2))
        yield GaugeMetricFamily("shoal_memory_bytes", "Private memory of the process and its workers.", used)
        limit = memory_limit_bytes()
        yield GaugeMetricFamily("shoal_memory_limit_bytes", "Memory limit of the cgroup, or of the machine.", limit)
        yield CounterMetricFamily("shoal_cpu_seconds", "CPU time of the process and its workers.", self._cpu_s)


@cache
def software_version() -> str:
    """Returns the installed version of Shoal."""
    return _version("shoal")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
