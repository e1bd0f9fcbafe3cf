"""What is said and refused before a run starts, and why a start takes long."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from common.errors import ConfigError
from common.run.directory import RunDirectory
from common.run.open_run import RunOptions, open_run
from deploy.local.start_watch import SLOW_START_S, StartWatch, last_log_message
from shoal.cli import shoal
from tests.deploy.local.test_live_display import STATUS

KINDS = "pettingzoo:tests.shoal.commands.team_kinds"


def train(*arguments: object) -> Result:
    return CliRunner().invoke(shoal, ["train", KINDS, *map(str, arguments)], standalone_mode=False)


def lockstep(run: Path, names: str, *more: object) -> Result:
    small = ("--set", "replay.min_size=128", "--set", "replay.batch=32", "--set", "exploration.random_steps=64")
    options = ("--lockstep", "--actors", 1, "--copies", 4, "--steps", 256, "--episodes", 2, "--no-film", "--run", run)
    return train("--set", f'world.names="{names}"', *small, *options, *more)


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ("player_0 player_1", (), "sides: player (player_0, player_1: one policy, one critic)"),
        ("agent0 agent1", (), "sides: agent0, agent1 (a side each: nothing is shared)"),
        ("0 1 2", (), "sides: 0, 1, 2 (a side each: nothing is shared)"),
        (
            "uav-0 uav-1 bs",
            ("--algorithm", "matd3", "--set", 'network.sides={air=["uav-0","uav-1"]}'),
            "sides: air (uav-0, uav-1: one policy, 2 critics); bs (bs: one policy, 2 critics)",
        ),
        (
            "red blue",
            ("--set", 'network.share=[["red","blue"]]'),
            "sides: red (red); blue (blue); shared across sides: red, blue: one policy, one critic",
        ),
    ],
)
def test_a_run_says_its_sides_and_trains_and_is_evaluated_on_them(
    tmp_path: Path, names: str, more: tuple[str, ...], said: str
) -> None:
    result = lockstep(tmp_path / "run", names, *more)
    assert result.exception is None, result.output
    assert said in result.stderr
    assert "observe 3 numbers, act with 1" in result.stderr
    assert "shared reward: " not in result.stderr, "each agent has its own"
    run = RunDirectory(tmp_path / "run").run
    assert said.partition("sides: ")[2].split(" ")[0].rstrip(",") in run.joint.sides


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", 'network.sides={x=["rde"]}'), "did you mean red"),
        (("--set", 'network.share=[["red","blu"]]'), "did you mean blue"),
        (("--set", 'world.sizes="3 4"', "--set", 'network.share=[["red","blue"]]'), "observes 4 numbers"),
        (("--set", "world.picture=96", "--set", "replay.capacity=2000000000"), "pixels need a wrapper"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    result = train("--set", 'world.names="red blue"', *more, "--time", "10s", "--run", tmp_path / "run")
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_with_its_own_sides_only(tmp_path: Path) -> None:
    path = str(tmp_path / "run")
    sides = {name: RunOptions(set=(f'network.sides={{{name}=["red","blue"]}}',)) for name in ("all", "both")}
    _, run = open_run(path, KINDS, sides["all"], {}, resume=False, role="first")
    assert run.joint.sides == ("all",)
    _, same = open_run(path, "", RunOptions(), {}, resume=True, role="second")
    assert same.joint == run.joint
    with pytest.raises(ConfigError, match=r"network.sides = \{'all': \('red', 'blue'\)\}\. Resume it with the same"):
        open_run(path, "", sides["both"], {}, resume=True, role="third")


def test_a_run_whose_time_ends_in_its_warm_up_says_so(tmp_path: Path) -> None:
    result = train(
        *("--lockstep", "--actors", 1, "--copies", 1, "--time", "0.5s", "--episodes", 2, "--no-film"),
        *("--set", "world.delay_s=0.01", "--run", tmp_path / "run"),
    )
    assert result.exception is None, result.output
    assert "no update was done and the policies are untrained" in result.stderr
    assert RunDirectory(tmp_path / "run").finished_file.exists()


def test_a_shared_reward_is_told_as_the_teams(tmp_path: Path) -> None:
    assert "shared reward: " in lockstep(tmp_path / "run", "red blue", "--set", "world.shared=true").stderr


# ---- why it takes long ----------------------------------------------------------------------------------------------


def test_a_start_that_takes_long_is_explained_by_the_log_of_who_is_waited_for(tmp_path: Path) -> None:
    replay, learner = tmp_path / "replay.log", tmp_path / "learner.log"
    replay.write_text("2026-01-01T00:00:00.000Z INFO    replay a.b: the last line of an earlier start\n")
    watch = StartWatch(tmp_path / "none", learner).explain
    assert watch(None, 100.0) == []
    assert watch(None, 100.0 + SLOW_START_S) == ["the replay server is starting: it loads its code"]

    learner.write_text("2026-01-01T00:00:00.000Z INFO    learner a.b: finished after 157 updates\n")
    watch = StartWatch(replay, learner).explain
    with replay.open("a") as log:
        log.write("2026-01-01T00:00:00.000Z WARNING replay replay_server.x: waiting for Redis: 10 s so far\n")
    assert watch(None, 100.0) == []
    assert watch(None, 100.0 + SLOW_START_S) == [
        "the replay server is starting; last line of its log: waiting for Redis: 10 s so far"
    ]
    nobody = msgspec.structs.replace(STATUS, learner=None)
    assert watch(nobody, 106.0) == []
    assert watch(nobody, 106.0 + SLOW_START_S) == ["the learner is starting: it loads its code"]
    assert watch(STATUS, 120.0) == []


def test_the_last_event_is_read_from_the_end_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 100_000 + "\n2026-01-01T00:00:00.000Z INFO    learner a.b: building: 2 parts\n\n")
    assert last_log_message(log) == "building: 2 parts"
    assert last_log_message(tmp_path / "none") == ""
