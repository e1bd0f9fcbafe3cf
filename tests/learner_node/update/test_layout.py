"""Which columns each critic reads, compared with a plain description of them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import PlayersSpec
from learner_node.update.layout import network_layout
from tests.learner_node.teams import TEAMS

GROUPS = {
    "spread": [[0, 1, 2]],
    "tag": [[0, 1, 2], [3]],
    "mixed": [[0], [1, 2], [3], [4]],
    "masked": [[0, 1], [2], [3], [4]],
}
"""The players that share networks: neighbours of one name (without number), side and size."""


def own(joint: PlayersSpec, i: int) -> list[int]:
    """Returns the columns of player i's observation and action."""
    obs = sum(player.obs_dim for player in joint.agents[:i])
    action = joint.obs_dim + sum(player.action_dim for player in joint.agents[:i])
    return [*range(obs, obs + joint.agents[i].obs_dim), *range(action, action + joint.agents[i].action_dim)]


@pytest.mark.parametrize("team", GROUPS)
def test_a_shared_critic_reads_its_player_then_the_other_users_in_turn_then_all_others(team: str) -> None:
    joint = players(TEAMS[team], "maddpg")
    layout = network_layout(joint, NetworkSpec(), AlgorithmSpec(name="maddpg"))
    for group in GROUPS[team]:
        for position, i in enumerate(group):
            order = group[position:] + group[:position] + [j for j in range(len(joint.agents)) if j not in group]
            expected = [column for j in order for column in own(joint, j)]
            if len(group) == 1:
                expected = list(range(joint.obs_dim + joint.action_dim))
            assert list(layout.critics[i].input_columns) == expected
            assert layout.critics[i].network == GROUPS[team].index(group)


@pytest.mark.parametrize("team", GROUPS)
@pytest.mark.parametrize("shared", [True, False])
def test_a_critic_of_iddpg_reads_its_own_player(team: str, *, shared: bool) -> None:
    joint = players(TEAMS[team], "iddpg")
    layout = network_layout(joint, NetworkSpec(share_critics=shared), AlgorithmSpec(name="iddpg"))
    assert [list(critic.input_columns) for critic in layout.critics] == [
        own(joint, i) for i in range(len(joint.agents))
    ]


@pytest.mark.parametrize("sees", ["state", "both"])
def test_a_critic_that_reads_the_state_reads_it_last(sees: str) -> None:
    joint = players(replace(TEAMS["tag"], state_dim=6), "maddpg")
    algorithm = AlgorithmSpec(name="maddpg", critic_sees=sees)  # type: ignore[arg-type]
    critics = network_layout(joint, NetworkSpec(), algorithm).critics
    state = list(range(joint.obs_dim + joint.action_dim, joint.obs_dim + joint.action_dim + 6))
    read = [column for j in (1, 2, 0, 3) for column in own(joint, j)]
    if sees == "state":
        read = [column for column in read if column >= joint.obs_dim]
    assert list(critics[1].input_columns) == read + state


def test_second_critics_read_what_the_first_ones_do_with_networks_of_their_own() -> None:
    layout = network_layout(players(TEAMS["tag"], "matd3"), NetworkSpec(), AlgorithmSpec(name="matd3"))
    first, second = layout.critics[:4], layout.critics[4:]
    assert [critic.input_columns for critic in first] == [critic.input_columns for critic in second]
    assert layout.critic_networks == (0, 0, 0, 1, 2, 2, 2, 3)
