"""What is said of a run before it starts, and what is refused: for teams of all kinds of names and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from common.errors import ConfigError
from common.run.players import with_sides
from common.run.run import RunSpec, make_run_spec
from common.spec import AgentsSpec, Box, Categorical, joint_spec
from learner_node.run_checks.sizes import Sizes, refuse_large_learner, refuse_large_run, sizes_of
from learner_node.stacked.update import StackedUpdate
from tests.learner_node.teams import TEAMS, run_for

PUSH = Box((-1.0,), (1.0,))
GIB = 2**30


def test_networks_that_the_engine_stacked_does_not_cover_are_refused() -> None:
    agents = team("red", "blue")
    for network, named in (
        ({"activation": "tanh"}, "activation=tanh"),
        ({"policy_layer_norm": True}, "policy_layer_norm="),
    ):
        spec = spec_of(engine="stacked", **network)
        with pytest.raises(ConfigError, match=rf"network\.{named}.* Set algorithm\.engine=auto"):
            sizes_of(spec, agents)
        with pytest.raises(ConfigError, match=rf"network\.{named}"):
            StackedUpdate(run_for(agents, spec.network, spec.algorithm), torch.zeros(()))
        assert sizes_of(spec_of(**network), agents).engine.name == "autograd"


def team(*names: str, sides: tuple[str, ...] | None = None, obs: int = 3) -> AgentsSpec:
    return joint_spec([(name, side, obs, (PUSH,)) for name, side in zip(names, sides or names, strict=True)])


def spec_of(algorithm: str = "maddpg", engine: str = "auto", **network: object) -> RunSpec:
    settings = {"name": algorithm, "engine": engine}
    return make_run_spec({"scenario": "tiny", "algorithm": settings, "network": network})


@pytest.mark.parametrize(
    ("agents", "spec", "said"),
    [
        (
            team("player_0", "player_1", sides=("player", "player")),
            spec_of(),
            "player (player_0, player_1: one policy, one critic)",
        ),
        (
            team("player_0", "player_1", sides=("player", "player")),
            spec_of("matd3", share_critics=False),
            "player (player_0, player_1: one policy, 4 critics)",
        ),
        (team("agent0", "agent1"), spec_of(), "agent0, agent1 (a side each: nothing is shared)"),
        (team("0", "1", "2"), spec_of(), "0, 1, 2 (a side each: nothing is shared)"),
        (
            team("uav-0", "uav-1", "bs", sides=("air", "air", "ground")),
            spec_of(),
            "air (uav-0, uav-1: one policy, one critic); ground (bs: one policy, one critic)",
        ),
        (
            team("red", "blue"),
            spec_of(share=[["red", "blue"]]),
            "red (red); blue (blue); shared across sides: red, blue: one policy, one critic",
        ),
        (
            team("a_0", "a_1", sides=("a", "a")),
            spec_of(share_policies=False, share_critics=False),
            "a (a_0, a_1: each has its own networks)",
        ),
        (
            team(*(f"bot_{i}" for i in range(40)), sides=("bot",) * 40),
            spec_of(),
            "bot (bot_0, bot_1, ..., bot_39 (40): one policy, one critic)",
        ),
        (team("l", "r", sides=("pair", "pair")), spec_of("joint"), "pair (pair-team: one policy, one critic)"),
    ],
)
def test_sides_and_who_shares_are_said(agents: AgentsSpec, spec: RunSpec, said: str) -> None:
    assert sizes_of(spec, agents).sides == said


def test_numbers_are_said_for_agents_that_are_alike_together() -> None:
    sizes = sizes_of(spec_of(), TEAMS["tag"])
    assert sizes.agents == (
        "adversary_0, adversary_1, adversary_2 observe 16 numbers, act with 5; agent_0 observes 14 numbers, acts with 5"
    )


@pytest.mark.parametrize("algorithm", ["maddpg", "matd3", "iddpg", "joint"])
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("kind", ["tag", "spread", "alone"])
def test_parameters_are_those_of_the_networks_themselves(kind: str, algorithm: str, *, shares: bool) -> None:
    spec = spec_of(algorithm, share_policies=shares, share_critics=shares, policy_hidden=[8, 4], critic_hidden=[6])
    made = StackedUpdate(run_for(TEAMS[kind], spec.network, spec.algorithm), torch.zeros(()))
    sizes = sizes_of(spec, TEAMS[kind])
    assert sizes.policy_parameters == made.policies.shared.numel()
    assert sizes.critic_parameters == made.critics.shared.numel()
    assert sizes.expanded_parameters == made.policies.expanded.numel() + made.critics.expanded.numel()


def test_a_global_state_counts() -> None:
    agents = replace(TEAMS["two"], state_dim=6)
    spec = make_run_spec({"scenario": "tiny", "algorithm": {"critic_sees": "state"}})
    made = StackedUpdate(run_for(agents, spec.network, spec.algorithm), torch.zeros(()))
    sizes, without = sizes_of(spec, agents), sizes_of(spec_of(), TEAMS["two"])
    assert sizes.critic_parameters == made.critics.shared.numel()
    assert sizes.expanded_parameters == made.policies.expanded.numel() + made.critics.expanded.numel()
    assert sizes.record_bytes == without.record_bytes + 4 * 2 * 6
    assert sizes.agents == without.agents + "; critics read a global state of 6"


def test_a_transition_has_as_many_bytes_as_are_sent() -> None:
    # Two observations of 7 numbers, an action of 3, reward, discount and presence of each of two agents; a version.
    assert sizes_of(spec_of(), TEAMS["two"]).record_bytes == 4 * (2 * (7 + 7 + 3 + 3) + 1)


def refusal(sizes: Sizes, agents: AgentsSpec, gib: float, copies: float = 1.0) -> str:
    with pytest.raises(ConfigError) as caught:
        refuse_large_run(sizes, agents, int(gib * GIB), learner_bytes=sizes.learner_bytes, workers=1, copies=copies)
    return str(caught.value)


def test_pictures_are_refused_with_a_capacity_that_fits_beside_the_others() -> None:
    cameras = joint_spec([(f"p_{i}", "p", 27_648, (PUSH,)) for i in range(4)])
    sizes = sizes_of(spec_of(), cameras)
    said = refusal(sizes, cameras, 16)
    assert "--set replay.capacity=" in said
    assert "replay --capacity" not in said
    assert "pixels need a wrapper" in said
    fitting = int(said.partition("--set replay.capacity=")[2].split(".")[0])
    assert 0 < fitting * sizes.record_bytes < 16 * GIB - sizes.learner_bytes
    smaller = make_run_spec({"scenario": "tiny", "replay": {"capacity": fitting, "min_size": 100}})
    refuse_large_run(
        sizes_of(smaller, cameras), cameras, 16 * GIB, learner_bytes=sizes.learner_bytes, workers=1, copies=1.0
    )


def test_what_redis_keeps_too_needs_room_twice() -> None:
    wide = joint_spec([("w_0", "w", 2_000, (PUSH,))])
    sizes = sizes_of(make_run_spec({"scenario": "tiny", "replay": {"capacity": 1_000_000}}), wide)
    alone, with_redis = (
        int(refusal(sizes, wide, 8, copies).partition("replay.capacity=")[2].split(".")[0]) for copies in (1.0, 2.5)
    )
    assert with_redis < alone / 2
    assert "pixels" not in refusal(sizes, wide, 8)


def test_a_learner_that_does_not_fit_is_refused_whatever_the_replay() -> None:
    many = joint_spec([(f"bot_{i}", "bot", 240, (PUSH,)) for i in range(60)])
    sizes = sizes_of(spec_of("matd3", "stacked"), many)
    assert sizes.learner_bytes > 2 * GIB
    with pytest.raises(ConfigError, match=r"the learner needs about .* for 60 players"):
        refuse_large_learner(sizes, many, GIB)
    refuse_large_learner(sizes, many, 64 * GIB)
    assert "lower --actors, network.critic_hidden" in refusal(sizes, many, 1)


def test_a_long_start_is_announced_with_its_length() -> None:
    many = joint_spec([(f"bot_{i}", "bot", 240, (PUSH,)) for i in range(60)])
    sizes = sizes_of(spec_of("matd3", "stacked"), many)
    assert sizes.building.startswith("building the networks of 60 players: ")
    assert " s" in sizes.building[-4:]
    assert " s" not in sizes_of(spec_of(), TEAMS["tag"]).building[-4:]


# ---- the engine -----------------------------------------------------------------------------------------------------


def test_auto_copies_no_shared_networks_to_many_players() -> None:
    """The critic of 40 players that share it reads 40 * (240 + 1) numbers; stacked would have 80 copies of it."""
    many = joint_spec([(f"bot_{i}", "bot", 240, (PUSH,)) for i in range(40)])
    auto, stacked = sizes_of(spec_of("matd3"), many), sizes_of(spec_of("matd3", "stacked"), many)
    assert auto.engine.name == "autograd"
    assert auto.engine.line.startswith("engine: autograd (stacked would copy shared parameters to all their users")
    # Two critics with 9,640 inputs and layers of 128, 128 and 1; one policy with 240 inputs and layers of 128, 128, 1.
    critic = 9_641 * 128 + 129 * 128 + 129
    assert auto.expanded_parameters == 2 * critic + 241 * 128 + 129 * 128 + 129
    assert stacked.expanded_parameters > 80 * critic
    assert auto.learner_bytes < 1.2 * GIB < 3 * GIB < stacked.learner_bytes


def test_auto_chooses_stacked_for_the_published_worlds() -> None:
    for kind in ("spread", "tag", "speaker_listener"):
        assert sizes_of(make_run_spec({"scenario": "tiny"}), TEAMS[kind]).engine.name == "stacked"


@pytest.mark.parametrize("engine", ["autograd", "stacked"])
def test_an_engine_that_is_asked_for_is_used(engine: str) -> None:
    sizes = sizes_of(spec_of("matd3", engine), TEAMS["tag"])
    assert sizes.engine.name == engine
    assert f"engine: {engine} (algorithm.engine={engine})" in sizes.lines


# ---- sides and groups that a run names ------------------------------------------------------------------------------


def test_sides_are_those_that_the_run_names() -> None:
    agents = with_sides(team("red0", "red1", "blue"), {"red": ["red0", "red1"]})
    assert [agent.team for agent in agents.agents] == ["red", "red", "blue"]
    assert sizes_of(spec_of(), agents).sides == (
        "red (red0, red1: one policy, one critic); blue (blue: one policy, one critic)"
    )


@pytest.mark.parametrize(
    ("sides", "said"),
    [
        ({"x": ["rde"]}, "'rde' is not an agent of this run; did you mean red"),
        ({"x": ["wolf"]}, "agents: red, blue"),
        ({"x": ["red"], "y": ["red", "blue"]}, "red is on the sides x and y"),
    ],
)
def test_sides_of_nobody_and_of_two_are_refused(sides: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        with_sides(team("red", "blue"), sides)


UNLIKE = joint_spec(
    [
        ("wolf", "w", 12, (PUSH,)),
        ("sheep", "s", 10, (PUSH,)),
        ("fox", "w", 12, (PUSH,)),
        ("ox", "s", 10, (Categorical(3),)),
    ]
)


@pytest.mark.parametrize(
    ("agents", "share", "said"),
    [
        (UNLIKE, [["wolf", "sheep"]], r"wolf \(observes 12 numbers.*\) and sheep \(observes 10"),
        (UNLIKE, [["sheep", "ox"]], "sheep .* and ox .*one of 3.* cannot share networks"),
        (UNLIKE, [["wolf", "fox"]], "because sheep between them has other sizes"),
        (UNLIKE, [["wolf", "foxx"]], "'foxx' is not an agent of this run; did you mean fox"),
        (team("a", "b"), [["a", "b"], ["b"]], "b is in two groups"),
    ],
)
def test_groups_that_cannot_share_are_refused_by_name(agents: AgentsSpec, share: list[list[str]], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        sizes_of(spec_of(share=share), agents)


def test_a_group_over_sides_that_learn_in_other_ways_is_refused() -> None:
    with pytest.raises(ConfigError, match="different algorithms or learning rates"):
        sizes_of(spec_of("red=maddpg,blue=iddpg", share=[["red", "blue"]]), team("red", "blue"))


def test_agents_of_a_group_have_one_network_and_all_others_their_own() -> None:
    """Also those of a group that do not stand side by side."""
    agents = team("uav-0", "bs", "uav-1", "uav-2")
    spec = spec_of("matd3", share=[["uav-0", "uav-1"]], policy_hidden=[4], critic_hidden=[4])
    made = StackedUpdate(run_for(agents, spec.network, spec.algorithm), torch.zeros(()))
    made.policies.gradient.first_bias.copy_(torch.arange(16.0).view(4, 1, 4))
    made.set_rates(0.1, 0.1)
    made.policies.step()
    weights = made.policy_weights().reshape(4, -1)
    np.testing.assert_array_equal(weights[0], weights[2])
    assert len({row.tobytes() for row in weights}) == 3
    assert made.layout.policy_networks == (0, 1, 0, 2)
    assert {critic.network for critic in made.layout.critics if critic.player in (0, 2)} == {0, 3}
