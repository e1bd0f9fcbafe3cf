"""A chunk equals a literal loop over the world, and what its records say of an episode's end is true."""

import msgspec
import numpy as np
import pytest

from actor_node.collection.collector import Collector
from actor_node.collection.exploration import Exploration
from common.policy.network import Policy
from common.run.run import NetworkSpec, Run, make_run_spec
from common.spec import Box, joint_spec
from common.transitions import transition_dtype
from common.worlds import Step, make_world
from tests.common.examples import make_header, random_weights

COPIES = 3


def make_run(**world):
    network = {"policy_hidden": (16, 8), "recurrent": world.pop("recurrent", None)}
    exploration = {"kind": "ornstein_uhlenbeck"}
    spec = make_run_spec({"scenario": "simple_spread", "world": world, "exploration": exploration, "network": network})
    world = make_world("simple_spread", COPIES, seed=0, **world)
    return Run("a1b2c3d4", spec, world.spec)


def make_spread(run, seed=1):
    return make_world(run.spec.scenario, COPIES, seed=seed, **run.spec.world)


def make_policy(run):
    return Policy(run.players, run.spec.network, random_weights(run) * np.float32(0.3))


def literal_loop(run, world, rng, header, steps):
    """One record at a time, as the data model describes it; and the returns of the episodes that ended."""
    explore = Exploration(run.joint, run.spec.exploration, world.copies, rng)
    policy = make_policy(run)
    memory = np.zeros((world.copies, policy.memory_dim), np.float32)
    records = np.zeros((steps, world.copies), transition_dtype(run.joint))
    obs, returns, finished = world.reset(), [[0.0] * len(run.joint.agents) for _ in range(world.copies)], []
    for t in range(steps):
        actions = explore.act(policy.logits(obs, memory), header.exploration_scale, header.random_share)
        step = world.step(actions)
        for c in range(world.copies):
            record = records[t, c]
            record["obs"], record["action"], record["next_obs"] = obs[c], actions[c], step.next_obs[c]
            record["reward"], record["discount"] = step.reward[c], step.discount[c]
            record["present"], record["policy_version"] = step.present[c], header.version
            returns[c] = [total + float(reward) for total, reward in zip(returns[c], step.reward[c], strict=True)]
            if step.episode_over[c]:
                finished.append(returns[c])
                returns[c] = [0.0] * len(run.joint.agents)
                memory[c] = 0.0
        explore.reset(step.episode_over)
        obs = step.obs
    return records, finished


@pytest.mark.parametrize("recurrent", [None, "gru"])
@pytest.mark.parametrize("continuous", [True, False], ids=["continuous", "discrete"])
def test_records_equal_a_literal_loop(continuous, recurrent):
    run = make_run(max_cycles=7, continuous_actions=continuous, recurrent=recurrent)
    header = make_header(run, version=5, random_share=0.2)
    collector = Collector(run, make_spread(run), np.random.default_rng(2))
    chunks = [collector.collect(make_policy(run), header, steps) for steps in (4, 1, 12)]
    expected, finished = literal_loop(run, make_spread(run), np.random.default_rng(2), header, 17)
    records = np.concatenate([records for records, _ in chunks])
    assert records.dtype == transition_dtype(run.joint)
    assert records.tobytes() == expected.tobytes(), "step by step, copies side by side"
    assert [episodes.ended for _, episodes in chunks] == [0, 0, 2 * COPIES]
    return_sums = sum(episodes.return_sums for _, episodes in chunks)
    np.testing.assert_allclose(return_sums, np.sum(finished, axis=0), rtol=1e-6)


