"""One replay server serves one run after another: real processes, which are never restarted for the next run."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from common.wire.messages import Status
from tests.conftest import PATIENCE_S, wait_until
from tests.replay_server.conftest import Valkey

from .conftest import Commands, kill, log_of, status_at

pytestmark = pytest.mark.system

SMALL = ("--set", "replay.min_size=500", "--set", "replay.batch=64", "--set", "exploration.random_steps=200")
KEPT_FOR_LONG = ("--release-after", "10m")


class Service:
    """A replay server over a Redis, and an actor node; both outlive their runs."""

    def __init__(self, commands: Commands, directory: Path, valkey: Valkey) -> None:
        self.commands, self.directory, self.valkey = commands, directory, valkey
        self.endpoint = f"ipc://{directory / 'replay'}"
        self.links = ("--replay", self.endpoint, "--metrics-port", 0)

    def start_replay(self, *options: object) -> subprocess.Popen[bytes]:
        return self.commands.start(
            "replay", "--bind", self.endpoint, "--redis", self.valkey.url, "--metrics-port", 0, *options
        )

    def start_actor(self) -> subprocess.Popen[bytes]:
        return self.commands.start(
            "actor", "--n", 1, "--copies", 8, *self.links, "--weights", f"ipc://{self.directory / 'weights'}"
        )

    def start_learner(self, name: str, *options: object) -> subprocess.Popen[bytes]:
        run = ("--scenario", "simple_spread", "--run", self.directory / name, *SMALL)
        bind = ("--bind", f"ipc://{self.directory / 'weights'}")
        return self.commands.start("learner", *run, *self.links, *bind, *options)

    def run_id(self, name: str) -> str:
        return RunDirectory(self.directory / name).run.id

    def status(self) -> Status:
        return wait_until(lambda: status_at(self.endpoint), "the replay server answers")

    def chunks(self) -> int:
        """Returns the number of chunks in Redis."""
        return len(self.valkey.client().keys("*:chunk:*"))


@pytest.fixture
def service(commands: Commands, tmp_path: Path, make_valkey: Callable[..., Valkey]) -> Service:
    return Service(commands, tmp_path, make_valkey())


def trained(learner: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a learner, which ends when its budget is used."""
    assert learner.wait(PATIENCE_S) == 0, log_of(learner)
    assert "has not confirmed" not in log_of(learner)


def test_a_run_finishes_and_the_next_one_starts_on_the_same_processes(service: Service) -> None:
    replay, actor = service.start_replay(*KEPT_FOR_LONG), service.start_actor()
    trained(service.start_learner("a", "--steps", 3_000))

    finished = service.status()
    assert finished.learner is not None
    assert finished.learner.finished
    assert (finished.run.id, finished.size) == (service.run_id("a"), finished.inserts)  # type: ignore[union-attr]
    assert service.chunks() > 0
    code, out, err = service.commands.run("shoal", "status", "--replay", service.endpoint)
    assert code == 0, err
    assert "finished" in out
    wait_until(lambda: "is finished" in log_of(actor), "the actor says that the run is finished")

    second = service.start_learner("b", "--steps", 2_000, "--set", "replay.capacity=1500")
    trained(second)

    after = service.status()
    assert (after.run.id, after.capacity) == (service.run_id("b"), 1_500)  # type: ignore[union-attr]
    assert 2_000 <= after.inserts < 3_000, "only transitions of the second run are counted"
    assert after.rejected == {}
    assert f"run={service.run_id('a')}" in log_of(replay), "released"
    for process in (replay, actor):
        assert process.poll() is None, log_of(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, log_of(process)


def test_a_finished_run_is_released_also_after_a_kill_and_its_status_stays(service: Service) -> None:
    replay, _ = service.start_replay(*KEPT_FOR_LONG), service.start_actor()
    trained(service.start_learner("a", "--steps", 2_000))
    stored = wait_until(lambda: (s := service.status()).unacknowledged_chunks == 0 and s, "all is in Redis")

    # Killed before the release: nothing is lost, and the run is still finished.
    kill(replay.pid)
    replay.wait()
    replay = service.start_replay(*KEPT_FOR_LONG)
    again = service.status()
    assert (again.size, again.run) == (stored.size, stored.run)
    assert again.learner is not None
    assert again.learner.finished

    chunks = service.chunks()
    # Killed at the release: the next process finds all chunks or none, and releases what it finds.
    kill(replay.pid)
    replay.wait()
    replay = service.start_replay("--release-after", 0)
    wait_until(lambda: "released transitions=" in log_of(replay), "the release starts")
    kill(replay.pid)
    replay.wait()
    assert service.chunks() in (0, chunks), "all of one transaction, or nothing"
    replay = service.start_replay("--release-after", 0)
    wait_until(lambda: service.status().size == 0 and service.chunks() == 0, "everything is released")
    gone = service.status()
    assert (gone.run, gone.inserts) == (stored.run, stored.inserts)
    assert gone.learner is not None
    assert gone.learner.finished

    # A larger budget continues the run with an empty replay.
    learner = service.commands.start(
        "learner", "--resume", "--run", service.directory / "a", "--steps", 4_000, *service.links,
        "--bind", f"ipc://{service.directory / 'weights'}",
    )  # fmt: skip
    trained(learner)
    assert service.status().inserts >= 4_000
    assert re.search(r"resumed: updates=\d+", log_of(learner))


def test_an_abandoned_run_is_discarded_with_fresh_and_only_then(service: Service) -> None:
    replay, _ = service.start_replay(), service.start_actor()
    first = service.start_learner("a", "--time", "10m")
    wait_until(lambda: (s := service.status()).learner and s.learner.updates > 20 and s, "the first run learns")

    def refused(name: str, *options: object) -> str:
        """Starts another run, which is refused; returns the log of its learner."""
        learner = service.start_learner(name, "--bind", f"ipc://{service.directory / 'others'}", *options)
        assert learner.wait(PATIENCE_S) == 3, log_of(learner)
        assert f"of the run {service.run_id('a')}" in log_of(learner)
        return log_of(learner)

    for options in ((), ("--fresh",)):
        assert "is connected" in refused(f"refused-{len(options)}", *options)
    assert first.poll() is None, log_of(first)

    kill(first.pid)
    first.wait()
    log = refused("refused-again")
    assert "environment steps" in log
    assert "starting this learner with --fresh" in log
    assert service.status().run.id == service.run_id("a")  # type: ignore[union-attr]

    trained(service.start_learner("b", "--steps", 2_000, "--fresh"))
    after = service.status()
    assert after.run is not None
    assert after.run.id == service.run_id("b")
    assert 2_000 <= after.inserts < 3_000
    assert replay.poll() is None
