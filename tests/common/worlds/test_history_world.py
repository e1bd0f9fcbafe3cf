"""Stacked history equals a literal version over random worlds: early ends, absent agents, late agents."""

from __future__ import annotations

import numpy as np
import pytest

from common.errors import ConfigError
from common.history import HistoryStack, stacked_spec, unstacked_spec
from common.state import Restorable
from common.worlds import changed_options, make_world, messages, world_spaces, world_spec
from common.worlds.history_world import HistoryWorld, with_history
from common.worlds.world import Step
from tests.common.examples import MIXED


class RandomWorld:
    """Random observations; copies end at random, agents leave early and join late."""

    name = "random"

    def __init__(self, copies, seed, *, restart=True):
        self.copies, self.spec = copies, MIXED
        self._rng, self._restart = np.random.default_rng(seed), restart
        self.departed = np.zeros((copies, 3), bool)
        self._acting = np.ones((copies, 3), bool)
        self._ended = np.zeros(copies, bool)

    def _draw(self, who):
        obs = np.zeros((self.copies, self.spec.obs_dim), np.float32)
        for i, agent in enumerate(self.spec.agents):
            obs[who[:, i], agent.obs_slice] = self._rng.integers(0, 3, (who[:, i].sum(), agent.obs_dim))
        return obs

    def _begin(self, copies):
        self.departed[copies], self._acting[copies] = False, self._rng.random((len(copies), 3)) < 0.7
        self._acting[copies, 0] = True

    def reset(self, seeds=None):
        self._ended[:] = False
        self._begin(np.arange(self.copies))
        return self._draw(self._acting)

    def step(self, actions):
        acting = self._acting & ~self._ended[:, None]
        over = (self._rng.random(self.copies) < 0.15) & ~self._ended
        leaving = acting & (self._rng.random(acting.shape) < 0.1)
        joining = ~acting & ~self.departed & (self._rng.random(acting.shape) < 0.2) & ~self._ended[:, None]
        next_obs = self._draw(acting | joining)
        self.departed |= leaving
        self._acting = (acting | joining) & ~leaving
        obs = next_obs * np.repeat(self._acting, [agent.obs_dim for agent in self.spec.agents], axis=1)
        if over.any():
            ended = np.flatnonzero(over)
            if self._restart:
                self._begin(ended)
                obs[ended] = self._draw(self._acting)[ended]
            else:
                self._ended |= over
                obs[ended] = 0.0
        rows = np.zeros((self.copies, 3), np.float32)
        return Step(obs, rows, rows + 1, acting.astype(np.float32), next_obs, over)

    def close(self):
        self.closed = True


class Literal:
    """Each agent of each copy with two lists, newest first."""

    def __init__(self, spec, history, copies):
        self.spec, self.history, self.copies = spec, history, copies
        self.forget_all()

    def forget_all(self):
        self.seen = [[[] for _ in self.spec.agents] for _ in range(self.copies)]
        self.done = [[[] for _ in self.spec.agents] for _ in range(self.copies)]

    def stacked(self, obs):
        rows = []
        for c in range(self.copies):
            row = []
            for i, agent in enumerate(self.spec.agents):
                row.append(obs[c, agent.obs_slice])
                for seen, size in ((self.seen[c][i], agent.obs_dim), (self.done[c][i], agent.action_dim)):
                    row += [*seen, *[np.zeros(size)] * (self.history - len(seen))]
            rows.append(np.concatenate(row))
        return np.array(rows, np.float32)

    def add(self, obs, actions, present):
        for c in range(self.copies):
            for i, agent in enumerate(self.spec.agents):
                if present[c, i]:
                    self.seen[c][i] = [obs[c, agent.obs_slice], *self.seen[c][i]][: self.history]
                    self.done[c][i] = [actions[c, agent.action_slice], *self.done[c][i]][: self.history]
                else:
                    self.seen[c][i], self.done[c][i] = [], []

    def forget(self, gone):
        for c, i in np.argwhere(gone):
            self.seen[c][i], self.done[c][i] = [], []


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("history", [1, 2, 5])
def test_it_equals_a_literal_version(history, restart):
    copies = 6
    world = with_history(RandomWorld(copies, 7, restart=restart), history)
    plain, twin = RandomWorld(copies, 7, restart=restart), Literal(MIXED, history, copies)
    rng = np.random.default_rng(1)
    obs, own = world.reset(), plain.reset()
    np.testing.assert_array_equal(obs, twin.stacked(own))
    absent_rows = 0
    for _ in range(120):
        actions = rng.normal(size=(copies, MIXED.action_dim)).astype(np.float32)
        before = obs.copy()
        step, expected = world.step(actions), plain.step(actions)
        np.testing.assert_array_equal(before, obs)  # a collector keeps the last observations: they must not change
        twin.add(own, actions, expected.present)
        np.testing.assert_array_equal(step.next_obs, twin.stacked(expected.next_obs))
        twin.forget(plain.departed | expected.episode_over[:, None])
        np.testing.assert_array_equal(step.obs, twin.stacked(expected.obs))
        for given, same in zip(step[1:4], expected[1:4], strict=True):
            np.testing.assert_array_equal(given, same)
        for c, i in np.argwhere(plain.departed):
            assert not step.obs[c, world.spec.agents[i].obs_slice].any()
            absent_rows += 1
        obs, own = step.obs, expected.obs
    assert absent_rows > 20


