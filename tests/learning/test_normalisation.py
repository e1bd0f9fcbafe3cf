"""A user's environment in any units trains to the return of the original with the defaults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.learning, pytest.mark.timeout(900)]

UNITS: dict[str, tuple[dict[str, Any], float]] = {
    "observations": ({"obs_scale": 1e4}, 1.0),
    "rewards": ({"reward_scale": 1e5}, 1e5),
    "both": ({"obs_scale": 1e4, "reward_scale": 1e5}, 1e5),
    "a constant and a useless column": ({"odd_columns": True}, 1.0),
}
"""Options of the environment, and the units of its rewards."""


def trained(run: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    choices = [text for name, value in options.items() for text in ("--set", f"world.{name}={json.dumps(value)}")]
    world, budget = "pettingzoo:tests.learning.reach_target", ("--lockstep", "--steps", "300000", "--no-film")
    command = [sys.executable, "-m", "shoal", "train", world, "--run", str(run), "--json", *budget, *choices]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    print(f"{options}: {result['return_mean']:.2f} {result['return_ci95']} after {result['updates']} updates")
    return result


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("original") / "run", {})


@pytest.mark.parametrize("name", UNITS)
def test_units_do_not_matter(name: str, original: dict[str, Any], tmp_path: Path) -> None:
    options, units = UNITS[name]
    found = trained(tmp_path / "run", options)
    widths = [one["return_ci95"][1] - one["return_ci95"][0] for one in (original, found)]
    # Random actions return -67.
    assert original["return_mean"] > -10
    assert abs(found["return_mean"] / units - original["return_mean"]) < (widths[0] + widths[1] / units) / 2
