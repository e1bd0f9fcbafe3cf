"""The evaluator process through its thread: figures, faults of an environment, kill -9, and the bound on its time."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest

from actor_node.evaluation.evaluate import play
from common.policy.network import Policy, named_parameters, parameter_shapes
from common.run.evaluations import EvaluationRequest, ScheduledEvaluation
from common.run.run import Run, make_run_spec
from common.worlds import make_world, world_spec
from learner_node.evaluation import evaluations as evaluations_module
from learner_node.evaluation.evaluations import Evaluations
from learner_node.evaluation.evaluator import EvaluationOutcome, Evaluator
from learner_node.persistence.state import Counters
from tests.conftest import wait_until

pytestmark = pytest.mark.slow

SLOW = "pettingzoo:tests.actor_node.slow_env:SlowEnv"
REQUEST = EvaluationRequest(env_steps=1_200, updates=7, trained_s=3.5, episodes=6, within_s=0.0)


def make_run(scenario: str, world: dict[str, Any] | None = None, **settings: object) -> Run:
    layer = {"scenario": scenario, "world": world or {}, "network": {"policy_hidden": [8]}}
    spec = make_run_spec(layer, settings)
    return Run("run-1", spec, world_spec(scenario))  # a fault is for the evaluator only


def weights(run: Run, seed: int = 0) -> np.ndarray:
    shapes = [shape for player in run.players.agents for shape in parameter_shapes(player, run.spec.network).values()]
    size = sum(int(np.prod(shape)) for shape in shapes)
    flat = np.random.default_rng(seed).normal(0.0, 0.5, size).astype(np.float32)
    assert named_parameters(flat, run.players, run.spec.network)
    return flat


@pytest.fixture
def evaluator(request: pytest.FixtureRequest) -> Iterator[Evaluator]:
    made = Evaluator(request.param)
    yield made
    made.close()
    assert not evaluator_processes()


def evaluator_processes() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "evaluator_process" in " ".join(child.cmdline())]


def outcome_of(evaluator: Evaluator, run: Run, request: EvaluationRequest = REQUEST, limit_s: float = 30.0) -> Any:
    evaluator.start(request, weights(run), limit_s)
    assert evaluator.busy
    found: list[EvaluationOutcome] = []

    def ended() -> bool:
        if (outcome := evaluator.poll()) is not None:
            found.append(outcome)
        return bool(found)

    wait_until(ended, "the outcome")
    assert not evaluator.busy
    return found[0]


TAG = make_run("simple_tag")


@pytest.mark.parametrize("evaluator", [TAG], indirect=True)
def test_the_figures_are_those_of_the_same_episodes_played_here(evaluator: Evaluator) -> None:
    first, second = outcome_of(evaluator, TAG), outcome_of(evaluator, TAG)
    world = make_world("simple_tag", 6, seed=0, options=TAG.spec.world)
    policy = Policy(TAG.players, TAG.spec.network, weights(TAG))
    returns = play(world, policy, 6, 2_000_000, lambda _: None)
    found = first.result
    assert first.problem == ""
    assert (found.env_steps, found.updates, found.trained_s, found.episodes) == (1_200, 7, 3.5, 6)
    assert found.seed == 2_000_000
    assert found.return_mean == pytest.approx(returns.sum(axis=1).mean(), rel=1e-9)
    names = [agent.name for agent in TAG.joint.agents]
    assert list(found.return_per_agent) == names
    assert list(found.return_per_agent.values()) == pytest.approx(returns.mean(axis=0).tolist(), rel=1e-9)
    assert found.length_mean == 25.0
    assert 0.0 <= found.metrics["touches"] <= 3 * 25
    again = second.result
    assert (again.return_mean, again.return_ci95, again.metrics) == (
        found.return_mean,
        found.return_ci95,
        found.metrics,
    )


@pytest.mark.parametrize("evaluator", [TAG], indirect=True)
def test_kill_9_costs_the_evaluation_and_the_next_one_has_a_new_process(evaluator: Evaluator) -> None:
    assert outcome_of(evaluator, TAG).result is not None
    (child,) = evaluator_processes()
    os.kill(child.pid, signal.SIGSTOP)  # it cannot end the evaluation before it is killed
    evaluator.start(REQUEST, weights(TAG), 30.0)
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: (found := evaluator.poll()) is not None and found.result is None, "the failure")
    assert outcome_of(evaluator, TAG).result is not None
    assert evaluator_processes()[0].pid != child.pid


FAULTS = {
    "raise": "the licence server said no",
    "os_exit": "its process ended with code 0",
    "segfault": "its process ended with code -11",
    "sleep": "it took longer than 2.0 s",
}


@pytest.mark.parametrize(
    ("way", "evaluator"),
    [(way, make_run(SLOW, {"fail_in": "make" if way == "raise" else "step", "way": way, "copy": 1})) for way in FAULTS],
    indirect=["evaluator"],
    ids=FAULTS,
)
def test_a_fault_of_an_environment_is_an_outcome(evaluator: Evaluator, way: str) -> None:
    found = outcome_of(evaluator, evaluator._run, limit_s=30.0 if way != "sleep" else 2.0)
    assert found.result is None
    assert FAULTS[way] in found.problem


# ---- the learner's side -------------------------------------------------------------------------------------------


class Clock:
    """A learner's loop: counters that follow the time."""

    def __init__(self, run: Run, seconds: float) -> None:
        self.counters = Counters()
        self.run, self.seconds, self.started_at = run, seconds, time.monotonic()
        self.results: list[ScheduledEvaluation] = []
        self.evaluations = Evaluations(run, self.counters, self.results.append)

    def loop(self) -> float:
        """Runs the loop until the budget is used; returns the longest iteration [s]."""
        longest, flat = 0.0, weights(self.run)
        while (elapsed := time.monotonic() - self.started_at) < self.seconds:
            self.counters.trained_s, self.counters.updates = elapsed, self.counters.updates + 1
            started_at = time.monotonic()
            self.evaluations.advance(lambda: flat, lambda: True)
            longest = max(longest, time.monotonic() - started_at)
            time.sleep(0.01)
        self.counters.trained_s = self.seconds
        self.evaluations.finish(lambda: flat, lambda: True)
        self.evaluations.close()
        return longest


