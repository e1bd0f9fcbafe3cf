"""Faults of the document Shoal began with that are not faults of others too (tests/traps), each with what mends it.

docs/seed.md lists them by these names. "The document" is its program: MADDPG, DDPGAgent, Network and main.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors import safe_open

from actor_node.collection.collector import Collector
from actor_node.collection.exploration import Exploration
from common.policy.heads import GreedyHeads, ranges
from common.policy.network import unflatten
from common.run.presets import PRESETS
from common.run.run import NetworkSpec, Run, make_run_spec
from common.spec import JointSpec
from common.worlds import make_world, world_spec
from learner_node.devices import Device
from learner_node.persistence.state import Counters, TrainingState, copy_state, restore_state
from learner_node.stacked.heads import Heads
from learner_node.stacked.update import StackedUpdate
from learner_node.trainer import Trainer
from tests.common.examples import make_header
from tests.common.head_examples import MOVERS, logits_of
from tests.deploy.lockstep.test_lockstep import Training as LockstepTraining
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for
from tests.learner_node.test_trainer import records_of
from tests.traps.hand import untrained

SEED = make_run_spec({"scenario": "simple_adversary"}, PRESETS["seed"])
SINGLE, DOUBLE = torch.zeros(()), torch.zeros((), dtype=torch.float64)
FULL_NOISE = 0.2


def seed_run(scenario: str = "simple_adversary", **world: Any) -> Run:
    """Returns a run of the preset in a world."""
    spec = make_run_spec({"scenario": scenario}, PRESETS["seed"], {"world": world})
    return Run("a1b2c3d4", spec, world_spec(scenario, **spec.world))


def lockstep(path: Path, steps: int, *, copies: int = 4, seed: int = 0, **sections: Any) -> LockstepTraining:
    """Trains by the preset for so many steps, one actor and the learner in turn."""
    settings = {name: dict(values) for name, values in PRESETS["seed"].items()}
    for name, values in {**sections, "budget": {"steps": steps, **sections.get("budget", {})}}.items():
        settings[name] |= values
    training = LockstepTraining(path, "simple_adversary", settings, seed, actors=1, copies=copies)
    assert training.train()
    return training


# ---- acting -------------------------------------------------------------------------------------------------------


def test_a_force_does_not_depend_on_who_else_is_in_the_batch() -> None:
    """`torch.norm(h3)` is one norm over the whole batch.

    The four worlds that act share the bound of 10; among 1,000 rows to learn from a force is up to 16 times weaker yet.
    """
    logits = logits_of(MOVERS, 1_000)
    together, alone = GreedyHeads(MOVERS, "force")(logits), GreedyHeads(MOVERS, "force")(logits[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-6)
    heads, batch = Heads(MOVERS, DOUBLE, head="force"), torch.from_numpy(logits).double()
    torch.testing.assert_close(heads.greedy(batch)[:1], heads.greedy(batch[:1]))
    gradient = heads.backward(heads.sample(batch, None), torch.ones_like(batch))
    one = heads.backward(heads.sample(batch[:1], None), torch.ones_like(batch[:1]))
    torch.testing.assert_close(gradient[:1], one)


def test_exploring_forces_are_ones_the_world_executes() -> None:
    """Noise is added to a force that has its bound already: at full force it goes beyond, and is stored so."""
    logits = np.tile(np.array([0, 0, 20, 0, 20] * 3, np.float32), (2_000, 1))
    explore = Exploration(MOVERS, SEED.exploration, 2_000, np.random.default_rng(0), "force")
    low, high, _ = ranges(MOVERS, "force")
    for _ in range(20):
        actions = explore.act(logits, FULL_NOISE, 0.0)
    assert (actions >= low).all()
    assert (actions <= high).all()


def test_each_world_explores_on_its_own() -> None:
    """An agent has one process with two numbers, added to its forces in all four worlds alike."""
    explore = Exploration(MOVERS, SEED.exploration, 4, np.random.default_rng(0), "force")
    taken = np.array([explore.act(np.zeros((4, 15), np.float32), FULL_NOISE, 0.0)[:, 2] for _ in range(2_000)])
    correlation = np.corrcoef(np.diff(taken, axis=0).T)
    assert (abs(correlation[~np.eye(4, dtype=bool)]) < 5 / 2_000**0.5).all()


def test_noise_begins_anew_with_each_episode() -> None:
    """Nothing resets the process: an episode begins with the push that the last one ended with."""
    run = seed_run(max_cycles=5)
    world = make_world(run.spec.scenario, 4, seed=0, **run.spec.world)
    collector = Collector(run, world, np.random.default_rng(0))
    header = make_header(run, exploration_scale=FULL_NOISE)
    for steps, is_at_rest in ((4, False), (1, True), (2, False), (3, True)):
        collector.collect(untrained(run), header, steps)
        assert (collector.state()["exploration/noise"] == 0.0).all() == is_at_rest


def test_targets_take_nothing_from_exploration() -> None:
    """`target_act` adds `0.0 * self.noise.noise()`: each update moves the process on that actors explore with."""
    learner = StackedUpdate(run_for(MOVERS, SEED.network, SEED.algorithm), DOUBLE)
    batch = as_batch(as_fields(random_records(MOVERS, 16, 0), torch.float64))
    before = learner.generator.get_state()
    first, second = learner.td_target(batch).clone(), learner.td_target(batch)
    assert torch.equal(first, second)
    learner.update(batch, 1e-2, 1e-2)
    assert torch.equal(learner.generator.get_state(), before)


@pytest.mark.slow
def test_the_number_of_worlds_changes_no_schedule(tmp_path: Path) -> None:
    """Noise falls by loops and updates come each so many loops: twice the worlds explore twice as far, learn half."""
    reached = []
    for copies in (4, 8):
        training = lockstep(tmp_path / str(copies), 8_000, copies=copies)
        lines = [json.loads(line) for line in training.directory.metrics_file.read_text().splitlines()]
        reached.append((lines[-1]["env_steps"], lines[-1]["updates"], lines[-1]["exploration_scale"]))
    (steps, updates, scale), (more_steps, more_updates, more_scale) = reached
    assert steps == more_steps == 8_000
    assert scale == more_scale == pytest.approx(0.2 * 0.9999**2_000)
    assert abs(updates - more_updates) <= 1


# ---- learning -----------------------------------------------------------------------------------------------------


def reordered(joint: JointSpec, tensors: dict[str, torch.Tensor], order: list[int]) -> dict[str, torch.Tensor]:
    """Returns the state of agents of one shape that stand in another order: whose, and what critics read of whom."""
    agents = len(joint.agents)
    per_agent = [np.arange(size * agents).reshape(agents, size) for size in (joint.agents[0].obs_dim, 5)]
    columns = np.concatenate(
        [own[order].ravel() + start for own, start in zip(per_agent, (0, joint.obs_dim), strict=True)]
    )
    width = SEED.network.critic_hidden[0]
    found = {}
    for name, tensor in tensors.items():
        if name == "random_state" or not tensor.ndim:
            found[name] = tensor
            continue
        owners = tensor.view(agents, -1)[order].clone()
        if name.startswith("critics/"):
            first = owners[:, : len(columns) * width].view(agents, -1, width)
            owners[:, : len(columns) * width] = first[:, columns].flatten(1)
        found[name] = owners.flatten()
    return found


def test_the_order_of_agents_changes_nothing() -> None:
    """Agents are updated one after the other, each against the policies that those before it have just got."""
    joint, order = MOVERS, [2, 0, 1]
    fields = as_fields(random_records(joint, 64, 0), torch.float64)
    turned = {name: value.view(64, len(order), -1)[:, order].flatten(1) for name, value in fields.items()}
    one, other, after = (StackedUpdate(run_for(joint, SEED.network, SEED.algorithm), DOUBLE) for _ in range(3))
    start = copy_state(one, Counters()).tensors
    restore_state(other, TrainingState(reordered(joint, start, order), Counters()))
    one.update(as_batch(fields), 1e-2, 1e-2)
    other.update(as_batch(turned), 1e-2, 1e-2)
    end = copy_state(one, Counters()).tensors
    expected = reordered(joint, end, order)
    for name, found in copy_state(other, Counters()).tensors.items():
        torch.testing.assert_close(found, expected[name], rtol=1e-7, atol=1e-10)

    # Had the first one moved before the second learns, the second would learn something else: this would be noticed.
    third = len(start["policies/online"]) // 3
    moved = {**start, "policies/online": torch.cat([end["policies/online"][:third], start["policies/online"][third:]])}
    restore_state(after, TrainingState(moved, Counters()))
    after.update(as_batch(fields), 1e-2, 1e-2)
    seconds = slice(third, 2 * third)
    found = copy_state(after, Counters()).tensors["policies/online"][seconds]
    assert (abs(found - end["policies/online"][seconds]) > 1e-6).any()


def test_an_update_keeps_no_graph_and_waits_for_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets and actions are computed with graphs nobody uses; `.item()` waits for each loss, six times an update."""
    run = Run(
        "r",
        msgspec.structs.replace(SEED, replay=make_run_spec({"scenario": "x", "replay": {"batch": 16}}).replay),
        MOVERS,
    )
    training = Trainer(run, Device(torch.device("cpu")))
    training.update(records_of(run, 0), 0, 0.0, 1_000.0)
    asked: list[str] = []
    for name in ("item", "tolist", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_, name=name: asked.append(name))
    for updates in range(1, 6):
        measured = training.update(records_of(run, updates), updates, 0.0, 1_000.0)
        assert measured.td_error.grad_fn is None
    assert asked == []
    assert not training.engine.policies.shared.requires_grad


