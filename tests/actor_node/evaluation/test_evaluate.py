import json
from functools import partial
from importlib import import_module

import msgspec
import numpy as np
import pytest

from actor_node.evaluation.evaluate import Evaluation, bootstrap_interval, evaluate, play, save
from actor_node.evaluation.rollouts.copies import _CopyPolicies
from actor_node.evaluation.task import reference_world
from common.errors import ConfigError
from common.policy.episodes import EpisodePolicy
from common.policy.file import PolicyFile, save_policy
from common.policy.network import Policy
from common.run.directory import RunDirectory, create
from common.run.players import players
from common.run.run import NetworkSpec, make_run_spec
from common.worlds import make_world, world_spec
from tests.common.examples import random_weights


@pytest.fixture
def trained(tmp_path):
    """Makes the directory of a run with policies that nobody has trained."""

    def make(scenario="simple_spread", seed=0, **world):
        spec = make_run_spec({"scenario": scenario, "world": world})
        directory, run = create(tmp_path / f"run-{len(list(tmp_path.iterdir()))}", spec, world_spec(scenario, **world))
        weights = random_weights(run, seed) * np.float32(0.2)
        save_policy(directory.policy_file, PolicyFile(run, 3, 300, weights))
        return directory

    return make


def literal_returns(directory, module, seeds, act, **options):
    """Plays mpe2's own parallel_env one episode after the other; returns [episodes, agents]."""
    env = module.parallel_env(**options)
    run = directory.run
    returns = []
    for seed in seeds:
        seen, _ = env.reset(seed=seed)
        totals = dict.fromkeys(seen, 0.0)
        while env.agents:
            obs = np.concatenate([seen[agent.name] for agent in run.joint.agents])[None].astype(np.float32)
            row = act(obs)[0]
            actions = {agent.name: row[agent.action_slice] for agent in run.joint.agents}
            seen, rewards, *_ = env.step(decode(actions, continuous=options["continuous_actions"]))
            for name, reward in rewards.items():
                totals[name] += reward
        returns.append([totals[agent.name] for agent in run.joint.agents])
    return np.array(returns)


def decode(actions, *, continuous):
    if continuous:
        return {name: np.clip(row, np.float32(0), np.float32(1)) for name, row in actions.items()}
    return {name: int(row.argmax()) for name, row in actions.items()}


def policy_of(directory, seed=0):
    run = directory.run
    return Policy(run.players, run.spec.network, random_weights(run, seed) * np.float32(0.2))


# ---- returns ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "world"),
    [
        ("simple_spread", {}),
        ("simple_spread", {"continuous_actions": False, "N": 2}),
        ("simple_tag", {"max_cycles": 10}),
    ],
    ids=str,
)
def test_returns_equal_a_literal_loop_over_mpe2(trained, scenario, world):
    module = import_module(f"mpe2.{scenario}_v3")
    directory = trained(scenario, **world)
    result = evaluate(directory, episodes=5, seed=40)
    options = {"continuous_actions": True, **world}
    expected = literal_returns(directory, module, range(40, 45), policy_of(directory).act, **options)
    assert result.return_mean == pytest.approx(expected.sum(axis=1).mean(), rel=1e-5)
    assert result.return_std == pytest.approx(expected.sum(axis=1).std(), rel=1e-4)
    assert list(result.return_per_agent) == [agent.name for agent in directory.run.joint.agents]
    assert list(result.return_per_agent.values()) == pytest.approx(expected.mean(axis=0).tolist(), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["simple_reference", "simple_speaker_listener", "simple_world_comm"])
def test_discrete_teams_that_speak_are_evaluated_too(trained, scenario):
    """mpe2 calls saying and moving one choice among all pairs; our agents make two."""
    directory = trained(scenario, continuous_actions=False)
    result = evaluate(directory, episodes=2, seed=1)
    batched = make_world(scenario, 2, seed=0, continuous_actions=False)
    expected = play(batched, policy_of(directory), 2, 1, int).sum(axis=1).mean()
    assert result.return_mean == pytest.approx(expected, rel=1e-5)


