"""Cross-play: who plays with whom, and what is refused."""

import numpy as np
import pytest

from actor_node.evaluation.evaluate import evaluate
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import BASELINES, FROZEN, RANDOM, SCRIPTED, UNTRAINED, RandomTeam, load_teams
from actor_node.evaluation.tournament import CrossPlay, run_tournament
from actor_node.opponents import frozen_scenarios, frozen_team
from common.errors import ConfigError
from common.policy.network import Policy
from common.run.directory import RunDirectory
from common.spec import Box
from common.worlds import world_spec
from tests.actor_node.teams import make_team
from tests.common.examples import MIXED

FAST = EvalTask(fast=True)
WIDE = {"policy_hidden": (40, 24)}


def names(*directories: RunDirectory) -> list[str]:
    return [str(directory.path) for directory in directories]


class Constant:
    """Acts one number everywhere."""

    def __init__(self, value, size):
        self.value, self.size = value, size

    def act(self, obs):
        return np.full((len(obs), self.size), self.value, np.float32)


# ---- who acts -----------------------------------------------------------------------------------------------------


def test_one_side_acts_by_the_first_team_and_all_others_by_the_second():
    joint = world_spec("simple_world_comm")
    team = CrossPlay(joint, "adversary", Constant(1, joint.action_dim), Constant(2, joint.action_dim))
    actions = team.act(np.zeros((3, joint.obs_dim), np.float32))
    for agent in joint.agents:
        assert (actions[:, agent.action_slice] == (1 if agent.team == "adversary" else 2)).all(), agent.name


def test_what_a_side_does_hangs_on_nothing_but_what_it_sees(tmp_path):
    """Decentralised: other observations of the other side change no action of this one."""
    team = make_team(tmp_path / "a", "simple_tag", 1)
    _, (entrant,) = load_teams(names(team), 0)
    joint = team.run.joint
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(5, joint.obs_dim)).astype(np.float32)
    other = obs.copy()
    other[:, joint.agents[-1].obs_slice] = rng.normal(size=(5, joint.agents[-1].obs_dim))
    first, second = entrant.make_actor().act(obs), entrant.make_actor().act(other)
    chasers = slice(0, joint.agents[-1].action_start)
    np.testing.assert_array_equal(first[:, chasers], second[:, chasers])
    assert not np.array_equal(first[:, chasers.stop :], second[:, chasers.stop :])


def test_a_random_team_acts_within_its_bounds_and_anew_in_every_step():
    team = RandomTeam(MIXED, 3)
    first, second = team.act(np.zeros((400, MIXED.obs_dim))), team.act(np.zeros((400, MIXED.obs_dim)))
    assert first.dtype == np.float32
    assert not np.array_equal(first, second)
    for agent in MIXED.agents:
        for part, where in zip(agent.parts, agent.part_slices, strict=True):
            rows = first[:, agent.action_slice][:, where]
            if isinstance(part, Box):
                middle = (np.array(part.low) + np.array(part.high)) / 2
                assert (rows >= part.low).all()
                assert (rows <= part.high).all()
                np.testing.assert_allclose(rows.mean(axis=0), middle, atol=0.25)
            else:
                assert (rows.sum(axis=1) == 1).all()
                assert (rows.sum(axis=0) > 0).all()


