"""The network layout of a run: the policy and critics of each player, and the inputs of each critic.

    maddpg   one critic a player that reads everything                         Lowe et al. 2017, arXiv 1706.02275
    matd3    two such critics, the lower value counts; policies are updated    Ackermann et al. 2019, arXiv 1910.01465,
             every second time; target actions carry noise                     after Fujimoto et al. 2018, 1802.09477
    iddpg    one critic a player that reads its own observation and action     Lillicrap et al. 2016, arXiv 1509.02971,
             only: learners that treat each other as part of the environment   one learner an agent
    joint    a side is one player: one policy from all its observations to     (common/run/players.py makes the players
             all its actions, one critic that reads everything                 of a run from its agents)
    masac    maddpg with two critics and policies that are distributions,      Haarnoja et al. 2018, arXiv 1812.05905
             rewarded for their entropy                                        (algorithms/masac.py)
    isac     the same, where critics read their own observation and action     masac is to maddpg as isac is to iddpg
    hatd3    matd3 with one pair of critics a side, whose policies are         Zhong et al. 2024, arXiv 2304.09870
             updated one after another in random order                         (algorithms/hatd3.py)
    facmac   maddpg with one critic a side, which mixes utilities that read    Peng et al. 2021, arXiv 2003.06709
             their own observation and action                                  (networks/mixing_critics.py)
    hasac    masac, updated one after another as in hatd3                      Liu et al. 2024, arXiv 2306.10715
                                                                               (algorithms/hasac.py)
    m3ddpg   maddpg where critics are read with the others' actions changed    Li et al. 2019 (AAAI)
             for the worse                                                     (algorithms/m3ddpg.py)

The critic input is joint observation, joint action and global state side by side `[O+U+S]`; without a state S is 0.
Centralised critics read the observations, the state, or both (`algorithm.critic_sees`), and all actions.

Each algorithm is a `Variant` of one update. Sides may use different variants in one run.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Literal

from common.errors import ConfigError
from common.run.players import Algorithm, algorithms_by_side, network_groups, parse_algorithms
from common.run.run import MLP, SET_CRITICS, AlgorithmSpec, NetworkSpec
from common.spec import Categorical, JointSpec, PlayerSpec, PlayersSpec

BINS = 101
"""Number of bins of critics that learn a distribution over values (learner_node/networks/value_bins.py)."""


@dataclass(frozen=True)
class Variant:
    """What one algorithm of the family does, where the algorithms differ."""

    centralised: bool = True
    """Whether critics read the observations and actions of all players (Lowe et al. 2017)."""
    twin_critics: bool = False
    """Whether each player has two critics and the lower value makes the target (Fujimoto et al. 2018)."""
    target_noise: bool = False
    """Whether target actions carry clipped noise (Fujimoto et al. 2018, target policy smoothing)."""
    policy_delay: int = 1
    """Critic updates for each update of policies and targets (Fujimoto et al. 2018, delayed policy updates)."""
    team_critic: bool = False
    """Whether the players of a side have one critic, or one pair, that learns the side's mean reward."""
    mixing: bool = False
    """Whether a side's critic mixes utilities that read one player each (Peng et al. 2021)."""
    sequential: bool = False
    """Whether the policies of a side are updated one after another in random order (Zhong et al. 2024). Then each
    player has its own policy."""
    minimax: bool = False
    """Whether critics are read with the actions of the other players changed for the worse (Li et al. 2019)."""


VARIANTS: dict[Algorithm, Variant] = {
    "maddpg": Variant(),
    "matd3": Variant(twin_critics=True, target_noise=True, policy_delay=2),
    "iddpg": Variant(centralised=False),
    "joint": Variant(),
    "masac": Variant(twin_critics=True),
    "isac": Variant(centralised=False, twin_critics=True),
    "hatd3": Variant(twin_critics=True, target_noise=True, policy_delay=2, team_critic=True, sequential=True),
    "hasac": Variant(twin_critics=True, team_critic=True, sequential=True),
    "facmac": Variant(team_critic=True, mixing=True),
    "m3ddpg": Variant(minimax=True),
}


@dataclass(frozen=True)
class Critic:
    """One critic of one player."""

    player: int
    network: int
    """Number of the critic's network. Critics of one network share its parameters."""
    input_columns: tuple[int, ...]
    """Columns of the critic input `[O+U+S]` that the critic reads, in its network's order."""


