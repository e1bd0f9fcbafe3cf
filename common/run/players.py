"""Players: the algorithm of each side, the players that the agents form, and the players that share networks.

A side is the agents of one `team` in the world's spec. A player has one policy and one reward: it is an agent, or,
under the algorithm `joint`, a whole side, which observes and acts for all of its agents (the meta-agent). The joint
vectors of agents and of players contain the same numbers in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Literal, get_args

import msgspec

from common.errors import ConfigError
from common.run.validation_errors import shorten
from common.spec import AgentSpec, AgentsSpec, Categorical, JointSpec, Part, PlayerSpec, PlayersSpec

Algorithm = Literal["maddpg", "matd3", "iddpg", "joint", "masac", "isac", "hatd3", "hasac", "facmac", "m3ddpg"]
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
STOCHASTIC: frozenset[Algorithm] = frozenset({"masac", "isac", "hasac"})
"""The algorithms whose policies are distributions, from which actors draw (Haarnoja et al. 2018)."""


def parse_algorithms(name: str) -> dict[str, Algorithm]:
    """Parses one algorithm for all sides ("maddpg", stored under the side "") or one a side ("a=maddpg,b=iddpg").

    Raises ValueError for an unknown algorithm.
    """
    items = [item.partition("=") for item in name.split(",")] if "=" in name else [("", "=", name)]
    return {side.strip(): _algorithm(algorithm.strip(), name) for side, _, algorithm in items}


def algorithms_by_side(joint: JointSpec, name: str) -> dict[str, Algorithm]:
    """Returns each side's algorithm; ConfigError for an unknown algorithm, or an unknown or missing side."""
    try:
        found = parse_algorithms(name)
    except ValueError as e:
        raise ConfigError(str(e)) from e
    if "" in found and len(found) == 1:
        return dict.fromkeys(joint.sides, found[""])
    for side in found:
        if side not in joint.sides:
            raise ConfigError(
                f"{_setting(name)}: {shorten(side)!r} is not a side of this world; sides: {', '.join(joint.sides)}."
            )
    if missing := [side for side in joint.sides if side not in found]:
        raise ConfigError(
            f"{_setting(name)}: no algorithm for {' and '.join(missing)}. Add one, as in {missing[0]}=maddpg."
        )
    return found


def players(agents: AgentsSpec, name: str) -> PlayersSpec:
    """Returns the players of a world in the order of its agents; ConfigError for a `name` that does not fit them.

    name: the setting algorithm.name.
    """
    algorithms = algorithms_by_side(agents, name)
    merged: list[PlayerSpec] = []
    for side, neighbours in groupby(agents.agents, lambda agent: agent.team):
        members = list(neighbours)
        if algorithms[side] != "joint" or len(members) == 1:
            is_stochastic = algorithms[side] in STOCHASTIC
            alone = [msgspec.convert(member, PlayerSpec, from_attributes=True) for member in members]
            merged += [msgspec.structs.replace(player, stochastic=is_stochastic) for player in alone]
        elif any(agent.name == f"{side}-team" for agent in merged):
            raise ConfigError(
                f"{_setting(name)}: the agents of {side} are not adjacent, so one player cannot act for them."
                " Order the environment's possible_agents by side, or choose another algorithm."
            )
        else:
            merged.append(_merge(side, members))
    return PlayersSpec(tuple(merged), agents.state_dim)


def with_sides(agents: AgentsSpec, sides: Mapping[str, Sequence[str]]) -> AgentsSpec:
    """Returns the agents of a world with the sides of network.sides; agents not listed stay on their side.

    Raises ConfigError for an unknown agent, or one on two sides.
    """
    side_of: dict[str, str] = {}
    for side, names in sides.items():
        _refuse_unknown(agents, names, "network.sides")
        for name in names:
            if side_of.setdefault(name, side) != side:
                raise ConfigError(f"network.sides: {name} is on the sides {side_of[name]} and {side}. List it once.")
    return AgentsSpec(
        tuple(msgspec.structs.replace(agent, team=side_of.get(agent.name, agent.team)) for agent in agents.agents),
        agents.state_dim,
    )


