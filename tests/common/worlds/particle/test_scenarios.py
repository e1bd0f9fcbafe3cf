"""What holds for every scenario of the table."""

import gc
import tracemalloc

import msgspec
import numpy as np
import pytest

from common.spec import Categorical
from common.worlds import SCENARIOS, make_world, scenarios, world_spec

every_scenario = pytest.mark.parametrize("name", sorted(SCENARIOS))


def random_actions(world, seed=0):
    return np.random.default_rng(seed).uniform(0, 1, (world.copies, world.spec.action_dim)).astype(np.float32)


def test_the_table_has_all_scenarios_and_can_be_printed():
    rows = scenarios()
    assert [row.name for row in rows] == sorted(SCENARIOS)
    assert len(rows) == 12
    for row in rows:
        assert row.doc.endswith(".")
        assert row.reward
        assert {"continuous_actions", "max_cycles", "benchmark_data", "dynamics"} <= {o.name for o in row.options}
    assert msgspec.json.decode(msgspec.json.encode(rows))[0]["name"] == "collect_treasure"


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("simple_tag", {"adversary_0": "adversary", "adversary_2": "adversary", "agent_0": "agent"}),
        ("simple_world_comm", {"leadadversary_0": "adversary", "adversary_0": "adversary", "agent_1": "agent"}),
        ("simple_crypto", {"eve_0": "adversary", "bob_0": "agent", "alice_0": "agent"}),
        ("simple_speaker_listener", {"speaker_0": "team", "listener_0": "team"}),
        ("collect_treasure", {"collector_5": "team", "deposit_1": "team"}),
    ],
)
def test_agents_that_are_paid_together_share_a_team(name, sides):
    teams = {agent.name: agent.team for agent in world_spec(name).agents}
    assert {agent: teams[agent] for agent in sides} == sides


def test_an_agent_that_moves_and_speaks_makes_two_choices():
    spec = world_spec("simple_reference", continuous_actions=False)
    assert spec.agents[0].parts == (Categorical(5), Categorical(10))
    leader, follower = world_spec("simple_world_comm", continuous_actions=False).agents[:2]
    assert leader.parts == (Categorical(5), Categorical(4))
    assert follower.parts == (Categorical(5),)
    assert world_spec("simple_speaker_listener", continuous_actions=False).agents[0].parts == (Categorical(3),)


@pytest.mark.slow
@every_scenario
def test_the_spec_is_mpe2s(name):
    for continuous in (True, False):
        ours = make_world(name, continuous_actions=continuous)
        theirs = make_world(f"mpe2:{name}", continuous_actions=continuous)
        assert theirs.spec == ours.spec
        np.testing.assert_array_equal(ours.reset([9]), theirs.reset([9]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simple_reference", "simple_tag"])
@pytest.mark.parametrize("continuous", [True, False])
def test_mpe2_itself_steps_behind_the_same_spec(name, continuous):
    options = {"continuous_actions": continuous, "max_cycles": 8}
    ours = make_world(name, copies=3, **options)
    theirs = make_world(f"mpe2:{name}", copies=3, **options)
    np.testing.assert_array_equal(ours.reset([1, 2, 3]), theirs.reset([1, 2, 3]))
    for t in range(8):
        a, b = (world.step(3 * random_actions(world, t) - 1) for world in (ours, theirs))
        for field in ("next_obs", "reward", "discount", "present", "episode_over"):
            np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    assert a.episode_over.all()


@pytest.mark.slow
@every_scenario
def test_automatic_starts_are_distributed_as_mpe2s(name):
    copies = 3000
    drawn = make_world(name, copies=copies, seed=1).reset()
    seeded = make_world(name, copies=copies).reset(range(copies))
    standard_error = np.sqrt((drawn.var(axis=0) + seeded.var(axis=0)) / copies) + 1e-6
    assert (np.abs(drawn.mean(axis=0) - seeded.mean(axis=0)) < 5 * standard_error).all()
    np.testing.assert_allclose(drawn.std(axis=0), seeded.std(axis=0), atol=0.08)


@every_scenario
def test_a_copy_that_starts_again_is_a_fresh_one(name):
    limited, fresh = (make_world(name, copies=3, seed=2, max_cycles=1) for _ in range(2))
    limited.reset()
    again = limited.step(random_actions(limited))
    fresh.reset()
    np.testing.assert_array_equal(again.obs, fresh.reset())
    actions = random_actions(limited, 1)
    np.testing.assert_array_equal(limited.step(actions).next_obs, fresh.step(actions).next_obs)


@pytest.mark.slow
@every_scenario
def test_stepping_and_resetting_keep_no_memory(name):
    world = make_world(name, copies=8, seed=0, max_cycles=3)
    world.reset(range(8))
    actions = random_actions(world)
    held = []
    tracemalloc.start()
    for _ in range(3):
        for _ in range(30):
            world.step(actions)
            world.reset()
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[2] - held[1] < 2048, "less than a single array a round"
