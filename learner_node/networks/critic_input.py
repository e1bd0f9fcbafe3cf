"""What a critic reads, for critics that know its structure: which columns of its input belong to which agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from common.spec import PlayersSpec
from learner_node.update.layout import NetworkLayout


@dataclass(frozen=True)
class AgentColumns:
    """The columns of one agent in the input of a critic."""

    obs: slice
    """Its observation; empty if critics read the global state instead (`algorithm.critic_sees`)."""
    action: slice
    """Its action."""

    @property
    def size(self) -> int:
        """Number of columns of its observation and action."""
        return int(self.obs.stop - self.obs.start + self.action.stop - self.action.start)


@dataclass(frozen=True)
class CriticInput:
    """The input of a critic: rows `[rows, size]` of the observations and actions of agents, and of the global state."""

    size: int
    """Length of a row."""
    agents: tuple[AgentColumns, ...]
    """The agents that the critic reads: all of them in the order of the world, or one of them under iddpg. A critic
    that several agents share reads its own agent first, then the others."""
    focal: tuple[int, ...]
    """Positions in `agents` of the critic's own agent, whose return it estimates; of several agents if a side learns as
    one player or has one critic (`NetworkLayout.team_critic`)."""
    state: slice
    """Columns of the environment's global state; empty if critics do not read it."""

    @property
    def structure(self) -> tuple[object, ...]:
        """The same in one value that can be hashed: networks of equal structure have equal parameters."""
        columns = chain.from_iterable((agent.obs, agent.action) for agent in self.agents)
        return self.size, self.focal, *((part.start, part.stop) for part in (*columns, self.state))


def critic_input(players: PlayersSpec, layout: NetworkLayout, number: int) -> CriticInput:
    """Returns what the critic of this number reads; the inputs of all users of its network have one form."""
    critic = layout.critics[number]
    same = [one for one in layout.critics if (one.network, one.input_columns) == (critic.network, critic.input_columns)]
    focal = {one.player for one in same}
    position = {column: i for i, column in enumerate(critic.input_columns)}
    obs_dim, state_start = players.obs_dim, players.obs_dim + players.action_dim
    found = []
    for i, player in enumerate(players.agents):
        for agent in player.members or (player,):
            obs = _positions(position, range(agent.obs_slice.start, agent.obs_slice.stop))
            action = _positions(position, range(obs_dim + agent.action_start, obs_dim + agent.action_slice.stop))
            if action.start < action.stop:
                found.append((action.start, i in focal, AgentColumns(obs, action)))
    found.sort(key=lambda one: one[0])
    return CriticInput(
        len(critic.input_columns),
        tuple(columns for _, _, columns in found),
        tuple(i for i, (_, is_focal, _) in enumerate(found) if is_focal),
        _positions(position, range(state_start, players.critic_input_dim)),
    )


def _positions(position: dict[int, int], columns: Sequence[int]) -> slice:
    """Returns where columns of all inputs are in the input of a critic; an empty slice if it does not read them."""
    found = [position[column] for column in columns if column in position]
    return slice(found[0], found[-1] + 1) if found else slice(0, 0)
