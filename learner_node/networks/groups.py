"""Groups of networks: which networks are computed together, the rows that they read, and where their outputs belong.

Networks of equal sizes and equally many users form a group. A network that several players share is one network over
the rows of all its users. Nothing is padded or copied: unequal networks are in separate groups.

G networks of a group     K users of each network     B rows of the batch     N players     C critics
O, U, S  length of the joint observation, of the joint action, of the global state (0 if critics do not read it)
The rows of a network are `[B * K]`: the rows of its users alternate.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from common.run.run import SET_CRITICS, NetworkSpec
from common.spec import PlayersSpec
from learner_node.networks.agent_sets import AgentSets
from learner_node.networks.critic_input import critic_input
from learner_node.networks.grouped import InputChange
from learner_node.networks.mixing_input import mixing_input
from learner_node.update.layout import Critic, NetworkLayout


class Group(NamedTuple):
    """The networks of one group."""

    networks: list[int]
    """Their numbers, in increasing order."""
    users: list[list[int]]
    """The users of each network: players of a policy, critics of a critic network."""


def position_of(groups: Sequence[Group], user: int) -> tuple[int, int, int]:
    """Returns a user's group, its network within the group, and its position among the network's users."""
    return next(
        (i, k, users.index(user))
        for i, group in enumerate(groups)
        for k, users in enumerate(group.users)
        if user in users
    )


class _Columns:
    """Columns of rows `[B, ...]` as the inputs of a group's networks."""

    def __init__(self, columns: Sequence[Sequence[Sequence[int]]], device: torch.device) -> None:
        """columns: for each network and each of its users, the columns that it reads in its order."""
        self._networks = len(columns)
        # Networks that read the same columns, such as the two critics of a player, read one set of rows.
        self._is_same = all(by_user == columns[0] for by_user in columns)
        read = columns[:1] if self._is_same else columns
        flat = list(chain.from_iterable(chain.from_iterable(read)))
        is_range = flat == list(range(flat[0], flat[0] + len(flat)))
        self._columns: slice | Tensor
        self._columns = slice(flat[0], flat[0] + len(flat)) if is_range else torch.tensor(flat, device=device)
        self._shape = len(read), len(columns[0]), len(columns[0][0])

    def of(self, rows: Tensor) -> Tensor:
        """Returns the inputs `[G, B * K, columns]`."""
        networks, users, columns = self._shape
        found = rows[:, self._columns] if isinstance(self._columns, slice) else rows.index_select(1, self._columns)
        by_network = found.view(len(rows), networks, users * columns).transpose(0, 1)
        return by_network.reshape(networks, -1, columns).expand(self._networks, -1, -1)


class _AllColumns:
    """Rows `[B, ...]` as they are, as the inputs of networks that select columns themselves."""

    def __init__(self, networks: int) -> None:
        self._networks = networks

    def of(self, rows: Tensor) -> Tensor:
        """Returns the inputs `[G, B, columns]`."""
        return rows.expand(self._networks, -1, -1)


