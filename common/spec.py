"""Specs of agents and players: names, sizes, types of action, and each agent's slice of the joint vectors.

A joint vector concatenates the vectors of all agents in spec order: a joint observation is `[sum of obs dims]`, a
joint action `[sum of action dims]`. An action is a list of parts, because an agent that moves and speaks makes two
choices, not one choice among all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from common.errors import ConfigError

MAX_JOINT_NUMBERS = 2**20
"""Maximum length of a joint observation or action, so that a record fits a frame."""


class Box(msgspec.Struct, frozen=True, tag="box", forbid_unknown_fields=True):
    """One continuous part of an action: a vector with a finite bound on each component."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises ValueError for bounds that do not form a box."""
        if not 1 <= len(self.low) == len(self.high):
            raise ValueError(f"a Box has {len(self.low)} lower and {len(self.high)} upper bounds")
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"a Box has the bounds {low} and {high}, which must be finite and in order")

    @property
    def size(self) -> int:
        """Numbers this part takes in the joint action."""
        return len(self.low)

    @property
    def fits_soft_choice(self) -> bool:
        """Whether it is two or more numbers from 0 to 1, which a soft choice can make: moves and words of MPE."""
        return self.size > 1 and set(self.low) == {0.0} and set(self.high) == {1.0}


class Categorical(msgspec.Struct, frozen=True, tag="categorical", forbid_unknown_fields=True):
    """One discrete part of an action, stored one-hot (or soft one-hot): a choice among `n`."""

    n: int

    def __post_init__(self) -> None:
        """Raises ValueError for a choice among fewer than one."""
        if self.n < 1:
            raise ValueError(f"a Categorical has {self.n} choices; it needs at least one")

    @property
    def size(self) -> int:
        """Numbers this part takes in the joint action."""
        return self.n


Part = Box | Categorical


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One agent: its name, side, observation and action sizes, and its position in the joint vectors.

    Defaults are not encoded, so that runs of worlds without action masks have the same hash as before masks existed.
    """

    name: str
    team: str
    """Name of the side that the agent plays on; files and messages call the side `team`."""
    obs_dim: int
    parts: tuple[Part, ...]
    obs_start: int
    action_start: int
    masked: bool = False
    """Whether its observation ends with an action mask: 1 (allowed) or 0 (forbidden) for each number of its Categorical
    parts, in order."""

    @property
    def action_dim(self) -> int:
        """Length of this agent's action: the sum over its parts."""
        return sum(part.size for part in self.parts)

    @property
    def obs_slice(self) -> slice:
        """Columns of this agent's observation in the joint observation."""
        return slice(self.obs_start, self.obs_start + self.obs_dim)

    @property
    def action_slice(self) -> slice:
        """Columns of this agent's action in the joint action."""
        return slice(self.action_start, self.action_start + self.action_dim)

    @property
    def part_slices(self) -> tuple[slice, ...]:
        """Columns of each part within this agent's own action."""
        starts = [sum(part.size for part in self.parts[:i]) for i in range(len(self.parts))]
        return tuple(slice(start, start + part.size) for start, part in zip(starts, self.parts, strict=True))

    @property
    def choice_columns(self) -> tuple[int, ...]:
        """Columns of the numbers of its Categorical parts within this agent's own action."""
        parts = zip(self.parts, self.part_slices, strict=True)
        choices = [columns for part, columns in parts if isinstance(part, Categorical)]
        return tuple(column for columns in choices for column in range(columns.start, columns.stop))

    @property
    def mask_dim(self) -> int:
        """Length of the action mask at the end of this agent's observation; 0 without a mask."""
        return len(self.choice_columns) if self.masked else 0

    @property
    def mask_columns(self) -> tuple[tuple[int, int], ...]:
        """Each number of the action mask: its column of the joint observation, and its column of the joint action."""
        if not self.masked:
            return ()
        first = self.obs_slice.stop - self.mask_dim
        return tuple((first + i, self.action_start + column) for i, column in enumerate(self.choice_columns))

    @property
    def local_mask_columns(self) -> tuple[tuple[int, int], ...]:
        """Column pairs of the action mask: in this agent's observation, and in this agent's action."""
        return tuple((obs - self.obs_start, action - self.action_start) for obs, action in self.mask_columns)