def test_episodes_beyond_a_batch_of_copies_go_on_with_the_seeds():
    """Nine episodes on four copies are the same as each on its own, the last batch being only partly needed."""
    world = make_world("simple_spread", 4, seed=0, max_cycles=5)
    spec = make_run_spec({"scenario": "simple_spread"})
    size = 3 * ((18 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 5)
    policy = Policy(players(world.spec, "maddpg"), spec.network, np.linspace(-0.3, 0.3, size, dtype=np.float32))
    done = []
    together = play(world, policy, 9, 100, done.append)
    alone = make_world("simple_spread", 1, seed=9, max_cycles=5)
    expected = np.concatenate([play(alone, policy, 1, 100 + e, int) for e in range(9)])
    np.testing.assert_allclose(together, expected, rtol=1e-6)
    assert done == [4, 8, 9]


def recurrent_policy():
    size = 3 * (24 * (18 + 1) + 24 * (8 + 1) + (8 + 1) * 5)
    flat = np.random.default_rng(0).normal(size=size).astype(np.float32)
    network = NetworkSpec(policy_hidden=(8,), recurrent="gru")
    return Policy(players(world_spec("simple_spread"), "maddpg"), network, flat)


def test_recurrent_policies_forget_between_episodes():
    world = make_world("simple_spread", 4, seed=0, max_cycles=5)
    network = make_run_spec(
        {"scenario": "simple_spread", "network": {"policy_hidden": (8,), "recurrent": "gru"}}
    ).network
    size = 3 * (24 * (18 + 1) + 24 * (8 + 1) + (8 + 1) * 5)
    flat = np.random.default_rng(0).normal(size=size).astype(np.float32)
    policy = Policy(players(world.spec, "maddpg"), network, flat)
    together = play(world, EpisodePolicy(policy), 9, 100, int)
    alone = make_world("simple_spread", 1, seed=9, max_cycles=5)
    expected = []
    for seed in range(100, 109):
        obs, total, memory = alone.reset([seed]), 0.0, np.zeros((1, 24), np.float32)
        for _ in range(5):
            step = alone.step(policy.act(obs, memory))
            obs, total = step.obs, total + step.reward[0]
        expected.append(total)
    np.testing.assert_allclose(together, expected, rtol=1e-4)


def test_recurrent_policies_forget_where_a_copy_starts_an_episode():
    agents = world_spec("simple_spread")
    network = make_run_spec(
        {"scenario": "simple_spread", "network": {"policy_hidden": (8,), "recurrent": "gru"}}
    ).network
    flat = np.random.default_rng(0).normal(size=3 * (24 * (18 + 1) + 24 * (8 + 1) + (8 + 1) * 5)).astype(np.float32)
    policy = Policy(players(agents, "maddpg"), network, flat)
    policies = _CopyPolicies(agents, 2, partial(EpisodePolicy, policy))
    obs = np.random.default_rng(1).normal(size=(2, 54)).astype(np.float32)
    for copy in (0, 1):
        policies.start_episode(copy, obs[copy], seed=0)
    first, second = policies.act(), policies.act()
    assert not np.array_equal(first, second)
    policies.start_episode(0, obs[0], seed=0)
    third = policies.act()
    np.testing.assert_array_equal(third[0], first[0])
    assert not np.array_equal(third[1], first[1])
    assert not np.array_equal(third[1], second[1])


def test_an_episode_that_ends_early_earns_nothing_more():
    options = {"N": 1, "terminate_on_success": True, "max_cycles": 30}
    world = make_world("simple_spread", 40, seed=0, **options)
    policy = Seeker(world.spec)
    together = play(world, policy, 40, 7, int)
    expected, lengths = [], set()
    for seed in range(7, 47):
        alone = make_world("simple_spread", 1, seed=0, **options)
        obs, total, over, steps = alone.reset([seed]), 0.0, False, 0
        while not over:
            step = alone.step(policy.act(obs))
            obs, total, over, steps = step.obs, total + step.reward[0, 0], step.episode_over[0], steps + 1
        expected.append(total)
        lengths.add(steps)
    np.testing.assert_allclose(together[:, 0], expected, rtol=1e-5)
    assert len(lengths) > 3, "they end at different times"


class Seeker:
    """Pushes towards the landmark: a policy that makes episodes end early."""

    def __init__(self, joint):
        self.joint = joint

    def act(self, obs):
        velocity, landmark = obs[:, 0:2], obs[:, 4:6]
        force = np.clip(landmark - velocity, -1.0, 1.0)
        actions = np.zeros((len(obs), 5), np.float32)
        actions[:, 2], actions[:, 1] = np.maximum(force[:, 0], 0), np.maximum(-force[:, 0], 0)
        actions[:, 4], actions[:, 3] = np.maximum(force[:, 1], 0), np.maximum(-force[:, 1], 0)
        return actions


# ---- what is said of them -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_evaluation_is_the_same_for_the_same_seed(trained):
    directory = trained()
    first, again, other = (evaluate(directory, episodes=6, seed=seed) for seed in (5, 5, 6))
    assert first == again
    assert first.return_mean != other.return_mean


@pytest.mark.slow
def test_what_an_evaluation_tells(trained, tmp_path):
    directory, done = trained(), []
    result = evaluate(directory, episodes=12, seed=5, progress=done.append)
    assert done == [12]
    assert (result.scenario, result.world) == ("simple_spread", "mpe2:simple_spread")
    assert (result.episodes, result.seed, result.updates) == (12, 5, 300)
    low, high = result.return_ci95
    assert low < result.return_mean < high
    assert result.return_mean == pytest.approx(sum(result.return_per_agent.values()))
    s = result.return_mean
    assert result.published_scales == pytest.approx({"S": s, "P": 2 * s - 75, "3P": 6 * s - 225})
    save(result, tmp_path / "evaluation.json")
    stored = json.loads((tmp_path / "evaluation.json").read_text())
    assert msgspec.convert(stored, Evaluation) == result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "world", "scales"),
    [
        ("simple_spread", {}, True),
        ("simple_spread", {"continuous_actions": False}, True),
        ("simple_spread", {"N": 3, "max_cycles": 25}, True),
        ("simple_spread", {"N": 2}, False),
        ("simple_spread", {"max_cycles": 10}, False),
        ("simple_adversary", {}, False),
    ],
    ids=str,
)
def test_only_the_published_task_is_stated_on_published_scales(trained, scenario, world, scales):
    assert bool(evaluate(trained(scenario, **world), episodes=1, seed=0).published_scales) is scales


