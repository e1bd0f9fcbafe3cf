"""What critics that encode each agent read: agents by role; each critic's own agents, teammates and opponents.

Agents of one role (same name without its number, side, sizes and kinds of action; or one group of `network.share`) have
one encoder. No torch: the launcher counts the parameters before a learner starts.

G networks of a group     K users of each network     A agents that any of these critics reads, role by role
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from common.run.players import network_groups
from common.run.run import NetworkSpec
from common.spec import AgentSpec, AgentsSpec, PlayersSpec
from learner_node.update.layout import Critic, NetworkLayout


@dataclass(frozen=True)
class RoleInput:
    """The agents of one role as critics read them."""

    columns: tuple[tuple[int, ...], ...]
    """For each agent, the columns of its observation, if critics read observations, then of its action, in the critic
    input `[O+U+S]`."""
    action_start: int
    """Position of an agent's action among its columns."""

    @property
    def size(self) -> int:
        """Number of columns of an agent."""
        return len(self.columns[0])


@dataclass(frozen=True)
class SetInput:
    """What the critics of a group read. Agents are numbered 0..A-1 in the order of the roles."""

    roles: tuple[RoleInput, ...]
    state: tuple[int, ...]
    """Columns of the global state in the critic input; empty if critics do not read it."""
    focal: tuple[tuple[tuple[int, ...], ...], ...]
    """The agents whose return each critic estimates `[G][K]`: one, or those of a side that has one critic."""
    focal_roles: tuple[int, ...]
    """The roles of these agents, which are the same for all critics of the group."""
    others: tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]
    """The other agents that each critic reads `[relations][G][K]`: its teammates and its opponents, if it has any."""

    input_dim: int
    """Length of the critic input, O + U + S."""
    acting: tuple[int, ...]
    """For each agent, the column that says whether it acts, where such columns follow the critic input."""

    @property
    def agents(self) -> int:
        """Number of agents A."""
        return sum(len(role.columns) for role in self.roles)

    @property
    def users(self) -> int:
        """Number of users K of each network."""
        return len(self.focal[0])


@dataclass(frozen=True)
class _Relations:
    """The agents that one critic reads, as numbers in the order of the world."""

    focal: tuple[int, ...]
    teammates: tuple[int, ...]
    opponents: tuple[int, ...]

    @property
    def read(self) -> tuple[int, ...]:
        """All of them."""
        return *self.focal, *self.teammates, *self.opponents


class AgentSets:
    """The agents of a run as its critics read them.

    Example:
        sets = AgentSets(players, layout, network)
        one_module = sets.structure(0) == sets.structure(1)
        inputs = sets.of([[0, 1, 2], [3, 4, 5]])
    """

    def __init__(self, players: PlayersSpec, layout: NetworkLayout, network: NetworkSpec) -> None:
        self._critics, self._obs_dim, self._input_dim = layout.critics, players.obs_dim, players.critic_input_dim
        members = [player.members or (player,) for player in players.agents]
        self._agents = [agent for agents in members for agent in agents]
        self._player_of = [i for i, agents in enumerate(members) for _ in agents]
        self._roles = network_groups(AgentsSpec(tuple(self._agents), players.state_dim), network.share)
        inputs = set(self._critics[0].input_columns)
        self._reads_obs = any(column < players.obs_dim for column in inputs)
        state = tuple(range(players.obs_dim + players.action_dim, players.critic_input_dim))
        self._state = tuple(column for column in state if column in inputs)
        self._relations = [self._relations_of(critic) for critic in self._critics]

    def structure(self, number: int) -> Hashable:
        """Returns a value that critics have in common if one module can compute them; number: that of the critic."""
        network, found = self._critics[number].network, self._relations[number]
        alike = [one for one, critic in zip(self._relations, self._critics, strict=True) if critic.network == network]
        read = tuple(sorted({agent for one in alike for agent in one.read}))
        return read, tuple(self._roles[i] for i in found.focal), bool(found.teammates), bool(found.opponents)

    def of(self, users: Sequence[Sequence[int]]) -> SetInput:
        """Returns the input of a group of equal structure; users: the critics of each network."""
        critics = [[self._relations[number] for number in by_network] for by_network in users]
        read = {agent for by_network in critics for one in by_network for agent in one.read}
        order = sorted(read, key=lambda agent: (self._roles[agent], agent))
        roles = sorted({self._roles[agent] for agent in order})
        focal, teammates, opponents = (
            tuple(tuple(tuple(map(order.index, getattr(one, name))) for one in by_network) for by_network in critics)
            for name in ("focal", "teammates", "opponents")
        )
        return SetInput(
            roles=tuple(self._role([agent for agent in order if self._roles[agent] == role]) for role in roles),
            state=self._state,
            focal=focal,
            focal_roles=tuple(roles.index(self._roles[agent]) for agent in critics[0][0].focal),
            others=tuple(relation for relation in (teammates, opponents) if relation[0][0]),
            input_dim=self._input_dim,
            acting=tuple(self._input_dim + self._agents[agent].action_slice.start for agent in order),
        )

    def _role(self, numbers: Sequence[int]) -> RoleInput:
        agents = [self._agents[i] for i in numbers]
        obs = [range(agent.obs_slice.start, agent.obs_slice.stop) if self._reads_obs else () for agent in agents]
        columns = [(*seen, *self._action_columns(agent)) for seen, agent in zip(obs, agents, strict=True)]
        return RoleInput(tuple(columns), len(obs[0]))

    def _action_columns(self, agent: AgentSpec) -> range:
        return range(self._obs_dim + agent.action_slice.start, self._obs_dim + agent.action_slice.stop)

    def _relations_of(self, critic: Critic) -> _Relations:
        # The critics of a team are one network with one input, and are computed once.
        key = critic.network, critic.input_columns
        players = {one.player for one in self._critics if (one.network, one.input_columns) == key}
        columns = set(critic.input_columns)
        read = [i for i, agent in enumerate(self._agents) if self._action_columns(agent).start in columns]
        focal = tuple(i for i in read if self._player_of[i] in players)
        others = [i for i in read if i not in focal]
        side = self._agents[focal[0]].team
        return _Relations(
            focal,
            tuple(i for i in others if self._agents[i].team == side),
            tuple(i for i in others if self._agents[i].team != side),
        )


def parameter_count(players: PlayersSpec, layout: NetworkLayout, network: NetworkSpec) -> int:
    """Returns the number of learnt parameters of all critics; a shared network counts once."""
    sets = AgentSets(players, layout, network)
    users: dict[int, list[int]] = {}
    for number, critic in enumerate(layout.critics):
        users.setdefault(critic.network, []).append(number)
    return sum(_parameters(sets.of([numbers]), network, layout.critic_outputs) for numbers in users.values())


def _parameters(inputs: SetInput, network: NetworkSpec, outputs: int) -> int:
    """Returns the number of parameters of one network."""
    first, *hidden = network.critic_hidden
    norms = network.critic_norms
    encoders = sum(
        (role.size + norms + (len(role.columns) if network.tell_apart else 1)) * first for role in inputs.roles
    )
    attention = (3 * first + 1) * first if network.critic == "attention" and inputs.others else 0
    contexts = min(len(inputs.others), 1) if network.critic == "attention" else len(inputs.others)
    shapes = pairwise(((1 + contexts) * first + len(inputs.state), *hidden, outputs))
    return encoders + attention + norms * sum(hidden) + sum((i + 1) * o for i, o in shapes)
