"""Tests of metrics from infos: what a step contains, what an episode makes of it, and what an evaluation shows."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from actor_node.evaluation.episode_metrics import EpisodeMetrics, meaning_of, metrics_of_batch, metrics_of_episodes
from actor_node.evaluation.evaluate import evaluate_team
from actor_node.evaluation.rollouts.episodes import Episode, EpisodeBatch, Watcher
from actor_node.evaluation.rollouts.rollout import PlayOptions
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import load_run_team
from common.worlds import make_world
from common.worlds.adapters.info_metrics import MAX_NAMES, InfoMetrics
from shoal.cli import shoal
from shoal.commands.evaluate.text import lines
from tests.actor_node.teams import make_team

INFORMED = "pettingzoo:tests.actor_node.informed_env"
MEANS = {"waiting": (1 + 2 + 3 + 4 + 1 + 2) / 6, "final_waiting": 3.0, "success": 0.5, "final_success": 0.5}


class Notes(Watcher):
    """Keeps the lines for the user."""

    def __init__(self):
        self.lines = []

    def notify(self, text):
        self.lines.append(text)


def test_a_step_has_the_numbers_of_the_agents_that_acted():
    world = make_world(INFORMED, 2, seed=0, info_metrics=True)
    world.reset([0, 1])
    actions = np.zeros((2, world.spec.action_dim), np.float32)
    steps = [world.step(actions) for _ in range(4)]
    np.testing.assert_array_equal(steps[0].metrics["waiting"], [[1, 1], [1, 1]])
    np.testing.assert_array_equal(steps[2].metrics["waiting"], [[3, np.nan], [3, np.nan]])
    np.testing.assert_array_equal(steps[1].metrics["success"], [[np.nan, 0], [np.nan, 0]])
    np.testing.assert_array_equal(steps[3].metrics["success"], [[1, np.nan], [1, np.nan]])
    np.testing.assert_array_equal(steps[0].metrics["rare"], [[3, 3], [np.nan, np.nan]])
    assert list(steps[3].metrics) == ["waiting", "return_mean", "rare", "success"]


def test_without_a_request_a_step_has_no_metrics():
    world = make_world(INFORMED, 1, seed=0)
    world.reset()
    assert not world.step(np.zeros((1, 2), np.float32)).metrics


def test_a_step_has_at_most_so_many_names():
    metrics = InfoMetrics(["a"])
    present = np.ones((1, 1), np.float32)
    many = {f"name {i}": float(i) for i in range(MAX_NAMES + 5)}
    assert list(metrics.of_step([{"a": many}], present)) == list(many)[:MAX_NAMES]
    assert metrics.of_step([{}], present).keys() == metrics.of_step([{"a": None}], present).keys()


def test_an_episode_has_means_over_what_was_given():
    world = make_world(INFORMED, 1, seed=0, info_metrics=True)
    world.reset([1])
    metrics = EpisodeMetrics(2)
    for _ in range(4):
        metrics.add(world.step(np.zeros((1, 2), np.float32)))
    result = metrics.result()
    assert result["waiting"] == (pytest.approx(13 / 6), 3.0)
    assert result["success"] == (0.5, 0.5)
    assert "rare" not in result


def test_names_of_other_columns_are_refused_and_failed_episodes_are_left_out():
    episodes = [
        Episode(2, (1.0,), metrics={"cost": (4.0, None), "seed": (1.0, 1.0), "delay": (0.0, 0.0)}),
        Episode(1, (1.0,), metrics={"final_cost": (9.0, 9.0)}),
        Episode(0, failure="broken", metrics={"cost": (1.0, 1.0)}),
    ]
    metrics, refused = metrics_of_episodes(episodes)
    assert refused == ["cost", "seed"]
    np.testing.assert_array_equal(metrics["final_cost"], [9.0, np.nan])
    np.testing.assert_array_equal(metrics["delay"], [np.nan, 0.0])


def test_an_evaluation_shows_the_metrics(tmp_path):
    run, team = load_run_team(make_team(tmp_path / "a", INFORMED, 1))
    notes = Notes()
    result = evaluate_team(run, team, 4, 0, EvalTask(), watcher=notes)
    assert {name: metric.mean for name, metric in result.metrics.items()} == pytest.approx(
        {**MEANS, "rare": 3.0, "final_rare": 3.0}
    )
    assert any("not shown: return_mean" in line for line in notes.lines)
    shown = "\n".join(lines(result))
    assert "final_waiting          3.000" in shown
    assert "waiting at each agent's last step" in shown
    assert meaning_of("rare", result.metrics) == "rare in the infos, mean over steps and agents"


def test_processes_give_the_same_metrics(tmp_path):
    run, team = load_run_team(make_team(tmp_path / "a", INFORMED, 1))
    here = evaluate_team(run, team, 6, 0, EvalTask())
    there = evaluate_team(run, team, 6, 0, EvalTask(), options=PlayOptions(processes=1))
    assert there.metrics == here.metrics


@pytest.mark.slow
def test_shoal_evaluate_stores_and_prints_them(tmp_path):
    directories = [make_team(tmp_path / name, INFORMED, seed) for name, seed in (("a", 1), ("b", 2))]

    def output(*arguments):
        return CliRunner().invoke(shoal, ["evaluate", *map(str, arguments)], catch_exceptions=False).stdout

    assert "success" in output(directories[0].path, "--episodes", 2)
    stored = json.loads(directories[0].evaluation_file.read_bytes())["metrics"]
    assert stored["final_waiting"]["mean"] == 3.0
    table = output(tmp_path, "--episodes", 2, "--format", "csv").splitlines()
    assert table[0].split(",").count("final_success_low") == 1
    assert "final success" in output(tmp_path, "--episodes", 2, "--format", "latex")


def test_a_vectorised_world_has_the_metrics_of_its_steps():
    played = np.array([[True, True, True], [True, False, False]])
    waiting = np.array([[[1.0, 3.0], [2.0, np.nan], [4.0, np.nan]], [[7.0, np.nan], [0.0, 0.0], [0.0, 0.0]]])
    batch = EpisodeBatch(np.zeros((2, 3, 2)), played, {"waiting": waiting, "bad\nname": waiting})
    metrics, refused = metrics_of_batch(batch)
    assert {name: values.tolist() for name, values in metrics.items()} == {
        "waiting": [2.5, 7.0],
        "final_waiting": [4.0, 7.0],
    }
    assert refused == ["bad\nname"]
