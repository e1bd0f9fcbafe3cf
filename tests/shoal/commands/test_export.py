"""Exported policies: what ONNX Runtime makes of them is what the numpy policies do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest

from common.policy.file import PolicyFile, load_policy, save_policy
from common.policy.network import Policy
from common.process.command import run as run_command
from common.run.open_run import RunOptions, open_run
from common.run.run import Activation, Run, make_run_spec, to_toml
from common.spec import AgentsSpec, Box, Part, joint_spec
from common.worlds import make_world, world_spec
from common.worlds.adapters.spaces import action_codec, observation_codec
from shoal.cli import shoal
from shoal.commands.export.cli import write_team
from tests.common.examples import BOXES, MIXED, numbers_of
from tests.common.head_examples import HEAD_TEAMS, MASKED, MOVERS
from tests.shoal.commands import foreign_spaces

ROWS = 64


def team_of(joint: AgentsSpec, **settings: object) -> PolicyFile:
    """Returns policies of random weights."""
    run = Run("a1b2c3d4", make_run_spec({"scenario": "somewhere", **settings}), joint)
    flat = np.random.default_rng(1).normal(0.0, 0.3, numbers_of(run)).astype(np.float32)
    return PolicyFile(run, version=7, updates=70, flat=flat)


def obs_of(joint: AgentsSpec) -> np.ndarray:
    obs = np.random.default_rng(2).normal(0.0, 2.0, (ROWS, joint.obs_dim)).astype(np.float32)
    obs[-1] = 0.0
    if joint.mask_columns:
        seen = [column for column, _ in joint.mask_columns]
        obs[:, seen] = np.random.default_rng(3).random((ROWS, len(seen))) < 0.6
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


@pytest.mark.parametrize("activation", get_args(Activation))
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "layer norm"])
def test_every_activation_acts_as_in_numpy(activation: str, norm: bool, tmp_path: Path) -> None:
    network = {"policy_hidden": (16, 8), "activation": activation, "policy_layer_norm": norm}
    check_equal(team_of(MASKED, network=network), tmp_path)


@pytest.mark.parametrize("algorithm", ["maddpg", "joint"])
def test_action_masks_are_part_of_the_graph(algorithm: str, tmp_path: Path) -> None:
    policy = team_of(MASKED, network={"policy_hidden": (8,)}, algorithm={"name": algorithm})
    check_equal(policy, tmp_path)
    listed = json.loads((tmp_path / "team.json").read_text())
    first = [[2, 0], [3, 1], [4, 2], [5, 3], [6, 4], [7, 5], [8, 6]]
    assert [one["mask"] for one in listed] == (
        [first, [], [[3, 1], [4, 2]]] if algorithm == "maddpg" else [first, [[3, 1], [4, 2]]]
    )
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / listed[0]["file"]).metadata_props}
    assert json.loads(about["mask"]) == first


@pytest.mark.parametrize("name", ["isac", "blue=masac,red=maddpg"])
def test_stochastic_policies_act_by_their_means(name: str, tmp_path: Path) -> None:
    check_equal(team_of(MIXED, network={"policy_hidden": (16, 8)}, algorithm={"name": name}), tmp_path)


@pytest.mark.parametrize("joint", [MASKED, MIXED], ids=["masked", "mixed"])
def test_logits_are_a_second_output_on_request(joint: AgentsSpec, tmp_path: Path) -> None:
    policy = team_of(joint, network={"policy_hidden": (8,)})
    obs = obs_of(joint)
    write_team(policy, tmp_path, logits=True)
    expected = Policy(policy.run.players, policy.run.spec.network, policy.flat).logits(obs)
    for player in policy.run.players.agents:
        session = onnxruntime.InferenceSession(tmp_path / f"{player.name}.onnx", providers=["CPUExecutionProvider"])
        assert [one.name for one in session.get_outputs()] == ["action", "logits"]
        (logits,) = session.run(["logits"], {"obs": np.ascontiguousarray(obs[:, player.obs_slice])})
        np.testing.assert_allclose(logits, expected[:, player.action_slice], rtol=1e-5, atol=2e-6)
    write_team(policy, tmp_path)
    assert [one.name for one in onnx.load(tmp_path / f"{player.name}.onnx").graph.output] == ["action"]


@pytest.mark.parametrize(("choices", "sampled"), [("gumbel", True), ("epsilon", False)])
def test_the_files_tell_whether_choices_were_sampled_in_training(choices: str, sampled: bool, tmp_path: Path) -> None:
    policy = team_of(MIXED, network={"policy_hidden": (8,)}, exploration={"choices": choices})
    write_team(policy, tmp_path)
    for one in json.loads((tmp_path / "team.json").read_text()):
        has_choices = any(part["type"] == "categorical" for part in one["parts"])
        assert one["sampled_choices"] is (sampled and has_choices)
        about = {entry.key: entry.value for entry in onnx.load(tmp_path / one["file"]).metadata_props}
        assert about["sampled_choices"] == str(sampled and has_choices).lower()


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


def test_a_file_names_its_player_and_run(tmp_path: Path) -> None:
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
    assert "does not contain a run" in error


FOREIGN_NAMES = {"../../chooser", "grid/mover", "Panel", "panel"}


@pytest.fixture(scope="module")
def foreign_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of an environment with every kind of space, and random weights in place of a training."""
    return random_foreign_run(tmp_path_factory.mktemp("foreign") / "run")


