"""What is measured of an episode is what mpe2's own bodies did in it, and the same in both worlds."""

from importlib import import_module

import numpy as np
import pytest

from actor_node.evaluation.rollouts.batched import play_episodes
from actor_node.evaluation.rollouts.episodes import EpisodeBatch
from actor_node.evaluation.task_metrics import MEANINGS, measure
from actor_node.evaluation.teams import RandomTeam
from common.worlds import SCENARIOS, make_world, world_spec
from tests.common.worlds.particle.mpe2_oracle import mpe2_action

EPISODES = 3


def played(reward, metrics=None, lengths=None):
    reward = np.array(reward, float)
    lengths = lengths or [reward.shape[1]] * len(reward)
    steps = np.arange(reward.shape[1])
    mask = np.array([steps < length for length in lengths])
    return EpisodeBatch(reward, mask, {name: np.array(rows, float) for name, rows in (metrics or {}).items()})


# ---- the same in both worlds --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_mpe2_and_the_batched_world_are_measured_alike_bit_for_bit(scenario, continuous):
    options = {"benchmark_data": True, "continuous_actions": continuous, "max_cycles": 15}
    found = []
    for name in (scenario, f"mpe2:{scenario}"):
        world = make_world(name, 2, seed=0, **options)
        found.append(play_episodes(world, RandomTeam(world.spec, 4), EPISODES, 70, int))
        world.close()
    batched, real = found
    np.testing.assert_array_equal(batched.reward, real.reward)
    assert batched.metrics.keys() == real.metrics.keys()
    for name, rows in real.metrics.items():
        np.testing.assert_array_equal(np.where(np.isnan(rows), rows, batched.metrics[name]), rows, err_msg=name)
    ours, theirs = (measure(scenario, options, each) for each in found)
    assert ours.keys() == theirs.keys()
    assert ours.keys() <= MEANINGS.keys()
    for name, values in theirs.items():
        assert values.shape == (EPISODES,)
        assert np.isfinite(values).all(), name
        np.testing.assert_array_equal(ours[name], values, err_msg=name)


# ---- what mpe2's bodies did ---------------------------------------------------------------------------------------


def literal(scenario, seed, rng):
    """Plays one episode of mpe2 itself; yields its world after each step, and the goal it has drawn."""
    module = import_module(f"mpe2.{SCENARIOS[scenario].mpe2_module}")
    env = module.parallel_env(continuous_actions=True)
    env.reset(seed=seed)
    spec = world_spec(scenario)
    while env.agents:
        joint = rng.uniform(0, 1, spec.action_dim).astype(np.float32)
        env.step({a.name: mpe2_action(a, joint[a.action_slice], continuous=True) for a in spec.agents})
        yield env.unwrapped.world


class Replay:
    """Acts as `literal` does."""

    def __init__(self, spec, rng):
        self.spec, self.rng = spec, rng

    def act(self, obs):
        return self.rng.uniform(0, 1, self.spec.action_dim).astype(np.float32)[None]


def measured(scenario, seed):
    world = make_world(scenario, 1, seed=0, benchmark_data=True)
    found = measure(scenario, {}, play_episodes(world, Replay(world.spec, np.random.default_rng(seed)), 1, seed, int))
    return {name: values[0] for name, values in found.items()}


