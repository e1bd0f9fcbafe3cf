"""Tests of how the rates of a run are read from its log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ShoalError
from shoal.commands.bench import end_to_end


def test_a_runs_rates_are_the_medians_of_its_parts(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    # Learning starts at 60,000 steps; the second of five parts is slow.
    seconds = [0, 10, 20, 70, 80, 90, 100]
    lines = [{"time": 1e9 + at, "env_steps": 30_000 + 30_000 * i, "updates": 300 * i} for i, at in enumerate(seconds)]
    metrics.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert end_to_end.run_speed(metrics) == (3_000.0, 30.0)
    metrics.write_text(json.dumps(lines[-1]) + "\n")
    with pytest.raises(ShoalError, match="longer --time"):
        end_to_end.run_speed(metrics)