def random_foreign_run(path: Path, *more: str) -> Path:
    settings = ("network.policy_hidden=[8]", "network.critic_hidden=[8]", *more)
    options = RunOptions(steps=1, set=settings)
    _, run = open_run(
        str(path), "pettingzoo:tests.shoal.commands.foreign_spaces", options, {}, resume=False, role="test"
    )
    size = numbers_of(run)
    flat = np.random.default_rng(1).normal(0.0, 0.3, size).astype(np.float32)
    save_policy(path / "policy.safetensors", PolicyFile(run, 1, 1, flat))
    return path


def test_hostile_names_of_agents_never_lead_out_of_the_directory(foreign_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "a" / "b" / "out"
    assert run_command(shoal, "shoal", ["export", str(foreign_run), "-o", str(output)]) == 0
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {path.name for path in output.iterdir()}
    listed = {one["player"]: one["file"] for one in json.loads((output / "team.json").read_text())}
    assert set(listed) == FOREIGN_NAMES
    assert len({file.casefold() for file in listed.values()}) == 4
    assert all((output / file).is_file() for file in listed.values())


def test_a_run_of_hostile_names_is_read_as_data(tmp_path: Path) -> None:
    """A run.toml and a policy file come from others: their names are not paths, whatever they are."""
    names = ["../up", "/abs", "..", "nul", "A", "a", "team", "team.json", "x" * 240]
    joint = joint_spec([(name, "side", 3, (Box((-1.0,), (1.0,)),)) for name in names])
    policy = team_of(joint, network={"policy_hidden": (8,)})
    written = write_team(policy, tmp_path / "in" / "out")
    assert [one.player for one in written] == names
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.parent for path in files} == {tmp_path / "in" / "out"}
    assert len(files) == len(names) + 1


def test_the_pages_snippets_act_in_the_environment(foreign_run: Path, tmp_path: Path) -> None:
    """With the package onnxruntime and numpy alone, every action is one that the environment takes."""
    write_team(load_policy(foreign_run / "policy.safetensors"), tmp_path)
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    snippets = re.findall(r"<!-- tested: (?:translate|play) -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 2
    env = foreign_spaces.parallel_env()
    names: dict[str, Any] = {"env": env, "onnx": tmp_path}
    exec("\n".join(snippets), names)  # noqa: S102  (our own page)
    assert not env.agents, "the episode was played to its end"
    check_same_as_the_adapter(names, foreign_run)


def check_same_as_the_adapter(names: dict[str, Any], run: Path) -> None:
    """The page's functions give the numbers that training used."""
    joint = load_policy(run / "policy.safetensors").run.joint
    flat = np.random.default_rng(3).uniform(-5.0, 5.0, joint.action_dim).astype(np.float32)
    for agent, spec in zip(foreign_spaces.ACTIONS, joint.agents, strict=True):
        _, spaces = names["policies"][agent]
        observed = foreign_spaces.OBSERVATION.sample()
        size, encode = observation_codec(foreign_spaces.OBSERVATION, "")
        assert size == spec.obs_dim
        np.testing.assert_array_equal(names["flat_observation"](spaces["observation"], observed), encode(observed))
        space = foreign_spaces.ACTIONS[agent]
        _, decode = action_codec(space, "")
        ours, theirs = (
            decode(flat[None, spec.action_slice])[0],
            names["environment_action"](spaces["action"], flat[spec.action_slice]),
        )
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        assert space.contains(theirs)


def test_the_pages_snippets_stack_the_history(tmp_path: Path) -> None:
    """With the package onnxruntime and numpy alone, the inputs of the policies are those of training."""
    run = random_foreign_run(tmp_path / "run", "world.history=2")
    write_team(load_policy(run / "policy.safetensors"), tmp_path / "onnx")
    page = (Path(__file__).parents[3] / "docs" / "export.md").read_text()
    snippets = re.findall(r"<!-- tested: (?:translate|history) -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 3
    env = foreign_spaces.parallel_env()
    names: dict[str, Any] = {"env": env, "onnx": tmp_path / "onnx", "onnxruntime": onnxruntime}
    exec("\n".join(snippets), names)  # noqa: S102  (our own page)
    assert not env.agents, "the episode was played to its end"
    check_same_as_the_stacked_world(names)


def check_same_as_the_stacked_world(names: dict[str, Any]) -> None:
    """The page's function gives the numbers that training used."""
    world = make_world("pettingzoo:tests.shoal.commands.foreign_spaces", seed=0, history=2)
    joint = world.spec
    actions = np.random.default_rng(0).uniform(0.0, 1.0, (5, 1, joint.action_dim)).astype(np.float32)
    # All environments of this module draw from one generator, so one episode is played after the other.
    rows = [world.reset([5])[0], *(world.step(action).obs[0] for action in actions[:-1])]
    env = foreign_spaces.parallel_env()
    observations, _ = env.reset(seed=5)
    seen: dict[str, list[Any]] = {agent: [] for agent in env.agents}
    done: dict[str, list[Any]] = {agent: [] for agent in env.agents}
    for row, action in zip(rows, actions, strict=True):
        chosen = {}
        for agent in joint.agents:
            entry = names["entries"][agent.name]
            seen[agent.name].insert(0, observations[agent.name])
            stacked = names["stacked_observation"](entry, seen[agent.name], done[agent.name])
            np.testing.assert_array_equal(stacked, row[agent.obs_slice])
            done[agent.name].insert(0, action[0, agent.action_slice])
            chosen[agent.name] = names["environment_action"](entry["spaces"][0]["action"], done[agent.name][0])
        observations, *_ = env.step(chosen)


def test_a_built_in_team_with_history_names_every_column(tmp_path: Path) -> None:
    joint = world_spec("simple_spread", {"history": 1})
    policy = team_of(joint, network={"policy_hidden": (8,)}, world={"history": 1})
    one = write_team(policy, tmp_path)[0]
    leaves = [(leaf.columns, leaf.steps_ago, leaf.of) for leaf in one.spaces[0].observation]
    assert leaves == [((0, 18), 0, "observation"), ((18, 36), 1, "observation"), ((36, 41), 1, "action")]
    assert (one.history, one.obs_dim) == (1, 41)
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / one.file).metadata_props}
    assert about["history"] == "1"
    check_equal(policy, tmp_path)