class PlayerSpec(AgentSpec, frozen=True, forbid_unknown_fields=True):
    """One player, which has one policy: an agent, or a side that acts and learns as one (common/run/players.py)."""

    members: tuple[AgentSpec, ...] = ()
    """The agents of a side that acts as one; empty for a player that is one agent."""
    stochastic: bool = False
    """Whether it draws its actions: each number of its Box parts from a Gaussian, with a standard deviation that its
    policy outputs besides the logits."""

    @property
    def gaussian_columns(self) -> tuple[int, ...]:
        """Columns, in the joint action, of the numbers that it draws from a Gaussian."""
        if not self.stochastic:
            return ()
        choices = set(self.choice_columns)
        return tuple(self.action_start + column for column in range(self.action_dim) if column not in choices)

    @property
    def output_dim(self) -> int:
        """Number of its policy's outputs: the logits of its action, then one for each number with a Gaussian."""
        return self.action_dim + len(self.gaussian_columns)

    @property
    def mask_columns(self) -> tuple[tuple[int, int], ...]:
        """Each number of its agents' action masks: its columns of the joint observation and of the joint action."""
        if not self.members:
            return super().mask_columns
        return tuple(columns for member in self.members for columns in member.mask_columns)


class JointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Agents or players in the order of the joint vectors, for code that is correct for both.

    All other code takes an `AgentsSpec` or a `PlayersSpec`. The two differ in number and sizes when a side learns as
    one, so mypy refuses one in place of the other.
    """

    agents: tuple[AgentSpec, ...]
    """The agents in an `AgentsSpec`, the players in a `PlayersSpec`."""

    def __post_init__(self) -> None:
        """Raises ValueError for agents whose columns are not contiguous, or that do not fit a record."""
        if not self.agents or len({agent.name for agent in self.agents}) < len(self.agents):
            raise ValueError("there must be at least one agent, and agents must have unique names")
        obs_start = action_start = 0
        for agent in self.agents:
            if (agent.obs_start, agent.action_start) != (obs_start, action_start):
                raise ValueError(f"agent {agent.name} does not start where the previous agent ends")
            if agent.obs_dim < 0 or not agent.parts:
                raise ValueError(
                    f"agent {agent.name} observes {agent.obs_dim} numbers and acts in {agent.parts}: it must observe 0 "
                    "or more numbers and have at least one part"
                )
            if agent.mask_dim > agent.obs_dim or (agent.masked and not agent.mask_dim):
                raise ValueError(
                    f"agent {agent.name} observes {agent.obs_dim} numbers, which cannot end with an action mask of "
                    f"{agent.mask_dim} numbers"
                )
            obs_start, action_start = agent.obs_slice.stop, agent.action_slice.stop
        if max(obs_start, action_start) > MAX_JOINT_NUMBERS:
            raise ValueError(
                f"joint vectors have {obs_start} and {action_start} numbers; at most {MAX_JOINT_NUMBERS} are allowed"
            )

    @property
    def obs_dim(self) -> int:
        """Length of the joint observation."""
        return sum(agent.obs_dim for agent in self.agents)

    @property
    def action_dim(self) -> int:
        """Length of the joint action."""
        return sum(agent.action_dim for agent in self.agents)

    @property
    def mask_columns(self) -> tuple[tuple[int, int], ...]:
        """Each number of all action masks: its column of the joint observation, and its column of the joint action."""
        return tuple(columns for agent in self.agents for columns in agent.mask_columns)

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides, in order of first appearance."""
        return tuple(dict.fromkeys(agent.team for agent in self.agents))


