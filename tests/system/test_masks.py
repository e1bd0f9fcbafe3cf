"""An environment that raises an exception for each forbidden action, through all real processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Commands

pytestmark = pytest.mark.system

WORLD = "pettingzoo:tests.common.worlds.masked_channels"
SMALL = ("--actors", 1, "--copies", 4, "--redis", "none", "--set", "replay.min_size=500", "--set")
SMALL += ("exploration.random_steps=500", "--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]")


@pytest.mark.parametrize("where", ["observation", "info"])
def test_no_process_takes_a_forbidden_action(commands: Commands, tmp_path: Path, where: str) -> None:
    run = tmp_path / "run"
    options = ("--set", f"world.where={where}", "--steps", 2000, "--episodes", 10, "--no-film", "--run", run, "--json")
    code, out, err = commands.run("shoal", "train", WORLD, *SMALL, *options)
    assert code == 0, err
    result = json.loads(out)
    assert result["updates"] > 0
    assert result["return_mean"] > 0
    assert "ValueError" not in (run / "logs" / "actor.log").read_text()
    code, _, err = commands.run("shoal", "evaluate", run, "--sample", "--episodes", 10, "--json")
    assert code == 0, err
    code, _, err = commands.run("shoal", "export", run)
    assert code == 0, err
    assert [len(one["mask"]) for one in json.loads((run / "onnx" / "team.json").read_text())] == [6, 6]


def test_connect_four_has_no_illegal_move(commands: Commands, tmp_path: Path) -> None:
    """PettingZoo ends an episode after an illegal move, with -1 for its player and 0 for the other one."""
    run = tmp_path / "run"
    options = ("--steps", 2000, "--episodes", 20, "--no-film", "--run", run, "--json")
    code, out, err = commands.run("shoal", "train", "pettingzoo:classic/connect_four-v3", *SMALL, *options)
    assert code == 0, err
    assert json.loads(out)["return_mean"] == 0.0, "one wins what the other one loses"