# ---- networks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("team", ["spread", "mixed"])
def test_networks_start_within_a_bound_by_their_inputs(team: str) -> None:
    """`hidden_init` takes `weight.size()[0]`, the outputs, for the number of inputs; and nothing calls it."""
    joint, network = TEAMS[team], NetworkSpec((200, 20), (32, 16))
    learner = StackedUpdate(run_for(joint, network, SEED.algorithm), SINGLE)
    for player, layers in zip(
        learner.players.agents, unflatten(learner.policy_weights(), learner.players, network), strict=True
    ):
        for inputs, layer in zip((player.obs_dim, 200, 20), (*layers.hidden, layers.last), strict=True):
            for values in (layer.weight, layer.bias):
                assert abs(values).max() <= inputs**-0.5
            assert abs(layer.weight).max() > 0.75 * inputs**-0.5


@pytest.mark.parametrize("scenario", ["simple_adversary", "simple_tag", "simple_push", "collect_treasure"])
def test_any_number_of_agents_of_any_size_is_trained(scenario: str) -> None:
    """Three agents of 14 numbers are written into the networks, the loops and the lists."""
    run = seed_run(scenario)
    training = Trainer(run, Device(torch.device("cpu")))
    before = training.engine.policy_weights()
    training.update(records_of(run, 0), 0, 0.0, 0.0)
    agents = [
        *zip(
            *(
                unflatten(weights, run.players, run.spec.network)
                for weights in (before, training.engine.policy_weights())
            ),
            strict=True,
        )
    ]
    assert len(agents) == len(run.joint.agents)
    assert all(not np.array_equal(old.first.weight, new.first.weight) for old, new in agents)


