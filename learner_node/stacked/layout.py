"""The family: each algorithm as a row of traits, and what a run's settings make of them for its players.

    maddpg   one critic a player that sees everything                          Lowe et al. 2017, arXiv 1706.02275
    matd3    two such critics, the lower value counts; policies move every     Ackermann et al. 2019, arXiv 1910.01465,
             second update; target actions are smoothed by noise               after Fujimoto et al. 2018, 1802.09477
    iddpg    one critic a player that sees its own observation and action      Lillicrap et al. 2016, arXiv 1509.02971,
             only: learners that take each other for environment               one learner an agent
    joint    a side is one player: one policy from all its observations to     (the agents are merged before they come
             all its actions, one critic that sees everything                  here: common/run/players.py)

Sides may differ: the update is one, over all players, whatever each one's traits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from common.errors import ConfigError
from common.run.players import Algorithm, algorithms_by_side, roles_of
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import PlayerSpec, PlayersSpec


@dataclass(frozen=True)
class Variant:
    """What makes an algorithm."""

    sees_all: bool = True
    twin: bool = False
    smooths: bool = False
    policy_every: int = 1


TRAITS: dict[Algorithm, Variant] = {
    "maddpg": Variant(),
    "matd3": Variant(twin=True, smooths=True, policy_every=2),
    "iddpg": Variant(sees_all=False),
    "joint": Variant(),
}


@dataclass(frozen=True)
class Critic:
    """One critic of one player."""

    player: int
    network: int
    """Critics of one network share its parameters."""
    sees: tuple[int, ...]
    """What it reads of the joint observation and action `[O+U]`, in its network's order."""


@dataclass(frozen=True)
class NetworkLayout:
    """The networks of a run, player by player."""

    policy_networks: tuple[int, ...]
    critics: tuple[Critic, ...]
    """Each player's first, in their order; then the second ones."""
    smooths: tuple[bool, ...]
    policy_every: int

    @property
    def twins(self) -> tuple[int, ...]:
        """The players that have a second critic, in the order of those."""
        return tuple(critic.player for critic in self.critics[len(self.policy_networks) :])

    @property
    def critic_networks(self) -> tuple[int, ...]:
        """The network of each critic."""
        return tuple(critic.network for critic in self.critics)


def network_layout(players: PlayersSpec, network: NetworkSpec, algorithm: AlgorithmSpec) -> NetworkLayout:
    """Returns what the settings make of the players of a run (`Run.players`)."""
    by_side = algorithms_by_side(players, algorithm.name)
    traits = [TRAITS[by_side[player.team]] for player in players.agents]
    alone = tuple(range(len(players.agents)))
    roles = roles_of(players, network.share)
    _refuse_unlike_learners(players, roles, by_side, algorithm)
    critic_roles = roles if network.share_critics else alone
    firsts = [_critic(players, i, critic_roles, traits[i], 0) for i in alone]
    twins = [_critic(players, i, critic_roles, traits[i], 1 + max(critic_roles)) for i in alone if traits[i].twin]
    return NetworkLayout(
        policy_networks=roles if network.share_policies else alone,
        critics=_numbered([*firsts, *twins]),
        smooths=tuple(own.smooths for own in traits),
        policy_every=algorithm.policy_every or max(own.policy_every for own in traits),
    )


def _refuse_unlike_learners(
    players: PlayersSpec, roles: Sequence[int], by_side: dict[str, Algorithm], algorithm: AlgorithmSpec
) -> None:
    """Raises ConfigError when players of one role learn by other algorithms, or at other rates."""
    first: dict[int, PlayerSpec] = {}
    for player, number in zip(players.agents, roles, strict=True):
        mate = first.setdefault(number, player)
        rates = [algorithm.side_learning_rates.get(side, 1.0) for side in (mate.team, player.team)]
        if by_side[mate.team] != by_side[player.team] or rates[0] != rates[1]:
            raise ConfigError(
                f"network.share: {mate.name} of {mate.team} and {player.name} of {player.team} cannot share networks, "
                "because their sides have different algorithms or learning rates; set both alike or share within a side"
            )


def _critic(players: PlayersSpec, player: int, roles: Sequence[int], traits: Variant, offset: int) -> Critic:
    mates = [i for i, number in enumerate(roles) if number == roles[player]]
    others = [i for i in range(len(players.agents)) if i not in mates]
    at = mates.index(player)
    seen = [*mates[at:], *mates[:at], *others] if traits.sees_all else [player]
    if traits.sees_all and len(mates) == 1:
        sees = tuple(range(players.obs_dim + players.action_dim))
    else:
        sees = tuple(chain.from_iterable(_columns(players, players.agents[i]) for i in seen))
    return Critic(player, offset + roles[player], sees)


def _columns(players: PlayersSpec, player: PlayerSpec) -> list[int]:
    """Returns where a player's observation and action stand in the joint observation and action."""
    action = player.action_slice
    return [
        *range(player.obs_slice.start, player.obs_slice.stop),
        *range(players.obs_dim + action.start, players.obs_dim + action.stop),
    ]


def _numbered(critics: Sequence[Critic]) -> tuple[Critic, ...]:
    """Numbers the networks without gaps, in order of first use."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(critic.network for critic in critics))}
    return tuple(Critic(critic.player, numbers[critic.network], critic.sees) for critic in critics)
