"""What the critics of FACMAC read: the columns of each member of a side, and those that the mixing network reads.

No torch: the launcher counts the parameters before a learner starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from common.run.players import network_groups
from common.run.run import NetworkSpec
from common.spec import PlayersSpec
from learner_node.networks.critic_input import critic_input
from learner_node.update.layout import NetworkLayout

MIXING_UNITS = 32
"""Units of the mixing network, and of the network that computes its last bias (Rashid et al. 2018)."""

Shapes = tuple[tuple[int, int], ...]
"""Inputs and outputs of each layer of a network."""


@dataclass(frozen=True)
class MixingInput:
    """What the critic of a side reads, as positions in its input."""

    utilities: tuple[tuple[tuple[int, ...], ...], ...]
    """For each utility network, and each member of the side that it serves: the member's observation and action."""
    state: tuple[int, ...]
    """What the mixing network reads: everything but the side's own actions."""

    @property
    def members(self) -> int:
        """Number of members of the side."""
        return sum(map(len, self.utilities))

    def utility_shapes(self, network: NetworkSpec) -> tuple[Shapes, ...]:
        """Returns the layers of each utility network."""
        return tuple(tuple(pairwise((len(users[0]), *network.critic_hidden, 1))) for users in self.utilities)

    @property
    def mixing_shapes(self) -> tuple[Shapes, ...]:
        """The layers of the networks that make the mixing network's first weights and biases, last weights and bias."""
        size = len(self.state)
        return (
            ((size, self.members * MIXING_UNITS),),
            ((size, MIXING_UNITS),),
            ((size, MIXING_UNITS),),
            ((size, MIXING_UNITS), (MIXING_UNITS, 1)),
        )

    def parameter_count(self, network: NetworkSpec) -> int:
        """Returns the number of learnt parameters."""
        shapes = [layer for layers in (*self.utility_shapes(network), *self.mixing_shapes) for layer in layers]
        norms = network.critic_norms * sum(network.critic_hidden) * len(self.utilities)
        # With `network.tell_apart` each member has separate first biases.
        biases = (self.members - len(self.utilities)) * network.critic_hidden[0] if network.tell_apart else 0
        return norms + biases + sum((i + 1) * o for i, o in shapes)


def mixing_input(players: PlayersSpec, layout: NetworkLayout, network: NetworkSpec, number: int) -> MixingInput:
    """Returns what the critic of this number reads; members of one role have one utility network, if critics share."""
    found = critic_input(players, layout, number)
    side = players.agents[layout.critics[number].player].team
    players_of_side = [i for i, player in enumerate(players.agents) if player.team == side]
    roles = network_groups(players, network.share) if network.share_critics else range(len(players.agents))
    columns: dict[int, list[tuple[int, ...]]] = {}
    side_actions: set[int] = set()
    for player, position in zip(players_of_side, found.focal, strict=True):
        agent = found.agents[position]
        obs, action = (range(part.start, part.stop) for part in (agent.obs, agent.action))
        columns.setdefault(roles[player], []).append((*obs, *action))
        side_actions.update(action)
    return MixingInput(
        tuple(tuple(users) for users in columns.values()),
        tuple(column for column in range(found.size) if column not in side_actions),
    )
