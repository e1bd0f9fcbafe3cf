"""Normalisation: running statistics equal those of all rows at once, and folded policies act on raw observations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from common.errors import ConfigError
from common.policy.file import PolicyFile, load_policy, save_policy
from common.policy.network import Policy, unflatten
from common.run.players import members_of
from common.run.run import Run, make_run_spec
from common.spec import Box, joint_spec
from learner_node.devices import Device
from learner_node.inspection.loaded_networks import LoadedNetworks
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.replay.replay_session import SampledBatch
from learner_node.stacked.update import StackedUpdate
from learner_node.trainer import Trainer
from learner_node.update.batches import LossBatch
from learner_node.update.layout import network_layout
from learner_node.update.normalisation import FIRST_UPDATES, LARGEST, RESOLUTION, UPDATES_PERIOD, Normaliser
from tests.learner_node.teams import TEAMS, as_fields, random_records

CPU = Device(torch.device("cpu"))
ON = {"normalise_observations": True, "normalise_rewards": True}
ROWS = 32
DOUBLE = torch.zeros((), dtype=torch.float64)
Records = npt.NDArray[np.void]


def run_of(team: str = "spread", *, share: bool = True, n_step: int = 1, **algorithm: object) -> Run:
    network = {"policy_hidden": (8, 6), "critic_hidden": (8, 6), "share_policies": share, "share_critics": share}
    replay = {"batch": ROWS, "n_step": n_step}
    sections = {"network": network, "algorithm": {**ON, **algorithm}, "replay": replay}
    return Run("r", make_run_spec({"scenario": "somewhere"}, sections), TEAMS[team])


def scaled(records: Records, obs: float = 1.0, reward: float = 1.0, shift: float = 0.0) -> Records:
    """Returns the records in other units."""
    found = records.copy()
    for name in ("obs", "next_obs"):
        found[name] = (records[name] + shift) * obs
    found["reward"] = records["reward"] * reward
    return found


def batches(run: Run, count: int, *, absences: bool = False, **units: float) -> list[Records]:
    """Returns batches whose columns have means and spreads of their own; absent agents observe zeros."""
    rng = np.random.default_rng(7)
    shift, spread = rng.normal(0.0, 5.0, run.joint.obs_dim), rng.uniform(0.1, 10.0, run.joint.obs_dim)
    found = []
    for seed in range(count):
        records = random_records(run.joint, ROWS, seed, absences=absences)
        for name in ("obs", "next_obs"):
            records[name] = records[name] * spread + shift
        records = scaled(records, **units)
        for i, agent in enumerate(run.joint.agents):
            records["obs"][records["present"][:, i] == 0, agent.obs_slice] = 0.0
        found.append(records)
    return found


def loss_batch(records: Records, *, dtype: torch.dtype = torch.float64, complete: bool = False) -> LossBatch:
    fields = as_fields(records, dtype)
    obs_action = torch.cat([fields["obs"], fields["action"]], 1)
    return LossBatch(
        obs_action, fields["next_obs"], fields["reward"], fields["discount"], fields["present"], complete=complete
    )


def sampled(records: Records, *, complete: bool = True) -> SampledBatch:
    return SampledBatch(torch.from_numpy(records.view(np.float32).reshape(len(records), -1).copy()), complete)


def engine_of(run: Run, like: Tensor = DOUBLE) -> StackedUpdate:
    return StackedUpdate(run, like)


def normaliser_after(run: Run, rows: list[Records], *, complete: bool = False) -> Normaliser:
    engine = engine_of(run)
    for records in rows:
        engine.normalise(loss_batch(records, complete=complete))
    return engine.normaliser


def trained(run: Run, rows: list[Records], *, complete: bool = True) -> Trainer:
    training = Trainer(run, CPU)
    for updates, records in enumerate(rows):
        training.update(sampled(records, complete=complete), updates, 0.0, 1_000.0 + updates)
    return training


# ---- the statistics --------------------------------------------------------------------------------------------------


def literal_affine(run: Run, rows: list[Records]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Returns mean and scale of each column, from all rows at once and with loops."""
    records, players = np.concatenate(rows), run.players
    groups: dict[object, list[int]] = {}
    for i, player in enumerate(players.agents):
        groups.setdefault(
            (player.name.rstrip("_0123456789"), player.team) if run.spec.network.share_policies else i, []
        )
    for i, player in enumerate(players.agents):
        groups[(player.name.rstrip("_0123456789"), player.team) if run.spec.network.share_policies else i].append(i)
    mean, scale = np.zeros(run.joint.obs_dim), np.zeros(run.joint.obs_dim)
    for group in groups.values():
        for k in range(players.agents[group[0]].obs_dim):
            seen, read = [], []
            for i in group:
                column = players.agents[i].obs_start + k
                own = next(a for a, agent in enumerate(run.joint.agents) if column in range(*_ends(agent)))
                is_present = records["present"][:, own] > 0
                seen.append(records["obs"][is_present, column].astype(np.float64))
                is_merged = len(members_of(run.joint, players.agents[i])) > 1
                read.append(records["obs"][is_present | is_merged, column].astype(np.float64))
            values, extremes = np.concatenate(seen), np.concatenate(read)
            spread = max(values.std(), np.abs(extremes - values.mean()).max() / LARGEST)
            for i in group:
                column = players.agents[i].obs_start + k
                mean[column] = values.mean()
                scale[column] = 1 / spread if spread > RESOLUTION * np.abs(extremes).max() else 0.0
    return mean, scale