def test_sizes_of_the_observations_and_back():
    spec = stacked_spec(MIXED, 3)
    assert [agent.obs_dim for agent in spec.agents] == [7 + 3 * (7 + 7), 4 + 3 * (4 + 1), 4 + 3 * (4 + 5)]
    assert [agent.obs_start for agent in spec.agents] == [0, 49, 68]
    assert unstacked_spec(spec, 3) == MIXED
    assert HistoryStack(MIXED, 3, 2).spec == spec


@pytest.mark.parametrize("name", ["simple_tag", "mpe2:simple_tag", "pettingzoo:mpe2.simple_tag_v3"])
def test_every_family_has_the_option(name):
    world = make_world(name, 2, seed=0, options={"history": 2, "continuous_actions": True, "max_cycles": 4})
    plain = make_world(name, 2, seed=0, options={"continuous_actions": True, "max_cycles": 4})
    for agent, own in zip(world.spec.agents, plain.spec.agents, strict=True):
        assert agent.obs_dim == 3 * own.obs_dim + 2 * own.action_dim
    first = world.reset([3, 4])
    np.testing.assert_array_equal(first[:, :16], plain.reset([3, 4])[:, :16])
    assert not first[:, 16:58].any()
    actions = np.full((2, world.spec.action_dim), 0.5, np.float32)
    step = world.step(actions)
    np.testing.assert_array_equal(step.obs[:, 16:32], first[:, :16])
    np.testing.assert_array_equal(step.obs[:, 48:53], actions[:, :5])
    assert not step.obs[:, 32:48].any()
    for _ in range(3):
        step = world.step(actions)
    assert step.episode_over.all()
    assert step.next_obs[:, 16:58].all(axis=0).any()
    assert not step.obs[:, 16:58].any()
    world.close()


def test_without_history_there_is_no_wrapper():
    assert not isinstance(make_world("simple_spread", history=0), HistoryWorld)
    assert isinstance(make_world("simple_spread", history=1), Restorable)
    assert not isinstance(make_world("pettingzoo:mpe2.simple_tag_v3", history=1), Restorable)


def test_a_saved_state_continues_exactly():
    def make():
        return make_world("simple_reference", 3, seed=5, options={"history": 3, "max_cycles": 4})

    world, other = make(), make()
    rng = np.random.default_rng(0)
    actions = rng.random((12, 3, world.spec.action_dim), np.float32)
    world.reset()
    for step in range(6):
        world.step(actions[step])
    other.reset()
    other.restore({name: array.copy() for name, array in world.state().items()})
    for step in range(6, 12):
        for one, same in zip(world.step(actions[step])[:6], other.step(actions[step])[:6], strict=True):
            np.testing.assert_array_equal(one, same)
    with pytest.raises(ValueError, match="expected"):
        make_world("simple_reference", 2, options={"history": 3}).restore(world.state())


@pytest.mark.parametrize("value", [-1, 101, 1.5, True, "2", None])
def test_what_is_not_a_number_of_steps_is_refused(value):
    with pytest.raises(ConfigError, match=r"history=.* Pass a whole number from 0 to 100"):
        world_spec("simple_spread", {"history": value})


