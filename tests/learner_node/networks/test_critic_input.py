"""What a critic is told about the structure of its input: which columns are whose."""

from __future__ import annotations

import pytest

from common.run.players import players
from common.run.run import AlgorithmSpec, NetworkSpec
from common.spec import AgentsSpec
from learner_node.networks.critic_input import AgentColumns, critic_input
from learner_node.update.layout import network_layout
from tests.learner_node.teams import TEAMS

SHARED, SEPARATE = NetworkSpec(), NetworkSpec(share_policies=False, share_critics=False)
NONE = slice(0, 0)


def test_a_shared_critic_reads_its_own_agent_first() -> None:
    spread = players(TEAMS["spread"], "maddpg")  # three agents with 18 observations and 5 action numbers each
    layout = network_layout(spread, SHARED, AlgorithmSpec(name="maddpg"))
    agents = tuple(AgentColumns(slice(i, i + 18), slice(i + 18, i + 23)) for i in (0, 23, 46))
    for i in range(3):
        found = critic_input(spread, layout, i)
        assert (found.size, found.agents, found.focal, found.state) == (69, agents, (0,), NONE)
        assert [agent.size for agent in found.agents] == [23, 23, 23]


def test_a_separate_critic_reads_all_observations_then_all_actions() -> None:
    tag = players(TEAMS["tag"], "maddpg")  # three adversaries with 16 observations, one agent with 14; 5 numbers each
    layout = network_layout(tag, SEPARATE, AlgorithmSpec(name="maddpg"))
    for i in range(4):
        found = critic_input(tag, layout, i)
        assert [agent.obs for agent in found.agents] == [slice(0, 16), slice(16, 32), slice(32, 48), slice(48, 62)]
        assert [agent.action for agent in found.agents] == [slice(62 + 5 * k, 67 + 5 * k) for k in range(4)]
        assert found.focal == (i,)


def test_iddpg_reads_one_agent() -> None:
    spread = players(TEAMS["spread"], "iddpg")
    layout = network_layout(spread, SHARED, AlgorithmSpec(name="iddpg"))
    found = critic_input(spread, layout, 2)
    assert (found.size, found.agents, found.focal) == (23, (AgentColumns(slice(0, 18), slice(18, 23)),), (0,))


def test_a_side_that_learns_as_one_has_several_agents_of_its_own() -> None:
    tag = players(TEAMS["tag"], "joint")
    layout = network_layout(tag, SEPARATE, AlgorithmSpec(name="joint"))
    first, second = (critic_input(tag, layout, i) for i in range(2))
    assert len(first.agents) == len(second.agents) == 4
    assert (first.focal, second.focal) == ((0, 1, 2), (3,))


@pytest.mark.parametrize(("sees", "obs", "state"), [("state", NONE, slice(10, 15)), ("both", slice(0, 18), None)])
def test_the_state_follows_what_else_is_read(sees: str, obs: slice, state: slice | None) -> None:
    agents = AgentsSpec(TEAMS["spread"].agents[:2], state_dim=5)
    spread = players(agents, "maddpg")
    algorithm = AlgorithmSpec(name="maddpg", critic_sees=sees)  # type: ignore[arg-type]
    found = critic_input(spread, network_layout(spread, SEPARATE, algorithm), 0)
    assert found.agents[0].obs == obs
    assert found.state == (state or slice(46, 51))


def test_the_structure_tells_critics_apart_whose_modules_could_differ() -> None:
    mixed = players(TEAMS["mixed"], "maddpg")
    layout = network_layout(mixed, SEPARATE, AlgorithmSpec(name="maddpg"))
    assert len({critic_input(mixed, layout, i).structure for i in range(5)}) == 5
    twins = network_layout(mixed, SEPARATE, AlgorithmSpec(name="matd3"))
    assert critic_input(mixed, twins, 0).structure == critic_input(mixed, twins, 5).structure


def test_a_teams_critic_has_all_members_as_its_own() -> None:
    tag = players(TEAMS["tag"], "matd3")
    layout = network_layout(tag, SHARED, AlgorithmSpec(name="matd3", team_critic=True))
    assert [critic_input(tag, layout, i).focal for i in range(8)] == [(0, 1, 2)] * 3 + [(3,)] + [(0, 1, 2)] * 3 + [(3,)]