def _ends(agent: object) -> tuple[int, int]:
    columns = agent.obs_slice  # type: ignore[attr-defined]
    return columns.start, columns.stop


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("absences", [False, True], ids=["complete", "absences"])
@pytest.mark.parametrize(
    ("team", "name"), [("spread", "matd3"), ("mixed", "maddpg"), ("tag", "adversary=joint,agent=iddpg")]
)
def test_running_statistics_equal_those_of_all_rows_at_once(team: str, name: str, absences: bool, share: bool) -> None:
    run = run_of(team, name=name, share=share)
    rows = batches(run, 5, absences=absences)
    normaliser = normaliser_after(run, rows, complete=not absences)
    assert normaliser.observations is not None
    mean, scale = normaliser.observations.shift, normaliser.observations.scale
    expected_mean, expected_scale = literal_affine(run, rows)
    np.testing.assert_allclose(mean.numpy(), expected_mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scale.numpy(), expected_scale, rtol=1e-9)


def test_a_large_mean_costs_no_precision() -> None:
    """At a mean of 1e7 times the deviation, float32 still resolves the rows, and sums of squares would not."""
    run = run_of("alone")
    rows = [scaled(records, shift=1e6) for records in batches(run, 20)]
    found = normaliser_after(run, rows, complete=True).observations
    values = np.concatenate([records["obs"] for records in rows]).astype(np.float64)
    assert found is not None
    np.testing.assert_allclose((found.squares / found.count).numpy(), values.var(0), rtol=1e-9)


@pytest.mark.parametrize("absences", [False, True], ids=["complete", "absences"])
def test_normalised_observations_are_of_size_one_and_bounded(absences: bool) -> None:
    run = run_of("tag")
    rows = batches(run, 30, absences=absences)
    rows[3]["obs"][0, 2] += 1e7
    engine = engine_of(run)
    for records in rows:
        engine.normalise(loss_batch(records, complete=not absences))
    for records in rows:
        batch = engine.normaliser.normalise(loss_batch(records, complete=not absences))
        obs = batch.obs_action[:, : run.joint.obs_dim]
        assert obs.abs().max() <= LARGEST * (1 + 1e-12)
        for i, agent in enumerate(run.joint.agents):
            assert (obs[batch.present[:, i] == 0, agent.obs_slice] == 0).all()
            own = obs[batch.present[:, i] > 0][:, agent.obs_slice]
            assert own[:, 3:].square().mean().sqrt() == pytest.approx(1.0, abs=0.4)


def test_later_batches_are_added_now_and_then_and_others_are_bounded() -> None:
    run = run_of("alone")
    training = Trainer(run, CPU)
    normaliser = training.engine.normaliser
    assert [updates for updates in range(FIRST_UPDATES + 20) if not normaliser.is_due(updates)][:8] == [
        *range(FIRST_UPDATES + 1, FIRST_UPDATES + UPDATES_PERIOD),
        FIRST_UPDATES + UPDATES_PERIOD + 1,
    ]
    [records, outlier] = batches(run, 2)
    training.update(sampled(records), 0, 0.0, 0.0)
    before = normaliser.tensors()
    outlier["next_obs"][0, 0] = 1e9
    training.update(sampled(outlier), FIRST_UPDATES + 1, 0.0, 0.0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in normaliser.tensors().items())
    batch = training.engine.normalise(loss_batch(outlier), observe=False)
    assert batch.next_obs.max() == LARGEST


