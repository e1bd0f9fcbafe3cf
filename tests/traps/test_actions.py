"""Traps 11, 12, 18, 24, 29 and 36: what agents do, how they explore, and what is recorded of it."""

from __future__ import annotations

import numpy as np
import pytest

from common.policy.network import Policy
from common.run.players import players
from common.run.presets import PRESETS
from common.run.run import ExplorationSpec, NetworkSpec, make_run_spec
from common.spec import Categorical, joint_spec
from common.worlds import make_world
from learner_node.timing.schedule import exploration_scale, random_fraction
from tests.traps.hand import STILL, collect, critic, learner, policy, put, rows, run_in, untrained

MOVES = [(0.0, 0.0), (-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5)]
"""Velocities after one step at rest: stay, left, right, down, up; accelerated by 5 for 0.1."""
BOTH = pytest.mark.parametrize("scenario", ["simple", "mpe2:simple"])


def constant_policy(network: NetworkSpec, logits: list[float]) -> Policy:
    """Returns the policy of `simple`'s agent that always puts out these logits."""
    team = players(make_world("simple", seed=0).spec, "maddpg")
    flat = np.zeros((4 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 5, np.float32)
    flat[-len(logits) :] = logits
    return Policy(team, network, flat)


# ---- 11, 12: which way, and how far ---------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
@pytest.mark.parametrize("move", range(5))
def test_11_continuous_and_discrete_actions_push_the_same_way(scenario: str, continuous: bool, move: int) -> None:
    """Until PettingZoo PR #1144 (issue #1143) a continuous `left` pushed right and a discrete one left.

    Policies trained before it steer backwards in mpe2. The one-hot of a move is that move, in either kind of world.
    """
    world = make_world(scenario, seed=0, continuous_actions=continuous)
    world.reset([1])
    step = world.step(np.eye(5, dtype=np.float32)[[move]])
    assert tuple(step.next_obs[0, :2].tolist()) == MOVES[move]


def test_12_the_whole_range_of_a_policys_output_moves_something() -> None:
    """A tanh head in MPE's Box(0, 1) without rescaling loses its lower half: what is below 0 is clipped away.

    Here a logit of 0 is the middle, every larger logit a larger action, and none is clipped.
    """
    logits = np.linspace(-4.0, 4.0, 33)
    actions = np.array([constant_policy(NetworkSpec(), [x] * 5).act(np.zeros((1, 4), np.float32))[0] for x in logits])
    np.testing.assert_allclose(actions[16], 0.5, atol=1e-6)
    assert (np.diff(actions, axis=0) > 0.0).all()
    assert actions.min() > 0.0
    assert actions.max() < 1.0
    np.testing.assert_allclose(actions[0] + actions[-1], 1.0, atol=1e-6)


@pytest.mark.parametrize("head", ["box", "force", "soft"])
def test_12_full_thrust_is_within_every_heads_reach(head: str) -> None:
    """Of the five numbers only right - left and up - down act: a head must reach both ends of those differences."""
    for direction, sign in (([0, -20, 20, 0, 0], 1.0), ([0, 20, -20, 0, 0], -1.0)):
        action = constant_policy(NetworkSpec(head=head), direction).act(np.zeros((1, 4), np.float32))
        world = make_world("simple", seed=0)
        world.reset()
        np.testing.assert_allclose(world.step(action).next_obs[0, :2], [sign * 0.5, 0.0], atol=1e-5)


# ---- 18: soft and hard choices --------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("head", "continuous"), [("soft", True), ("box", False)], ids=["soft", "hard"])
def test_18_what_is_recorded_is_what_the_world_executed(scenario: str, head: str, continuous: bool) -> None:
    """openai/maddpg's MPE executes the soft vector itself; clones argmax it for the world and learn from the soft one
    (openai/maddpg #9 and #48, maddpg-pytorch #1, #21 and #42 all ask which).

    The particle tells: velocity' = 0.75 velocity + 0.5 (right - left) of what is recorded; soft stays soft, and
    where a world takes choices the record is one-hot.
    """
    records = collect(run_in(scenario, {"continuous_actions": continuous}, network={"head": head}), 20, copies=4)
    action = records["action"]
    np.testing.assert_allclose(action.sum(axis=-1), 1.0, atol=1e-6)
    assert (np.isin(action, (0.0, 1.0)).all()) != continuous
    before, after = records["obs"][..., :2], records["next_obs"][..., :2]
    pushed = np.stack([action[..., 2] - action[..., 1], action[..., 4] - action[..., 3]], axis=-1)
    np.testing.assert_allclose(after, 0.75 * before + 0.5 * pushed, atol=1e-6)


def test_18_target_actions_are_the_best_choice_and_not_a_draw() -> None:
    """RLlib's port samples target actions (ray #9638): targets then hold exploration noise for ever.

    A policy that prefers its second choice only just: the target is that choice's value in every row and every time.
    """
    joint = joint_spec([("chooser", "a", 1, (Categorical(3),))])
    found = learner(joint, discount=1.0)
    put(found, target_policies=[policy([0.0], (0.0,) * 3, (0.0, 0.01, 0.0))])
    put(found, target_critics=[critic([0.0, 1.0, 20.0, 300.0])])
    for _ in range(3):
        assert (found.td_target(rows(joint, count=50)) == 20.0).all()


def test_18_target_actions_are_drawn_where_that_was_asked_for() -> None:
    """The preset paper does as openai/maddpg; equal logits make each of the three choices a third of the targets."""
    assert make_run_spec({"scenario": "simple"}, PRESETS["paper"]).algorithm.target_actions == "sampled"
    joint = joint_spec([("chooser", "a", 1, (Categorical(3),))])
    found = learner(joint, discount=1.0, target_actions="sampled")
    put(found, target_policies=[policy([0.0], (0.0,) * 3, (0.0,) * 3)])
    put(found, target_critics=[critic([0.0, 1.0, 20.0, 300.0])])
    targets = found.td_target(rows(joint, count=3_000)).numpy()
    for value in (1.0, 20.0, 300.0):
        # The standard deviation of a frequency of 3,000 draws is at most 0.0092.
        assert np.isclose(targets, value).mean() == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize(("gumbel", "hard"), [("straight_through", True), ("soft", False)])
def test_18_the_policy_loss_takes_the_kind_of_choice_that_was_asked_for(gumbel: str, hard: bool) -> None:
    """Which of the two a code does, and at which temperature, decides its results and is seldom written down.

    With q = 20 for the second choice and 0 for the others, one-hot actions are worth 0 or 20 and soft ones between.
    """
    joint = joint_spec([("chooser", "a", 1, (Categorical(3),))])
    found = learner(joint, gumbel=gumbel, gumbel_temperature=0.5, action_regularisation=0.0)
    put(found, policies=[policy([0.0], (0.0,) * 3, (0.0,) * 3)], critics=[critic([0.0, 0.0, 20.0, 0.0])])
    values = [found.update(rows(joint), STILL, STILL).q_mean.item() for _ in range(60)]
    assert all(min(abs(value), abs(value - 20.0)) < 1e-6 for value in values) == hard
    assert 3.0 < np.mean(values) < 11.0, "a third of 20, drawn by Gumbel noise"


# ---- 24, 29: exploration --------------------------------------------------------------------------------------------


def test_24_a_default_run_begins_by_trying_everything() -> None:
    """BenchMARL's MADDPG on PettingZoo's MPE: "agents are not exploring" under its defaults (issue #86).

    Here the first steps of a run are uniform over the whole range, and the noise never falls to nothing.
    """
    defaults = make_run_spec({"scenario": "simple"})
    assert random_fraction(defaults.exploration, 0) == 1.0
    assert random_fraction(defaults.exploration, defaults.exploration.random_steps) == 0.0
    assert exploration_scale(defaults.exploration, 1.0, 10**9) > 0.0
    tried = collect(run_in("simple"), 50, 40, random_share=1.0)["action"].reshape(-1, 5)
    for tenth in range(10):
        share = ((tried >= tenth / 10) & (tried < (tenth + 1) / 10)).mean(axis=0)
        np.testing.assert_allclose(share, 0.1, atol=0.03)


@pytest.mark.parametrize("kind", ["gaussian", "ornstein_uhlenbeck"])
def test_29_noise_of_the_scale_that_was_asked_for_is_applied(kind: str) -> None:
    """RLlib's MADDPG took exploration settings and applied none of them (ray #7069, #20259).

    With weights that ask for a scale of 0.1, actions depart from the policy's by 0.1 half ranges; for 0, not at all.
    """
    run = run_in("simple", exploration={"kind": kind})
    for scale, copies in ((0.1, 400), (0.0, 5)):
        first = collect(run, 1, copies, exploration_scale=scale)[0]
        own = untrained(run).act(first["obs"])
        inside = abs(own - 0.5) < 0.3
        departed = (first["action"] - own)[inside]
        assert departed.std() == pytest.approx(0.5 * scale, rel=0.1, abs=1e-6)


def test_29_discrete_actions_are_explored_too() -> None:
    """A draw from the policy's own distribution: with equal logits every choice, whatever the scale of other noise."""
    run = run_in("simple", {"continuous_actions": False})
    moves = collect(run, 100, 20, random_share=1.0)["action"].reshape(-1, 5).mean(axis=0)
    np.testing.assert_allclose(moves, 0.2, atol=0.04)
    drawn = collect(run, 100, 20, exploration_scale=0.0)
    best = untrained(run).act(drawn.reshape(-1)["obs"])
    departed = (drawn.reshape(-1)["action"] != best).any(axis=1).mean()
    assert 0.05 < departed < 0.95
    assert ExplorationSpec().choices == "gumbel"


# ---- 36: to move and to speak are two choices -----------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["simple_reference", "mpe2:simple_reference"])
def test_36_a_move_and_a_word_are_two_choices(scenario: str) -> None:
    """mpe2 numbers the 50 pairs as move + 5 * word; a 50-way softmax must learn each word once for every move.

    Codes that only know one choice an agent leave these scenarios out (tf2multiagentrl #2). Two parts here: agent_0
    goes right and says 7, agent_1 goes up and says 2; each hears the other. And an observation is 21 numbers long, not
    8 or 10 as mpe2's tables say.
    """
    world = make_world(scenario, seed=0, continuous_actions=False)
    for agent in world.spec.agents:
        assert agent.parts == (Categorical(5), Categorical(10))
        assert agent.obs_dim == 21
    world.reset()
    action = np.zeros((1, 30), np.float32)
    action[0, [2, 5 + 7, 15 + 4, 20 + 2]] = 1.0
    seen = world.step(action).next_obs.reshape(2, 21)
    np.testing.assert_allclose(seen[:, :2], [[0.5, 0.0], [0.0, 0.5]], atol=1e-6)
    np.testing.assert_array_equal(seen[:, 11:], np.eye(10, dtype=np.float32)[[2, 7]])


def test_36_each_of_the_two_is_drawn_and_recorded_by_itself() -> None:
    """Moves and words are explored independently: all 50 pairs come up, and a record holds two one-hots."""
    records = collect(run_in("simple_reference", {"continuous_actions": False}), 40, 100, random_share=1.0)
    moves, words = (part.argmax(axis=-1) for part in np.split(records["action"].reshape(-1, 2, 15), [5], axis=-1))
    assert len(np.unique(moves + 5 * words)) == 50
    np.testing.assert_array_equal(records["action"].sum(axis=-1), 4.0)
