"""Messages tampered with, and long play: against teams made by hand, which listen or do not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actor_node.evaluation.ablation import AlteredPolicy, _shuffle, _zero, ablate, batched_world
from actor_node.evaluation.evaluate import play
from actor_node.evaluation.rollouts.batched import TrajectoryRecorder, play_batch
from actor_node.evaluation.rollouts.episodes import Actor, Trajectories
from common.policy.network import Policy
from common.run.run import Run
from common.worlds import World, make_world, messages, scenarios
from tests.actor_node.talkers import linear_policy, pushes, returns_of, run_of, talkers


@pytest.mark.parametrize("continuous", [True, False])
def test_a_team_that_listens_loses_by_shuffled_and_by_zeroed_messages(continuous: bool) -> None:
    run = run_of(continuous=continuous)
    (row,) = ablate(run, talkers(run, listens=True), 60, 7)
    assert (row.speaker, row.side) == ("speaker_0", "team")
    assert row.shuffled_cost_ci95[0] > 5 < row.zeroed_cost_ci95[0]
    assert row.shuffled_cost_ci95[0] < row.shuffled_cost < row.shuffled_cost_ci95[1]


def test_a_team_whose_listener_is_deaf_loses_nothing_at_all() -> None:
    run = run_of()
    (row,) = ablate(run, talkers(run, listens=False), 20, 7)
    assert row.shuffled_cost == row.zeroed_cost == 0.0
    assert row.shuffled_cost_ci95 == row.zeroed_cost_ci95 == (0.0, 0.0)


def test_the_return_with_messages_is_that_of_plain_play() -> None:
    run = run_of()
    flat = talkers(run, listens=True)
    (row,) = ablate(run, flat, 15, 3)
    assert row.return_with == pytest.approx(returns_of(run, flat, 15, 3).sum(axis=1).mean())


def test_shuffled_messages_are_a_neighbours_and_zeroed_ones_are_silence() -> None:
    """What the listener hears next step is read from its observation."""
    run = run_of()
    flat, part = talkers(run, listens=True), messages(run.spec.scenario)["speaker_0"]
    heard = {}
    for name, alter in (("plain", lambda _: None), ("shuffled", _shuffle(part)), ("zeroed", _zero(part))):
        world = batched_world(run, 6, 0)
        policy = AlteredPolicy(run.players, run.spec.network, flat, alter)
        heard[name] = world.step(policy.act(world.reset(range(6)))).obs[:, -3:]
    np.testing.assert_array_equal(heard["shuffled"], np.roll(heard["plain"], 1, axis=0))
    assert not heard["zeroed"].any()
    assert heard["plain"].any(axis=1).all()


def test_only_words_that_another_agent_observes_are_messages() -> None:
    speaking = {row.name: messages(row.name) for row in scenarios()}
    found = {name: sorted(said) for name, said in speaking.items() if said}
    assert found == {
        "simple_crypto": ["alice_0"],
        "simple_reference": ["agent_0", "agent_1"],
        "simple_speaker_listener": ["speaker_0"],
        "simple_world_comm": ["leadadversary_0"],
    }
    assert speaking["simple_reference"] == {"agent_0": slice(5, 15), "agent_1": slice(20, 30)}
    assert messages("mpe2:simple_crypto", {"continuous_actions": False}) == speaking["simple_crypto"]
    assert messages("pettingzoo:mpe2.simple_crypto_v3") == {}


def test_asking_for_messages_leaves_a_world_as_it_was() -> None:
    worlds = [make_world("simple_reference", 4, seed=0) for _ in range(2)]
    actions = np.random.default_rng(0).random((3, 4, worlds[0].spec.action_dim)).astype(np.float32)
    seen = []
    for asked, world in zip((True, False), worlds, strict=True):
        world.reset(range(4))
        world.step(actions[0])
        if asked:
            world.messages()
        seen.append([world.step(action).next_obs for action in actions])
    np.testing.assert_array_equal(seen[0], seen[1])


def recorded(world: World, team: Actor, seed: int, **options: Any) -> Trajectories:
    recorder = TrajectoryRecorder(**options)
    play_batch(world, team, range(seed, seed + world.copies), recorder=recorder)
    return recorder.trajectories()


def test_what_is_recorded_adds_up_to_the_returns() -> None:
    run = run_of()
    flat = talkers(run, listens=True)
    policy = Policy(run.players, run.spec.network, flat)
    played = recorded(batched_world(run, 5, 0, max_cycles=40), policy, 3, obs_steps=25)
    assert played.obs.shape == (25, 5, run.joint.obs_dim)
    assert played.action.shape == (25, 5, run.joint.action_dim)
    assert played.reward.shape == played.present.shape == (40, 5, 2)
    np.testing.assert_allclose(played.reward[:25].sum(axis=0), returns_of(run, flat, 5, 3), rtol=1e-5)
    np.testing.assert_array_equal(played.action[4], policy.act(played.obs[4]))


def test_a_recorder_without_patience_ends_the_batch_after_the_observed_steps() -> None:
    run = run_of()
    policy = Policy(run.players, run.spec.network, talkers(run, listens=True))
    played = recorded(batched_world(run, 5, 0, max_cycles=40), policy, 3, obs_steps=10, patience_s=0.0)
    assert len(played.obs) == len(played.reward) == 10


def test_nothing_counts_after_an_episode_has_ended() -> None:
    run = Run("r", run_of().spec, make_world("simple_spread", N=1).spec)
    world = make_world("simple_spread", 30, seed=0, N=1, terminate_on_success=True, max_cycles=60)
    policy = Policy(run.players, run.spec.network, _towards_the_landmark(run))
    played = recorded(world, policy, 5, obs_steps=60)
    again = make_world("simple_spread", 30, seed=0, N=1, terminate_on_success=True, max_cycles=60)
    np.testing.assert_allclose(played.reward.sum(axis=0), play(again, policy, 30, 5, int), rtol=1e-5)
    ended = (played.discount * played.present == 0).any(axis=0)
    assert ended.any()
    after = np.cumsum(played.discount == 0, axis=0) - (played.discount == 0) > 0
    assert not played.present[after].any()
    assert not played.reward[after].any()


def _towards_the_landmark(run: Run) -> np.ndarray:
    # Observes its velocity, its position, and the landmark from where it stands.
    wish = np.zeros((run.joint.obs_dim, 2), np.float32)
    wish[[0, 1], [0, 1]], wish[[4, 5], [0, 1]] = -2.0, 2.0
    return linear_policy(run, 0, pushes(wish))
