"""The clock that can be set: the wall clock moves, what is measured by other clocks does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.soak.churn.clock import Clock, missing_for_clock

PROGRAM = """
import sys, threading, time
for _ in sys.stdin:
    wall, monotonic = time.time(), time.monotonic()
    time.sleep(0.02)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire(timeout=0.02)
    print(time.time(), time.time() - wall, time.monotonic() - monotonic, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(missing_for_clock()), reason=missing_for_clock())
def test_a_process_sees_the_wall_clock_set_and_waits_as_long_as_before(tmp_path: Path) -> None:
    clock = Clock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-S", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    ) as process:
        assert process.stdin
        assert process.stdout
        for offset_s in (0.0, 3_600.25, -86_400.5):
            clock.set(offset_s)
            process.stdin.write("\n")
            process.stdin.flush()
            wall, wall_s, monotonic_s = map(float, process.stdout.readline().split())
            assert wall - time.time() == pytest.approx(offset_s, abs=2.0)
            assert 0.04 <= monotonic_s < 5.0
            assert wall_s == pytest.approx(monotonic_s, abs=0.1)
        process.stdin.close()
