"""Scripted teams: they solve what they are written for, decide by their own observations, and refuse the rest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actor_node.evaluation.evaluate import play
from actor_node.evaluation.scripted import scripted_team
from actor_node.evaluation.teams import RandomTeam, load_teams
from common.errors import ConfigError
from common.run.run import Run, make_run_spec
from common.worlds import make_world, world_spec

EPISODES = 50
# simple_spread's best possible team is not known; the others could at best be on the landmark after some steps.
AT_LEAST = {
    ("simple", True): -7.5,
    ("simple", False): -10.5,
    ("simple_spread", True): -21.0,
    ("simple_spread", False): -30.0,
    ("simple_speaker_listener", True): -14.0,
    ("simple_speaker_listener", False): -20.0,
    ("simple_reference", True): -14.0,
    ("simple_reference", False): -20.0,
}


def make_run(scenario: str, **options: Any) -> Run:
    spec = make_run_spec({"scenario": scenario, "world": options})
    return Run("run-1", spec, world_spec(scenario, **options))


def mean_return(run: Run, team: Any) -> float:
    world = make_world(run.spec.scenario, EPISODES, seed=0, options=run.spec.world)
    return float(play(world, team, EPISODES, 5_000, lambda _: None).sum(axis=1).mean())


@pytest.mark.parametrize(("scenario", "continuous"), AT_LEAST)
def test_it_is_far_better_than_random_actions(scenario: str, continuous: bool) -> None:
    run = make_run(scenario, continuous_actions=continuous)
    found = mean_return(run, scripted_team(run))
    assert found > AT_LEAST[scenario, continuous]
    assert found > 0.6 * mean_return(run, RandomTeam(run.joint, seed=0))


@pytest.mark.parametrize("scenario", sorted({name for name, _ in AT_LEAST}))
def test_an_agent_acts_by_its_own_observation_alone(scenario: str) -> None:
    run = make_run(scenario)
    obs = np.random.default_rng(0).normal(size=(7, run.joint.obs_dim)).astype(np.float32)
    team, agents = scripted_team(run), run.joint.agents
    before = team.act(obs)
    assert before.shape == (7, run.joint.action_dim)
    for agent in agents:
        changed = np.zeros_like(obs)
        own = slice(agent.obs_start, agent.obs_start + agent.obs_dim)
        changed[:, own] = obs[:, own]
        columns = slice(agent.action_start, agent.action_start + agent.action_dim)
        np.testing.assert_array_equal(team.act(changed)[:, columns], before[:, columns])


def test_agents_of_spread_agree_on_the_assignment_with_the_least_distance() -> None:
    """Agent 0 is nearest to both landmarks; in all, it is better that it takes the farther one."""
    run = make_run("simple_spread", N=2)
    agents, landmarks = np.array([[0.0, 0.0], [-0.5, 0.0]]), np.array([[-0.1, 0.0], [0.4, 0.0]])
    rows = []
    for i in (0, 1):
        others = agents[1 - i] - agents[i]
        rows.append(np.concatenate([[0.0, 0.0], agents[i], (landmarks - agents[i]).ravel(), others, np.zeros(2)]))
    left, right = 1, 2
    first, second = scripted_team(run).act(np.concatenate(rows)[None].astype(np.float32))[0].reshape(2, 5)
    assert first[right] == 1.0
    assert second[right] == 1.0
    assert first[left] == second[left] == 0.0


@pytest.mark.parametrize(
    ("scenario", "options", "text"),
    [
        ("simple_tag", {}, "simple_tag has no scripted team"),
        ("simple_spread", {"N": 7}, "does not know the world's options"),
        ("simple_spread", {"num_agent_neighbors": 1}, "does not know the world's options"),
        ("simple", {"history": 2}, "does not know the world's options"),
    ],
)
def test_a_world_that_it_does_not_know_is_refused(scenario: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        scripted_team(make_run(scenario, **options))


def test_alone_it_names_no_world() -> None:
    with pytest.raises(ConfigError, match="no run is named"):
        load_teams(["scripted"], 0)
