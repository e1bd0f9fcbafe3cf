"""The learner's whole loop against a replay server that answers: what it publishes, keeps, reports, and survives."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import zmq

from common.errors import PeerError, ShoalError
from common.policy.file import load_policy
from common.process.monitoring.health import Health
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.run.run import Run
from common.wire.messages import LearnerReport
from common.wire.weights import Weights, unpack_weights
from learner_node import learner
from learner_node.config import LearnerConfig
from learner_node.devices import Device
from learner_node.learner import Learner
from learner_node.publishing import broadcast
from learner_node.replay import replay_client
from learner_node.reporting.metrics import Metrics
from tests.conftest import wait_until

from .fake_replay import FakeReplay, small_run

CPU = Device(torch.device("cpu"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens every period, so that seconds of a run pass in a tenth."""
    for module, names in ((learner, ("REPORT_PERIOD_S", "LOG_PERIOD_S")), (broadcast, ("MIN_PERIOD_S",))):
        for name in names:
            monkeypatch.setattr(module, name, getattr(module, name) / 10)
    monkeypatch.setattr(broadcast, "STORE_PERIOD_S", 0.05)


class Training:
    """A learner in a thread, and a subscriber to its weights."""

    def __init__(self, run: Run, directory: Path, replay: str, **config: object) -> None:
        directory.mkdir(exist_ok=True)
        settings = {"replay": (replay,), **config}
        self._broadcast = broadcast.Broadcast("tcp://127.0.0.1:*")
        self.stop, self.health = Stop(), Health()
        self.learner = Learner(
            run,
            RunDirectory(directory),
            LearnerConfig(**settings),  # type: ignore[arg-type]
            CPU,
            metrics=Metrics(),
            broadcast=self._broadcast,
        )
        self.error: ShoalError | None = None
        self.published: list[Weights] = []
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.subscribe(b"")
        self._socket.connect(self._broadcast.endpoint)
        self._threads = [threading.Thread(target=target) for target in (self._train, self._listen)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.stop.request()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20.0)
            assert not thread.is_alive()
        self._context.destroy(linger=0)

    def _train(self) -> None:
        try:
            self.learner.run(self.stop, self.health)
        except ShoalError as e:
            self.error = e
        finally:
            self.learner.close()
            self._broadcast.close()

    def _listen(self) -> None:
        trainer = self._threads[0]
        while trainer.is_alive() or self._socket.poll(50):
            if self._socket.poll(5):
                self.published.append(unpack_weights(self._socket.recv()))