class PolicyGroups:
    """The groups of the policies: joint observations are their inputs; joint logits, and more, their outputs."""

    def __init__(self, players: PlayersSpec, layout: NetworkLayout, device: torch.device) -> None:
        sizes = {i: (player.obs_dim, player.action_dim, player.output_dim) for i, player in enumerate(players.agents)}
        self.groups = _groups(dict(enumerate(layout.policy_networks)), sizes)
        agents = players.agents
        self._obs = [
            _Columns([[_range(agents[i].obs_slice) for i in users] for users in group.users], device)
            for group in self.groups
        ]
        self._sizes = [(len(group.users[0]), agents[group.users[0][0]].output_dim) for group in self.groups]
        # The logits of all players come first, then the other outputs of all players.
        ends = list(accumulate((len(agent.gaussian_columns) for agent in agents), initial=players.action_dim))
        others = [range(*columns) for columns in pairwise(ends)]
        order = [column for i in _users(self.groups) for column in (*_range(agents[i].action_slice), *others[i])]
        self._order = _positions(range(ends[-1]), order, device)

    def inputs(self, obs: Tensor) -> list[Tensor]:
        """Returns the inputs of each group `[G, B * K, o]` from joint observations `[B, O]`."""
        return [columns.of(obs) for columns in self._obs]

    def joint_outputs(self, outputs: Sequence[Tensor]) -> Tensor:
        """Returns the joint outputs `[B, U + L]` from those of each group `[G, B * K, u]`.

        L: number of outputs besides the logits, one for each of `PlayersSpec.gaussian_columns`.
        """
        by_group = [
            output.reshape(len(output), -1, users * size).transpose(0, 1).flatten(1)
            for output, (users, size) in zip(outputs, self._sizes, strict=True)
        ]
        joint = by_group[0] if len(by_group) == 1 else torch.cat(by_group, 1)
        return joint if self._order is None else joint.index_select(1, self._order)