def test_a_slow_world_takes_no_more_than_its_fraction_of_the_time_and_never_holds_the_loop() -> None:
    """An episode takes half a second: of 10 s, three may be used."""
    run = make_run(SLOW, {"step_s": 0.02}, budget={"seconds": 10.0}, evaluation={"share_of_time": 0.3, "times": 10})
    clock = Clock(run, 10.0)
    longest = clock.loop()
    assert clock.results
    assert sum(one.seconds for one in clock.results) <= 0.3 * 10.0
    assert all(one.episodes >= 1 for one in clock.results)
    assert longest < 1.0


def test_a_world_that_hangs_costs_evaluations_only_and_is_logged_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(evaluations_module, "_POLL_PERIOD_S", 0.01)
    world = {"fail_in": "reset", "way": "stubborn", "copy": 1}
    run = make_run(SLOW, world, budget={"seconds": 5.0}, evaluation={"share_of_time": 0.2, "times": 10})
    with caplog.at_level(logging.WARNING):
        clock = Clock(run, 5.0)
        clock.loop()
    assert not clock.results
    warnings = [record.message for record in caplog.records if "evaluation failed" in record.message]
    assert len(warnings) == 1
    assert "it took longer than 1." in warnings[0]
    assert not evaluator_processes()


def test_with_all_of_the_time_every_due_evaluation_is_made() -> None:
    run = make_run("simple", budget={"steps": 30}, evaluation={"times": 3, "share_of_time": 1.0, "episodes": 5})
    counters, results, flat = Counters(), list[ScheduledEvaluation](), weights(run)
    evaluations = Evaluations(run, counters, results.append)
    for step in range(30):
        counters.env_steps = counters.updates = step
        evaluations.advance(lambda: flat, lambda: True)
    counters.env_steps = counters.updates = 30
    evaluations.finish(lambda: flat, lambda: True)
    evaluations.close()
    assert [one.env_steps for one in results] == [0, 10, 20, 30]
    assert [one.episodes for one in results] == [5, 5, 5, 5]
