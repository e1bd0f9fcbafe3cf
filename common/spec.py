"""What a team of agents sees and does: names, sizes, kinds of action, and each agent's slice of the joint vectors.

A joint vector holds all agents side by side in spec order: a joint observation is `[sum of obs dims]`, a joint
action `[sum of action dims]`. An action is a list of parts, because an agent that moves and speaks makes two
choices, not one choice among all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from common.errors import ConfigError

MAX_JOINT_NUMBERS = 2**20
"""Longest joint observation or action: a record of a few of them still fits a frame."""


class Box(msgspec.Struct, frozen=True, tag="box", forbid_unknown_fields=True):
    """One continuous part of an action: a vector with a finite bound on each component."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuses bounds that are no box."""
        if not 1 <= len(self.low) == len(self.high):
            raise ValueError(f"a Box of {len(self.low)} lower and {len(self.high)} upper bounds")
        for low, high in zip(self.low, self.high, strict=True):
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"a Box from {low} to {high}")

    @property
    def size(self) -> int:
        """Numbers this part takes in the joint action."""
        return len(self.low)


class Categorical(msgspec.Struct, frozen=True, tag="categorical", forbid_unknown_fields=True):
    """One discrete part of an action, stored one-hot (or soft one-hot): a choice among `n`."""

    n: int

    def __post_init__(self) -> None:
        """Refuses a choice among nothing."""
        if self.n < 1:
            raise ValueError(f"a Categorical among {self.n}")

    @property
    def size(self) -> int:
        """Numbers this part takes in the joint action."""
        return self.n


Part = Box | Categorical


class AgentSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One agent: what it observes, what it does, whose side it is on, and where it stands in the joint vectors."""

    name: str
    team: str
    obs_dim: int
    parts: tuple[Part, ...]
    obs_start: int
    action_start: int

    @property
    def action_dim(self) -> int:
        """Numbers this agent's action takes: the sum over its parts."""
        return sum(part.size for part in self.parts)

    @property
    def obs_slice(self) -> slice:
        """Where this agent's observation stands in the joint observation."""
        return slice(self.obs_start, self.obs_start + self.obs_dim)

    @property
    def action_slice(self) -> slice:
        """Where this agent's action stands in the joint action."""
        return slice(self.action_start, self.action_start + self.action_dim)

    @property
    def part_slices(self) -> tuple[slice, ...]:
        """Where each part stands within this agent's own action."""
        starts = [sum(part.size for part in self.parts[:i]) for i in range(len(self.parts))]
        return tuple(slice(start, start + part.size) for start, part in zip(starts, self.parts, strict=True))


class PlayerSpec(AgentSpec, frozen=True, forbid_unknown_fields=True):
    """One player: what has one policy. An agent, or a side that acts and learns as one (common/run/players.py)."""


class JointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Agents or players side by side, in the order of the joint vectors: for what is the same numbers either way.

    Everything else takes an `AgentsSpec` or a `PlayersSpec`. They differ in how many there are and in each one's
    sizes as soon as a side learns as one, so mypy refuses one in place of the other.
    """

    agents: tuple[AgentSpec, ...]

    def __post_init__(self) -> None:
        """Refuses agents that do not stand side by side, or that no record could hold."""
        if not self.agents or len({agent.name for agent in self.agents}) < len(self.agents):
            raise ValueError("agents must have names of their own, and there must be one at least")
        obs_start = action_start = 0
        for agent in self.agents:
            if (agent.obs_start, agent.action_start) != (obs_start, action_start):
                raise ValueError(f"agent {agent.name} does not stand where the agents before it end")
            if agent.obs_dim < 0 or not agent.parts:
                raise ValueError(f"agent {agent.name} observes {agent.obs_dim} numbers and acts in {agent.parts}")
            obs_start, action_start = agent.obs_slice.stop, agent.action_slice.stop
        if max(obs_start, action_start) > MAX_JOINT_NUMBERS:
            raise ValueError(f"joint vectors of {obs_start} and {action_start} numbers; at most {MAX_JOINT_NUMBERS}")

    @property
    def obs_dim(self) -> int:
        """Length of the joint observation."""
        return sum(agent.obs_dim for agent in self.agents)

    @property
    def action_dim(self) -> int:
        """Length of the joint action."""
        return sum(agent.action_dim for agent in self.agents)

    @property
    def teams(self) -> tuple[str, ...]:
        """Names of the sides, in order of first appearance."""
        return tuple(dict.fromkeys(agent.team for agent in self.agents))


class AgentsSpec(JointSpec, frozen=True, forbid_unknown_fields=True):
    """All agents of a world: what is observed, done, rewarded and stored."""


class PlayersSpec(JointSpec, frozen=True, forbid_unknown_fields=True):
    """All players of a run: who has a policy and a critic. What policies, and weights, are made of."""

    agents: tuple[PlayerSpec, ...]


def joint_spec(agents: Sequence[tuple[str, str, int, tuple[Part, ...]]]) -> AgentsSpec:
    """Lays agents, each given as (name, team, obs_dim, parts), side by side; ConfigError when no record fits them."""
    placed: list[AgentSpec] = []
    obs_start = action_start = 0
    for name, team, obs_dim, parts in agents:
        placed.append(AgentSpec(name, team, obs_dim, parts, obs_start, action_start))
        obs_start += obs_dim
        action_start += placed[-1].action_dim
    try:
        return AgentsSpec(tuple(placed))
    except ValueError as e:
        raise ConfigError(f"these agents cannot be trained: {e}") from e


def difference(old: JointSpec, new: JointSpec) -> str:
    """Returns in words the first way in which the agents of two worlds differ, whose agent and what it is."""
    before, after = ([agent.name for agent in joint.agents] for joint in (old, new))
    if before != after:
        gone, come = (
            [name for name in names if name not in others] for names, others in ((before, after), (after, before))
        )
        words = [f"{what} {_some(names)}" for what, names in (("no longer there:", gone), ("new:", come)) if names]
        return f"it has other agents ({'; '.join(words) or 'in another order'})"
    for own, now in zip(old.agents, new.agents, strict=True):
        if own.team != now.team:
            return f"agent {own.name} was on the side {own.team} and is on {now.team}"
        if own.obs_dim != now.obs_dim:
            return f"agent {own.name} observed {own.obs_dim} numbers and observes {now.obs_dim}"
        if own.parts != now.parts:
            return f"agent {own.name} acted in {_in_words(own.parts)} and acts in {_in_words(now.parts)}"
    return "nothing that can be told"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _in_words(parts: Sequence[Part]) -> str:
    """Returns what an action consists of, as Gymnasium calls it."""
    return " and ".join(
        f"Discrete({part.n})"
        if isinstance(part, Categorical)
        else f"Box({_bound(part.low)}, {_bound(part.high)}, {part.size})"
        for part in parts
    )


def _bound(values: Sequence[float]) -> str:
    alike = len(set(values)) == 1
    return f"{values[0]:g}" if alike else f"[{', '.join(f'{value:g}' for value in values)}]"
