"""Stacked history: an agent observes its current observation, and its last observations and actions.

    observation with world.history = 2:   [ o_t | o_(t-1) o_(t-2) | a_(t-1) a_(t-2) ]

Newest first, zeros before the start of the episode. The current action mask, if there is one, stays at the end. `a` is
the action as a policy returns it: Box values, one-hot choices. So an agent remembers what it cannot observe any more.
An agent that is absent has no history: all its numbers are zero. The wrapper of worlds
(`common/worlds/history_world.py`) and a trained team outside Shoal (`shoal/team.py`) stack with this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.run.spaces import AgentSpaces, Entry, flat_spaces
from common.spec import AgentSpec, AgentsSpec

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_Columns = npt.NDArray[np.intp]

OPTION = "history"
"""Name of the option among those of a world."""
MAX_HISTORY = 100
"""Largest number of steps that an agent remembers."""


def take_history(world: str, options: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Returns the number of remembered steps, and the options of the world itself.

    Raises ConfigError for another value than a number of steps.
    """
    history = options.get(OPTION, 0)
    if isinstance(history, bool) or not isinstance(history, int) or not 0 <= history <= MAX_HISTORY:
        raise ConfigError(
            f"{world}: {OPTION}={history!r} is not a number of steps that agents remember. Pass a whole number from 0 "
            f"to {MAX_HISTORY}."
        )
    return history, {name: value for name, value in options.items() if name != OPTION}


def history_of(options: Mapping[str, Any]) -> int:
    """Returns the number of remembered steps among the options of a run's world, which were checked before."""
    return int(options.get(OPTION, 0))


def stacked_spec(spec: AgentsSpec, history: int) -> AgentsSpec:
    """Returns the spec of agents that remember `history` steps; ConfigError if their observations are too long."""
    agents: list[AgentSpec] = []
    obs_start = 0
    for agent in spec.agents:
        obs_dim = agent.obs_dim + history * (agent.obs_dim + agent.action_dim)
        agents.append(msgspec.structs.replace(agent, obs_dim=obs_dim, obs_start=obs_start))
        obs_start += obs_dim
    try:
        return msgspec.structs.replace(spec, agents=tuple(agents))
    except ValueError as e:
        raise ConfigError(f"world.{OPTION} = {history}: {e}. Lower world.{OPTION}.") from e


def unstacked_spec(spec: AgentsSpec, history: int) -> AgentsSpec:
    """Returns the spec whose `stacked_spec` is the given one."""
    agents: list[AgentSpec] = []
    obs_start = 0
    for agent in spec.agents:
        obs_dim = (agent.obs_dim - history * agent.action_dim) // (history + 1)
        agents.append(msgspec.structs.replace(agent, obs_dim=obs_dim, obs_start=obs_start))
        obs_start += obs_dim
    return msgspec.structs.replace(spec, agents=tuple(agents))


def stacked_spaces(spaces: AgentSpaces, agent: AgentSpec, history: int) -> AgentSpaces:
    """Returns the spaces of an agent that remembers: its leaves, and those of the last observations and actions.

    spaces, agent: of the agent without history.
    """
    columns = _columns(agent, history)
    entries = [_moved(entry, block, ago) for ago, block in enumerate(columns.obs) for entry in spaces.observation]
    for ago, block in enumerate(columns.actions, 1):
        actions = [_moved(entry, block, ago) for entry in spaces.action]
        entries += [msgspec.structs.replace(entry, of="action") for entry in actions]
    return AgentSpaces(spaces.agent, tuple(entries), spaces.action)


def current_leaves(spaces: AgentSpaces, agent: AgentSpec, history: int) -> tuple[Entry, ...]:
    """Returns the leaves of the current observation, with their columns in the observation without history.

    spaces: with history. agent: without history.
    """
    block = _columns(agent, history).obs[0]
    found = []
    for entry in spaces.observation:
        if not entry.steps_ago:
            start, stop = entry.columns
            first = int(np.searchsorted(block, start))
            found.append(msgspec.structs.replace(entry, columns=(first, first + stop - start)))
    return tuple(found)


def built_in_spaces(spec: AgentsSpec, history: int) -> tuple[AgentSpaces, ...]:
    """Returns the spaces of the agents of a built-in world, whose spec is given with the history."""
    if not history:
        return tuple(map(flat_spaces, spec.agents))
    agents = unstacked_spec(spec, history).agents
    return tuple(stacked_spaces(flat_spaces(agent), agent, history) for agent in agents)


