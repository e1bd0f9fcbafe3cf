"""Resources of a process: memory, CPU time and open files, used and allowed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
MAX_OPEN_FILES = 65_536
MMAP_THRESHOLD_BYTES = 32 * 2**20
"""Buffers below this size come from the heap; the most that glibc allows."""
TRIM_THRESHOLD_BYTES = 64 * 2**20
"""Freed memory at a heap's end that is not returned to the system; well below the least `replay --peer-memory`."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def allow_many_connections() -> None:
    """Raises the soft limit of open files (usually 1,024) towards the hard limit, because each peer needs one file."""
    import resource  # noqa: PLC0415  (Windows has no such module; the servers, which call this, need POSIX)

    with contextlib.suppress(OSError, ValueError):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(MAX_OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


def retain_freed_memory() -> bool:
    """Lets malloc reuse freed buffers instead of returning each one to the system; returns whether that was possible.

    By default glibc may return and fault in again every buffer of a batch or a chunk: it adapts its thresholds to the
    first buffers it frees, so one start of a process does and the next does not. Without glibc nothing changes.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD_BYTES))


def private_bytes(pid: int) -> int:
    """Returns the private memory of a process [bytes], which its exit would free; 0 if it has exited."""
    lines = _read(PROC / str(pid) / "status").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process and of its exited children [s]; 0 if it has exited."""
    # After the command, which is in brackets and may contain any character: utime, stime, cutime, cstime, 12 to 15.
    fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def memory_limit_bytes() -> int:
    """Returns the minimum of the machine's memory and the limits of this process's cgroups, version 1 or 2 [bytes]."""
    return min([_machine_bytes(), *(limit for limit, _ in _limits())])


def available_memory_bytes() -> int:
    """Returns the memory that this process can still use [bytes]: the machine's, or less if a cgroup has less."""
    lines = _read(PROC / "meminfo").splitlines()
    free = (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min([next(free, _machine_bytes()), *(max(limit - used, 0) for limit, used in _limits())])


def usable_cores() -> int:
    """Returns the number of cores that this process can use: its affinity's, or fewer if a cgroup has a quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _cpu_quotas())]))


def _cpu_quotas() -> Iterable[float]:
    """Yields the CPU quota [cores] of each of this process's cgroups that has one."""
    for group in _cgroups("cpu"):
        # Version 2 writes "QUOTA PERIOD", version 1 two files; no quota is "max" or -1.
        fields = _read(group / "cpu.max").split() or [
            _read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
        ]
        if fields[0].isdigit() and fields[1].isdigit():
            yield int(fields[0]) / int(fields[1])


def _machine_bytes() -> int:
    if not hasattr(os, "sysconf"):  # Windows: no limit is known
        return sys.maxsize
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits() -> Iterable[tuple[int, int]]:
    """Yields the memory limit and usage [bytes] of each of this process's cgroups that has a limit."""
    for limit_file, used_file in _limit_files():
        limit, used = _read(limit_file).strip(), _read(used_file).strip()
        if limit.isdigit():
            yield int(limit), int(used) if used.isdigit() else 0


def _limit_files() -> Iterable[tuple[Path, Path]]:
    """Yields the files with the memory limit and usage of this process's cgroups and of their parents."""
    for group in _cgroups("memory"):
        yield group / "memory.max", group / "memory.current"
        yield group / "memory.limit_in_bytes", group / "memory.usage_in_bytes"


def _cgroups(controller: str) -> Iterable[Path]:
    """Yields this process's cgroups, version 1 or 2, that a controller may limit, and their parents."""
    for line in _read(PROC / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # In a container the path may be the host's, but the container's own group is mounted at the top.
        top = CGROUPS / controller if controllers else CGROUPS
        yield from {top, *(top / parent for parent in _with_parents(path.strip("/")))}


def _with_parents(path: str) -> Iterable[Path]:
    return (Path(path), *Path(path).parents)


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""
