"""Exported policies: what ONNX Runtime makes of them is what the numpy policies do."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from common.command import run as run_command
from common.policy import Policy
from common.policy_file import PolicyFile, save_policy
from common.run import Run, make_run_spec, to_toml
from common.spec import AgentsSpec, Part
from deploy.cli import shoal
from deploy.export.cli import write_team
from tests.common.examples import BOXES, MIXED, numbers_of
from tests.common.head_examples import HEAD_TEAMS, MOVERS

ROWS = 64


def team_of(joint: AgentsSpec, **settings: object) -> PolicyFile:
    """Returns policies of random weights."""
    run = Run("a1b2c3d4", make_run_spec({"scenario": "somewhere", **settings}), joint)
    flat = np.random.default_rng(1).normal(0.0, 0.3, numbers_of(run)).astype(np.float32)
    return PolicyFile(run, version=7, updates=70, flat=flat)


def obs_of(joint: AgentsSpec) -> np.ndarray:
    obs = np.random.default_rng(2).normal(0.0, 2.0, (ROWS, joint.obs_dim)).astype(np.float32)
    obs[-1] = 0.0
    return obs


def acted(directory: Path, policy: PolicyFile, obs: np.ndarray) -> np.ndarray:
    """Returns the joint actions of all files of a team, each given its own player's observation only."""
    actions = np.zeros((len(obs), policy.run.joint.action_dim), np.float32)
    for player in policy.run.players.agents:
        session = onnxruntime.InferenceSession(directory / f"{player.name}.onnx", providers=["CPUExecutionProvider"])
        (action,) = session.run(["action"], {"obs": np.ascontiguousarray(obs[:, player.obs_slice])})
        actions[:, player.action_slice] = action
    return actions


def check_equal(policy: PolicyFile, directory: Path) -> None:
    write_team(policy, directory)
    obs = obs_of(policy.run.joint)
    expected = Policy(policy.run.players, policy.run.spec.network, policy.flat).act(obs)
    np.testing.assert_allclose(acted(directory, policy, obs), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("team", HEAD_TEAMS)
def test_every_head_acts_as_in_numpy(team: str, tmp_path: Path) -> None:
    joint, head = HEAD_TEAMS[team]
    network = {"head": head, "policy_hidden": (16, 8), "share_policies": False}
    check_equal(team_of(joint, network=network), tmp_path)


@pytest.mark.parametrize("tell_apart", [False, True])
def test_agents_that_share_a_network_have_a_file_each(tell_apart: bool, tmp_path: Path) -> None:
    network = {"policy_hidden": (8,), "share_policies": True, "tell_apart": tell_apart}
    check_equal(team_of(MOVERS, network=network), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.onnx")) == ["agent_0.onnx", "agent_1.onnx", "agent_2.onnx"]


def test_a_side_that_acts_as_one_is_one_file_that_sees_the_whole_side(tmp_path: Path) -> None:
    policy = team_of(BOXES, network={"policy_hidden": (8,)}, algorithm={"name": "joint"})
    check_equal(policy, tmp_path)
    (one,) = json.loads((tmp_path / "team.json").read_text())
    assert one["file"] == "agent-team.onnx"
    assert one["agents"] == ["agent_0", "agent_1"]
    assert one["obs_dim"] == BOXES.obs_dim


def test_a_file_tells_whose_it_is(tmp_path: Path) -> None:
    policy = team_of(MIXED, network={"policy_hidden": (8,)}, world={"N": 3})
    write_team(policy, tmp_path)
    model = onnx.load(tmp_path / "leader.onnx")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["player"] == about["agents"] == "leader"
    assert (about["side"], about["obs_dim"], about["action_dim"]) == ("blue", "7", "7")
    assert (about["head"], about["scenario"], about["run"], about["updates"]) == ("box", "somewhere", "a1b2c3d4", "70")
    assert about["weights_hash"] == policy.digest
    assert json.loads(about["world"]) == {"N": 3}
    assert msgspec.json.decode(about["parts"], type=tuple[Part, ...]) == MIXED.agents[0].parts
    assert model.opset_import[0].version == 18


def test_the_command_writes_beside_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = team_of(MOVERS, network={"policy_hidden": (8,)})
    (tmp_path / "run.toml").write_text(to_toml(policy.run))
    save_policy(tmp_path / "policy.safetensors", policy)
    assert run_command(shoal, "shoal", ["export", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["file"] for one in listed] == ["agent_0.onnx", "agent_1.onnx", "agent_2.onnx"]
    assert all((tmp_path / "onnx" / one["file"]).exists() for one in listed)


def test_a_directory_without_a_run_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(shoal, "shoal", ["export", str(tmp_path / "nothing")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds no run" in error