def test_a_column_that_never_varies_reaches_no_network() -> None:
    """Its value is 0 to the learner and its folded weights are 0, so that actors lose no precision to it."""
    run = run_of("alone", name="maddpg")
    rows = batches(run, 3)
    for records in rows:
        for name in ("obs", "next_obs"):
            records[name][:, 1] = 12_345_678.9
    training = trained(run, rows)
    batch = training.engine.normaliser.normalise(loss_batch(rows[0]))
    assert (batch.obs_action[:, 1] == 0).all()
    assert (batch.next_obs[:, 1] == 0).all()
    policy = Policy(run.players, run.spec.network, training.engine.policy_weights())
    obs = rows[0]["obs"].copy()
    logits = policy.logits(obs)
    obs[:, 1] = -5.0
    np.testing.assert_array_equal(policy.logits(obs), logits)


@pytest.mark.parametrize("name", ["maddpg", "joint"])
def test_action_masks_are_not_normalised_and_folded_policies_respect_them(name: str) -> None:
    run = run_of("masked", name=name)
    masks, actions = np.array(run.joint.mask_columns).T
    rows = [random_records(run.joint, ROWS, seed) for seed in range(4)]
    for records in rows:
        others = [column for column in range(run.joint.obs_dim) if column not in masks]
        records["obs"][:, others] = 40.0 + 7.0 * records["obs"][:, others]
    engine = engine_of(run)
    batch = loss_batch(rows[-1])
    for records in rows[:-1]:
        engine.update(engine.normalise(loss_batch(records)), 1e-2, 1e-2)
    batch = engine.normalise(batch)
    np.testing.assert_array_equal(batch.obs_action[:, masks], rows[-1]["obs"][:, masks])
    np.testing.assert_array_equal(batch.next_obs[:, masks], rows[-1]["next_obs"][:, masks])
    policy = Policy(run.players, run.spec.network, engine.policy_weights())
    logits = policy.logits(rows[-1]["obs"])
    expected = engine.logits(batch.obs_action[:, : run.joint.obs_dim])
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    chosen = policy.act(rows[-1]["obs"])[:, actions]
    assert (chosen <= rows[-1]["obs"][:, masks]).all()


def test_before_the_first_batch_policies_see_nothing() -> None:
    """Otherwise the first actions of an environment in large units would all be extremes."""
    run = run_of("alone")
    policy = Policy(run.players, run.spec.network, Trainer(run, CPU).engine.policy_weights())
    logits = policy.logits(np.array([[1e6, -1e6, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]], np.float32))
    np.testing.assert_array_equal(logits[0], logits[1])


def test_the_zeros_of_an_agent_that_is_gone_count_for_nothing() -> None:
    run = run_of("spread", name="maddpg")
    [records] = batches(run, 1)
    records["present"][:, 1] = 0.0
    records["discount"][:5, 0] = 0.0
    engine = engine_of(run)
    batch = engine.normalise(loss_batch(records))
    assert (batch.obs_action[:, 18:36] == 0).all()
    assert (batch.next_obs[:, 18:36] == 0).all()
    assert (batch.next_obs[:5, :18] == 0).all()
    assert (batch.next_obs[5:, :18] != 0).all()
    assert engine.normaliser.observations is not None
    assert (engine.normaliser.observations.count == 2 * ROWS).all()


# ---- rewards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize(("team", "name"), [("tag", "maddpg"), ("tag", "adversary=joint,agent=iddpg")])
def test_rewards_are_divided_by_the_size_of_returns(team: str, name: str, n_step: int) -> None:
    run = run_of(team, name=name, n_step=n_step, discount=0.9, reward_scale=4.0, team_spirit=0.5)
    engine, rows = engine_of(run), batches(run, 4, absences=True, reward=7.0)
    raw = [engine.mixer.signals(loss_batch(records)) for records in rows]
    rewards, present = (torch.cat([getattr(one, field) for one in raw]) for field in ("reward", "present"))
    for records in rows:
        batch = engine.normalise(loss_batch(records))
    assert batch.reward_factor is not None
    networks = [critic.network for critic in engine.layout.critics[: rewards.shape[1]]]
    for i, network in enumerate(networks):
        own = torch.cat([rewards[present[:, j] > 0, j] / 4.0 for j, other in enumerate(networks) if other == network])
        returned = float((own.square().mean() / (1 - 0.9 ** (2 * n_step))).sqrt())
        size = max(returned, float(own.abs().max()) / LARGEST)
        assert float(1 / batch.reward_factor[i]) == pytest.approx(size, rel=1e-9)
    # algorithm.reward_scale applies to normalised rewards.
    torch.testing.assert_close(engine.mixer.signals(batch).reward, raw[-1].reward * batch.reward_factor)