@dataclass(frozen=True)
class NetworkLayout:
    """The networks of a run, player by player."""

    policy_networks: tuple[int, ...]
    """Network of each player's policy. Players of one network share its parameters."""
    critics: tuple[Critic, ...]
    """The first critic of each player, in the order of the players; then the second critics."""
    target_noise: tuple[bool, ...]
    """Whether each player's target actions carry noise."""
    team_critic: tuple[bool, ...]
    """Whether each player has its critics in common with all players of its side."""
    mixing: tuple[bool, ...]
    """Whether each player's critics mix utilities of its side."""
    sequential: tuple[bool, ...]
    """Whether each player's policy is updated at its position in an order of its side, not with all others."""
    minimax: tuple[bool, ...]
    """Whether each player's critics are read with the actions of the other players changed for the worse."""
    policy_delay: int
    """Critic updates for each update of policies and targets."""
    critic_outputs: int
    """Numbers that a critic outputs: its value, or the logits of a distribution over values."""

    @property
    def twin_players(self) -> tuple[int, ...]:
        """The players that have a second critic, in the order of the second critics."""
        return tuple(critic.player for critic in self.critics[len(self.policy_networks) :])

    @property
    def critic_networks(self) -> tuple[int, ...]:
        """The network of each critic."""
        return tuple(critic.network for critic in self.critics)


def network_layout(players: PlayersSpec, network: NetworkSpec, algorithm: AlgorithmSpec) -> NetworkLayout:
    """Returns the networks of the players of a run (`Run.players`); ConfigError if players cannot share a network."""
    algorithm_by_side = algorithms_by_side(players, algorithm.variants)
    variants = [VARIANTS[algorithm_by_side[player.team]] for player in players.agents]
    _refuse_state(players, variants, algorithm_by_side, algorithm)
    _refuse_gaussians(players, network)
    _refuse_entropy_target(players, algorithm)
    separate = tuple(range(len(players.agents)))
    roles = network_groups(players, network.share)
    _refuse_mixed_roles(players, roles, algorithm_by_side, algorithm)
    _refuse_shared_heterogeneous(players, variants, algorithm_by_side, network)
    _refuse_mixing(players, variants, algorithm_by_side, network, algorithm)
    if algorithm.team_critic:
        _refuse_independent_team(players, variants, algorithm_by_side)
    sequential = tuple(variant.sequential for variant in variants)
    team_sides = sides_with_one_critic(players, algorithm)
    team = [player.team in team_sides for player in players.agents]
    _refuse_minimax(players, variants, network, team_sides)
    shared_critics = roles if network.share_critics else separate
    critic_roles = _numbers(
        ("side", players.agents[i].team) if team[i] else ("role", shared_critics[i]) for i in separate
    )
    critic = partial(_critic, players, critic_roles, sees=algorithm.critic_sees)
    first = [critic(i, variants[i], 0, in_joint_order=team[i]) for i in separate]
    offset = 1 + max(critic_roles)
    second = [critic(i, variants[i], offset, in_joint_order=team[i]) for i in separate if variants[i].twin_critics]
    return NetworkLayout(
        policy_networks=_numbers(
            ("alone", i) if sequential[i] or not network.share_policies else ("role", roles[i]) for i in separate
        ),
        critics=_numbered([*first, *second]),
        target_noise=tuple(variant.target_noise for variant in variants),
        team_critic=tuple(team),
        mixing=tuple(variant.mixing for variant in variants),
        sequential=sequential,
        minimax=tuple(variant.minimax for variant in variants),
        policy_delay=policy_delay(algorithm),
        critic_outputs=BINS if algorithm.critic_loss == "hl_gauss" else 1,
    )


def policy_delay(algorithm: AlgorithmSpec) -> int:
    """Returns the number of critic updates for each update of policies and targets."""
    names = parse_algorithms(algorithm.variants).values()
    return algorithm.policy_every or max(VARIANTS[name].policy_delay for name in names)


def sides_with_one_critic(joint: JointSpec, algorithm: AlgorithmSpec) -> frozenset[str]:
    """Returns the sides whose players have one critic: by `algorithm.team_critic`, or by the side's own algorithm."""
    algorithm_by_side = algorithms_by_side(joint, algorithm.variants)
    return frozenset(
        side for side, name in algorithm_by_side.items() if algorithm.team_critic or VARIANTS[name].team_critic
    )


