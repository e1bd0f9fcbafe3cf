"""The environment's spaces as plain data: how to decode flat vectors back into observations and actions.

Shoal's policies read and write flat float32 vectors. A user who runs a policy outside Shoal must know which columns of
those vectors belong to which part of the environment's observation and action. `run.toml` stores these spaces beside
the AgentsSpec, and `shoal export` writes them. They are not part of the run's `data_hash`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from common.spec import AgentSpec, Box

MASK_KEY = ("action_mask",)
"""Key of the action mask in an observation."""
OBSERVATION_KEY = "observation"
"""First key of all other numbers of an observation whose action mask the environment returns in its infos."""

Kind = Literal["box", "discrete", "multi_discrete", "multi_binary", "text"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One leaf of a space, and its columns in the flat vector."""

    kind: Kind
    """Type of the Gymnasium space: Box, Discrete, MultiDiscrete, MultiBinary or Text."""
    columns: tuple[int, int]
    """First column, and the column after the last."""
    encoding: Literal["values", "one_hot"]
    """values: the numbers themselves, in C order. one_hot: `n` columns for each choice, in C order."""
    key: tuple[str | int, ...] = ()
    """Path of Dict keys and Tuple indices to this leaf; empty if the space itself is a leaf.

    The leaf `MASK_KEY` of an observation is an action mask, for a choice of 1 (allowed) or 0 (forbidden) each.
    """
    shape: tuple[int, ...] = ()
    """Shape of the environment's value."""
    dtype: str = ""
    """NumPy dtype of the environment's value."""
    n: int | tuple[int, ...] = ()
    """Number of choices: one number for Discrete, one per element in C order for MultiDiscrete."""
    start: int | tuple[int, ...] = ()
    """The smallest choice: the value is `start` plus the index of the 1; laid out as `n`."""
    low: tuple[float, ...] = ()
    """Lower bounds of an action's Box, in C order."""
    high: tuple[float, ...] = ()
    """Upper bounds of an action's Box, in C order."""
    steps_ago: int = 0
    """In an observation with stacked history (`world.history`): the age of the value in steps; 0 is the current one."""
    of: Literal["observation", "action"] = "observation"
    """In an observation with stacked history: whether this is a leaf of an observation or of an action."""


class AgentSpaces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent's observation and action space: their leaves in the order of the flat vectors."""

    agent: str
    observation: tuple[Entry, ...]
    action: tuple[Entry, ...]

    def shifted(self, obs_columns: int, action_columns: int) -> AgentSpaces:
        """Returns the same spaces with all columns shifted by the given numbers."""
        return AgentSpaces(
            self.agent,
            tuple(_shifted(entry, obs_columns) for entry in self.observation),
            tuple(_shifted(entry, action_columns) for entry in self.action),
        )


def flat_spaces(agent: AgentSpec) -> AgentSpaces:
    """Returns the spaces of an agent of a built-in world: a flat observation, and Box and Discrete action parts."""
    action = []
    for i, (part, columns) in enumerate(zip(agent.parts, agent.part_slices, strict=True)):
        span, key = (columns.start, columns.stop), (i,) if len(agent.parts) > 1 else ()
        if isinstance(part, Box):
            shape = (part.size,)
            action.append(Entry("box", span, "values", key, shape, "float32", low=part.low, high=part.high))
        else:
            action.append(Entry("discrete", span, "one_hot", key, (), "int64", n=part.n, start=0))
    size = agent.obs_dim - agent.mask_dim
    observation = Entry("box", (0, size), "values", (OBSERVATION_KEY,) * agent.masked, (size,), "float32")
    mask = (mask_entry(size, agent.mask_dim),) * agent.masked
    return AgentSpaces(agent.name, (observation, *mask), tuple(action))


def mask_entry(first: int, size: int) -> Entry:
    """Returns the entry of an action mask of `size` numbers, from column `first` of an observation."""
    return Entry("multi_binary", (first, first + size), "values", MASK_KEY, (size,), "int8")


def side_by_side(spaces: Sequence[AgentSpaces]) -> tuple[AgentSpaces, ...]:
    """Returns the spaces of agents whose vectors are concatenated."""
    found, obs_width, action_width = [], 0, 0
    for agent_spaces in spaces:
        found.append(agent_spaces.shifted(obs_width, action_width))
        obs_width += _width(agent_spaces.observation)
        action_width += _width(agent_spaces.action)
    return tuple(found)


def _shifted(entry: Entry, columns: int) -> Entry:
    start, stop = entry.columns
    return msgspec.structs.replace(entry, columns=(start + columns, stop + columns))


def _width(entries: Sequence[Entry]) -> int:
    return max((entry.columns[1] for entry in entries), default=0)