class AgentsSpec(JointSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All agents of a world, which observe, act and receive rewards; their transitions are stored."""

    state_dim: Annotated[int, Meta(ge=0, le=MAX_JOINT_NUMBERS)] = 0
    """Length of the environment's global state in a transition, which critics read; 0 = without."""

    @property
    def without_state(self) -> AgentsSpec:
        """The agents without the global state, which only critics read."""
        return AgentsSpec(self.agents)


class PlayersSpec(JointSpec, frozen=True, forbid_unknown_fields=True):
    """All players of a run, each with a policy and critics; policies and weights follow this spec."""

    agents: tuple[PlayerSpec, ...]
    """The players, under the name that code for agents and players alike reads."""
    state_dim: int = 0
    """Length of the environment's global state, which critics read; 0 = without."""

    @property
    def gaussian_columns(self) -> tuple[int, ...]:
        """Columns, in the joint action, of all numbers that stochastic players draw from Gaussians."""
        return tuple(column for player in self.agents for column in player.gaussian_columns)

    @property
    def critic_input_dim(self) -> int:
        """Length of all that critics can read: joint observation, joint action and global state, in this order."""
        return self.obs_dim + self.action_dim + self.state_dim


def joint_spec(agents: Sequence[tuple[str, str, int, tuple[Part, ...]]], masked: Container[str] = ()) -> AgentsSpec:
    """Returns the spec of a world's agents, whose columns follow one another in the given order.

    agents: (name, side, obs_dim, parts) of each agent. masked: names of the agents whose observations end with an
    action mask. Raises ConfigError for agents that cannot be trained.
    """
    specs: list[AgentSpec] = []
    obs_start = action_start = 0
    for name, team, obs_dim, parts in agents:
        specs.append(AgentSpec(name, team, obs_dim, parts, obs_start, action_start, name in masked))
        obs_start += obs_dim
        action_start += specs[-1].action_dim
    try:
        return AgentsSpec(tuple(specs))
    except ValueError as e:
        raise ConfigError(f"The agents of this world cannot be trained: {e}.") from e


def difference(old: AgentsSpec, new: AgentsSpec) -> str:
    """Returns a description of the first difference between the agents of two worlds."""
    if old.state_dim != new.state_dim:
        return f"its global state had {old.state_dim} numbers and has {new.state_dim}"
    before, after = ([agent.name for agent in joint.agents] for joint in (old, new))
    if before != after:
        removed, added = (
            [name for name in names if name not in others] for names, others in ((before, after), (after, before))
        )
        changes = [f"{what}: {_first_names(names)}" for what, names in (("removed", removed), ("new", added)) if names]
        return f"it has other agents ({'; '.join(changes) or 'in another order'})"
    found = (_agent_difference(was, now) for was, now in zip(old.agents, new.agents, strict=True))
    return next(filter(None, found), "no difference")


def _agent_difference(was: AgentSpec, now: AgentSpec) -> str:
    """Returns the first difference between an agent's specs in two worlds; empty if there is none."""
    if was.team != now.team:
        return f"agent {was.name} was on the side {was.team} and is on {now.team}"
    if was.obs_dim != now.obs_dim:
        return f"agent {was.name} observed {was.obs_dim} numbers and observes {now.obs_dim}"
    if was.masked != now.masked:
        return f"agent {was.name} {'had an action mask and has none' if was.masked else 'has an action mask now'}"
    if was.parts != now.parts:
        return f"agent {was.name} acted in {_spaces_text(was.parts)} and acts in {_spaces_text(now.parts)}"
    return ""


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _spaces_text(parts: Sequence[Part]) -> str:
    """Returns the parts of an action as Gymnasium spaces."""
    return " and ".join(
        f"Discrete({part.n})"
        if isinstance(part, Categorical)
        else f"Box({_bound(part.low)}, {_bound(part.high)}, {part.size})"
        for part in parts
    )


def _bound(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else f"[{', '.join(f'{value:g}' for value in values)}]"