def test_rare_rewards_are_bounded_and_none_change_nothing() -> None:
    run = run_of("alone", discount=0.0)
    rows = batches(run, 40)
    for records in rows:
        records["reward"] = 0.0
    engine = engine_of(run)
    for records in rows:
        assert engine.normalise(loss_batch(records)).reward_factor == 1.0
    rows[0]["reward"][0] = 1e-6
    batch = engine.normalise(loss_batch(rows[0]))
    assert batch.reward_factor is not None
    assert batch.reward.max() * batch.reward_factor == pytest.approx(LARGEST)


def test_values_are_reported_in_units_of_the_rewards() -> None:
    run = run_of("tag")
    found = {}
    for units in (1.0, 2.0**17):
        training = trained(run, batches(run, 12, reward=units))
        assert training.losses is not None
        rows = batches(run, 1, reward=units)[0][:6]
        obs, action, reward, ones = (rows[name].reshape(2, 3, -1) for name in ("obs", "action", "reward", "present"))
        networks = LoadedNetworks(run, copy_state(training.engine, Counters()))
        values = networks.values(
            obs, action, np.tile(reward, (15, 1, 1)), np.tile(ones, (15, 1, 1)), np.tile(ones, (15, 1, 1))
        )
        found[units] = training.losses, values
    (ours, our_values), (others, other_values) = found.values()
    assert others.q_mean == pytest.approx([2.0**17 * q for q in ours.q_mean])
    assert others.critic_loss == ours.critic_loss
    assert others.policy_loss == ours.policy_loss
    for our, other in zip(our_values, other_values, strict=True):
        assert (other.value, other.realised) == pytest.approx((2.0**17 * our.value, 2.0**17 * our.realised))
        assert other.relative_bias == pytest.approx(our.relative_bias)


# ---- units do not matter ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "absences"])
@pytest.mark.parametrize(("obs", "reward"), [(2.0**13, 1.0), (1.0, 2.0**-17), (2.0**-9, 2.0**17)])
def test_units_that_are_powers_of_two_change_no_bit_of_the_networks(obs: float, reward: float, complete: bool) -> None:
    run = run_of("tag", team_spirit=0.25)
    ours, others = (
        trained(run, batches(run, 9, absences=not complete, **units), complete=complete).engine
        for units in ({}, {"obs": obs, "reward": reward})
    )
    for kind in ("policies", "critics"):
        assert torch.equal(getattr(ours, kind).shared, getattr(others, kind).shared)
    [records] = batches(run, 1)
    logits = [
        Policy(run.players, run.spec.network, algorithm.policy_weights()).logits(records["obs"] * np.float32(units))
        for algorithm, units in ((ours, 1.0), (others, obs))
    ]
    np.testing.assert_array_equal(*logits)


def test_any_units_and_offsets_train_nearly_the_same_policy() -> None:
    run, logits = run_of("spread"), []
    for units in ({}, {"obs": 1e4, "reward": 1e5, "shift": 300.0}):
        algorithm = trained(run, batches(run, 9, **units)).engine
        [records] = batches(run, 1, **units)
        logits.append(Policy(run.players, run.spec.network, algorithm.policy_weights()).logits(records["obs"]))
    np.testing.assert_allclose(*logits, atol=2e-3)


# ---- folded policies -------------------------------------------------------------------------------------------------