# ---- records ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_last_episodes_are_in_the_last_mean(tmp_path: Path) -> None:
    """Means are told at multiples of 100 and at 999, which steps of 4 never reach: of 1,000 episodes 96 are in none."""
    training = lockstep(tmp_path, 2_400, world={"max_cycles": 20})
    status = training.engine._stream.status
    assert status is not None
    assert status.episodes == 2_400 // 20
    last = json.loads(training.directory.metrics_file.read_text().splitlines()[-1])
    assert last["return_means"] == pytest.approx(status.return_means)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    """numpy and torch are seeded; neither the environments nor what draws the batches is given a seed."""
    bits = [lockstep(tmp_path / name, 3_000, seed=seed).bits() for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert bits[0] == bits[1]
    assert bits[0]["replay"] != bits[2]["replay"]


@pytest.mark.slow
def test_what_is_kept_is_read_without_running_it(tmp_path: Path) -> None:
    """`torch.save` of a list of dictionaries is a pickle, which runs what it holds when it is read."""
    directory = lockstep(tmp_path, 2_000).directory
    kept = [*tmp_path.rglob("*.safetensors")]
    assert directory.policy_file in kept
    folders = {path.parent.relative_to(directory.path).parts[:1] for path in kept}
    assert folders == {(), ("checkpoints",), ("milestones",)}, "policies, the learner's state, and both of milestones"
    for path in kept:
        with safe_open(path, "pt") as file:
            assert file.keys()
    assert not [*tmp_path.rglob("*.pt"), *tmp_path.rglob("*.pkl")]
