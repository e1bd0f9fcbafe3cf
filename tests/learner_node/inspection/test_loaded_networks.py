"""The networks of a checkpoint as plain arrays: they must be what the learner computes with."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from common.run.run import Run, make_run_spec
from learner_node.inspection.loaded_networks import LoadedNetworks, load_newest
from learner_node.inspection.network_stats import forward
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, copy_state
from learner_node.stacked.passes import CriticPass
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for


def run_of(team: str, **algorithm: object) -> Run:
    network = {"policy_hidden": [8, 6], "critic_hidden": [10, 7]}
    spec = make_run_spec({"scenario": "somewhere", "network": network, "algorithm": algorithm})
    return Run("r", spec, TEAMS[team])


def trained(run: Run) -> StackedUpdate:
    spec = run.spec
    algorithm = StackedUpdate(run_for(run.joint, spec.network, spec.algorithm, seed=3), torch.zeros(()))
    for seed in range(3):
        fields = as_fields(random_records(run.joint, 32, seed), torch.float32)
        algorithm.update(as_batch(fields), 1e-2, 1e-2)
    return algorithm


@pytest.mark.parametrize("name", ["maddpg", "matd3", "iddpg"])
@pytest.mark.parametrize("team", ["spread", "mixed", "tag"])
def test_critics_are_the_learners(team: str, name: str) -> None:
    run = run_of(team, name=name)
    algorithm = trained(run)
    networks = LoadedNetworks(run, copy_state(algorithm, Counters(updates=3)))
    rows = random_records(run.joint, 16, 9)
    joint = np.concatenate([rows["obs"], rows["action"]], axis=1)
    critics = CriticPass(len(algorithm.layout.critics), run.spec.network.critic_hidden, 16, torch.zeros(()))
    with_one = torch.from_numpy(np.concatenate([joint, np.ones((16, 1), np.float32)], 1))
    critics.forward_first(algorithm.critics.online, critics.inputs(with_one))
    expected = critics.forward_rest(algorithm.critics.online).numpy()
    for critic, values in zip(networks.critics, expected, strict=True):
        _, found = forward(critic.layers, joint[:, critic.input_columns])
        np.testing.assert_allclose(found[:, 0], values, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(networks.policies, algorithm.policy_weights())


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ({"name": "maddpg"}, [1.0, 2.0, 4.0, 8.0]),
        ({"name": "maddpg", "reward_scale": 0.5}, [0.5, 1.0, 2.0, 4.0]),
        ({"name": "adversary=joint,agent=maddpg"}, [7 / 3, 8.0]),
        ({"name": "maddpg", "team_spirit": 1.0}, [7 / 3] * 3 + [8.0]),
        # Half of the budget is used: half of the way from 0 to 1.
        ({"name": "maddpg", "final_team_spirit": 1.0}, [(1 + 7 / 3) / 2, (2 + 7 / 3) / 2, (4 + 7 / 3) / 2, 8.0]),
    ],
    ids=str,
)
def test_returns_are_in_what_critics_learn(algorithm: dict[str, object], expected: list[float]) -> None:
    run = run_of("tag", discount=0.5, **algorithm)
    run = Run("r", make_run_spec({"scenario": "x", "budget": {"steps": 100}}, _settings(run)), run.joint)
    networks = LoadedNetworks(run, copy_state(trained(run), Counters(updates=3, env_steps=50)))
    rows = random_records(run.joint, 6, 1)
    obs, action = (rows[name].reshape(2, 3, -1) for name in ("obs", "action"))
    reward = np.tile(np.array([1.0, 2.0, 4.0, 8.0], np.float32), (30, 3, 1))
    ones = np.ones_like(reward)
    found = networks.values(obs, action, reward, ones, ones)
    assert [own.player for own in found] == [player.name for player in run.players.agents]
    # A reward r each step is worth 2r at a discount of one half.
    assert [own.realised for own in found] == pytest.approx([2 * r for r in expected], rel=1e-4)
    for own in found:
        assert own.bias == pytest.approx(own.value - own.realised, rel=1e-4)
        assert own.rank_correlation is None


def test_the_newest_whole_checkpoint_is_read_and_no_file_is_touched(tmp_path: Path) -> None:
    run = run_of("spread")
    assert load_newest(run, tmp_path) is None
    files = Checkpoints(tmp_path, 5)
    for updates in (5, 6, 7):
        path = files.save(copy_state(trained(run), Counters(updates=updates)), best=updates == 5)
    path.write_bytes(path.read_bytes()[:-1])
    (tmp_path / ".updates-8.safetensors.123").write_bytes(b"being written")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    networks = load_newest(run, tmp_path)
    assert networks is not None
    assert networks.counters.updates == 6
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def _settings(run: Run) -> dict[str, object]:
    kept = msgspec.to_builtins(run.spec)
    return {"network": kept["network"], "algorithm": {k: v for k, v in kept["algorithm"].items() if v is not None}}