def test_observations_that_do_not_fit_a_record_are_refused():
    with pytest.raises(ConfigError, match=r"world.history = 100: joint vectors have .* Lower world.history"):
        world_spec("simple_spread", {"history": 100, "N": 100})


def test_options_and_messages():
    assert changed_options("simple_spread", {"history": 2, "N": 3}) == {"history": 2}
    assert changed_options("simple_spread", {"history": 0, "N": 4}) == {"N": 4}
    assert messages("simple_reference", {"history": 2}) == messages("simple_reference")


@pytest.mark.slow
def test_the_leaves_of_a_stacked_observation():
    name = "pettingzoo:tests.shoal.structured_env"
    plain, world = make_world(name, seed=0), make_world(name, seed=0, history=2)
    for own, agent, leaves in zip(world_spaces(plain), world.spec.agents, world_spaces(world), strict=True):
        assert leaves.action == own.action
        assert leaves.observation[: len(own.observation)] == own.observation
        covered = sorted(leaf.columns for leaf in leaves.observation)
        assert [start for start, _ in covered] == [0, *(stop for _, stop in covered[:-1])]
        assert covered[-1][1] == agent.obs_dim
        ages = [(leaf.of, leaf.steps_ago) for leaf in leaves.observation]
        assert sorted(set(ages), key=ages.index) == [
            ("observation", 0), ("observation", 1), ("observation", 2), ("action", 1), ("action", 2),
        ]  # fmt: skip
    plain.close()
    world.close()


def test_a_vectorised_world_of_others():
    name = "batched:tests.common.worlds.batched.line_world"
    world, plain = make_world(name, 6, seed=1, history=2), make_world(name, 6, seed=1)
    assert world.spec == stacked_spec(plain.spec, 2)
    assert world_spaces(world) == ()
    twin, rng = Literal(plain.spec, 2, 6), np.random.default_rng(0)
    world.reset()
    own = plain.reset()
    for _ in range(12):
        actions = rng.uniform(-1, 1, (6, 2)).astype(np.float32)
        step, expected = world.step(actions), plain.step(actions)
        twin.add(own, actions, expected.present)
        np.testing.assert_array_equal(step.next_obs, twin.stacked(expected.next_obs))
        twin.forget(np.repeat(expected.episode_over[:, None], 2, axis=1))
        np.testing.assert_array_equal(step.obs, twin.stacked(expected.obs))
        own = expected.obs


@pytest.mark.parametrize("where", ["observation", "info"])
def test_the_current_action_mask_stays_at_the_end(where):
    name, options = "pettingzoo:tests.common.worlds.masked_channels", {"where": where}
    world, plain = make_world(name, 2, options={**options, "history": 2}), make_world(name, 2, options=options)
    obs, own = world.reset([3, 4]), plain.reset([3, 4])
    masks, plain_masks = (np.array(each.spec.mask_columns) for each in (world, plain))
    assert [agent.masked for agent in world.spec.agents] == [True, True]
    rng, seen, done = np.random.default_rng(0), [], []
    for _ in range(4):
        np.testing.assert_array_equal(obs[:, masks[:, 0]], own[:, plain_masks[:, 0]])
        np.testing.assert_array_equal(masks[:, 1], plain_masks[:, 1])
        for agent, small in zip(world.spec.agents, plain.spec.agents, strict=True):
            size = small.obs_dim - small.mask_dim
            now = own[:, small.obs_slice]
            past = [rows[:, small.obs_slice] for rows in seen[:2]] + [np.zeros_like(now)] * (2 - len(seen[:2]))
            acted = [rows[:, small.action_slice] for rows in done[:2]] + [np.zeros((2, 6))] * (2 - len(done[:2]))
            expected = np.concatenate([now[:, :size], *past, *acted, now[:, size:]], axis=1)
            np.testing.assert_array_equal(obs[:, agent.obs_slice], expected)
        logits = rng.random((2, world.spec.action_dim)) + 9 * obs[:, masks[:, 0]]
        chosen = np.concatenate([np.eye(6)[part.argmax(1)] for part in np.split(logits, 2, axis=1)], axis=1)
        actions = chosen.astype(np.float32)
        seen, done = [own, *seen], [actions, *done]
        obs, own = world.step(actions).obs, plain.step(actions).obs