def test_a_record_ends_its_episode_unless_the_copys_next_one_goes_on_from_it():
    run = make_run(max_cycles=7)
    collector = Collector(run, make_spread(run), np.random.default_rng(2))
    chunks = [collector.collect(make_policy(run), make_header(run), steps) for steps in (4, 1, 12)]
    records = np.concatenate([records for records, _ in chunks])
    bits = [np.unpackbits(np.frombuffer(e.ends, np.uint8), count=len(r)) for r, e in chunks]
    over = np.concatenate(bits).astype(bool)[:-COPIES]
    goes_on = (records["next_obs"][:-COPIES] == records["obs"][COPIES:]).all(axis=1)
    assert {episodes.copies for _, episodes in chunks} == {COPIES}
    assert over.sum() == 2 * COPIES
    np.testing.assert_array_equal(goes_on, ~over)


def test_a_first_episode_that_was_cut_has_no_return_but_an_end():
    run, lengths = make_run(max_cycles=6), (2, 4, 0, 0)
    name, options = "pettingzoo:mpe2.simple_spread_v3", {"max_cycles": 6, "continuous_actions": True}
    world = make_world(name, 4, seed=0, options=options, first_episode_steps=lengths)
    collector = Collector(run, world, np.random.default_rng(2), first_episode_steps=lengths)
    found = [collector.collect(make_policy(run), make_header(run), steps)[1] for steps in (3, 9)]
    assert [int(episodes.episode_over.sum()) for episodes in found] == [1, 7]
    assert [episodes.ended for episodes in found] == [0, 6], "without the first of copies 0 and 1"
    assert np.all(found[0].return_sums == 0.0)


@pytest.mark.parametrize(("share", "departs"), [(0.0, False), (0.5, True)])
def test_a_collector_explores_with_its_share_of_the_scale(share, departs):
    run, header = make_run(), make_header(make_run())
    collector = Collector(run, make_spread(run), np.random.default_rng(2), np.full(COPIES, share))
    records, _ = collector.collect(make_policy(run), header, 4)
    assert header.exploration_scale > 0.0
    own = make_policy(run).act(records["obs"])
    assert np.allclose(records["action"], own, atol=1e-4) != departs


@pytest.mark.parametrize("head", ["soft", "force"])
def test_what_is_stored_is_what_the_runs_head_executes(head):
    run = make_run()
    run = msgspec.structs.replace(run, spec=msgspec.structs.replace(run.spec, network=NetworkSpec(head=head)))
    collector = Collector(run, make_spread(run), np.random.default_rng(2))
    for random_share in (1.0, 0.0):
        records, _ = collector.collect(make_policy(run), make_header(run, random_share=random_share), 4)
        moves = records["action"].reshape(-1, 5)
        sums = moves.sum(axis=1) if head == "soft" else moves[:, 1:].sum(axis=1) / 2
        np.testing.assert_allclose(sums, 1.0, atol=1e-6)


def test_a_chunk_stays_as_it_is_while_the_next_one_is_collected():
    run = make_run()
    collector = Collector(run, make_spread(run), np.random.default_rng(2))
    chunk, _ = collector.collect(make_policy(run), make_header(run), 3)
    before = chunk.tobytes()
    collector.collect(make_policy(run), make_header(run), 3)
    assert chunk.tobytes() == before, "it may still be on its way"


# ---- the end of an episode ----------------------------------------------------------------------------------------


class BootstrapsFromTheNextEpisode:
    """A world that makes the mistake: after a time limit it calls the reset observation the successor."""

    def __init__(self, world):
        self._world = world

    def __getattr__(self, name):
        return getattr(self._world, name)

    def step(self, actions):
        step = self._world.step(actions)
        return step._replace(next_obs=step.obs)


class CallsATimeLimitAnEnd(BootstrapsFromTheNextEpisode):
    """A world that makes the other mistake: it calls a time limit a termination."""

    def step(self, actions):
        step = self._world.step(actions)
        return step._replace(discount=np.where(step.episode_over[:, None], np.float32(0.0), step.discount))


