"""The test of worlds that users run: right worlds of every kind pass, and each mistake is found."""

import sys
from types import ModuleType

import numpy as np
import pytest

from common.errors import ConfigError, WorldError
from shoal.testing import check_world
from tests.common.worlds.adapters.test_pettingzoo_world import Falling
from tests.common.worlds.batched.line_world import LineWorld

LINE = "batched:tests.common.worlds.batched.line_world"


@pytest.mark.parametrize("name", [LINE, "simple_spread"])
def test_a_right_world_passes(name):
    found = check_world(name, steps=60)
    assert (found.name, found.copies, found.steps, found.notes) == (name, 4, 60, ())
    assert found.episodes > 4


def test_agents_may_end_before_the_others(monkeypatch):
    module = ModuleType("falling_v0")
    module.parallel_env = Falling
    monkeypatch.setitem(sys.modules, "falling_v0", module)
    found = check_world("pettingzoo:falling_v0", steps=20)
    assert (found.agents, found.episodes) == (("hawk_0", "mouse_0", "mouse_1"), 20)


@pytest.mark.parametrize("where", ["observation", "info"])
def test_forbidden_actions_are_not_tried(where):
    found = check_world("pettingzoo:tests.common.worlds.masked_channels", steps=40, options={"where": where})
    assert found.episodes == 4 * (40 // 15)


def test_what_is_allowed_and_may_surprise_is_noted():
    found = check_world(
        "pettingzoo:shoal.commands.bench.single_process.busy_env.BusyEnv", steps=10, options={"step_us": 0}
    )
    assert found.notes[0] == "every seed gives the same first observation"
    assert "no episode ended in 10 steps" in found.notes[1]


class Shared(LineWorld):
    """The first copy's observation contains the last copy's action."""

    def step(self, actions):
        step = super().step(actions)
        step.next_obs[0] = step.obs[0] = actions[-1, 0]
        return step


class Careless(LineWorld):
    """Draws from numpy's own generator."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(reward=step.reward + np.random.random())  # noqa: NPY002


class Unrestarted(LineWorld):
    """Gives the last observation instead of the next episode's first."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(obs=np.where(step.episode_over[:, None], step.next_obs, step.obs))


class Swapped(LineWorld):
    """Gives the next episode's first observation as the last one of the episode, as many vector environments do."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(obs=step.next_obs, next_obs=step.obs + 1.0)


class Seedless(LineWorld):
    def reset(self, seeds=None):
        return super().reset()


class OneSeed(LineWorld):
    def reset(self, seeds=None):
        if seeds is not None:
            self.rng = np.random.default_rng(seeds[0])
        return super().reset()


class Endless(LineWorld):
    """Agents end and their episode does not."""

    def step(self, actions):
        step = super().step(actions)
        return step._replace(discount=np.zeros_like(step.discount), episode_over=np.zeros(self.copies, bool))


class OneCopy(LineWorld):
    def step(self, actions):
        step = super().step(actions)
        return step._replace(reward=step.reward.squeeze())


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (Shared, "copy 1 of 4: next_obs depends on the actions of copy 4"),
        (Careless, "two worlds with the same seeds and actions differ"),
        (Unrestarted, "episodes ended and obs was the last observation each time"),
        (Swapped, "obs and next_obs of agent walker_0 differ within an episode"),
        (Seedless, "twice with the same seeds gave different first observations"),
        (OneSeed, "a seed gave another start in another copy"),
        (Endless, "all agents ended and episode_over is False"),
        (OneCopy, r"reward has the shape \[2\], not \[copies, agents\] = \[1, 2\]"),
    ],
)
def test_a_mistake_is_found(monkeypatch, wrong, text):
    module = ModuleType("their_world")
    module.make = wrong
    monkeypatch.setitem(sys.modules, "their_world", module)
    with pytest.raises(WorldError, match=text):
        check_world("batched:their_world", steps=30)


def test_a_wrong_name_is_an_error_of_usage():
    with pytest.raises(ConfigError, match="cannot import"):
        check_world("batched:nowhere")
    with pytest.raises(ValueError, match="at least 2 copies"):
        check_world(LINE, copies=1)