def test_untrained_is_a_network_of_the_seed(tmp_path):
    team = make_team(tmp_path / "a", "simple_push")
    obs = np.random.default_rng(0).normal(size=(4, team.run.joint.obs_dim)).astype(np.float32)
    acted = [load_teams([*names(team), UNTRAINED], seed)[1][1].make_actor().act(obs) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(acted[0], acted[1])
    assert not np.array_equal(acted[0], acted[2])


# ---- what comes of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recurrent", [None, "gru"])
def test_a_team_against_itself_earns_what_its_evaluation_says(tmp_path, recurrent):
    team = make_team(tmp_path / "a", "simple_tag", 1, network={"policy_hidden": (16, 8), "recurrent": recurrent})
    run, entrants = load_teams(names(team), 5)
    (pairing,) = run_tournament(run, entrants, 30, 5, FAST).pairings
    alone = evaluate(team, 30, 5, task=FAST)
    assert pairing.returns["adversary"].mean == pytest.approx(alone.return_per_agent["adversary_0"])
    assert pairing.returns["agent"].mean == pytest.approx(alone.return_per_agent["agent_0"])
    assert pairing.metrics == alone.metrics


@pytest.mark.slow
def test_teams_of_other_networks_and_algorithms_play_together(tmp_path):
    teams = [
        make_team(tmp_path / "a", "simple_adversary", 1, algorithm={"name": "maddpg"}),
        make_team(
            tmp_path / "b", "simple_adversary", 2, algorithm={"name": "adversary=iddpg,agent=joint"}, network=WIDE
        ),
        make_team(tmp_path / "c", "simple_adversary", 3, network={"head": "soft"}),
    ]
    run, entrants = load_teams([*names(*teams), RANDOM], 7)
    result = run_tournament(run, entrants, 12, 7, FAST)
    assert [(pairing.side, pairing.others) for pairing in result.pairings] == [
        (first.name, second.name) for first in entrants for second in entrants
    ]
    returns = {tuple(figure.mean for figure in pairing.returns.values()) for pairing in result.pairings}
    assert len(returns) == 16, "each pairing is another game"
    for pairing in result.pairings:
        low, high = pairing.returns["agent"].ci95
        assert low <= pairing.returns["agent"].mean <= high
        assert set(pairing.metrics) >= {"agent_success", "adversary_success"}


def test_a_pairing_does_not_hang_on_who_else_plays(tmp_path):
    a, b = (make_team(tmp_path / name, "simple_push", i) for i, name in enumerate("ab"))
    few, many = ([*names(a), RANDOM], [RANDOM, *names(b, a), UNTRAINED])
    found = []
    for entered in (few, many):
        run, entrants = load_teams(entered, 3)
        result = run_tournament(run, entrants, 10, 3, FAST)
        found.append({(p.side, p.others): p for p in result.pairings})
    for key, pairing in found[0].items():
        assert found[1][key] == pairing


@pytest.mark.slow
def test_mpe2_and_the_batched_world_come_to_the_same(tmp_path):
    teams = [make_team(tmp_path / name, "simple_push", i) for i, name in enumerate("ab")]
    run, entrants = load_teams(names(*teams), 3)
    real, fast = (run_tournament(run, entrants, 4, 3, task) for task in (EvalTask(), FAST))
    assert (real.world, fast.world) == ("mpe2:simple_push", "simple_push")
    assert real.pairings == fast.pairings


def test_standings_are_means_over_the_opponents_named_or_all_others(tmp_path):
    teams = [make_team(tmp_path / name, "simple_push", i) for i, name in enumerate("ab")]
    entered = [*names(*teams), RANDOM]
    run, entrants = load_teams(entered, 3)
    by_all, by_one = (run_tournament(run, entrants, 6, 3, FAST, opponents=opponents) for opponents in ((), (RANDOM,)))
    met = {(p.side, p.others): p.returns for p in by_all.pairings}
    a, b, _ = entered
    agent = by_all.standings[0].return_by_side["agent"]
    assert agent.mean == pytest.approx((met[b, a]["agent"].mean + met[RANDOM, a]["agent"].mean) / 2)
    assert by_one.standings[0].return_by_side["adversary"] == met[a, RANDOM]["adversary"]
    assert by_one.standings[2].return_by_side["agent"] == met[RANDOM, RANDOM]["agent"]


def test_a_standing_counts_an_episode_once_however_many_opponents_met_it(tmp_path):
    """Opponents who act alike add nothing: the interval is that of one of them, not narrower."""
    teams = [make_team(tmp_path / "a", "simple_push"), *(make_team(tmp_path / name, "simple_push", 7) for name in "bc")]
    run, entrants = load_teams(names(*teams), 3)
    result = run_tournament(run, entrants, 8, 3, FAST)
    one = {(p.side, p.others): p.returns for p in result.pairings}[entrants[0].name, entrants[1].name]
    assert result.standings[0].return_by_side["adversary"] == one["adversary"]


def test_rows_may_play_the_other_side(tmp_path):
    teams = [make_team(tmp_path / name, "simple_push", i) for i, name in enumerate("ab")]
    run, entrants = load_teams(names(*teams), 3)
    one, other = (run_tournament(run, entrants, 6, 3, FAST, side=side) for side in ("adversary", "agent"))
    first = {(p.side, p.others): p.returns for p in one.pairings}
    assert {(p.others, p.side): p.returns for p in other.pairings} == first


# ---- those that are shipped ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario", ["simple_adversary", "simple_crypto", "simple_push", "simple_tag", "simple_world_comm"]
)
def test_frozen_teams_beat_untrained_ones_by_more_than_both_intervals(scenario, tmp_path):
    team = make_team(tmp_path / "a", scenario)
    run, entrants = load_teams([*names(team), FROZEN, UNTRAINED], 1_000_000)
    result = run_tournament(run, entrants[1:], 200, 1_000_000, FAST)
    met = {(p.side, p.others): p.returns for p in result.pairings}
    first, second = run.joint.sides
    assert met[FROZEN, UNTRAINED][first].ci95[0] > met[UNTRAINED, UNTRAINED][first].ci95[1]
    assert met[UNTRAINED, FROZEN][second].ci95[0] > met[UNTRAINED, UNTRAINED][second].ci95[1]


