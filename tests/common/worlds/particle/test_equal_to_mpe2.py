"""The batched worlds are mpe2, bit for bit, from reset to the last step of whole episodes of random actions."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.worlds import SCENARIOS, make_world
from tests.common.worlds.particle.mpe2_oracle import assert_equal_to_mpe2, mpe2_action, raw_env

# Seeds so chosen that a scenario takes at most a few seconds; the soak test below plays 200 of each.
SEEDS = dict.fromkeys(SCENARIOS, 100) | {
    "collect_treasure": 25,
    "simple_formation": 40,
    "simple_line": 40,
    "simple_spread": 200,
    "simple_tag": 40,
    "simple_world_comm": 25,
}
NEIGHBORS = {"num_agent_neighbors": 2, "num_landmark_neighbors": 3}
OPTIONS = {
    "collect_treasure": [
        {"num_collectors": 10, "num_deposits": 1, "num_treasures": 3},
        {"num_collectors": 1, "num_deposits": 6, "num_treasures": 9, "max_cycles": 60},
        {"num_collectors": 3, "num_deposits": 3, "num_treasures": 1, "max_cycles": 10},
    ],
    "simple": [{"max_cycles": 1}, {"max_cycles": 7}, {"max_cycles": 60}],
    "simple_adversary": [{"N": 1}, {"N": 4, **NEIGHBORS}, {"N": 2, "num_agent_neighbors": 9}],
    "simple_crypto": [{"max_cycles": 1}, {"max_cycles": 7}, {"max_cycles": 60}],
    "simple_formation": [{"N": 1, "terminate_on_success": True}, {"N": 5}, {"N": 9}],
    "simple_line": [{"N": 1, "terminate_on_success": True}, {"N": 2}, {"N": 9, "max_cycles": 10}],
    "simple_push": [{"max_cycles": 1}, {"max_cycles": 7}, {"max_cycles": 60}],
    "simple_reference": [{"local_ratio": 0}, {"local_ratio": 0.3}, {"local_ratio": 1, "max_cycles": 40}],
    "simple_speaker_listener": [{"max_cycles": 1}, {"max_cycles": 7}, {"max_cycles": 60}],
    "simple_spread": [
        {"N": 4, **NEIGHBORS},
        {"N": 1, "num_agent_neighbors": 2, "terminate_on_success": True, "max_cycles": 50},
        {"local_ratio": 0.3, "curriculum": True},
        {"local_ratio": 1, "curriculum": True, "curriculum_stage": 1},
    ],
    "simple_tag": [
        {"num_good": 3, "num_adversaries": 2, "num_obstacles": 0},
        {"num_good": 2, **NEIGHBORS},
        {"num_adversaries": 5, "curriculum": True, "terminate_on_success": True},
        {"curriculum": True, "curriculum_stage": 1, "num_landmark_neighbors": 1},
    ],
    "simple_world_comm": [
        {"num_good": 3, "num_adversaries": 1, "num_obstacles": 0, "num_food": 5, "num_forests": 0},
        {"num_good": 1, "num_adversaries": 2, "num_obstacles": 2, "num_food": 1, "num_forests": 4},
        {"max_cycles": 60, "num_good": 2, "num_adversaries": 2, "num_forests": 1},
    ],
}
CASES = [(name, options) for name, sets in OPTIONS.items() for options in sets]
both_kinds = pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])


@pytest.mark.slow
@both_kinds
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_equals_mpe2_with_its_default_options(name, continuous):
    assert_equal_to_mpe2(name, range(SEEDS[name]), np.random.default_rng(1), continuous_actions=continuous)


@pytest.mark.slow
@both_kinds
@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_every_scenario_equals_mpe2_with_other_options(name, options, continuous):
    assert_equal_to_mpe2(name, range(100, 106), np.random.default_rng(2), continuous_actions=continuous, **options)


@pytest.mark.slow
@both_kinds
@pytest.mark.parametrize("n", [2, 5])
def test_simple_spread_of_other_sizes_equals_mpe2_over_200_seeds(n, continuous):
    rng = np.random.default_rng(n)
    assert_equal_to_mpe2("simple_spread", range(200), rng, N=n, continuous_actions=continuous)


@pytest.mark.soak
@both_kinds
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_every_scenario_equals_mpe2_over_200_seeds(name, continuous):
    assert_equal_to_mpe2(name, range(1000, 1200), np.random.default_rng(3), continuous_actions=continuous)


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 9])
def test_one_copy_equals_mpe2_where_numpy_would_sum_in_another_order(n):
    assert_equal_to_mpe2("simple_spread", [7], np.random.default_rng(n), N=n, max_cycles=60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seeds", "options"),
    [
        ("simple_spread", 40, {"N": 1, "max_cycles": 50}),
        ("simple_tag", 20, {"num_adversaries": 6, "curriculum": True}),
        ("simple_formation", 20, {"N": 1}),
        ("simple_line", 150, {"N": 1, "max_cycles": 60}),
    ],
)
def test_episodes_terminate_where_mpe2s_do(name, seeds, options):
    rng = np.random.default_rng(2)
    ended = assert_equal_to_mpe2(name, range(seeds), rng, terminate_on_success=True, **options)
    assert ended > 0, "the comparison must see episodes that end early"


@st.composite
def scenarios_with_options(draw):
    name = draw(st.sampled_from(sorted(SCENARIOS)))
    options = draw(st.sampled_from([{}, *OPTIONS[name]]))
    return name, {**options, "max_cycles": draw(st.integers(1, 12))}


EXTREMES = np.array([-np.inf, -3e38, -1.0, -0.0, 0.0, 1e-45, 0.5, 1.0, 1.0000001, 2.0, 3e38, np.inf], np.float32)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios_with_options(), st.booleans(), st.integers(0, 2**32), st.integers(1, 3), st.floats(0, 1))
def test_any_options_seed_and_actions_however_extreme_equal_mpe2(case, continuous, seed, copies, extreme):
    name, options = case

    class Actions(np.random.Generator):
        """Draws actions of which a share is extreme."""

        def uniform(self, low, high, size):
            wild = super().uniform(size=size) < extreme
            return np.where(wild, self.choice(EXTREMES, size), super().uniform(low, high, size))

    rng = Actions(np.random.PCG64(seed))
    assert_equal_to_mpe2(name, range(seed, seed + copies), rng, continuous_actions=continuous, **options)


def mpe2_benchmark(name, data):
    """The values of mpe2's benchmark data for one agent, in the order of our metrics."""
    if name == "collect_treasure":
        return [-1 if data[0] is None else data[0], data[1]]
    if name == "simple_crypto":
        return np.concatenate([data[0], data[1]])
    return np.atleast_1d(np.array(data, float))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_benchmark_data_are_mpe2s(name):
    world = make_world(name, benchmark_data=True, max_cycles=40)
    world.reset([5])
    env = raw_env(name, benchmark_data=True, max_cycles=40, continuous_actions=True)
    env.reset(seed=5)
    rng = np.random.default_rng(0)
    for _ in range(39):
        joint = rng.uniform(0, 1, (1, world.spec.action_dim)).astype(np.float32)
        metrics = world.step(joint).metrics
        for agent in world.spec.agents:
            env.step(mpe2_action(agent, joint[0, agent.action_slice], continuous=True))
        for i, agent in enumerate(world.spec.agents):
            data = env.infos[agent.name]["benchmark_data"]
            expected = [] if data == {} else mpe2_benchmark(name, data)
            ours = [values[0, i] for values in metrics.values()]
            if name == "simple_adversary" and i == 0:
                ours = ours[-1:]  # mpe2 gives the adversary its distance to the goal only
            np.testing.assert_array_equal(ours, expected, err_msg=agent.name)
