"""What an environment's own spaces are, as plain data: all that undoes the encoding into flat vectors.

Shoal's policies read and write flat float32 vectors. A user who takes a policy elsewhere must know which numbers of
those vectors are which part of the environment's observation and action. `run.toml` holds this beside the AgentsSpec,
and `shoal export` writes it; it is no part of the run's `data_hash`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from common.spec import AgentSpec, Box

Kind = Literal["box", "discrete", "multi_discrete", "multi_binary", "text"]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One leaf of a space, and where its numbers stand in the flat vector."""

    kind: Kind
    """Gymnasium's space: Box, Discrete, MultiDiscrete, MultiBinary or Text."""
    columns: tuple[int, int]
    """First column and the one after the last."""
    encoding: Literal["values", "one_hot"]
    """values: the numbers themselves, in C order. one_hot: `n` columns for each choice, in C order."""
    key: tuple[str | int, ...] = ()
    """Keys of Dict spaces and positions in Tuple spaces that lead to this leaf; empty where the space is a leaf."""
    shape: tuple[int, ...] = ()
    """Of the environment's own value."""
    dtype: str = ""
    """NumPy's name of the environment's own type."""
    n: int | tuple[int, ...] = ()
    """Choices: of Discrete one number, of MultiDiscrete one for each element, in C order."""
    start: int | tuple[int, ...] = ()
    """The smallest choice, to be added to the position of the 1; laid out as `n`."""
    low: tuple[float, ...] = ()
    """Lower bounds of an action's Box, in C order."""
    high: tuple[float, ...] = ()
    """Upper bounds of an action's Box, in C order."""


class AgentSpaces(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent's spaces: their leaves in the order of the flat vectors."""

    agent: str
    observation: tuple[Entry, ...]
    action: tuple[Entry, ...]

    def moved(self, obs_columns: int, action_columns: int) -> AgentSpaces:
        """Returns the same spaces in vectors where this agent's numbers begin later."""
        return AgentSpaces(
            self.agent,
            tuple(_moved(entry, obs_columns) for entry in self.observation),
            tuple(_moved(entry, action_columns) for entry in self.action),
        )


def flat_spaces(agent: AgentSpec) -> AgentSpaces:
    """Returns the spaces of an agent of a built-in world: a flat observation, and an action of float32 and choices."""
    action = []
    for i, (part, columns) in enumerate(zip(agent.parts, agent.part_slices, strict=True)):
        at, key = (columns.start, columns.stop), (i,) if len(agent.parts) > 1 else ()
        if isinstance(part, Box):
            shape = (part.size,)
            action.append(Entry("box", at, "values", key, shape, "float32", low=part.low, high=part.high))
        else:
            action.append(Entry("discrete", at, "one_hot", key, (), "int64", n=part.n, start=0))
    observation = Entry("box", (0, agent.obs_dim), "values", (), (agent.obs_dim,), "float32")
    return AgentSpaces(agent.name, (observation,), tuple(action))


def side_by_side(spaces: Sequence[AgentSpaces]) -> tuple[AgentSpaces, ...]:
    """Returns the spaces of agents whose vectors stand side by side in one."""
    found, obs, action = [], 0, 0
    for own in spaces:
        found.append(own.moved(obs, action))
        obs += _width(own.observation)
        action += _width(own.action)
    return tuple(found)


def _moved(entry: Entry, columns: int) -> Entry:
    start, stop = entry.columns
    return msgspec.structs.replace(entry, columns=(start + columns, stop + columns))


def _width(entries: Sequence[Entry]) -> int:
    return max((entry.columns[1] for entry in entries), default=0)
