"""The example that runs a team with numpy alone: it acts as Shoal does, and imports nothing of it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from common.policy.file import PolicyFile, save_policy
from common.policy.network import Policy
from common.run.run import Activation, Run, make_run_spec
from common.spec import AgentsSpec
from common.worlds import world_spec
from tests.common.examples import MIXED, numbers_of
from tests.common.head_examples import MASKED

EXAMPLE = Path(__file__).parents[2] / "examples" / "numpy_team.py"


def saved(path: Path, joint: AgentsSpec, scenario: str, **network: object) -> PolicyFile:
    spec = make_run_spec({"scenario": scenario, "network": {"policy_hidden": (16, 8), **network}})
    run = Run("a1b2c3d4", spec, joint)
    flat = np.random.default_rng(1).normal(0.0, 0.3, numbers_of(run)).astype(np.float32)
    policy = PolicyFile(run, 1, 1, flat)
    save_policy(path, policy)
    return policy


def example() -> Any:
    """Loads the example as a module."""
    spec = importlib.util.spec_from_file_location("numpy_team", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("joint", [MIXED, MASKED], ids=["mixed", "masked"])
@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "layer norm"])
def test_its_actions_are_those_of_the_policies(tmp_path: Path, joint: AgentsSpec, activation: str, norm: bool) -> None:
    policy = saved(tmp_path / "policy.safetensors", joint, "somewhere", activation=activation, policy_layer_norm=norm)
    team = example().load_team(tmp_path / "policy.safetensors")

    rng = np.random.default_rng(2)
    obs = rng.normal(size=(20, joint.obs_dim)).astype(np.float32)
    for column, _ in joint.mask_columns:
        obs[:, column] = rng.random(20) < 0.7
    expected = Policy(policy.run.players, policy.run.spec.network, policy.flat).act(obs)
    for row, actions in zip(obs, expected, strict=True):
        for agent in joint.agents:
            made = team[agent.name](row[agent.obs_slice])
            parts = made if len(agent.parts) > 1 else [made]
            for part, where, value in zip(agent.parts, agent.part_slices, parts, strict=True):
                wanted = actions[agent.action_slice][where]
                if isinstance(value, int):
                    assert value == wanted.argmax()
                else:
                    assert len(value) == part.size
                    np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("settings", [{"network": {"head": "soft"}}, {"algorithm": {"name": "joint"}}], ids=str)
def test_what_it_would_play_wrong_it_does_not_play(tmp_path: Path, settings: dict[str, object]) -> None:
    run = Run("a1b2c3d4", make_run_spec({"scenario": "simple_spread", **settings}), world_spec("simple_spread"))
    flat = np.zeros(numbers_of(run), np.float32)
    save_policy(tmp_path / "policy.safetensors", PolicyFile(run, 1, 1, flat))
    with pytest.raises(ValueError, match="this example needs the head box"):
        example().load_team(tmp_path / "policy.safetensors")


def test_a_team_with_history_is_refused(tmp_path: Path) -> None:
    spec = make_run_spec({"scenario": "simple_spread", "world": {"history": 1}})
    run = Run("a1b2c3d4", spec, world_spec("simple_spread", spec.world))
    save_policy(tmp_path / "policy.safetensors", PolicyFile(run, 1, 1, np.zeros(numbers_of(run), np.float32)))
    with pytest.raises(ValueError, match="no stacked history"):
        example().load_team(tmp_path / "policy.safetensors")


@pytest.mark.slow
def test_it_plays_an_episode_without_anything_of_shoal(tmp_path: Path) -> None:
    saved(tmp_path / "policy.safetensors", world_spec("simple_spread"), "simple_spread")
    # Isolated, from elsewhere: what it imports comes from installed packages, and Shoal's are refused.
    code = (
        "import sys, runpy\n"
        "for name in ('common', 'actor_node', 'learner_node', 'replay_server', 'deploy', 'torch'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = [{str(EXAMPLE)!r}, {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "return of one episode" in done.stdout