def network_groups(players_spec: JointSpec, share: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Returns the number of each player's or agent's group; members of one share networks where sharing is on.

    share: groups of names; empty makes a group of adjacent players with equal `role`. Raises ConfigError for a group
    whose players cannot share a network.
    """
    if not share:
        lengths = [len(list(neighbours)) for _, neighbours in groupby(players_spec.agents, role)]
        return tuple(number for number, length in enumerate(lengths) for _ in range(length))
    group_of: dict[str, int] = {}
    for number, names in enumerate(share):
        _refuse_unknown(players_spec, names, "network.share")
        _refuse_unlike(players_spec, names)
        for name in names:
            if group_of.setdefault(name, number) != number:
                raise ConfigError(f"network.share: {name} is in two groups. List it once.")
    groups = [
        ("group", group_of[player.name]) if player.name in group_of else ("alone", i)
        for i, player in enumerate(players_spec.agents)
    ]
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return tuple(numbers[group] for group in groups)


def _refuse_unknown(joint: JointSpec, names: Iterable[str], setting: str) -> None:
    known = [agent.name for agent in joint.agents]
    for name in names:
        if name not in known:
            close = get_close_matches(shorten(name), known, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"agents: {', '.join(known[:20])}."
            raise ConfigError(f"{setting}: {shorten(name)!r} is not an agent of this run; {hint}")


def _refuse_unlike(players_spec: JointSpec, names: Sequence[str]) -> None:
    """Raises ConfigError if the players of these names cannot share a network."""
    members = [agent for agent in players_spec.agents if agent.name in names]
    first = members[0]
    for other in members[1:]:
        if (other.obs_dim, other.parts, other.masked) != (first.obs_dim, first.parts, first.masked):
            raise ConfigError(
                f"network.share: {first.name} ({_interface(first)}) and {other.name} ({_interface(other)}) cannot "
                "share networks. Group only agents with equal observations and actions."
            )
    positions = [i for i, agent in enumerate(players_spec.agents) if agent.name in names]
    for between in players_spec.agents[positions[0] : positions[-1]]:
        # The learner stacks the last layers of neighbours of equal sizes only.
        if (between.obs_dim, between.action_dim) != (first.obs_dim, first.action_dim):
            raise ConfigError(
                f"network.share: {first.name} and {members[-1].name} cannot share networks, because {between.name} "
                "between them has other sizes. Order the environment's possible_agents so that agents of equal sizes "
                "are adjacent."
            )


def _interface(agent: AgentSpec) -> str:
    mask = " under an action mask" if agent.masked else ""
    return f"observes {agent.obs_dim} numbers, acts with {', '.join(map(_part, agent.parts))}{mask}"


def _part(part: Part) -> str:
    if isinstance(part, Categorical):
        return f"one of {part.n}"
    return f"{part.size} numbers from {min(part.low):g} to {max(part.high):g}"


def members_of(agents: AgentsSpec, player: PlayerSpec) -> tuple[int, ...]:
    """Returns the indices, in the world's spec, of the agents that a player acts for."""
    columns = player.action_slice
    return tuple(i for i, agent in enumerate(agents.agents) if columns.start <= agent.action_start < columns.stop)


def role(agent: AgentSpec) -> tuple[object, ...]:
    """Returns what agents of one role share: name without its number, side, sizes, parts, and whether masked."""
    return re.sub(r"_?\d+$", "", agent.name), agent.team, agent.obs_dim, agent.parts, agent.masked


def _merge(side: str, members: list[AgentSpec]) -> PlayerSpec:
    return PlayerSpec(
        name=f"{side}-team",
        team=side,
        obs_dim=sum(agent.obs_dim for agent in members),
        parts=tuple(part for agent in members for part in agent.parts),
        obs_start=members[0].obs_start,
        action_start=members[0].action_start,
        members=tuple(members),
    )


def _setting(name: str) -> str:
    return f"algorithm.name = {shorten(name)!r}"


def _algorithm(written: str, name: str) -> Algorithm:
    for known in ALGORITHMS:
        if written == known:
            return known
    known_names = ", ".join(repr(known) for known in ALGORITHMS)
    close = get_close_matches(shorten(written).lower(), ALGORITHMS, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"{_setting(name)}: not one of {known_names}, nor one for each side, as in adversary=maddpg,agent=iddpg{meant}"
    )
