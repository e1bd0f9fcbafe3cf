"""deploy/images/healthy.py against the HTTP port that every role has."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from common.process.monitoring.health import Health, HttpPort

PROGRAM = Path(__file__).parents[2] / "deploy" / "images" / "healthy.py"


def ask(port: int) -> tuple[int, str]:
    """Runs the check as a container does and returns its exit code and what it says."""
    command = [sys.executable, "-IS", PROGRAM]
    done = subprocess.run(command, env={"SHOAL_METRICS_PORT": str(port)}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip() + done.stderr


@pytest.mark.slow
def test_it_says_what_the_role_says_of_itself() -> None:
    now = [0.0]
    health = Health(stall_s=60.0, clock=lambda: now[0])
    port = HttpPort("127.0.0.1", 0, CollectorRegistry(), health)
    number = int(port.url.rpartition(":")[2].partition("/")[0])
    try:
        assert ask(number) == (1, "starting")
        health.not_ready = "waiting for Redis at redis://redis:6379"
        assert ask(number) == (1, "waiting for Redis at redis://redis:6379")
        health.not_ready = ""
        assert ask(number) == (0, "ok")
        now[0] = 61.0
        assert ask(number) == (1, "the loop has not run for 61 s")
    finally:
        port.close()
    code, said = ask(number)
    assert code == 1
    assert f"port {number} does not answer" in said


@pytest.mark.slow
def test_a_port_that_says_nothing_is_not_waited_for_long() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        code, said = ask(silent.getsockname()[1])
    assert (code, "does not answer: timed out" in said) == (1, True)
