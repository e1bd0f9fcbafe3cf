"""Episodes in environments that fail, never end, end at different times, or can be made once only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from actor_node.evaluation.evaluate import Evaluation, evaluate, evaluate_team
from actor_node.evaluation.rollouts.copies import CopySet
from actor_node.evaluation.rollouts.episodes import Watcher
from actor_node.evaluation.rollouts.rollout import PlayOptions, RolloutTask, run_rollouts
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import load_run_team, load_teams, random_team
from actor_node.evaluation.tournament import run_tournament
from common.errors import WorldError
from common.worlds import make_world
from shoal.commands.evaluate.text import remarks
from tests.actor_node.teams import make_team

WALK = "pettingzoo:tests.actor_node.play_worlds"


class Heard(Watcher):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def notify(self, text: str) -> None:
        self.said.append(text)


def rolled(tmp_path, kind, episodes=12, *, watcher=None, world=None, **options):
    directory = make_team(
        tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}", WALK, 1, world={"kind": kind, **(world or {})}
    )
    run, team = load_run_team(directory)
    task = RolloutTask(run, team.name, team.make_actor, 100, EvalTask())
    return run_rollouts(task, PlayOptions(episodes=episodes, **options), watcher or Heard())


def evaluated(tmp_path, kind, episodes=12, *, choices="greedy", world=None, **options) -> Evaluation:
    directory = make_team(tmp_path / kind, WALK, 1, world={"kind": kind, **(world or {})})
    run, team = load_run_team(directory)
    return evaluate_team(run, team, episodes, 100, EvalTask(), options=PlayOptions(**options), choices=choices)


@pytest.mark.parametrize("kind", ["plain", "uneven"])
def test_results_are_the_same_for_any_number_of_copies(tmp_path, kind):
    one, three, many = (rolled(tmp_path, kind, 30, copies=copies).rollouts for copies in (1, 3, 20))
    np.testing.assert_array_equal(one.returns, three.returns)
    np.testing.assert_array_equal(one.returns, many.returns)
    np.testing.assert_array_equal(one.lengths, many.lengths)
    assert set(one.lengths) == ({5} if kind == "plain" else {3, 43})


@pytest.mark.slow
def test_results_are_the_same_for_any_number_of_processes(tmp_path):
    here, there = (rolled(tmp_path, "uneven", 30, copies=2, processes=n).rollouts for n in (0, 2))
    np.testing.assert_array_equal(here.returns, there.returns)
    np.testing.assert_array_equal(here.numbers, there.numbers)


@pytest.mark.parametrize("kind", ["drawn", "random"])
def test_draws_follow_from_the_episode_and_not_from_who_plays_it(tmp_path, kind):
    directory = make_team(tmp_path / "a", WALK, 1, world={"choices": True})
    run, team = load_run_team(directory)
    make = team.make_sampled_actor if kind == "drawn" else random_team(run, 3).make_actor
    task = RolloutTask(run, "team", make, 100, EvalTask())
    one, many = (run_rollouts(task, PlayOptions(20, copies=copies), Heard()).rollouts for copies in (1, 17))
    np.testing.assert_array_equal(one.returns, many.returns)
    assert len(np.unique(one.returns)) > 10


@pytest.mark.parametrize(("kind", "words"), [("raises", "the simulator closed the connection"), ("nan", "nan")])
def test_a_failure_costs_one_episode(tmp_path, kind, words):
    result = evaluated(tmp_path, kind, 12, copies=3)
    assert (result.episodes, result.failed_episodes) == (9, 3)
    assert words in result.first_failure
    assert any("3 episodes failed and are not counted" in line for line in remarks(result))


def test_what_is_left_is_what_it_would_have_been(tmp_path):
    failing, plain = (rolled(tmp_path, kind, 12, copies=3).rollouts for kind in ("raises", "plain"))
    assert failing.numbers.tolist() == [e for e in range(12) if (100 + e) % 4 != 1]
    np.testing.assert_array_equal(failing.returns, plain.returns[failing.numbers])


@pytest.mark.slow
def test_a_process_that_dies_costs_what_it_had_in_hand(tmp_path):
    found = rolled(tmp_path, "exits", 8, copies=1, processes=1).rollouts
    assert found.numbers.tolist() == [0, 2, 3, 4, 6, 7]
    assert {each.failure for each in found.failures} == {"the process that played the episode ended with exit code 7"}


@pytest.mark.slow
def test_processes_that_die_in_their_first_episode_are_replaced_while_numbers_are_left(tmp_path):
    directory = make_team(tmp_path / "run", WALK, 1, world={"kind": "exits at once"})
    run, team = load_run_team(directory)
    task = RolloutTask(run, team.name, team.make_actor, 100, EvalTask())
    with pytest.raises(WorldError, match="ended with exit code 7"):
        run_rollouts(task, PlayOptions(episodes=3, copies=1, processes=2), Heard())


@pytest.mark.slow
def test_fewer_episodes_than_asked_for_are_said_with_the_reason(tmp_path, monkeypatch):
    directory = make_team(tmp_path / "run", WALK, 1, world={"kind": "exits"})
    run, team = load_run_team(directory)
    monkeypatch.setenv("ONE_LICENCE", str(tmp_path / "licence"))
    heard = Heard()
    task = RolloutTask(run, team.name, team.make_actor, 100, EvalTask())
    found = run_rollouts(task, PlayOptions(8, processes=1, copies=1), heard).rollouts
    assert (found.numbers.tolist(), len(found.failures)) == ([0], 1)
    assert heard.said[-1].startswith("played 2 of 8 episodes: every evaluation process has ended (")
    assert "FileExistsError" in heard.said[-1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["does not close", "leaves things behind"])
def test_what_an_environment_does_at_its_end_holds_nothing_up(tmp_path, kind):
    heard = Heard()
    assert len(rolled(tmp_path, kind, 4, copies=1, processes=2, watcher=heard).rollouts.returns) == 4
    assert heard.said == ["an evaluation process did not close its environments within 5 s and was killed"] * (
        kind == "does not close"
    )


@pytest.mark.slow
def test_a_step_that_hangs_is_broken_off_and_named(tmp_path):
    class Ends(Heard):
        played = 0

        def done(self, episodes, total):
            self.played = episodes

        def poll(self, playing=0):
            if (self.played, playing) == (1, 2):
                raise InterruptedError

    began_at = time.monotonic()
    with pytest.raises(InterruptedError):
        rolled(tmp_path, "hangs", 3, copies=1, processes=2, watcher=Ends())
    assert time.monotonic() - began_at < 30


@pytest.mark.slow
def test_a_script_that_evaluates_needs_no_guarded_main_part(tmp_path):
    directory = make_team(tmp_path / "run", WALK, 1, world={"kind": "plain"})
    script = tmp_path / "script.py"
    line = ["evaluate", str(directory.path), "--episodes", "3", "--processes", "2", "--json"]
    script.write_text(f"from shoal.cli import shoal\nprint('begun')\nshoal.main({line!r}, standalone_mode=False)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment, check=True, cwd=tmp_path
    )
    begun, result = done.stdout.splitlines()
    assert begun == "begun"
    assert json.loads(result)["episodes"] == 3


def test_where_nothing_can_be_played_it_says_why(tmp_path):
    directory = make_team(tmp_path / "a", WALK, 1)
    run, team = load_run_team(directory)
    broken = msgspec.structs.replace(run, spec=type(run.spec)(WALK, world={"kind": "unmakeable"}))
    with pytest.raises(WorldError, match="no licence"):
        evaluate_team(broken, team, 3, 0, EvalTask())


def test_one_instance_a_process_is_played_with_one_and_it_is_said(tmp_path):
    heard = Heard()
    assert len(rolled(tmp_path, "alone", 6, copies=4, watcher=heard).rollouts.returns) == 6
    assert "copy 2 of 4 could not be made in the same process" in heard.said[0]
    assert "one simulator a process" in heard.said[0]


def test_an_episode_without_end_is_cut_off(tmp_path):
    result = evaluated(tmp_path, "endless", 3, max_steps=50)
    assert (result.truncated_episodes, result.length_mean, result.max_episode_steps) == (3, 50.0, 50)
    assert any("No episode ended within 50 steps" in line for line in remarks(result))


def test_the_runs_own_limit_is_kept(tmp_path):
    directory = make_team(tmp_path / "a", WALK, 1, world={"kind": "endless"}, episode={"max_steps": 7})
    assert evaluate(directory, 4, 0).length_mean == 7.0


def test_a_shared_reward_is_the_teams(tmp_path):
    shared, own = evaluated(tmp_path, "shared"), evaluated(tmp_path, "plain")
    assert shared.return_team == pytest.approx(shared.return_mean / 2)
    assert any(line.startswith("shared reward:") for line in remarks(shared))
    assert own.return_team is None
    assert own.dynamics == "own"


def test_drawn_choices_may_be_better_than_the_likeliest(tmp_path):
    greedy = evaluated(tmp_path, "coin", 30, world={"choices": True})
    drawn = evaluated(tmp_path / "..", "coin-drawn", 30, world={"kind": "coin", "choices": True}, choices="drawn")
    assert drawn.choices == "drawn"
    assert drawn.return_mean > greedy.return_mean + 1


def test_as_many_as_fit_in_the_time_and_at_least_twenty(tmp_path):
    assert len(rolled(tmp_path, "plain", 0, within_s=0.0).rollouts.returns) == 20


def test_where_the_time_decides_there_may_be_a_bound_too(tmp_path):
    assert len(rolled(tmp_path, "plain", 0, max_episodes=25).rollouts.returns) == 25


def test_a_stop_ends_play_at_once(tmp_path):
    class Stops(Watcher):
        def poll(self, playing=0):
            raise InterruptedError

    with pytest.raises(InterruptedError):
        rolled(tmp_path, "endless", 5, max_steps=10**9, watcher=Stops())


def test_a_pairing_leaves_out_the_episodes_that_failed(tmp_path):
    world = {"kind": "raises", "sides": True}
    teams = [make_team(tmp_path / name, WALK, seed, world=world) for name, seed in (("a", 1), ("b", 2))]
    run, entered = load_teams([str(team.path) for team in teams], 5)
    result = run_tournament(run, entered, 0, 100, EvalTask(), options=PlayOptions(within_s=0.0))
    assert (result.episodes, result.failed_episodes, len(result.pairings)) == (20, 4 * 5, 4)
    assert "closed the connection" in result.first_failure
    plain = [make_team(tmp_path / f"{name}-", WALK, seed, world={"sides": True}) for name, seed in (("a", 1), ("b", 2))]
    run, entered = load_teams([str(team.path) for team in plain], 5)
    whole = run_tournament(run, entered, 20, 100, EvalTask())
    assert whole.failed_episodes == 0
    assert whole.pairings[0].returns != result.pairings[0].returns


def test_the_batched_world_is_checked_in_mpe2(tmp_path):
    directory = make_team(tmp_path / "a", "simple_spread", 1)
    run, team = load_run_team(directory)
    result = evaluate_team(run, team, 60, 5, EvalTask(fast=True, check=10))
    assert (result.world, result.checked_in_mpe2, result.episodes) == ("simple_spread", 10, 60)


def test_a_copy_that_failed_is_absent_until_it_begins_again():
    worlds = CopySet(lambda: make_world(WALK, 1, seed=0, options={"kind": "raises"}, restart_ended=False), 2)
    worlds.reset([1, 2])
    actions = np.zeros((2, worlds.spec.action_dim), np.float32)
    worlds.step(actions)
    step = worlds.step(actions)
    assert step.episode_over.tolist() == [True, False]
    assert step.present.tolist() == [[0, 0], [1, 1]]
    assert list(worlds.failures) == [0]
    assert worlds.start_episode(0, 2) is not None
    assert not worlds.failures
    worlds.close()
