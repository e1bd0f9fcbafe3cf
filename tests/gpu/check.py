"""`make gpu-check`: the tests and the speeds of a GPU, in under eight minutes.

    tests/gpu                    at most TESTS_S seconds
    shoal bench learner --gpu    the rest of LIMIT_S; what takes longer is stopped

Prints the results and a table, and writes them to build/gpu-check.json. Exit code 0 if all tests passed and all rows
were measured, 1 if not, 2 without a CUDA device.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import torch

from common.errors import ConfigError, ShoalError
from learner_node.devices import choose_device
from shoal.commands.bench import BenchConfig, BenchRow
from shoal.commands.bench.cli import measure
from shoal.commands.bench.measurements import as_text

LIMIT_S, TESTS_S, END_S = 420, 220, 20.0
ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "build" / "gpu-check.json"


class Tests(msgspec.Struct, frozen=True):
    """How many tests ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    names_of_failed: list[str] = []
    is_complete: bool = False

    @property
    def are_good(self) -> bool:
        return self.is_complete and self.passed > 0 and self.failed == 0


def results_of(junit: Path) -> Tests:
    """Returns the results in a file that pytest wrote."""
    passed, skipped, failed = 0, 0, []
    for case in ET.parse(junit).getroot().iter("testcase"):  # noqa: S314  (our own pytest wrote it)
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return Tests(passed, len(failed), skipped, failed, is_complete=True)


def run_tests(seconds: float) -> Tests:
    junit = OUTPUT.with_name("gpu-tests.xml")
    junit.unlink(missing_ok=True)
    line = [sys.executable, "-m", "pytest", "tests/gpu", "-m", "gpu", "-q", f"--junitxml={junit}"]
    with subprocess.Popen(line, cwd=ROOT) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"gpu-check: the tests took more than {seconds:.0f} s and are stopped")
            # pytest ends the processes that its tests started.
            process.send_signal(signal.SIGINT)
            _end(process)
    return results_of(junit) if junit.exists() else Tests()


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()


def run_bench(seconds: float) -> tuple[list[BenchRow], bool]:
    """Returns the measured rows, and whether these are all."""
    rows = []
    signal.signal(signal.SIGALRM, _raise_timeout)
    signal.alarm(max(1, int(seconds)))
    try:
        for row in measure("learner", BenchConfig(gpu=True)):
            rows.append(row)
            print(as_text(row), flush=True)
    except TimeoutError:
        print("gpu-check: the time is used up; the remaining rows are not measured")
    except ShoalError as e:
        print(f"gpu-check: {e}")
    else:
        return rows, True
    finally:
        signal.alarm(0)
    return rows, False


def _raise_timeout(*_: object) -> None:
    raise TimeoutError


def main() -> int:
    """Checks the GPU and returns the exit code."""
    try:
        device = choose_device(gpu=True)
    except ConfigError as e:
        print(f"gpu-check: nothing was checked. {e}", file=sys.stderr)
        return e.exit_code
    started_at = time.monotonic()
    OUTPUT.parent.mkdir(exist_ok=True)
    tests = run_tests(TESTS_S)
    rows, are_all_measured = run_bench(LIMIT_S - (time.monotonic() - started_at))
    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device.torch),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tests": tests,
        "rows": rows,
        "are_all_rows_measured": are_all_measured,
        "seconds": time.monotonic() - started_at,
    }
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    print(f"{found['device']}: {tests.passed} tests passed, {tests.failed} failed, {tests.skipped} skipped; {OUTPUT}")
    return 0 if tests.are_good and are_all_measured else 1


if __name__ == "__main__":
    sys.exit(main())