def check_time_limits(wrap, limit=5, episodes=3):
    """Collects episodes cut off by a time limit, and compares them with a world that has no such limit.

    The same actions in the same starts, only not cut off, tell which observation truly followed the last action.
    """
    run, unlimited = make_run(max_cycles=limit), make_run(max_cycles=10_000)
    world = make_spread(run)
    collector = Collector(run, wrap(world), np.random.default_rng(2))
    records, counted = collector.collect(make_policy(run), make_header(run), limit * episodes)
    by_episode = records.reshape(episodes, limit, COPIES)
    oracle, starts = make_spread(unlimited), make_spread(run)
    oracle.reset(), starts.reset()
    first = by_episode[0]
    for t in range(limit):
        truth = oracle.step(np.ascontiguousarray(first[t]["action"]))
        np.testing.assert_array_equal(first[t]["next_obs"], truth.next_obs, f"true successor of step {t + 1}")
        next_start = starts.step(np.ascontiguousarray(first[t]["action"])).obs
    np.testing.assert_array_equal(by_episode[1][0]["obs"], next_start, "the next record begins the next episode")
    assert (records["discount"] == 1.0).all(), "a time limit ends no value"
    assert counted.ended == episodes * COPIES
    for agent in run.joint.agents:
        velocity = slice(agent.obs_slice.start, agent.obs_slice.start + 2)
        assert (by_episode[:, 0]["obs"][..., velocity] == 0.0).all(), "episodes start at rest"
        assert (by_episode[:, -1]["next_obs"][..., velocity] != 0.0).any(axis=-1).all(), "and end in motion"


def test_a_time_limit_keeps_the_true_final_observation_and_its_discount():
    check_time_limits(lambda world: world)


@pytest.mark.parametrize(
    ("mistaken", "message"),
    [(BootstrapsFromTheNextEpisode, "true successor of step 5"), (CallsATimeLimitAnEnd, "a time limit ends no value")],
)
def test_that_test_would_notice_either_mistake(mistaken, message):
    with pytest.raises(AssertionError, match=message):
        check_time_limits(mistaken)


class Countdown:
    """A world of two agents whose copy c ends after c + 2 steps: truly where c is even, by a time limit elsewhere.

    The second agent dies one step before the end. Observations count the steps of the episode.
    """

    name, copies = "countdown", 4
    spec = joint_spec([(name, "t", 1, (Box((-1.0,), (1.0,)),)) for name in ("first", "second")])

    def reset(self, seeds=None):
        self.age = np.zeros(self.copies, int)
        return self._obs(self.age)

    def _obs(self, age):
        return np.repeat(age[:, None], 2, axis=1).astype(np.float32)

    def step(self, actions):
        length = np.arange(self.copies) + 2
        self.age += 1
        over, dead = self.age >= length, self.age >= length - 1
        discount = np.stack([~(over & (np.arange(self.copies) % 2 == 0)), ~dead], axis=1).astype(np.float32)
        present = np.stack([np.ones(self.copies), self.age < length], axis=1).astype(np.float32)
        reward = np.stack([self.age, 10 * present[:, 1]], axis=1).astype(np.float32)
        next_obs = self._obs(self.age)
        self.age[over] = 0
        return Step(self._obs(self.age), reward, discount, present, next_obs, over)

    def close(self):
        """Frees nothing."""