def test_folded_policies_act_on_raw_observations_as_the_others_on_normalised_ones() -> None:
    run = run_of("mixed")
    rows = batches(run, 4)
    engine = engine_of(run)
    for records in rows:
        engine.normalise(loss_batch(records))
    batch = engine.normaliser.normalise(loss_batch(rows[0], complete=True))
    expected = engine.logits(batch.obs_action[:, : run.joint.obs_dim]).numpy()
    engine.normaliser, normaliser = (
        engine_of(run_of("mixed", normalise_observations=False)).normaliser,
        engine.normaliser,
    )
    flat = engine.policy_weights()
    double = normaliser.fold(flat.astype(np.float64))
    logits = _logits(run, double, rows[0]["obs"].astype(np.float64))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-9)
    single = Policy(run.players, run.spec.network, normaliser.fold(flat)).logits(rows[0]["obs"])
    np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_folding_precedes_layer_norm(activation: str) -> None:
    """The map goes into the linear layer before the norm, so the norm sees the numbers that the learner's norm sees."""
    run = run_of("mixed")
    network = replace(run.spec.network, activation=activation, policy_layer_norm=True)
    layout = network_layout(run.players, network, run.spec.algorithm)
    normaliser = Normaliser(run.joint, run.players, network, run.spec.algorithm, layout, n_step=1, like=DOUBLE)
    rows = batches(run, 4)
    for records in rows:
        batch = loss_batch(records)
        normaliser.observe(batch, engine_of(run).mixer.signals(batch))
    obs = rows[0]["obs"].astype(np.float32)
    normalised = normaliser.normalise(loss_batch(rows[0], complete=True)).obs_action[:, : run.joint.obs_dim].numpy()
    count = sum((player.obs_dim + 1) * 8 + 16 + 9 * 6 + 12 + 7 * player.action_dim for player in run.players.agents)
    flat = np.random.default_rng(0).normal(0.0, 0.5, count).astype(np.float32)
    expected = Policy(run.players, network, flat).logits(normalised.astype(np.float32))
    got = Policy(run.players, network, normaliser.fold(flat)).logits(obs)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)
    assert np.abs(Policy(run.players, network, flat).logits(obs) - expected).max() > 0.1, "nothing was normalised"


