"""Which fault comes, whom it meets, when it ends."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from pathlib import Path

import psutil
import pytest
import redis

from deploy.local.embedded_redis import find_server
from tests.conftest import wait_until
from tests.soak.churn.__main__ import parse
from tests.soak.churn.faults import (
    FIRST_AFTER_S,
    WEIGHTS,
    Effect,
    Faults,
    Kill,
    Network,
    Pause,
    choose,
    draw_kind,
    killed_together,
    log_uniform,
)
from tests.soak.churn.links import ROUTES, Link
from tests.soak.churn.processes import EVALUATOR, LEARNER, NODE, REDIS, REPLAY, WORKER, Process, role_of
from tests.soak.churn.train import through_links


class FakeFault:
    """Counts beginnings and ends."""

    def __init__(self, lasts_s: float = 10.0, error: Exception | None = None) -> None:
        self.begun = self.ended = 0
        self.lasts_s, self.error = lasts_s, error

    def begin(self, living: list[Process], now: float) -> Effect | None:
        self.begun += 1
        return Effect("something", self.lasts_s, self._end)

    def _end(self) -> None:
        if self.error:
            raise self.error
        self.ended += 1


@pytest.fixture
def sleeper() -> Process:
    child = subprocess.Popen(["sleep", "60"])
    yield Process(WORKER, psutil.Process(child.pid), now=0.0)
    child.kill()
    child.wait()


def test_kinds_come_as_often_as_their_weights_say() -> None:
    rng = random.Random(0)
    drawn = Counter(draw_kind(rng, WEIGHTS) for _ in range(9_000))
    # 12, 2, 2, 1 and 1 of 18
    expected = {"kill": 6_000, "pause": 1_000, "network": 1_000, "redis-full": 500, "clock": 500}
    assert drawn == {kind: pytest.approx(count, rel=0.15) for kind, count in expected.items()}


def test_a_fault_ends_when_its_time_is_over() -> None:
    fault = FakeFault(lasts_s=10.0)
    faults = Faults({"pause": fault}, random.Random(0), every_s=1e9, now=100.0)
    faults.poll([], 100.0 + FIRST_AFTER_S - 0.1)
    assert fault.begun == 0
    faults.poll([], 100.0 + FIRST_AFTER_S)
    assert (fault.begun, faults.total, faults.counts["pause"]) == (1, 1, {"something": 1})
    faults.poll([], 129.0)
    assert fault.ended == 0
    faults.poll([], 131.0)
    faults.poll([], 132.0)
    assert (fault.begun, fault.ended, faults.seconds["pause"]) == (1, 1, 10.0)


def test_an_end_that_a_stopped_redis_does_not_answer_is_tried_again() -> None:
    fault = FakeFault(lasts_s=1.0, error=redis.TimeoutError())
    faults = Faults({"redis-full": fault}, random.Random(0), every_s=1e9, now=0.0)
    faults.poll([], FIRST_AFTER_S)
    faults.poll([], FIRST_AFTER_S + 2.0)
    assert fault.ended == 0
    fault.error = None
    faults.end_all()
    faults.end_all()
    assert fault.ended == 1


def test_a_pause_stops_the_process_and_lets_it_go_on(sleeper: Process) -> None:
    pause = Pause(random.Random(0))
    effect = pause.begin([sleeper], 0.0)
    assert effect is not None
    assert (effect.target, 1.0 <= effect.lasts_s <= 60.0) == (WORKER, True)
    wait_until(lambda: sleeper.process.status() == psutil.STATUS_STOPPED, "it stops")
    assert pause.begin([sleeper], 0.0) is None
    effect.end()
    wait_until(lambda: sleeper.process.status() != psutil.STATUS_STOPPED, "it goes on")


def test_a_kill_is_recorded(sleeper: Process) -> None:
    kill = Kill(random.Random(0))
    assert kill.begin([sleeper], 3.9) is None
    effect = kill.begin([sleeper], 4.1)
    assert effect is not None
    assert sleeper.process.wait(5) == -9
    assert kill.at == [(4.1, WORKER)]


def test_a_role_that_keeps_dying_young_is_left_alone_for_more_than_a_minute(sleeper: Process) -> None:
    kill = Kill(random.Random(0))
    for _ in range(5):
        sleeper.process = NoProcess()
        assert kill.begin([sleeper], 20.0)
    assert kill.begin([sleeper], 60.0) is None
    assert kill.begin([sleeper], 71.0)
    assert kill.begin([sleeper], 20.0), "the count begins anew"


class NoProcess:
    def kill(self) -> None:
        pass


def test_a_role_with_many_processes_is_not_met_more_often() -> None:
    workers = [Process(WORKER, NoProcess(), 0.0) for _ in range(9)]
    rng = random.Random(0)
    met = Counter(choose(rng, [*workers, Process(REDIS, NoProcess(), 0.0)]).role for _ in range(1_000))
    assert met[REDIS] == pytest.approx(500, rel=0.15)
    assert choose(rng, []) is None


def test_a_link_has_one_harm_at_a_time() -> None:
    done: list[str] = []

    class Recorder(Link):
        def harm(self, how: str) -> None:
            done.append(how)

        def heal(self) -> None:
            done.append("whole")

    network = Network(random.Random(0), [Recorder("actor-replay", None)])
    living = [Process(WORKER, NoProcess(), 0.0)]
    effect = network.begin(living, 0.0)
    assert effect is not None
    assert effect.target == f"actor-replay {done[0]}"
    assert network.begin(living, 0.0) is None
    effect.end()
    assert done[1:] == ["whole"]
    assert network.begin(living, 0.0)


def test_times_are_between_their_bounds_and_mostly_short() -> None:
    rng = random.Random(0)
    drawn = sorted(log_uniform(rng, (1.0, 100.0)) for _ in range(1_000))
    assert 1.0 <= drawn[0] < drawn[-1] <= 100.0
    assert drawn[500] == pytest.approx(10.0, rel=0.25)


def test_redis_and_replay_server_are_killed_together_within_the_time() -> None:
    kills = [(0.0, REDIS), (5.0, LEARNER), (9.0, REPLAY), (12.0, REPLAY), (40.0, REDIS), (41.0, REDIS), (52.0, REPLAY)]
    # 9 and 12 after 0; 52 after 41; but 40 comes 28 s after 12
    assert killed_together(kills, within_s=15.0) == 3


@pytest.mark.parametrize(
    ("line", "of_launcher", "role"),
    [
        ("python -c from multiprocessing.spawn import spawn_main; spawn_main(5)", False, WORKER),
        ("python -c from multiprocessing.spawn import spawn_main; spawn_main(5)", True, ""),
        ("python entry.py actor_node.evaluation.evaluator_process", False, EVALUATOR),
        ("python entry.py actor_node --n 2", True, NODE),
        ("python entry.py actor_node.evaluation.rollouts.process", True, ""),
        (f"{find_server()} unixsocket:/tmp/redis", True, REDIS),
        ("python entry.py learner_node --run runs/a", True, LEARNER),
        ("python entry.py replay_server --bind ipc:///tmp/replay", True, REPLAY),
        ("python -c from multiprocessing.resource_tracker import main", False, ""),
    ],
)
def test_roles_are_known_by_their_command_lines(line: str, of_launcher: bool, role: str) -> None:
    assert role_of(line, of_launcher=of_launcher) == role


def test_each_role_reaches_its_peers_through_links() -> None:
    """And binds its own sockets where it always does."""
    links = Path("/links")
    actor = through_links(links, "actor", {"n": 2, "replay": "ipc:///run/replay", "weights": "ipc:///run/weights"})
    learner = through_links(links, "learner", {"bind": "ipc:///run/weights", "replay": "ipc:///run/replay"})
    assert actor == {"replay": "ipc:///links/actor-replay", "weights": "ipc:///links/actor-weights"}
    assert learner == {"replay": "ipc:///links/learner-replay"}
    assert through_links(links, "replay", {"bind": "ipc:///run/replay"}) == {}
    assert {f"actor-{name}" for name in actor} | {f"learner-{name}" for name in learner} == set(ROUTES)


def test_options() -> None:
    options = parse(["--faults", "kill,pause", "--set", "replay.n_step=3", "--set", "replay.batch=64"])
    assert options.faults == ["kill", "pause"]
    assert options.settings == ["replay.n_step=3", "replay.batch=64"]
    with pytest.raises(SystemExit) as exit_:
        parse(["--faults", "kill,fire"])
    assert exit_.value.code == 2
