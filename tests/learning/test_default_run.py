"""What the defaults learn: the run a newcomer starts first, and one that is given steps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]


def trained(run: Path, *options: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "shoal", "train", "simple_spread", "--run", str(run), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"S = {result['return_mean']:.2f} {result['return_ci95']} after {result['updates']} updates")
    assert result["episodes"] == 1_000
    return result


def test_five_minutes_of_simple_spread_with_the_defaults(tmp_path: Path) -> None:
    """A random team scores -76.5; how far five minutes go is the machine's business, and even a busy one gets here."""
    assert trained(tmp_path / "run")["return_mean"] >= -40


def test_640_000_steps_of_simple_spread_with_the_defaults(tmp_path: Path) -> None:
    """Given steps, not minutes, so that a busy machine learns as much: six seeds scored -24.9 to -23.4."""
    assert trained(tmp_path / "run", "--lockstep", "--steps", "640000", "--no-film")["return_mean"] >= -27
