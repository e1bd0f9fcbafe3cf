"""The environments of docs/worlds-of-others.md through real processes: a short training run and its evaluation.

None of them is installed with Shoal's tests; an environment that is not installed is skipped, with the command that
installs it as the reason.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import Commands

pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.timeout(400)]

SMALL = ("--actors", 1, "--redis", "none", "--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]")


class Environment(NamedTuple):
    """An environment of others: its name in Shoal, the module it needs, and how to install it."""

    name: str
    module: str
    install: str
    agents: int
    steps: int = 2000
    options: tuple[object, ...] = ()


TWO_SIDES = ("--set", 'network.sides={first=["player_0"],second=["player_1"]}')
ENVIRONMENTS = [
    Environment("mamujoco:HalfCheetah-2x3", "gymnasium_robotics", "shoal[mamujoco]", 2),
    Environment("mamujoco:Hopper-3x1", "gymnasium_robotics", "shoal[mamujoco]", 3),
    Environment("pettingzoo:sisl/multiwalker-v9", "Box2D", "pettingzoo[sisl]", 3),
    Environment("pettingzoo:sisl/pursuit-v5", "Box2D", "pettingzoo[sisl]", 8, 700),
    Environment("pettingzoo:butterfly/knights_archers_zombies-v11", "pymunk", "pettingzoo[butterfly]", 4),
    Environment("pettingzoo:classic/connect_four-v3", "pettingzoo", "shoal[actor]", 2, options=TWO_SIDES),
    Environment("vmas:balance", "vmas", "shoal[vmas]", 3),
    Environment("gymnasium:Foraging-8x8-2p-3f-v3", "lbforaging", "lbforaging", 2),
    Environment("gymnasium:intersection-multi-agent-v2", "highway_env", "highway-env", 2, 300),
    Environment("pettingzoo:PyFlyt.pz_envs:MAQuadXHoverEnvV2", "PyFlyt", "PyFlyt", 4, 1000),
    Environment("gymnasium:Pendulum-v1", "pygame", "shoal[actor]", 1),
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: environment.name)
def test_an_environment_of_others_is_trained_and_evaluated(
    commands: Commands, tmp_path: Path, environment: Environment
) -> None:
    if find_spec(environment.module) is None:
        pytest.skip(f"{environment.module} is not installed: pip install '{environment.install}'")
    warm_up = environment.steps // 4
    starts = ("--set", f"replay.min_size={warm_up}", "--set", f"exploration.random_steps={warm_up}")
    length = ("--steps", environment.steps, "--episodes", 2, "--max-episode-steps", 50)
    code, out, err = commands.run(
        "shoal",
        "train",
        environment.name,
        *environment.options,
        *SMALL,
        *starts,
        *length,
        "--no-film",
        "--json",
        "--run",
        tmp_path / "run",
        timeout_s=360,
    )
    assert code == 0, err
    result = json.loads(out)
    assert (result["scenario"], result["episodes"]) == (environment.name, 2)
    assert result["updates"] > 0
    assert len(result["return_per_agent"]) == environment.agents