class CriticGroups:
    """The groups of the critics: their inputs, the actions of their players among them, and their values.

    Critics of one network that read the same columns, as those of a team, are computed once.
    """

    def __init__(self, players: PlayersSpec, layout: NetworkLayout, network: NetworkSpec, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        device = like.device
        critics, agents = layout.critics, players.agents
        by_input: dict[object, list[int]] = {}
        for i, critic in enumerate(critics):
            by_input.setdefault((critic.network, critic.input_columns), []).append(i)
        same = {alike[0]: alike for alike in by_input.values()}
        self.players_of = {i: [critics[j].player for j in alike] for i, alike in same.items()}
        """The players whose policies learn from each critic that is computed."""
        sizes: dict[int, Hashable] = {
            i: (len(critics[i].input_columns), sum(agents[j].action_dim for j in self.players_of[i])) for i in same
        }
        self._selects_columns = network.critic in SET_CRITICS
        if self._selects_columns:
            sets = AgentSets(players, layout, network)
            sizes = {i: sets.structure(i) for i in same}
        elif network.is_user_critic:
            sizes = {i: critic_input(players, layout, i).structure for i in same}
        sizes |= {i: mixing_input(players, layout, network, i) for i in same if layout.mixing[critics[i].player]}
        self.groups = _groups({i: critics[i].network for i in same}, sizes)
        self._inputs: Sequence[_AllColumns | _Columns] = [
            _AllColumns(len(group.networks))
            if self._selects_columns
            else _Columns([[critics[i].input_columns for i in users] for users in group.users], device)
            for group in self.groups
        ]
        # The policy loss reads first critics, or all of stochastic players (Haarnoja et al. 2018, equation 9). First
        # ones have lower numbers than second ones, so that they are the first networks of each group.
        policy_critics = len(critics if any(player.stochastic for player in agents) else agents)
        read = [_with_users_below(policy_critics, group) for group in self.groups]
        self.policy_counts = [len(group.networks) for group in read]
        """For each group, the number of its networks whose values the policy loss reads."""
        actions = {
            i: [column for j in one for column in _range(agents[j].action_slice)] for i, one in self.players_of.items()
        }
        self._player_action = [
            _Columns([[actions[i] for i in users] for users in group.users], device) for group in read
        ]
        # These are the same for all users of a network.
        self._player_columns = [
            torch.tensor(
                [_columns_of(actions[i], players, critics[i]) for i in (users[0] for users in group.users)],
                device=device,
            )
            for group in read
        ]
        self._user_counts = [len(group.users[0]) for group in self.groups]
        self.computed = [next(i for i, alike in same.items() if critic in alike) for critic in range(len(critics))]
        """The critic whose values are those of each critic: itself, or the first one of its team."""
        self._order = _positions(self.computed, _users(self.groups), device)
        self._policy_order = _positions(self.computed[:policy_critics], _users(read), device)
        fractions = torch.tensor([float(len(same[i])) for i in self.computed]).to(like).reciprocal()
        self.fractions = None if bool((fractions == 1.0).all()) else fractions[:, None]
        """The weight of each critic in the losses `[C, 1]`: those that are computed once count as one; None = 1."""

    def inputs(self, critic_input: Tensor, acting: Tensor | None = None) -> list[Tensor]:
        """Returns the inputs of each group `[G, B * K, inputs]` from the critic input `[B, O+U+S]`.

        acting: 0.0 in the columns of agents that do not act `[B, U]`; None if all act. Critics that select columns
        themselves read it after the critic input.
        """
        if acting is not None and self._selects_columns:
            critic_input = torch.cat([critic_input, acting], 1)
        return [columns.of(critic_input) for columns in self._inputs]

    def policy_inputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Returns those of the networks that the policy loss reads from the result of `inputs`."""
        return [rows[:count] for rows, count in zip(inputs, self.policy_counts, strict=True)]

    def player_action_changes(self, change: Tensor) -> list[InputChange]:
        """Returns, for each group, the change of the actions of each critic's players, as the policy loss reads it.

        change: difference of the actions from those in the critic input `[B, U]`.
        """
        pairs = zip(self._player_action, self._player_columns, strict=True)
        return [InputChange(columns.of(change), positions) for columns, positions in pairs]

    def values(self, outputs: Sequence[Tensor]) -> Tensor:
        """Returns the outputs of all critics `[C, B, numbers]` from those of each group `[G, B * K, numbers]`."""
        return self._in_order(outputs, self._order)

    def policy_values(self, outputs: Sequence[Tensor]) -> Tensor:
        """Returns the outputs that the policy loss reads, of first critics `[N, B, numbers]` or of all `[C, ...]`."""
        return self._in_order(outputs, self._policy_order)

    def _in_order(self, outputs: Sequence[Tensor], order: Tensor | None) -> Tensor:
        by_group = [
            output.reshape(len(output), -1, users, output.shape[2]).transpose(1, 2).flatten(0, 1)
            for output, users in zip(outputs, self._user_counts, strict=True)
        ]
        values = by_group[0] if len(by_group) == 1 else torch.cat(by_group)
        return values if order is None else values.index_select(0, order)


def _groups(network_of: Mapping[int, int], sizes: Mapping[int, Hashable]) -> list[Group]:
    """Returns the groups; network_of, sizes: the network of each user, and the sizes of that network."""
    users = {
        number: [i for i, other in network_of.items() if other == number] for number in sorted({*network_of.values()})
    }
    found: dict[Hashable, Group] = {}
    for number, members in users.items():
        group = found.setdefault((sizes[members[0]], len(members)), Group([], []))
        group.networks.append(number)
        group.users.append(members)
    return list(found.values())


def _with_users_below(limit: int, group: Group) -> Group:
    """Returns the networks of a group whose users have numbers below a limit."""
    selected = [i for i, users in enumerate(group.users) if users[0] < limit]
    return Group([group.networks[i] for i in selected], [group.users[i] for i in selected])


def _columns_of(actions: Sequence[int], players: PlayersSpec, critic: Critic) -> list[int]:
    """Returns which of a critic's inputs are these numbers of the joint action."""
    return [critic.input_columns.index(players.obs_dim + column) for column in actions]


def _users(groups: Sequence[Group]) -> list[int]:
    """Returns the users of all groups in the order of the groups' outputs."""
    return [user for group in groups for users in group.users for user in users]


def _positions(wanted: Sequence[int], order: Sequence[int], device: torch.device) -> Tensor | None:
    """Returns the position in an order of each wanted number; None if the order is the wanted one."""
    if list(order) == list(wanted):
        return None
    position = {number: i for i, number in enumerate(order)}
    return torch.tensor([position[number] for number in wanted], device=device)


def _range(columns: slice) -> range:
    return range(columns.start, columns.stop)