Start = Callable[..., Training]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts learners of one run directory; ends them with the test."""
    trainings: list[Training] = []

    def begin(run: Run, replay: FakeReplay | str, **config: object) -> Training:
        endpoint = replay if isinstance(replay, str) else replay.endpoint
        trainings.append(Training(run, tmp_path / "run", endpoint, **config))
        return trainings[-1]

    yield begin
    for training in trainings:
        training.stop.request()
        for thread in training._threads:
            thread.join(20.0)


def last_report(replay: FakeReplay) -> LearnerReport:
    message = replay.of(LearnerReport)[-1]
    assert isinstance(message, LearnerReport)
    return message


def test_it_trains_until_the_budget_is_used_and_leaves_all_that_is_promised(start: Start, tmp_path: Path) -> None:
    run = small_run(budget={"steps": 1_000}, exploration={"random_steps": 300, "scale": 0.4, "final_scale": 0.1})
    with FakeReplay(run) as replay:
        training = start(run, replay)
        training.join()
        wait_until(lambda: replay.of(LearnerReport) and last_report(replay).finished, "the last report")
        report = last_report(replay)
    assert training.error is None
    assert report.progress == 1.0
    assert report.updates >= 800
    headers = [weights.header for weights in training.published]
    versions = [header.version for header in headers]
    assert versions == sorted(set(versions))
    assert {header.run for header in headers} == {"run-1"}
    assert headers[-1].random_share == 0.0
    assert headers[-1].exploration_scale == pytest.approx(0.1)

    directory = RunDirectory(tmp_path / "run")
    kept = load_policy(directory.policy_file)
    assert kept.version == versions[-1]
    np.testing.assert_array_equal(kept.flat, training.published[-1].flat)
    assert unpack_weights(replay.weights[-1]).header.version in versions
    lines = [json.loads(line) for line in directory.metrics_file.read_text().splitlines()]
    assert lines[-1]["env_steps"] >= 1_000
    assert len(lines[-1]["critic_loss"]) == len(run.joint.agents)
    assert lines[-1]["return_means"] == [-1.0] * len(run.joint.agents)
    assert list(directory.tensorboard.iterdir())
    assert list(directory.checkpoints.glob("updates-*.safetensors"))


def test_the_first_weights_go_out_at_once_and_ask_for_random_actions(start: Start) -> None:
    run = small_run(exploration={"random_steps": 300})
    with FakeReplay(run, inserts=0) as replay:
        replay.holding = "32 transitions, none is there"
        training = start(run, replay)
        wait_until(lambda: replay.weights, "a copy of the first weights")
        header = unpack_weights(replay.weights[0]).header
        assert (header.version, header.updates, header.random_share) == (1, 0, 1.0)
        wait_until(
            lambda: last_report(replay).waiting_for == replay.holding if replay.of(LearnerReport) else None, "why"
        )
        assert math.isnan(last_report(replay).critic_loss)
        assert math.isnan(last_report(replay).policy_loss)
        replay.inserts = 300
        replay.heard.clear()
        training.end()


def test_a_stop_saves_and_a_resumed_run_goes_on(start: Start) -> None:
    run = small_run(budget={"seconds": 1_000.0})
    with FakeReplay(run) as replay:
        first = start(run, replay)
        wait_until(lambda: first.learner.counters.updates > 50, "updates")
        first.end()
        assert first.error is None
        stopped_at, trained_s = first.learner.counters.updates, first.learner.counters.trained_s
        replay.version = first.published[-1].header.version
        second = start(run, replay)
        wait_until(lambda: second.learner.counters.updates > stopped_at + 20, "more updates")
        second.end()
    assert 0 < trained_s < second.learner.counters.trained_s
    assert second.published[0].header.updates >= stopped_at
    assert second.published[0].header.version > first.published[-1].header.version


def test_a_replay_that_knows_newer_weights_is_believed(start: Start) -> None:
    run = small_run(budget={"steps": 400})
    with FakeReplay(run, version=70) as replay:
        training = start(run, replay)
        training.join()
    assert training.published[0].header.version > 70


def test_weights_that_are_not_finite_are_never_published(start: Start) -> None:
    run = small_run(budget={"seconds": 1_000.0})
    with FakeReplay(run) as replay:
        training = start(run, replay)
        wait_until(lambda: training.learner.counters.updates > 20, "updates")
        training.learner._trainer.engine.policies.shared.fill_(torch.nan)
        training.join()
    assert training.error is not None
    assert "lower algorithm.critic_learning_rate" in str(training.error)
    assert all(np.isfinite(weights.flat).all() for weights in training.published)


def test_without_a_replay_server_it_gives_up_when_told_to(start: Start) -> None:
    training = start(small_run(), "tcp://127.0.0.1:1", peer_timeout=0.3)
    training.join()
    assert isinstance(training.error, PeerError)
    assert "tcp://127.0.0.1:1" in str(training.error)
    assert "replay server" in training.health.not_ready


def test_it_outlives_a_restart_of_the_replay(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_client, "POLL_MS", 20)
    run = small_run(budget={"seconds": 1_000.0})
    first = FakeReplay(run)
    training = start(run, first)
    wait_until(lambda: training.learner.counters.updates > 20, "updates")
    first.close()
    updates = training.learner.counters.updates
    with FakeReplay(run, first.endpoint, inserts=2_000):
        wait_until(lambda: training.learner.counters.updates > updates + 50, "updates by the new server")
        training.end()
    assert training.error is None
    assert training.learner.counters.env_steps > 2_000


def test_the_time_ends_during_the_warm_up_too_and_that_is_said(start: Start, tmp_path: Path) -> None:
    run = small_run(budget={"seconds": 0.5}, replay={"min_size": 400, "batch": 16, "capacity": 1_000})
    with FakeReplay(run, inserts=0, size=40) as replay:
        replay.holding = "actors: 40 of 400 transitions of the warm-up"
        training = start(run, replay)
        wait_until(lambda: replay.weights, "a copy of the first weights")
        assert training.learner.counters.trained_s == 0.0, "no transition has come"
        replay.inserts = 40
        training.join()
        wait_until(lambda: last_report(replay).finished, "the last report")
        report = last_report(replay)
    assert training.error is None
    assert (report.progress, report.updates) == (1.0, 0)
    assert report.trained_s == pytest.approx(0.5, abs=0.4)
    assert "no update was done" in report.warnings[0]
    assert {message.doing for message in replay.of(LearnerReport) if isinstance(message, LearnerReport)} >= {
        "warming up: 40 of 400 transitions"
    }
    assert RunDirectory(tmp_path / "run").finished_file.exists()
    assert load_policy(RunDirectory(tmp_path / "run").policy_file).updates == 0


def test_what_is_built_is_told_before_it_is_there(start: Start) -> None:
    run = small_run(budget={"steps": 300})
    with FakeReplay(run) as replay:
        training = start(run, replay)
        training.join()
        told = [message.doing for message in replay.of(LearnerReport) if isinstance(message, LearnerReport)]
    assert told[0].startswith("building the networks of 4 players: ")
    assert told[-1] == ""


def test_time_stands_still_while_a_peer_is_gone_and_the_report_names_it(start: Start) -> None:
    run = small_run(budget={"seconds": 1_000.0})
    with FakeReplay(run) as replay:
        training = start(run, replay)
        wait_until(lambda: training.learner.counters.updates > 20, "updates")
        replay.absent = "actors: none is connected"
        replay.holding = "actors: none is connected"
        wait_until(lambda: last_report(replay).paused == replay.absent, "a pause")
        first = last_report(replay)
        count = len(replay.of(LearnerReport))
        wait_until(lambda: len(replay.of(LearnerReport)) > count + 3, "more reports")
        assert last_report(replay).trained_s == first.trained_s
        replay.absent, replay.holding = "", ""
        replay.inserts += 1
        wait_until(lambda: not last_report(replay).paused, "the end of the pause")
        wait_until(lambda: last_report(replay).trained_s > first.trained_s, "time that is charged")
        training.end()
    assert training.error is None