def test_a_true_end_has_no_future_and_absent_agents_are_marked():
    run = Run("a1b2c3d4", make_run_spec({"scenario": "countdown"}), Countdown.spec)
    collector = Collector(run, Countdown(), np.random.default_rng(0))
    records, episodes = collector.collect(make_policy(run), make_header(run), 12)
    by_copy = records.reshape(12, Countdown.copies).T
    for c, own in enumerate(by_copy):
        length = c + 2
        steps = np.arange(12) % length + 1
        np.testing.assert_array_equal(own["obs"][:, 0], steps - 1)
        np.testing.assert_array_equal(own["next_obs"][:, 0], steps)
        truly_ended = (steps == length) & (c % 2 == 0)
        np.testing.assert_array_equal(own["discount"][:, 0], np.where(truly_ended, 0.0, 1.0))
        np.testing.assert_array_equal(own["discount"][:, 1], np.where(steps >= length - 1, 0.0, 1.0))
        np.testing.assert_array_equal(own["present"], np.stack([np.ones(12), steps < length], axis=1))
    finished = [12 // (c + 2) for c in range(Countdown.copies)]
    assert episodes.ended == sum(finished)
    lengths = [c + 2 for c in range(Countdown.copies)]
    expected = [sum(n * m * (m + 1) / 2 for n, m in zip(finished, lengths, strict=True))]
    expected.append(sum(n * 10 * (m - 1) for n, m in zip(finished, lengths, strict=True)))
    assert episodes.return_sums.tolist() == expected


class Purse(Countdown):
    """Pays both agents alike, or does so but for one step."""

    def __init__(self, odd_step=-1):
        super().__init__()
        self._odd_step, self._steps = odd_step, 0

    def step(self, actions):
        step = super().step(actions)
        reward = np.repeat(step.reward[:, :1], 2, axis=1)
        if self._steps == self._odd_step:
            reward[1, 1] += 0.5
        self._steps += 1
        return step._replace(reward=reward)


@pytest.mark.parametrize(("odd_step", "shared"), [(-1, [True, True]), (3, [False, False]), (9, [True, False])])
def test_a_reward_is_shared_where_all_agents_receive_it_in_every_step(odd_step, shared):
    run = Run("a1b2c3d4", make_run_spec({"scenario": "countdown"}), Countdown.spec)
    collector = Collector(run, Purse(odd_step), np.random.default_rng(0))
    chunks = [collector.collect(make_policy(run), make_header(run), 6)[1] for _ in range(2)]
    assert [episodes.shared_reward for episodes in chunks] == shared


@pytest.mark.parametrize(("odd_step", "shared"), [(-1, True), (3, False)])
def test_the_zero_of_an_absent_agent_does_not_unshare_a_reward(odd_step, shared):
    class Leaving(Purse):
        def step(self, actions):
            step = super().step(actions)
            return step._replace(reward=np.where(step.present > 0, step.reward, np.float32(0)))

    run = Run("a1b2c3d4", make_run_spec({"scenario": "countdown"}), Countdown.spec)
    _, episodes = Collector(run, Leaving(odd_step), np.random.default_rng(0)).collect(
        make_policy(run), make_header(run), 12
    )
    assert episodes.shared_reward is shared


def test_records_contain_the_state_before_and_the_final_one_after_a_step():
    name = "pettingzoo:tests.actor_node.stateful_env"
    world, twin = (make_world(name, 2, seed=3, state_dim=4) for _ in range(2))
    run = Run("a1b2c3d4", make_run_spec({"scenario": name}), world.spec)
    collector = Collector(run, world, np.random.default_rng(0))
    chunks = [collector.collect(make_policy(run), make_header(run), steps=4)[0].reshape(4, 2) for _ in range(3)]
    twin.reset()
    for record in np.concatenate(chunks):
        np.testing.assert_array_equal(record["state"], twin.global_state())
        step = twin.step(record["action"])
        np.testing.assert_array_equal(record["next_state"], step.next_state)
        np.testing.assert_array_equal(record["next_obs"], step.next_obs)


def test_a_restored_collector_remembers_its_episodes():
    run = make_run(max_cycles=7, recurrent="gru")
    header, collectors = (
        make_header(run),
        [Collector(run, make_spread(run), np.random.default_rng(seed)) for seed in (2, 3)],
    )
    collectors[0].collect(make_policy(run), header, 4)
    assert collectors[1].restore(collectors[0].state())
    first, second = (collector.collect(make_policy(run), header, 3)[0] for collector in collectors)
    assert first.tobytes() == second.tobytes()
