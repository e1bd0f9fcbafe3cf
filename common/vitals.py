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
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from common.run import Run

RUN_LABELS = ("run", "scenario", "algorithm")
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
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


def private_bytes(pid: int) -> int:
    """Returns the memory only this process has: what its end would give back; 0 when it is gone."""
    lines = _read(PROC / str(pid) / "status").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and of its ended children; 0 when it is gone."""
    # After the command, which is in brackets and may hold anything: utime, stime, cutime, cstime are 12th to 15th.
    fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def memory_limit_bytes() -> int:
    """Returns the least of the machine's memory and the limits of this process' cgroups, version 1 or 2."""
    return min([_machine_bytes(), *(limit for limit, _ in _limits())])


def available_memory_bytes() -> int:
    """Returns what this process may still use: the machine's free memory, or less where one of its cgroups has less."""
    lines = _read(PROC / "meminfo").splitlines()
    free = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([next(free, _machine_bytes()), *(max(limit - used, 0) for limit, used in _limits())])


def _machine_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits() -> Iterable[tuple[int, int]]:
    """Yields limit and use of memory of each of this process' cgroups that has a limit."""
    for limit_file, used_file in _limit_files():
        limit, used = _read(limit_file).strip(), _read(used_file).strip()
        if limit.isdigit():
            yield int(limit), int(used) if used.isdigit() else 0


def _limit_files() -> Iterable[tuple[Path, Path]]:
    """Yields the files with limit and use of memory of this process' cgroups and of those that contain them."""
    for line in _read(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, limit, used = (
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if controllers
            else ("", "memory.max", "memory.current")
        )
        top = CGROUPS / root
        # In a container the path may be the host's, while the container sees its own group at the top.
        for group in {top, *(top / parent for parent in _with_parents(path.strip("/")))}:
            yield group / limit, group / used


def _with_parents(path: str) -> Iterable[Path]:
    return (Path(path), *Path(path).parents)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


@cache
def software_version() -> str:
    """Returns the version of Shoal that this process runs."""
    return _version("shoal")


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"