def _refuse_mixed_roles(
    players: PlayersSpec, roles: Sequence[int], algorithm_by_side: dict[str, Algorithm], algorithm: AlgorithmSpec
) -> None:
    """Raises ConfigError if players of one role have different algorithms or learning rates."""
    first_users: dict[int, PlayerSpec] = {}
    for player, number in zip(players.agents, roles, strict=True):
        first_user = first_users.setdefault(number, player)
        rates = [algorithm.side_learning_rate(side) for side in (first_user.team, player.team)]
        if algorithm_by_side[first_user.team] != algorithm_by_side[player.team] or rates[0] != rates[1]:
            raise ConfigError(
                f"network.share: {first_user.name} of side {first_user.team} and {player.name} of side {player.team} "
                "cannot share networks, because their sides have different algorithms or learning rates. Give both "
                "sides the same algorithm.name and algorithm.side_learning_rates, or share within a side."
            )


def _refuse_shared_heterogeneous(
    players: PlayersSpec,
    variants: Sequence[Variant],
    algorithm_by_side: Mapping[str, Algorithm],
    network: NetworkSpec,
) -> None:
    """Raises ConfigError if `network.share` lists a player of a side whose policies are updated one after another."""
    for player, variant in zip(players.agents, variants, strict=True):
        if variant.sequential and any(player.name in names for names in network.share):
            raise ConfigError(
                f"network.share: {player.name} learns by {algorithm_by_side[player.team]}, which gives each agent its"
                f" own policy and each side one critic. Remove {player.name} from the group, or choose another"
                " algorithm."
            )


def _refuse_mixing(
    players: PlayersSpec,
    variants: Sequence[Variant],
    algorithm_by_side: Mapping[str, Algorithm],
    network: NetworkSpec,
    algorithm: AlgorithmSpec,
) -> None:
    """Raises ConfigError for settings of critics that those of FACMAC cannot have."""
    settings = {
        f"network.critic = {network.critic!r}: set network.critic=mlp": network.critic != MLP,
        f"network.recurrent = {network.recurrent!r}: set network.recurrent=none": network.recurrent is not None,
        f"algorithm.critic_loss = {algorithm.critic_loss!r}: set squared or huber": algorithm.critic_loss == "hl_gauss",
        "algorithm.critic_sees = 'state': set both or observations": algorithm.critic_sees == "state",
    }
    for player, variant in zip(players.agents, variants, strict=True):
        for setting, is_set in settings.items():
            if variant.mixing and is_set:
                raise ConfigError(
                    f"{setting}, or choose another algorithm than {algorithm_by_side[player.team]} for {player.team}, "
                    "whose critic mixes values of the members' own observations and actions."
                )


def _refuse_minimax(
    players: PlayersSpec, variants: Sequence[Variant], network: NetworkSpec, team_sides: frozenset[str]
) -> None:
    """Raises ConfigError for critics of M3DDPG that read all agents at once, or no player but their own."""
    for player, variant in zip(players.agents, variants, strict=True):
        if not variant.minimax:
            continue
        if network.critic in SET_CRITICS:
            # All critics of such a network read the same rows, and M3DDPG changes the rows of each critic differently.
            raise ConfigError(
                f"network.critic = {network.critic!r}: m3ddpg changes the other agents' actions for each critic, which"
                " critics that encode each agent once cannot read. Set network.critic=mlp, or choose another algorithm"
                f" for {player.team}."
            )
        in_team = player.team in team_sides
        users = [other for other in players.agents if other is player or (in_team and other.team == player.team)]
        if len(users) == len(players.agents):
            raise ConfigError(
                f"algorithm.name: the critics of {player.team} read no action of another player, so m3ddpg has no worst"
                f" case to learn from. Choose maddpg{', or set algorithm.team_critic=false' if len(users) > 1 else ''}."
            )


def _refuse_independent_team(
    players: PlayersSpec, variants: Sequence[Variant], algorithm_by_side: Mapping[str, Algorithm]
) -> None:
    """Raises ConfigError for a team critic of a side whose critics read one agent each."""
    for player, variant in zip(players.agents, variants, strict=True):
        if not variant.centralised:
            raise ConfigError(
                f"algorithm.team_critic = true: side {player.team} learns by {algorithm_by_side[player.team]}, whose "
                "critics read one agent each. Choose maddpg, matd3, masac or hatd3 for this side, or set "
                "algorithm.team_critic=false."
            )


