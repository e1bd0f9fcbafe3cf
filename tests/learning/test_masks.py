"""A team under action masks learns, in an environment that raises an exception for each forbidden action."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

WORLD = "pettingzoo:tests.common.worlds.masked_channels"
SETTINGS = (
    "algorithm.discount=0",
    "network.policy_hidden=[64]",
    "network.critic_hidden=[64]",
    "replay.batch=64",
    "replay.samples_per_insert=16",
    "replay.min_size=1000",
    "exploration.random_steps=1000",
)


@pytest.mark.learning
@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["observation", "info"])
def test_players_learn_to_take_the_best_free_channel(tmp_path: Path, where: str) -> None:
    """Random play returns 15 for both players over 15 steps; always the best of three free channels returns 22.5."""
    sets = [word for setting in (*SETTINGS, f"world.where={where}") for word in ("--set", setting)]
    length = ("--steps", "16000", "--copies", "16", "--lockstep", "--no-film", "--episodes", "200", "--json")
    command = [sys.executable, "-m", "shoal", "train", WORLD, *sets, *length, "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    print(f"S = {result['return_mean']:.2f} {result['return_ci95']} after {result['updates']} updates")
    assert result["return_mean"] > 19.5
