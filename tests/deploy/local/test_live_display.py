"""What a user sees while a run trains."""

from __future__ import annotations

import io
import math

import msgspec
import pytest
from rich.console import Console

from common.run.run import Run, make_run_spec
from common.wire.messages import ActorStatus, EvaluationReport, LearnerReport, Status
from common.worlds import world_spec
from deploy.local.launcher import endless_episode_text
from deploy.local.live_display import LineDisplay, TimeLeft, draw, learner_activity, status_rows
from replay_server.sessions.waits import Wait, why_no_credit
from replay_server.table.table import Table
from tests.common.examples import BOXES, make_run

LEARNER = LearnerReport(
    learner="learner-1",
    updates=1_234,
    updates_per_s=150.0,
    weights_version=7,
    progress=0.25,
    critic_loss=0.1,
    policy_loss=1.0,
    waiting_for="",
    waited_s=0.0,
    last_checkpoint_s=3.0,
    finished=False,
    metrics_url="",
)
STATUS = Status(
    run=None,
    uptime_s=12.0,
    durability="redis",
    size=10_000,
    capacity=1_000_000,
    inserts=20_000,
    samples=240_000,
    target_samples_per_insert=16.0,
    samples_per_insert=15.9,
    inserts_per_s=2_000.0,
    samples_per_s=32_000.0,
    episodes=800,
    return_mean=-45.678,
    return_means=(-15.0, -15.0, -15.678),
    policy_lag=1.5,
    actors=(),
    actor_count=2,
    learner=LEARNER,
    learner_seconds_since_seen=0.5,
    waiting=("actors waiting for the learner: 4 k samples behind (12 s)",),
    duplicate_chunks=0,
    rejected={},
    unacknowledged_chunks=0,
    last_error="",
    metrics_url="",
)


