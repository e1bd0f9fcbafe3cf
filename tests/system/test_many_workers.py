"""A node of 32 workers: how much memory it takes and how soon all of them step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.conftest import wait_until

from .conftest import Commands, family, status_at

pytestmark = pytest.mark.system

WORKERS = 32


def memory_of_torch() -> int:
    """Returns the resident bytes of a process that has imported torch and nothing else."""
    code = "import torch, sys; print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        resident: int = psutil.Process(process.pid).memory_info().rss
        process.communicate()
    return resident


@pytest.mark.soak
def test_32_workers_fit_in_a_quarter_of_what_torch_would_take(commands: Commands, tmp_path: Path) -> None:
    replay, weights, port = f"ipc://{tmp_path / 'replay'}", f"ipc://{tmp_path / 'weights'}", ("--metrics-port", 0)
    commands.start("replay", "--bind", replay, "--redis", "none", *port)
    learner = ("--scenario", "simple_spread", "--run", tmp_path / "run", "--replay", replay, "--bind", weights)
    commands.start("learner", *learner, *port, "--set", "replay.limit=off")
    wait_until(lambda: (status := status_at(replay)) and status.learner, "a run")

    node = commands.start("actor", "--n", WORKERS, "--replay", replay, "--weights", weights, *port)
    wait_until(
        lambda: (status := status_at(replay)) and sum(actor.env_steps > 0 for actor in status.actors) == WORKERS,
        "all workers' steps",
    )

    workers = [member for member in family(node) if "spawn_main" in " ".join(member.cmdline())]
    assert len(workers) == WORKERS
    ours = sum(worker.memory_info().rss for worker in workers)
    theirs = WORKERS * memory_of_torch()
    print(f"32 workers: {ours / 2**20:.0f} MiB, 32 processes with torch: {theirs / 2**20:.0f} MiB")
    assert ours <= theirs / 4
