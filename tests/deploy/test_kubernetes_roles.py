"""The roles with the cluster's configuration files, as processes: a learner whose pod is started again and again."""

from __future__ import annotations

import re
import signal
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from tests.conftest import PATIENCE_S, wait_until
from tests.deploy.manifests import KUBERNETES
from tests.system.conftest import Commands, commands, log_of

__all__ = ["commands"]
pytestmark = pytest.mark.system
CONFIG = KUBERNETES / "base" / "config"


class Cluster:
    """The roles over sockets in a directory; all else is as the files say."""

    def __init__(self, commands: Commands, directory: Path) -> None:
        self._commands, self.run = commands, RunDirectory(directory / "run")
        self._replay, self._weights = f"ipc://{directory / 'replay'}", f"ipc://{directory / 'weights'}"

    def start(self, role: str, *options: object) -> subprocess.Popen[bytes]:
        own = {
            "replay": ["--bind", self._replay, "--redis", "none"],
            "learner": ["--bind", self._weights, "--replay", self._replay, "--run", self.run.path],
            "actor": ["--weights", self._weights, "--replay", self._replay, "--n", 1],
        }
        files = ["--config", CONFIG / f"{role}.toml", "--metrics-port", 0]
        return self._commands.start(role, *files, *own[role], *options)


def answer_of(learner: subprocess.Popen[bytes], path: str) -> int:
    """Returns the HTTP status of a probe; 0 when there is no answer yet."""
    found = re.search(r"http://\S+:(\d+)/metrics", log_of(learner))
    if not found:
        return 0
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}{path}", timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as e:
        return e.code


def metrics_of(learner: subprocess.Popen[bytes]) -> str:
    """Returns what it tells on /metrics."""
    port = re.findall(r"http://\S+:(\d+)/metrics", log_of(learner))[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def done_and_there(learner: subprocess.Popen[bytes]) -> bool:
    return "the run is done; waiting for SIGTERM" in log_of(learner)


@pytest.mark.soak
def test_a_learner_that_is_done_stays_and_goes_on_only_with_a_larger_budget(commands: Commands, tmp_path: Path) -> None:
    cluster = Cluster(commands, tmp_path)
    budget = ("--time", 0, "--set", "replay.min_size=1000", "--steps")
    for role in ("replay", "actor"):
        cluster.start(role)

    learner = cluster.start("learner", *budget, 6_000)
    wait_until(lambda: done_and_there(learner), f"the run is done: {log_of(learner)}")
    assert cluster.run.finished_file.exists()
    assert (answer_of(learner, "/healthz"), answer_of(learner, "/readyz")) == (200, 200)
    learner.send_signal(signal.SIGTERM)
    assert learner.wait(PATIENCE_S) == 0, log_of(learner)

    again = cluster.start("learner", *budget, 6_000)  # as after a node's failure
    wait_until(lambda: done_and_there(again), f"it sees that the run is done: {log_of(again)}")
    assert again.poll() is None
    assert f'run="{cluster.run.run.id}"' in metrics_of(again), "alerts know by it whose run is done"
    again.send_signal(signal.SIGTERM)
    assert again.wait(PATIENCE_S) == 0, log_of(again)

    more = cluster.start("learner", *budget, 9_000)
    wait_until(lambda: done_and_there(more), f"it has gone on: {log_of(more)}")
    assert "resumed: updates=" in log_of(more)
    assert cluster.run.finished_file.exists()


def test_a_learner_that_is_ended_early_does_not_stay(commands: Commands, tmp_path: Path) -> None:
    cluster = Cluster(commands, tmp_path)
    learner = cluster.start("learner")
    wait_until(lambda: answer_of(learner, "/healthz") == 200, f"it is alive while it waits: {log_of(learner)}")
    assert answer_of(learner, "/readyz") == 503, "no replay server has taken it in"
    learner.send_signal(signal.SIGTERM)
    assert learner.wait(PATIENCE_S) == 0, log_of(learner)
    assert not cluster.run.finished_file.exists()
