"""Resident memory of an actor worker against a process that imports torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from deploy.bench.rows import Row, row

GOAL = 0.25
_WORKER = """
import actor_node.worker
from common.worlds import make_world
world = make_world("simple_spread", 32, seed=0)
world.reset()
"""


def rows() -> Iterator[Row]:
    """Yields memory/worker: a worker's modules with its world, over torch imported and nothing else."""
    ours, torch = _resident_mib(_WORKER), _resident_mib("import torch")
    yield row("memory/worker", "MiB", ours, ("a process that imports torch", torch), GOAL)


def _resident_mib(code: str) -> float:
    """Returns the resident memory of a process that has run this code."""
    command = [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        if process.stdout is None or process.stdout.readline() != "ready\n":
            raise RuntimeError(f"a process that runs {code!r} did not get ready")
        ps = ["ps", "-o", "rss=", "-p", str(process.pid)]
        resident_kib = int(subprocess.run(ps, check=True, capture_output=True, text=True).stdout)  # noqa: S603
        process.communicate("\n")
    return resident_kib / 1024