def _logits(run: Run, flat: npt.NDArray[np.float64], obs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the logits of all players in float64."""
    found = []
    for player, layers in zip(run.players.agents, unflatten(flat, run.players, run.spec.network), strict=True):  # type: ignore[arg-type]
        x = obs[:, player.obs_slice]
        for layer in layers.hidden:
            x = np.maximum(x @ layer.weight + layer.bias, 0.0)
        found.append(x @ layers.last.weight + layers.last.bias)
    return np.concatenate(found, 1)


@pytest.mark.parametrize(("mean", "bound"), [(0.0, 1e-6), (1e2, 1e-5), (1e4, 1e-3)])
def test_folding_costs_no_more_than_float32_observations_do(mean: float, bound: float) -> None:
    """The error of logits is that of observations which float32 resolves in steps of 6e-8 times their size."""
    joint = joint_spec([("agent_0", "agent", 20, (Box((-1.0,) * 3, (1.0,) * 3),))])
    run = Run("r", make_run_spec({"scenario": "somewhere"}, {"algorithm": ON}), joint)
    rng, rows = np.random.default_rng(1), []
    for seed in range(4):
        records = random_records(joint, 256, seed)
        records["obs"] = rng.normal(mean, 1.0, records["obs"].shape)
        rows.append(records)
    engine = engine_of(run)
    for records in rows:
        engine.normalise(loss_batch(records))
    batch = engine.normaliser.normalise(loss_batch(rows[0]))
    expected = engine.logits(batch.obs_action[:, :20]).numpy()
    error = Policy(run.players, run.spec.network, engine.policy_weights()).logits(rows[0]["obs"]) - expected
    assert np.abs(error).max() < bound


def test_what_leaves_the_learner_is_folded(tmp_path: Path) -> None:
    run = run_of("spread")
    rows = batches(run, 4, obs=1e4)
    training = trained(run, rows)
    algorithm = training.engine
    save_policy(tmp_path / "policy.safetensors", PolicyFile(run, 1, 4, algorithm.policy_weights()))
    policy = Policy(run.players, run.spec.network, load_policy(tmp_path / "policy.safetensors").flat)
    batch = algorithm.normaliser.normalise(loss_batch(rows[0], dtype=torch.float32, complete=True))
    expected = algorithm.logits(batch.obs_action[:, : run.joint.obs_dim]).numpy()
    np.testing.assert_allclose(policy.logits(rows[0]["obs"]), expected, atol=1e-5)
    found = LoadedNetworks(run, copy_state(algorithm, Counters()))
    np.testing.assert_array_equal(found.policies, algorithm.policy_weights())


def test_critics_of_a_checkpoint_read_raw_observations() -> None:
    run = run_of("tag", normalise_rewards=False)
    rows = batches(run, 4, absences=True, obs=1e4)
    algorithm = trained(run, rows, complete=False).engine
    networks = LoadedNetworks(run, copy_state(algorithm, Counters()))
    records = rows[0]
    obs, action, present = (records[name].reshape(2, ROWS // 2, -1) for name in ("obs", "action", "present"))
    found = networks._critic_rows(obs, action, present)
    batch = algorithm.normaliser.normalise(loss_batch(records, dtype=torch.float32))
    np.testing.assert_array_equal(found, batch.obs_action.numpy())
    np.testing.assert_array_equal(obs.reshape(ROWS, -1), records["obs"])
    assert all(figures.inputs > 1 for figures in networks.critic_activity(obs, action, present))


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def test_a_resumed_run_continues_with_the_same_bits(tmp_path: Path) -> None:
    run = run_of("tag")
    rows = batches(run, 8, absences=True)
    whole = trained(run, rows, complete=False).engine
    Checkpoints(tmp_path, 1).save(copy_state(trained(run, rows[:4], complete=False).engine, Counters()), best=False)
    state = Checkpoints(tmp_path, 1).load()
    assert state is not None
    parts = Trainer(run, CPU)
    restore_state(parts.engine, state)
    for updates, records in enumerate(rows[4:], 4):
        parts.update(sampled(records, complete=False), updates, 0.0, 1_000.0 + updates)
    expected, found = copy_state(whole, Counters()).tensors, copy_state(parts.engine, Counters()).tensors
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    np.testing.assert_array_equal(whole.policy_weights(), parts.engine.policy_weights())


def test_a_checkpoint_before_the_first_batch_is_finite_and_changes_nothing() -> None:
    run = run_of()
    state = copy_state(Trainer(run, CPU).engine, Counters())
    state.check()
    resumed = Trainer(run, CPU).engine
    expected = resumed.policy_weights()
    restore_state(resumed, state)
    np.testing.assert_array_equal(resumed.policy_weights(), expected)


def test_a_run_without_normalisation_stores_and_does_nothing_more() -> None:
    run = run_of(normalise_observations=False, normalise_rewards="auto")
    engine = engine_of(run)
    [records] = batches(run, 1)
    batch, flat = loss_batch(records), np.ones(3, np.float32)
    assert engine.normalise(batch) is batch
    assert engine.normaliser.fold(flat) is flat
    assert not any("normalisation" in name for name in copy_state(engine, Counters()).tensors)


@pytest.mark.parametrize("setting", ON)
def test_switching_normalisation_in_a_trained_run_is_refused(setting: str) -> None:
    on, off = engine_of(run_of()), engine_of(run_of(**{setting: False}))
    with pytest.raises(ConfigError, match=rf"algorithm\.{setting} = false: .* trained with it.*{setting}=true, or"):
        restore_state(off, copy_state(on, Counters()))
    with pytest.raises(ConfigError, match=rf"algorithm\.{setting} = true: .* trained without it.*{setting}=false, or"):
        restore_state(on, copy_state(off, Counters()))


# ---- the global state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", ["state", "both"])
def test_units_of_a_state_that_are_powers_of_two_change_no_bit_of_the_networks(sees: str) -> None:
    run = run_of(critic_sees=sees)
    run = replace(run, joint=replace(run.joint, state_dim=5))
    rows = batches(run, 4)
    other = [records.copy() for records in rows]
    for records in other:
        for name in ("state", "next_state"):
            records[name] *= 1024.0
    one, two = trained(run, rows).engine, trained(run, other).engine
    torch.testing.assert_close(one.critics.shared, two.critics.shared, rtol=0, atol=0)
    torch.testing.assert_close(one.policies.shared, two.policies.shared, rtol=0, atol=0)
    assert one.normaliser.state is not None
    states = torch.from_numpy(np.concatenate(rows)["state"].astype(np.float64))
    torch.testing.assert_close(one.normaliser.state.mean, states.mean(0), rtol=1e-6, atol=1e-9)
    assert one.normaliser.tensors().keys() >= {"state_mean", "state_count"}


def test_a_run_that_reads_a_state_and_normalises_nothing_keeps_no_statistics() -> None:
    run = run_of(critic_sees="state", normalise_observations=False, normalise_rewards=False)
    run = replace(run, joint=replace(run.joint, state_dim=5))
    assert trained(run, batches(run, 2)).engine.normaliser.tensors() == {}
