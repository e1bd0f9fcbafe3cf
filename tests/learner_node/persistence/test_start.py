"""A run that starts from the networks of another run, whose world has another number of agents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from common.run.directory import create
from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec, Box, joint_spec
from learner_node.algorithms.masac import Masac
from learner_node.engine import Engine, make_engine
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.start import check_start, start_from
from learner_node.persistence.state import Counters, copy_state
from tests.learner_node.teams import as_batch, as_fields, random_records

SINGLE = torch.zeros(())
TWO = Box((-1.0,) * 2, (1.0,) * 2)


def agents_of(walkers: int, guards: int = 1, obs_dim: int = 3) -> AgentsSpec:
    return joint_spec(
        [(f"walker_{i}", "crowd", obs_dim, (TWO,)) for i in range(walkers)]
        + [(f"guard_{i}", "guards", 5, (TWO,)) for i in range(guards)]
    )


def run_of(agents: AgentsSpec, path: Path | str = "", critic: str = "set", **sections: dict[str, Any]) -> Run:
    network = {"policy_hidden": [4], "critic_hidden": [8, 6], "critic": critic, **sections.get("network", {})}
    algorithm = {"name": "maddpg", "engine": "autograd", **sections.get("algorithm", {})}
    first = {"scenario": "a", "start_from": str(path)}
    return Run("r", make_run_spec(first, {"network": network, "algorithm": algorithm}), agents)


def trained(path: Path, agents: AgentsSpec, **settings: Any) -> Engine:
    """Writes a run of two updates into a directory; returns its engine."""
    run = run_of(agents, **settings)
    directory, run = create(path, run.spec, run.joint)
    engine = make_engine(run, SINGLE)
    for seed in range(2):
        fields = as_fields(random_records(agents, 16, seed), torch.float32)
        engine.update(engine.normalise(as_batch(fields)), 1e-2, 1e-2)
    Checkpoints(directory.checkpoints, 1).save(copy_state(engine, Counters(updates=2)), best=False)
    return engine


def started(path: Path, agents: AgentsSpec, **settings: Any) -> Engine:
    run = run_of(agents, path, **settings)
    engine = make_engine(run, SINGLE)
    start_from(engine, run)
    return engine


@pytest.mark.parametrize("critic", ["set", "attention"])
def test_more_agents_start_with_the_same_policies_and_critics(tmp_path: Path, critic: str) -> None:
    old = trained(tmp_path, agents_of(2, 2), critic=critic)
    new = started(tmp_path, agents_of(5, 3), critic=critic)
    for name in ("online", "target"):
        for kind in ("policies", "critics"):
            mine, other = (engine.network_states()[kind].tensors() for engine in (new, old))
            assert torch.equal(mine[name], other["online"]), (kind, name)
    assert float(new.policies.tensors()["adam/steps"]) == 0.0
    assert not new.critics.tensors()["adam/mean"].any()
    obs = torch.randn(4, 3 * 5 + 5 * 3, generator=torch.Generator().manual_seed(0))
    logits = new.logits(obs)
    of_two = old.logits(torch.cat([obs[:, 3:9], obs[:, 20:30]], 1))
    torch.testing.assert_close(logits[:, 2:6], of_two[:, :4])
    torch.testing.assert_close(logits[:, 12:16], of_two[:, 4:])


def test_an_agent_among_equal_others_has_the_value_that_it_had_beside_one(tmp_path: Path) -> None:
    old, new = trained(tmp_path, agents_of(2)), started(tmp_path, agents_of(3))
    walker, other, guard, *actions = (torch.randn(size) for size in (3, 3, 5, 2, 2, 2))
    few = torch.cat([walker, other, guard, *actions])[None]
    many = torch.cat([walker, other, other, guard, actions[0], actions[1], *actions[1:]])[None]
    torch.testing.assert_close(new.first_values(many)[0], old.first_values(few)[0])


def test_separate_policies_are_taken_in_turn(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"network": {"share_policies": False}}
    old = trained(tmp_path, agents_of(2), **settings).policy_weights()
    new = started(tmp_path, agents_of(3), **settings).policy_weights()
    # A walker's policy has 3 x 4 + 4 and 4 x 2 + 2 numbers.
    walkers = old[:52].reshape(2, 26)
    np.testing.assert_array_equal(new[:78].reshape(3, 26), walkers[[0, 1, 0]])
    np.testing.assert_array_equal(new[78:], old[52:])


def test_both_critics_of_matd3_start_from_the_one_of_maddpg(tmp_path: Path) -> None:
    old = trained(tmp_path, agents_of(2)).critics.tensors()["online"]
    new = started(tmp_path, agents_of(3), algorithm={"name": "matd3"}).critics.tensors()["online"]
    assert torch.equal(new, torch.cat([old, old]))


def test_statistics_and_temperatures_come_along(tmp_path: Path) -> None:
    algorithm = {"name": "masac", "normalise_observations": True, "normalise_rewards": True}
    old, new = (
        trained(tmp_path, agents_of(2), algorithm=algorithm),
        started(tmp_path, agents_of(4), algorithm=algorithm),
    )
    assert isinstance(old, Masac)
    assert isinstance(new, Masac)
    assert torch.equal(new.temperatures.log, old.temperatures.log)
    assert (new.temperatures.log != torch.full((2,), 0.1).log()).all()
    before, after = old.normaliser.tensors(), new.normaliser.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(new.policies.tensors()["online"], old.policies.tensors()["online"])


def test_the_stacked_engine_starts_from_a_run_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"critic": "mlp", "algorithm": {"engine": "stacked"}}
    old, new = trained(tmp_path, agents_of(2), **settings), started(tmp_path, agents_of(2), **settings)
    np.testing.assert_array_equal(new.policy_weights(), old.policy_weights())
    assert torch.equal(new.critics.tensors()["target"], old.critics.tensors()["online"])


@pytest.mark.parametrize(
    "settings",
    [
        {"critic": "mlp", "network": {"tell_apart": True, "critic_layer_norm": True}},
        {"critic": "tests.learner_node.own_classes:Mlp"},
        {"critic": "mlp", "algorithm": {"name": "crowd=facmac,guards=hasac"}},
    ],
    ids=["mlp", "user's", "mixing"],
)
def test_critics_of_every_kind_start_in_the_same_world(tmp_path: Path, settings: dict[str, Any]) -> None:
    old, new = trained(tmp_path, agents_of(2), **settings), started(tmp_path, agents_of(2), **settings)
    assert torch.equal(new.critics.tensors()["online"], old.critics.tensors()["online"])


def test_recurrent_networks_have_shapes_too(tmp_path: Path) -> None:
    run = run_of(agents_of(2), critic="mlp", network={"recurrent": "gru"})
    directory, run = create(tmp_path, run.spec, run.joint)
    old = make_engine(run, SINGLE)
    Checkpoints(directory.checkpoints, 1).save(copy_state(old, Counters()), best=False)
    new = started(tmp_path, agents_of(2), critic="mlp", network={"recurrent": "gru"})
    assert torch.equal(new.policies.tensors()["online"], old.policies.tensors()["online"])


@pytest.mark.parametrize(
    ("agents", "settings", "message"),
    [
        (
            agents_of(3),
            {"critic": "mlp"},
            r"weight of the critics is 24 x 6 there and 22 x 8 here.*network\.critic=mlp",
        ),
        (agents_of(2, 2), {}, r"layers\.0\.weight of the critics is 16 x 6 there and 24 x 6 here.*no teammates"),
        (agents_of(2, obs_dim=4), {}, r"layers\.0\.weight of the policies is 3 x 4 there and 4 x 4 here"),
        (
            agents_of(2),
            {"network": {"policy_hidden": [4, 4]}},
            r"layers\.1\.weight of the policies is 4 x 2 there and 4 x 4",
        ),
        (agents_of(2), {"algorithm": {"name": "masac"}}, r"of the policies is 4 x 2 there and 4 x 4 here"),
        (agents_of(2), {"algorithm": {"normalise_rewards": True}}, r"statistics reward_count .* missing there"),
        (
            joint_spec([("bird_0", "crowd", 3, (TWO,))]),
            {},
            r"no agent like bird_0 of side crowd; it has guard_0, walker_0",
        ),
    ],
    ids=["mlp", "no teammates", "observations", "widths", "stochastic", "normalised", "roles"],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, agents: AgentsSpec, settings: Any, message: str) -> None:
    trained(tmp_path, agents_of(2))
    with pytest.raises(ConfigError, match=message):
        check_start(run_of(agents, tmp_path, **settings).spec, agents)


def test_a_run_without_checkpoint_is_refused(tmp_path: Path) -> None:
    run = run_of(agents_of(2))
    create(tmp_path, run.spec, run.joint)
    with pytest.raises(ConfigError, match="there is no checkpoint that can be read"):
        check_start(run_of(agents_of(2), tmp_path).spec, agents_of(2))