def test_an_old_run_reports_that_the_spaces_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = team_of(MOVERS, network={"policy_hidden": (8,)}, scenario="pettingzoo:somewhere")
    (tmp_path / "run.toml").write_text(to_toml(policy.run))
    save_policy(tmp_path / "policy.safetensors", policy)
    assert run_command(shoal, "shoal", ["export", str(tmp_path)]) == 0
    assert "Continue the run with --resume" in capsys.readouterr().err


def test_a_side_that_acts_as_one_lists_its_agents_columns(tmp_path: Path) -> None:
    (one,) = write_team(team_of(BOXES, network={"policy_hidden": (8,)}, algorithm={"name": "joint"}), tmp_path)
    assert [spaces.agent for spaces in one.spaces] == ["agent_0", "agent_1"]
    assert one.spaces[1].observation[0].columns == (BOXES.agents[0].obs_dim, BOXES.obs_dim)
    assert one.spaces[1].action[-1].columns[1] == one.action_dim


@pytest.mark.parametrize("hidden", [(16, 8), (8,)])
def test_a_recurrent_policy_takes_and_returns_its_memory(hidden: tuple[int, ...], tmp_path: Path) -> None:
    network = {"policy_hidden": hidden, "recurrent": "gru", "share_policies": False}
    policy = team_of(MASKED, network=network)
    write_team(policy, tmp_path, logits=True)
    listed = json.loads((tmp_path / "team.json").read_text())
    assert [one["memory_dim"] for one in listed] == [8] * len(listed)
    obs, ours = obs_of(MASKED), Policy(policy.run.players, policy.run.spec.network, policy.flat)
    memory = np.zeros((ROWS, ours.memory_dim), np.float32)
    memories = dict.fromkeys((player.name for player in policy.run.players.agents), np.zeros((ROWS, 8), np.float32))
    for step in range(3):
        rows = np.roll(obs, step, axis=0)
        expected = ours.logits(rows, memory)
        for player in policy.run.players.agents:
            session = onnxruntime.InferenceSession(tmp_path / f"{player.name}.onnx")
            inputs = {"obs": np.ascontiguousarray(rows[:, player.obs_slice]), "memory": memories[player.name]}
            logits, memories[player.name] = session.run(["logits", "next_memory"], inputs)
            np.testing.assert_allclose(logits, expected[:, player.action_slice], rtol=1e-5, atol=1e-5)
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / listed[0]["file"]).metadata_props}
    assert about["memory_dim"] == "8"


def test_the_command_says_how_to_use_the_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = team_of(BOXES, network={"policy_hidden": (8,), "recurrent": "gru", "share_policies": False})
    (tmp_path / "run.toml").write_text(to_toml(policy.run))
    save_policy(tmp_path / "policy.safetensors", policy)
    assert run_command(shoal, "shoal", ["export", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert all(line.endswith("outputs, and a memory of 8 numbers") for line in said.out.splitlines())
    assert "pass zeros as the input `memory` in the first step" in said.err