def distance(a, b):
    return float(np.hypot(*(a.state.p_pos - b.state.p_pos)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_distances_to_a_goal_are_those_of_the_bodies(seed):
    speaker = [distance(w.agents[1], w.agents[0].goal_b) for w in literal("simple_speaker_listener", seed, rng(seed))]
    found = measured("simple_speaker_listener", seed)
    assert found["distance"] == pytest.approx(np.mean(speaker), rel=1e-5)
    assert found["final_distance"] == pytest.approx(speaker[-1], rel=1e-5)
    both = [
        [distance(w.agents[1], w.agents[0].goal_b), distance(w.agents[0], w.agents[1].goal_b)]
        for w in literal("simple_reference", seed, rng(seed))
    ]
    assert measured("simple_reference", seed)["distance"] == pytest.approx(np.mean(both), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("scenario", ["simple_adversary", "simple_push"])
def test_who_is_how_near_to_the_goal_is_told_for_both_sides(scenario, seed):
    *_, world = literal(scenario, seed, rng(seed))
    goal = world.agents[-1].goal_a
    found = measured(scenario, seed)
    good = min(distance(agent, goal) for agent in world.agents if not agent.adversary)
    assert found["agent_distance"] == pytest.approx(good, rel=1e-5)
    assert found["adversary_distance"] == pytest.approx(distance(world.agents[0], goal), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_touches_and_collisions_are_counted_once_a_pair_and_step(seed):
    def touching(pairs):
        return sum(distance(a, b) < a.size + b.size for a, b in pairs)

    tag = [touching((a, b) for a in w.agents[:3] for b in w.agents[3:]) for w in literal("simple_tag", seed, rng(seed))]
    assert measured("simple_tag", seed)["touches"] == sum(tag)
    spread = [
        touching((a, b) for i, a in enumerate(w.agents) for b in w.agents[:i])
        for w in literal("simple_spread", seed, rng(seed))
    ]
    assert measured("simple_spread", seed)["collisions"] == sum(spread)


def rng(seed):
    return np.random.default_rng(seed)


# ---- by hand ------------------------------------------------------------------------------------------------------


def test_an_episode_that_ends_early_is_measured_up_to_its_last_step():
    reward = [[[-1.0], [-1.0], [-4.0]], [[-9.0], [0.0], [0.0]]]
    found = measure("simple_formation", {}, played(reward, lengths=[3, 1]))
    assert found["distance"].tolist() == [2.0, 9.0]
    assert found["final_distance"].tolist() == [4.0, 9.0]


def test_reached_is_touching():
    near, far = -(0.1149**2), -(0.1151**2)
    found = measure("simple_speaker_listener", {}, played([[[near, near]], [[far, far]]]))
    assert found["reached"].tolist() == [1.0, 0.0]
    legacy = measure("simple_speaker_listener", {"dynamics": "legacy"}, played([[[2 * near, 2 * near]]]))
    assert legacy["reached"].tolist() == [1.0]


def test_near_is_within_a_fifth():
    near, far = -(0.1999**2), -(0.2001**2)
    found = measure("simple_speaker_listener", {}, played([[[near, near]], [[far, far]]]))
    assert found["near"].tolist() == [1.0, 0.0]
    assert found["reached"].tolist() == [0.0, 0.0]


def test_landmarks_are_all_occupied_only_where_each_is():
    occupied = [[[1, 1, 1], [3, 3, 3]], [[3, 3, 3], [2, 2, 2]]]
    metrics = {"min_dists": np.ones((2, 2, 3)), "occupied_landmarks": occupied, "collisions": np.zeros((2, 2, 3))}
    found = measure("simple_spread", {}, played(np.zeros((2, 2, 3)), metrics))
    assert found["occupied_landmarks"].tolist() == [3.0, 2.0]
    assert found["all_occupied"].tolist() == [1.0, 0.0]


def test_who_says_nothing_has_read_nothing():
    said = {"said_0": [[[0.9, 0.0, 1.0]]], "said_1": [[[0.8, 0.0, 0.0]]]}
    message = {"message_0": [[[1.0, 1.0, 1.0]]], "message_1": [[[0.0, 0.0, 0.0]]]}
    found = measure("simple_crypto", {}, played(np.zeros((1, 1, 3)), {**said, **message}))
    assert (found["eve_success"][0], found["bob_success"][0]) == (1.0, 0.0)
    assert found["eve_error"][0] == pytest.approx(0.1**2 + 0.8**2)
    assert found["bob_error"][0] == 1.0


def test_what_the_rewards_do_not_tell_is_left_out():
    rewards = np.zeros((1, 1, 2))
    assert measure("simple_reference", {"local_ratio": 0}, played(rewards)) == {}
    assert measure("simple_reference", {"dynamics": "legacy"}, played(rewards)) == {}
    assert measure("collect_treasure", {}, played(rewards)) == {}
    assert measure("pettingzoo:some.module", {}, played(rewards)) == {}