def test_frozen_teams_are_small_and_of_the_scenario_they_are_named_after():
    for scenario in frozen_scenarios():
        team = frozen_team(scenario)
        assert (team.run.spec.scenario, team.run.spec.network.policy_hidden) == (scenario, (64, 64))
        assert team.updates > 5_000
        assert isinstance(Policy(team.run.players, team.run.spec.network, team.flat), Policy)


# ---- mistakes -----------------------------------------------------------------------------------------------------


def test_who_cannot_play_together_is_named(tmp_path):
    a = make_team(tmp_path / "a", "simple_tag")
    cases = {
        "Name runs of one scenario": [*names(a, make_team(tmp_path / "b", "simple_push"))],
        "'num_good': 2": [*names(a, make_team(tmp_path / "c", "simple_tag", world={"num_good": 2}))],
        "Name runs of the same world": [*names(a, make_team(tmp_path / "d", "simple_tag", world={"max_cycles": 50}))],
        "neither a run's directory nor one of frozen, scripted, untrained, random": [*names(a), "rnadom"],
        "named twice": [*names(a), *names(a)],
        "no run is named": [RANDOM, UNTRAINED],
        "does not contain a run": [*names(a), str(tmp_path)],
    }
    for message, entered in cases.items():
        with pytest.raises(ConfigError, match=message):
            load_teams(entered, 0)


def test_options_that_are_the_defaults_written_out_are_the_same_world(tmp_path):
    a = make_team(tmp_path / "a", "simple_tag")
    b = make_team(tmp_path / "b", "simple_tag", world={"max_cycles": 25, "num_good": 1, "dynamics": "legacy"})
    assert len(load_teams(names(a, b), 0)[1]) == 2


def test_a_game_without_sides_has_no_tournament(tmp_path):
    team = make_team(tmp_path / "a", "simple_spread")
    run, entrants = load_teams(names(team), 0)
    with pytest.raises(ConfigError, match="one side only, so its teams cannot play against each other"):
        run_tournament(run, entrants, 2, 0, FAST)


def test_sides_and_frozen_teams_that_are_not_there_are_named(tmp_path):
    team = make_team(tmp_path / "a", "simple_tag")
    run, entrants = load_teams(names(team), 0)
    with pytest.raises(ConfigError, match="--side prey: simple_tag has the sides adversary, agent"):
        run_tournament(run, entrants, 2, 0, FAST, side="prey")
    lonely = make_team(tmp_path / "b", "simple_speaker_listener")
    with pytest.raises(ConfigError, match=r"simple_speaker_listener has no frozen team\. Scenarios with one: "):
        load_teams([*names(lonely), FROZEN], 0)
    discrete = make_team(tmp_path / "c", "simple_tag", world={"continuous_actions": False})
    with pytest.raises(ConfigError, match="'continuous_actions': False"):
        load_teams([*names(discrete), FROZEN], 0)
    with pytest.raises(ConfigError, match=r"simple_tag has no scripted team\. Leave out `scripted`\."):
        load_teams([*names(team), SCRIPTED], 0)
    assert set(BASELINES) == {FROZEN, SCRIPTED, UNTRAINED, RANDOM}