@pytest.mark.parametrize(
    ("scenario", "world"),
    [
        ("simple_spread", "mpe2:simple_spread"),
        ("mpe2:simple_tag", "mpe2:simple_tag"),
        ("pettingzoo:some.module", "pettingzoo:some.module"),
    ],
)
def test_the_world_of_reference(scenario, world):
    assert reference_world(scenario) == world


@pytest.mark.slow
def test_a_team_trained_with_the_legacy_dynamics_is_evaluated_in_mpe2(trained):
    legacy, modern = trained(dynamics="legacy"), trained()
    assert evaluate(legacy, 2, 5).return_mean == evaluate(modern, 2, 5).return_mean


def test_the_interval_is_about_the_mean():
    values = np.random.default_rng(0).normal(-50.0, 10.0, 400)
    low, high = bootstrap_interval(values, seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 400**0.5, rel=0.1)
    assert bootstrap_interval(values, seed=1) == (low, high)
    assert bootstrap_interval(np.array([3.0]), seed=1) == (3.0, 3.0)


# ---- mistakes -----------------------------------------------------------------------------------------------------


def test_a_directory_without_a_run_is_told_apart_from_one_without_policies(tmp_path, trained):
    with pytest.raises(ConfigError, match="does not contain a run"):
        evaluate(RunDirectory(tmp_path / "nowhere"), 1, 0)
    directory = trained()
    directory.policy_file.unlink()
    with pytest.raises(ConfigError, match=r"does not exist\. The learner writes it with its first checkpoint"):
        evaluate(directory, 1, 0)


def test_a_team_of_another_world_than_the_installed_one_is_refused(trained):
    directory = trained()
    run = directory.run
    stranger = msgspec.structs.replace(run, joint=world_spec("simple_spread", N=2))
    save_policy(directory.policy_file, PolicyFile(stranger, 1, 1, random_weights(stranger)))
    with pytest.raises(ConfigError, match="the installed mpe2:simple_spread is not the world this team was trained in"):
        evaluate(directory, 1, 0)
