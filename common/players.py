"""Who learns what: the algorithm of each side, the players it makes of the agents, and whose networks are shared.

A side is a team of the world's spec. A player is what has one policy and one reward: an agent, or under the algorithm
`joint` a whole side, which then sees and moves all of its agents as one (the meta-agent). The joint vectors of agents
and players are the same numbers in the same places.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal, get_args

import msgspec

from common.errors import ConfigError
from common.spec import AgentSpec, AgentsSpec, JointSpec, PlayerSpec, PlayersSpec

Algorithm = Literal["maddpg", "matd3", "iddpg", "joint"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


def parse_algorithms(name: str) -> dict[str, Algorithm]:
    """Reads one algorithm for all ("maddpg", under the side "") or one a side ("adversary=maddpg,agent=iddpg").

    ValueError names what is no algorithm.
    """
    items = [item.partition("=") for item in name.split(",")] if "=" in name else [("", "=", name)]
    return {side.strip(): _algorithm(algorithm.strip(), name) for side, _, algorithm in items}


def algorithms_by_side(joint: JointSpec, name: str) -> dict[str, Algorithm]:
    """Returns each side's algorithm; ConfigError names what is no algorithm or no side, or which side is missing."""
    try:
        found = parse_algorithms(name)
    except ValueError as e:
        raise ConfigError(str(e)) from e
    if "" in found and len(found) == 1:
        return dict.fromkeys(joint.teams, found[""])
    for side in found:
        if side not in joint.teams:
            raise ConfigError(f"algorithm.name = {name!r}: {side!r} is no side; sides: {', '.join(joint.teams)}")
    if missing := [side for side in joint.teams if side not in found]:
        raise ConfigError(f"algorithm.name = {name!r}: name one for {' and '.join(missing)} too: {missing[0]}=maddpg")
    return found


def players(agents: AgentsSpec, name: str) -> PlayersSpec:
    """Returns the players of a world, in the order of its agents; ConfigError as `algorithms_by_side`."""
    algorithms = algorithms_by_side(agents, name)
    merged: list[PlayerSpec] = []
    for side, run in groupby(agents.agents, lambda agent: agent.team):
        members = list(run)
        if algorithms[side] != "joint" or len(members) == 1:
            merged += [msgspec.convert(member, PlayerSpec, from_attributes=True) for member in members]
        elif any(agent.name == f"{side}-team" for agent in merged):
            raise ConfigError(
                f"algorithm.name = {name!r}: the agents of {side} do not stand side by side, so cannot be one"
            )
        else:
            merged.append(_as_one(side, members))
    return PlayersSpec(tuple(merged))


def members_of(agents: AgentsSpec, player: PlayerSpec) -> tuple[int, ...]:
    """Returns which agents, by their places in the world's spec, a player is."""
    own = player.action_slice
    return tuple(i for i, agent in enumerate(agents.agents) if own.start <= agent.action_start < own.stop)


def role(agent: AgentSpec) -> tuple[object, ...]:
    """Returns what agents must have alike to share networks: the name without its number, side, sizes and parts."""
    return re.sub(r"_?\d+$", "", agent.name), agent.team, agent.obs_dim, agent.parts


def _as_one(side: str, members: list[AgentSpec]) -> PlayerSpec:
    return PlayerSpec(
        name=f"{side}-team",
        team=side,
        obs_dim=sum(agent.obs_dim for agent in members),
        parts=tuple(part for agent in members for part in agent.parts),
        obs_start=members[0].obs_start,
        action_start=members[0].action_start,
    )


def _algorithm(written: str, name: str) -> Algorithm:
    for known in ALGORITHMS:
        if written == known:
            return known
    one = f"algorithm.name = {name!r}: not one of {', '.join(repr(known) for known in ALGORITHMS)}"
    raise ValueError(f"{one}, nor one for each side, as in adversary=maddpg,agent=iddpg")
