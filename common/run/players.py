"""Who learns what: the algorithm of each side, the players it makes of the agents, and whose networks are shared.

A side is a team of the world's spec. A player is what has one policy and one reward: an agent, or under the algorithm
`joint` a whole side, which then sees and moves all of its agents as one (the meta-agent). The joint vectors of agents
and players are the same numbers in the same places.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Literal, get_args

import msgspec

from common.errors import ConfigError
from common.spec import AgentSpec, AgentsSpec, Categorical, JointSpec, Part, PlayerSpec, PlayersSpec

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


def with_sides(agents: AgentsSpec, sides: Mapping[str, Sequence[str]]) -> AgentsSpec:
    """Returns the agents of a world on the sides that a run names, those left out on their own.

    ConfigError names what is not an agent, or stands on two sides.
    """
    side_of: dict[str, str] = {}
    for side, names in sides.items():
        _refuse_unknown(agents, names, "network.sides")
        for name in names:
            if side_of.setdefault(name, side) != side:
                raise ConfigError(f"network.sides: {name} is on the sides {side_of[name]} and {side}; name it once")
    return AgentsSpec(
        tuple(msgspec.structs.replace(agent, team=side_of.get(agent.name, agent.team)) for agent in agents.agents)
    )


def roles_of(playing: PlayersSpec, share: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Returns for each player the number of its role; players of one role share networks where sharing is on.

    share: groups of names in place of roles; empty = neighbours that `role` calls alike. ConfigError for a group whose
    players cannot have one network.
    """
    if not share:
        runs = [len(list(run)) for _, run in groupby(playing.agents, role)]
        return tuple(number for number, length in enumerate(runs) for _ in range(length))
    group_of: dict[str, int] = {}
    for number, names in enumerate(share):
        _refuse_unknown(playing, names, "network.share")
        _refuse_unlike(playing, names)
        for name in names:
            if group_of.setdefault(name, number) != number:
                raise ConfigError(f"network.share: {name} is in two groups; name it once")
    groups = [
        ("group", group_of[player.name]) if player.name in group_of else ("alone", i)
        for i, player in enumerate(playing.agents)
    ]
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return tuple(numbers[group] for group in groups)


def _refuse_unknown(joint: JointSpec, names: Iterable[str], setting: str) -> None:
    known = [agent.name for agent in joint.agents]
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(close)}" if close else f"agents: {', '.join(known[:20])}"
            raise ConfigError(f"{setting}: {name!r} is not an agent of this run; {hint}")


def _refuse_unlike(playing: PlayersSpec, names: Sequence[str]) -> None:
    """Raises ConfigError when players of these names cannot have one network."""
    members = [agent for agent in playing.agents if agent.name in names]
    first = members[0]
    for other in members[1:]:
        if (other.obs_dim, other.parts) != (first.obs_dim, first.parts):
            raise ConfigError(
                f"network.share: {first.name} ({_interface(first)}) and {other.name} ({_interface(other)}) cannot "
                "share networks; put only agents that observe and act alike into one group"
            )
    places = [i for i, agent in enumerate(playing.agents) if agent.name in names]
    for between in playing.agents[places[0] : places[-1]]:
        # The learner stacks the ends of neighbours of equal sizes only.
        if (between.obs_dim, between.action_dim) != (first.obs_dim, first.action_dim):
            raise ConfigError(
                f"network.share: {first.name} and {members[-1].name} cannot share networks, because {between.name}, "
                "which has other sizes, stands between them; order the environment's possible_agents so that agents of "
                "equal sizes stand side by side"
            )


def _interface(agent: AgentSpec) -> str:
    return f"observes {agent.obs_dim} numbers, acts with {', '.join(map(_part, agent.parts))}"


def _part(part: Part) -> str:
    if isinstance(part, Categorical):
        return f"one of {part.n}"
    return f"{part.size} numbers from {min(part.low):g} to {max(part.high):g}"


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
