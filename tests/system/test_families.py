"""Worlds of the families through real processes: training, evaluation, film, diagnosis and resuming."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from .conftest import Commands

pytestmark = pytest.mark.system

SMALL = ("--actors", 1, "--copies", 4, "--redis", "none", "--set", "replay.min_size=500")
SMALL += ("--set", "exploration.random_steps=200", "--set", "network.policy_hidden=[8]")
SMALL += ("--set", "network.critic_hidden=[8]", "--json")
ROWING = "python:tests.common.worlds.adapters.test_conversion:Rowing"


@pytest.mark.parametrize(
    ("world", "options", "agents"),
    [
        ("pettingzoo:classic/tictactoe-v3", (), ["player_1", "player_2"]),
        (ROWING, ("--max-episode-steps", 5), ["agent_0", "agent_1"]),
        ("mamujoco:HalfCheetah-2x3", ("--set", "world.max_episode_steps=20"), ["agent_0", "agent_1"]),
        ("gymnasium:Foraging-8x8-2p-3f-v3", (), ["agent_0", "agent_1"]),
        ("batched:tests.common.worlds.batched.line_world", ("--max-episode-steps", 4), ["walker_0", "walker_1"]),
        ("vmas:simple_spread", ("--set", "world.n_agents=2"), ["agent_0", "agent_1"]),
    ],
)
def test_a_world_of_a_family_is_trained_and_evaluated(
    commands: Commands, tmp_path: Path, world: str, options: tuple[object, ...], agents: list[str]
) -> None:
    needed = {"mamujoco": "gymnasium_robotics", "gymnasium:Foraging": "lbforaging", "vmas": "vmas"}
    missing = [package for start, package in needed.items() if world.startswith(start) and find_spec(package) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    run = tmp_path / "run"
    length = ("--steps", 2000, "--episodes", 4, "--no-film", "--run", run)
    code, out, err = commands.run("shoal", "train", world, *options, *SMALL, *length)
    assert code == 0, err
    result = json.loads(out)
    assert (result["scenario"], result["episodes"]) == (world, 4)
    assert list(result["return_per_agent"]) == agents
    assert err.count("converted by PettingZoo's turn_based_aec_to_parallel") == world.count("tictactoe")
    assert "deprecated in favor of" not in err


def test_pendulum_is_filmed_diagnosed_and_resumed(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    length = ("--steps", 2000, "--episodes", 4, "--run", run)
    code, _, err = commands.run("shoal", "train", "gymnasium:Pendulum-v1", *SMALL, *length)
    assert code == 0, err
    assert (run / "film.gif").stat().st_size > 1_000
    code, out, err = commands.run("shoal", "diagnose", run, "--episodes", 10, "--json")
    assert code == 0, err
    assert json.loads(out)["scenario"] == "gymnasium:Pendulum-v1"
    more = ("--resume", "--run", run, "--steps", 3000, "--episodes", 0, "--no-film", "--json")
    code, _, err = commands.run("shoal", "train", *more)
    assert code == 0, err