def _refuse_gaussians(players: PlayersSpec, network: NetworkSpec) -> None:
    """Raises ConfigError if a player draws Box parts from a Gaussian, whose density only the head `box` has."""
    if network.head != "box" and players.gaussian_columns:
        raise ConfigError(
            f"network.head = {network.head!r}: masac, isac and hasac need the density of an action, which Shoal"
            " computes for network.head=box only. Set it, or choose another algorithm."
        )


def _refuse_entropy_target(players: PlayersSpec, algorithm: AlgorithmSpec) -> None:
    """Raises ConfigError for a target entropy that no policy of a stochastic player can have."""
    for player in players.agents:
        sizes = [part.n for part in player.parts if isinstance(part, Categorical)]
        largest = sum(map(math.log, sizes)) + len(player.gaussian_columns) * math.log(2)
        if player.stochastic and algorithm.entropy_target != "auto" and algorithm.entropy_target >= largest:
            raise ConfigError(
                f"algorithm.entropy_target = {algorithm.entropy_target:g}: the policy of {player.name} has an entropy"
                f" below {largest:.2f} nats. Set a smaller number, or auto."
            )


def _refuse_state(
    players: PlayersSpec,
    variants: Sequence[Variant],
    algorithm_by_side: Mapping[str, Algorithm],
    algorithm: AlgorithmSpec,
) -> None:
    """Raises ConfigError if `algorithm.critic_sees` requests a global state that critics cannot read."""
    if algorithm.critic_sees == "observations":
        return
    setting = f"algorithm.critic_sees = {algorithm.critic_sees!r}"
    for player, variant in zip(players.agents, variants, strict=True):
        if not variant.centralised:
            raise ConfigError(
                f"{setting}: side {player.team} learns by {algorithm_by_side[player.team]}, whose critics read one "
                "agent's observation and action only. Choose maddpg, matd3, masac or hatd3 for this side, or set "
                "algorithm.critic_sees=observations."
            )
    if not players.state_dim:
        raise ConfigError(
            f"{setting}: the transitions of this run have no global state. Start a new --run with this setting, or set "
            "algorithm.critic_sees=observations."
        )


def _critic(
    players: PlayersSpec,
    roles: Sequence[int],
    player: int,
    variant: Variant,
    offset: int,
    *,
    sees: Literal["observations", "state", "both"],
    in_joint_order: bool,
) -> Critic:
    users = [i for i, number in enumerate(roles) if number == roles[player]]
    others = [i for i in range(len(players.agents)) if i not in users]
    position = users.index(player)
    order = [*users[position:], *users[:position], *others] if variant.centralised else [player]
    if variant.centralised and (in_joint_order or len(users) == 1):
        input_columns = list(range(players.obs_dim + players.action_dim))
    else:
        input_columns = list(chain.from_iterable(_columns(players, players.agents[i]) for i in order))
    if sees == "state":
        input_columns = [column for column in input_columns if column >= players.obs_dim]
    if sees != "observations":
        input_columns += range(players.obs_dim + players.action_dim, players.critic_input_dim)
    return Critic(player, offset + roles[player], tuple(input_columns))


def _columns(players: PlayersSpec, player: PlayerSpec) -> list[int]:
    """Returns the columns of a player's observation and action in the joint observation and action."""
    action = player.action_slice
    return [
        *range(player.obs_slice.start, player.obs_slice.stop),
        *range(players.obs_dim + action.start, players.obs_dim + action.stop),
    ]


def _numbered(critics: Sequence[Critic]) -> tuple[Critic, ...]:
    """Returns the critics with their networks numbered without gaps, in order of first use."""
    numbers = _numbers(critic.network for critic in critics)
    return tuple(replace(critic, network=number) for critic, number in zip(critics, numbers, strict=True))


def _numbers(keys: Iterable[object]) -> tuple[int, ...]:
    """Returns a number for each key, equal for equal keys, without gaps in order of first use."""
    listed = list(keys)
    numbers = {key: i for i, key in enumerate(dict.fromkeys(listed))}
    return tuple(numbers[key] for key in listed)