def _drawn(status: Status | None, *problems: str) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(draw("simple_spread", status, problems, 75.0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("waiting", "words"),
    [
        ("", "(auto: 3.2 to 32; neither side waits)"),
        ("actors waiting for the learner: 4 k samples behind (1 s)", "(auto: 3.2 to 32; actors wait for the learner)"),
        ("learner waiting for actors: 12 more transitions keep the ratio (1 s)", "the learner waits for actors at one"),
    ],
)
def test_a_free_ratio_is_shown_with_its_bounds_and_who_waits(waiting: str, words: str) -> None:
    run = make_run(BOXES, replay={"batch": 32, "samples_per_insert": "auto"})
    waits = (waiting,) if waiting else ()
    status = msgspec.structs.replace(STATUS, run=run, waiting=waits, target_samples_per_insert=32.0)
    shown = dict(status_rows(status))
    assert words in shown["samples per insert"]
    assert "held to 3.2 samples" in shown.get("pace", "held to 3.2 samples")
    fixed = msgspec.structs.replace(status, target_samples_per_insert=8.0)
    assert dict(status_rows(fixed))["samples per insert"] == "15.90 (target 8)"


def test_the_table_has_every_figure_a_user_looks_for() -> None:
    text = _drawn(STATUS)
    for words in ("1:15", "25%", "-45.68", "20,000 (2,000/s)", "1,234 (150/s)", "15.90 (target 16)", "1.50 versions"):
        assert words in text
    assert "the learner is the bottleneck (normal): actors are held to 16 samples per insert" in text
    assert "waiting" not in text


HELD = "actors waiting for the learner: 4.0 k samples behind (12 s)"
STALLED = "actors waiting for the learner: 4.0 k samples behind (75 s)"
ALONE = "actors waiting for the learner: 256 samples behind; none is connected (12 s)"
BATCHES = "learner waiting for actors: 1,024 more transitions are needed to keep the ratio (3 s)"


@pytest.mark.parametrize(
    ("wait", "samples", "learner_alive", "waited_s"),
    [(HELD, 4_000, True, 12.0), (STALLED, 4_000, True, 75.0), (ALONE, 7_744, False, 12.0)],
)
def test_waits_of_actors_read_as_the_replay_server_writes_them(
    wait: str, samples: int, learner_alive: bool, waited_s: float
) -> None:
    """The display recognises the rate limiter by its words, so a test must notice when they change."""
    replay = make_run(replay={"samples_per_insert": 16.0, "min_size": 500, "error_buffer": 1_024.0}).spec.replay
    table = Table(make_run(), replay, seed=0)
    # (1,000 - min_size) * 16 - samples are behind.
    table.ring.size = table.limiter.inserts = 1_000
    table.limiter.samples = samples
    found = Wait("actors")
    reason = why_no_credit(
        table, storage_error="", log_behind=False, batch=256, chunk_rows=64, learner_alive=learner_alive
    )
    found.update(reason, 0.0, progress=0)
    assert found.text(waited_s) == wait


@pytest.mark.parametrize("wait", [STALLED, ALONE, BATCHES])
def test_a_wait_that_is_not_the_ratio_is_shown_as_it_is(wait: str) -> None:
    shown = dict(status_rows(msgspec.structs.replace(STATUS, waiting=(HELD, wait))))
    assert shown["waiting"] == wait
    assert shown["pace"] == "the learner is the bottleneck (normal): actors are held to 16 samples per insert"
    assert "pace" not in dict(status_rows(msgspec.structs.replace(STATUS, waiting=(wait,))))


def test_a_line_ends_with_the_pace_and_the_waits() -> None:
    console = Console(file=io.StringIO(), width=1_000)
    LineDisplay(console).show(msgspec.structs.replace(STATUS, waiting=(HELD, BATCHES)), [])
    assert isinstance(console.file, io.StringIO)
    line = console.file.getvalue().strip()
    assert line.endswith(
        f"; the learner is the bottleneck (normal): actors are held to 16 samples per insert; {BATCHES}"
    )
    assert "pace" not in line


def test_what_is_not_known_yet_is_no_number() -> None:
    text = _drawn(msgspec.structs.replace(STATUS, return_mean=math.nan, learner=None))
    assert "nan" not in text
    assert "no learner" in text


def test_problems_are_shown_with_and_without_a_replay_server() -> None:
    assert "replay was killed by signal 9" in _drawn(STATUS, "replay was killed by signal 9")
    text = _drawn(None, "replay was killed by signal 9")
    assert "waiting for the replay server" in text
    assert "replay was killed by signal 9" in text


def test_without_a_terminal_problems_are_printed_once_and_figures_seldom() -> None:
    console = Console(file=io.StringIO(), width=400)
    lines = LineDisplay(console)
    for _ in range(5):
        lines.show(STATUS, ["replay was killed"])
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue().splitlines()
    assert len(said) == 2
    assert said[0].endswith("replay was killed")
    assert "env steps 20,000" in said[1]


def test_what_the_learner_remarks_is_shown_and_without_a_terminal_said_once() -> None:
    def warned(size: int) -> Status:
        text = f"rewards have a size of {size:,}; try algorithm.reward_scale=1e-5"
        return msgspec.structs.replace(STATUS, learner=msgspec.structs.replace(LEARNER, warnings=(text,)))

    assert "algorithm.reward_scale=1e-5" in _drawn(warned(90_000))
    console = Console(file=io.StringIO(), width=400)
    lines = LineDisplay(console)
    for size in (90_000, 91_000, 92_000):
        lines.show(warned(size), [])
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("rewards have a size") == 1


def test_an_error_of_the_replay_is_shown() -> None:
    assert ("last error", "checksum") in status_rows(msgspec.structs.replace(STATUS, last_error="checksum"))


def test_versions_are_shown_only_where_two_are_told() -> None:
    assert "software" not in dict(status_rows(msgspec.structs.replace(STATUS, software="0.1.0")))
    learner = msgspec.structs.replace(LEARNER, software="0.2.0")
    both = msgspec.structs.replace(STATUS, software="0.1.0", learner=learner)
    assert dict(status_rows(both))["software"] == "differs: 0.1.0, 0.2.0"


def test_a_finished_run_says_so() -> None:
    done = msgspec.structs.replace(LEARNER, progress=1.0, finished=True)
    assert ("progress", "100%, finished") in status_rows(msgspec.structs.replace(STATUS, learner=done))


def test_a_learner_is_said_to_train_only_while_it_is_heard() -> None:
    waiting = msgspec.structs.replace(LEARNER, waiting_for="actors")
    done = msgspec.structs.replace(LEARNER, finished=True)
    assert [learner_activity(one, 0.5) for one in (LEARNER, waiting, done)] == [
        "training",
        "waiting for actors",
        "finished",
    ]
    assert [learner_activity(one, 11.0) for one in (LEARNER, waiting, done)] == [
        *["no report since then"] * 2,
        "finished",
    ]


def at(progress: float) -> Status:
    return msgspec.structs.replace(STATUS, learner=msgspec.structs.replace(LEARNER, progress=progress))


def test_the_time_to_go_is_told_by_the_way_since_the_run_was_first_seen() -> None:
    left = TimeLeft().estimate_s
    nobody = msgspec.structs.replace(STATUS, learner=None)
    assert [left(status, 0.0) for status in (None, nobody, at(0.0))] == [None] * 3
    # Resumed at 25 %: what came before took no time that was seen.
    assert left(at(0.25), 100.0) is None
    assert left(at(0.5), 150.0) == 100.0
    assert left(at(1.0), 250.0) == 0.0


def test_a_bar_and_the_time_to_go_are_drawn() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(draw("simple_spread", at(0.5), (), 75.0, 80.0))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "1:15, about 1:20 left" in text
    assert "━" * 20 in text


def test_restarts_of_workers_and_what_slow_ones_do_are_shown() -> None:
    busy = [
        ActorStatus(f"a-{i}", 1, 0.1, 0, 0, 1, 0.0, "", 0.0, "", doing=f"making copy {i} of 32" if i else "")
        for i in range(5)
    ]
    status = msgspec.structs.replace(
        STATUS, actors=tuple(busy), actor_count=5, worker_restarts=3, last_fault="step 4 of copy 1: no licence"
    )
    shown = dict(status_rows(status))
    assert shown["actors"] == "5; a-1: making copy 1 of 32; a-2: making copy 2 of 32; 2 more"
    assert shown["worker restarts"] == "3, last: step 4 of copy 1: no licence"
    assert "worker restarts" not in dict(status_rows(STATUS))


def test_a_failure_is_said_at_once_with_all_its_lines() -> None:
    console = Console(file=io.StringIO(), width=400)
    LineDisplay(console).print("actor worker 0: pettingzoo:boom: no licence; restarts in 0.5 s\n  user.py:3 in step")
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().endswith("restarts in 0.5 s\n  user.py:3 in step\n")


def test_a_run_without_an_ended_episode_says_so() -> None:
    actor = ActorStatus("a", 1, 0.1, 11_000, 0, 1, 0.0, "", 0.0, "")
    endless = msgspec.structs.replace(STATUS, episodes=0, inserts=12_000, return_mean=math.nan, actors=(actor,))
    assert dict(status_rows(endless))["return"] == "- (no episode has ended yet)"
    assert endless_episode_text(endless).startswith("no episode ended in 12,000 environment steps; ")
    silent = msgspec.structs.replace(endless, actors=(msgspec.structs.replace(actor, env_steps=0),))
    assert endless_episode_text(silent) == "", "its episodes are not known yet"
    assert endless_episode_text(STATUS) == endless_episode_text(msgspec.structs.replace(endless, inserts=0)) == ""


def test_a_reward_that_all_share_is_the_teams_too() -> None:
    shared = msgspec.structs.replace(STATUS, shared_reward=True, return_mean=-12.0, return_means=(-4.0,) * 3)
    assert dict(status_rows(shared))["return"].startswith(
        "-12.00 summed over agents; shared reward: -4.00 for the team"
    )
    alone = msgspec.structs.replace(shared, return_means=(-12.0,))
    for status in (STATUS, alone):
        assert "team" not in dict(status_rows(status))["return"]


RUN = Run("r", make_run_spec({"scenario": "simple_spread", "budget": {"seconds": 300.0}}), world_spec("simple_spread"))


def test_the_clock_is_shown_and_that_it_is_paused() -> None:
    learner = msgspec.structs.replace(LEARNER, trained_s=36.0)
    timed = msgspec.structs.replace(STATUS, run=RUN, learner=learner)
    assert ("time", "0:36 of 5:00") in status_rows(timed)
    paused = msgspec.structs.replace(timed, learner=msgspec.structs.replace(learner, paused="Redis: refused"))
    assert (
        dict(status_rows(paused))["time"] == "0:36 of 5:00, paused (not charged to --time): waiting for Redis: refused"
    )
    assert "time" not in dict(status_rows(STATUS)), "without a limit of time"


def test_what_comes_before_the_first_update_is_shown_also_while_the_learner_is_silent() -> None:
    building = msgspec.structs.replace(LEARNER, doing="building the networks of 40 players: 2.6 M parameters")
    assert ("learner", building.doing) in status_rows(msgspec.structs.replace(STATUS, learner=building))
    assert learner_activity(building, 30.0) == building.doing
    warming = msgspec.structs.replace(LEARNER, doing="warming up: 1 of 2 transitions", waiting_for="actors")
    assert learner_activity(warming, 30.0) == "no report since then"
    assert learner_activity(warming, 0.5) == "waiting for actors"


def test_words_of_an_environment_are_not_taken_for_markup() -> None:
    status = msgspec.structs.replace(STATUS, worker_restarts=1, last_fault="KeyError: '[/tmp/x]' [agent_0]")
    console = Console(file=io.StringIO(), width=200)
    console.print(draw("a run", status, (), 1.0))
    assert isinstance(console.file, io.StringIO)
    assert "KeyError: '[/tmp/x]' [agent_0]" in console.file.getvalue()


def test_the_newest_evaluation_is_the_score() -> None:
    assert "score" not in dict(status_rows(STATUS))
    found = EvaluationReport(120_000, 100, -23.4, {}, -22.9, 90_000)
    learner = msgspec.structs.replace(LEARNER, evaluation=found)
    rows = dict(status_rows(msgspec.structs.replace(STATUS, learner=learner)))
    assert rows["score"] == "-23.40 at 120,000 env steps, without exploration; best -22.90 at 90,000"
    sides = msgspec.structs.replace(found, side_returns={"adversary": 12.5, "agent": -35.9})
    learner = msgspec.structs.replace(LEARNER, evaluation=sides)
    rows = dict(status_rows(msgspec.structs.replace(STATUS, learner=learner)))
    assert rows["score"] == "adversary 12.50, agent -35.90 at 120,000 env steps, without exploration"