class HistoryStack:
    """The stacked observations of copies that step together.

    Example:
        stack = HistoryStack(world.spec, history=2, copies=64)
        obs = stack.start(world.reset())
        step = world.step(actions)
        next_obs = stack.advance(step.next_obs, actions, step.present > 0)
    """

    def __init__(self, spec: AgentsSpec, history: int, copies: int) -> None:
        """Takes the spec of the agents without history."""
        self.spec = stacked_spec(spec, history)
        self.rows: Floats = np.zeros((copies, self.spec.obs_dim), np.float32)
        """[copies, sum stacked obs]: the newest stacked observations. Only read them."""
        columns = [_columns(agent, history) for agent in spec.agents]
        starts = [agent.obs_start for agent in self.spec.agents]
        self._now = np.concatenate([start + each.obs[0] for start, each in zip(starts, columns, strict=True)])
        self._owner = np.repeat(np.arange(len(columns)), [agent.obs_dim for agent in self.spec.agents])
        # The column of [obs, actions, old stacked obs] from which each number of the new stacked observations comes.
        self._source = np.empty(self.spec.obs_dim, np.intp)
        old = spec.obs_dim + spec.action_dim
        for agent, start, each in zip(spec.agents, starts, columns, strict=True):
            first_obs, first_action = agent.obs_start, spec.obs_dim + agent.action_start
            self._source[start + each.obs[0]] = np.arange(first_obs, first_obs + agent.obs_dim)
            self._source[start + each.actions[0]] = np.arange(first_action, first_action + agent.action_dim)
            for newer, older in (*pairwise(each.obs), *pairwise(each.actions)):
                self._source[start + older] = old + start + newer

    def start(self, obs: Floats) -> Floats:
        """Starts an episode in every copy; obs: the first joint observations `[copies, sum obs]`.

        Returns the stacked observations.
        """
        self.rows = np.zeros_like(self.rows)
        self.rows[:, self._now] = obs
        return self.rows

    def advance(self, obs: Floats, actions: Floats, present: Bools) -> Floats:
        """Adds one step of every copy and returns the stacked observations.

        obs: joint observations after the step. actions: joint actions of the step. present: `[copies, agents]`, who
        acted in the step; the other agents have no history.
        """
        self.rows = np.take(np.concatenate([obs, actions, self.rows], axis=1, dtype=np.float32), self._source, axis=1)
        return self.rows if present.all() else self._without_past(~present)

    def replace(self, obs: Floats, forget: Bools) -> Floats:
        """Replaces the current observations and clears some histories; returns the stacked observations.

        obs: joint observations `[copies, sum obs]`. forget: `[copies, agents]`, whose episodes have ended.
        """
        self.rows = self.rows.copy()
        self.rows[:, self._now] = obs
        return self._without_past(forget)

    def _without_past(self, forget: Bools) -> Floats:
        cleared = forget[:, self._owner]
        cleared[:, self._now] = False
        np.copyto(self.rows, np.float32(0.0), where=cleared)
        return self.rows


class _AgentColumns(NamedTuple):
    """Columns of one agent's stacked observation."""

    obs: list[_Columns]
    """The observation of the current step, of the step before, ..., each in the order of the agent's observation."""
    actions: list[_Columns]
    """The action of the last step, of the step before, ..."""


def _columns(agent: AgentSpec, history: int) -> _AgentColumns:
    """Returns the columns of an agent, whose spec is given without history."""
    current = np.arange(agent.obs_dim)
    first_past = agent.obs_dim - agent.mask_dim
    current[first_past:] += history * (agent.obs_dim + agent.action_dim)
    first_action = first_past + history * agent.obs_dim
    return _AgentColumns(
        [current, *(first_past + ago * agent.obs_dim + np.arange(agent.obs_dim) for ago in range(history))],
        [first_action + i * agent.action_dim + np.arange(agent.action_dim) for i in range(history)],
    )


def _moved(entry: Entry, block: _Columns, ago: int) -> Entry:
    """Returns a leaf whose columns are those of `block`; a leaf's columns stay contiguous."""
    start, stop = entry.columns
    first = int(block[start]) if start < stop else 0
    return msgspec.structs.replace(entry, columns=(first, first + stop - start), steps_ago=ago)
