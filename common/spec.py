"""What a team of agents sees and does: names, sizes, kinds of action, and each agent's slice of the joint vectors.

A joint vector holds all agents side by side in spec order: a joint observation is `[sum of obs dims]`, a joint
action `[sum of action dims]`. An action is a list of parts, because an agent that moves and speaks makes two
choices, not one choice among all pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Box(msgspec.Struct, frozen=True, tag="box", forbid_unknown_fields=True):
    """One continuous part of an action: a vector with a finite bound on each component."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        """Numbers this part takes in the joint action."""
        return len(self.low)


class Categorical(msgspec.Struct, frozen=True, tag="categorical", forbid_unknown_fields=True):
    """One discrete part of an action, stored one-hot (or soft one-hot): a choice among `n`."""

    n: int

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


class JointSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All agents of a world, in the order of the joint vectors."""

    agents: tuple[AgentSpec, ...]

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


def joint_spec(agents: Sequence[tuple[str, str, int, tuple[Part, ...]]]) -> JointSpec:
    """Lays agents, each given as (name, team, obs_dim, parts), side by side into a JointSpec."""
    placed: list[AgentSpec] = []
    obs_start = action_start = 0
    for name, team, obs_dim, parts in agents:
        placed.append(AgentSpec(name, team, obs_dim, parts, obs_start, action_start))
        obs_start += obs_dim
        action_start += placed[-1].action_dim
    return JointSpec(tuple(placed))
