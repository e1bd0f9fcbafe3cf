"""Tests of what the peers' training scripts share, without the peers: the clock, the counters and the evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal.commands.bench.peers.scripts import training_run
from shoal.commands.bench.peers.scripts.training_run import EPISODES_A_POINT, POINTS, TrainingRun


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class World:
    """Two agents that get their action as the reward for `steps` steps; evaluations take a second an episode."""

    possible_agents = ("a", "b")

    def __init__(self, clock: Clock, seeds: list[int]) -> None:
        self._clock, self._seeds = clock, seeds

    def reset(self, seed: int) -> tuple[dict[str, float], dict[str, Any]]:
        self._clock.now += 1.0
        self._seeds.append(seed)
        self.agents, self._left = ["a", "b"], 3
        return {"a": 0.0, "b": 0.0}, {}

    def step(self, actions: Mapping[str, float]) -> tuple[Any, ...]:
        self._left -= 1
        self.agents = ["a", "b"] if self._left else []
        return {"a": 0.0, "b": 0.0}, dict(actions), {}, {}, {}

    def close(self) -> None:
        pass


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> tuple[Clock, list[int]]:
    clock, seeds = Clock(), list[int]()
    monkeypatch.setattr(training_run, "time", clock)
    monkeypatch.setattr(training_run, "make_world", lambda _: World(clock, seeds))
    return clock, seeds


def test_evaluations_are_even_and_do_not_count_as_training(setting: tuple[Clock, list[int]]) -> None:
    clock, seeds = setting
    run = TrainingRun("simple_spread", 50.0, 20, seed=7, train_seed=1)
    run.start()

    def act(obs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"a": 2.0, "b": 0.5 * len(obs)}

    while run.running:
        clock.now += 1.0
        run.count(steps=10, updates=1 if run.trained_s > 10.0 else 0)
        run.evaluate_if_due(act)
    result = run.result(act)
    assert [point["trained_s"] for point in result["curve"]] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert [point["env_steps"] for point in result["curve"]] == [100, 200, 300, 400, 500]
    assert [point["updates"] for point in result["curve"]] == [0, 10, 20, 30, 40]
    assert {point["return_mean"] for point in result["curve"]} == {9.0}  # three steps of 2 + 1
    assert result["return_mean"] == 9.0
    # 390 steps after those of the second with the first update, in 39 s
    assert (result["env_steps_s"], result["updates_s"]) == (pytest.approx(10.0), pytest.approx(40 / 39))
    assert seeds == [*[7, 8] * (POINTS - 1), *range(7, 27)]
    assert EPISODES_A_POINT == 10


def test_a_run_without_an_update_has_no_update_rate(setting: tuple[Clock, list[int]]) -> None:
    clock, _ = setting
    run = TrainingRun("simple_spread", 5.0, 1, seed=0, train_seed=1)
    run.start()
    clock.now += 5.0
    run.count(steps=100)
    result = run.result(lambda obs: dict.fromkeys(obs, 0.0))
    assert (result["env_steps_s"], result["updates_s"]) == (20.0, 0.0)


@pytest.mark.slow
def test_the_world_of_the_peers_is_mpe2s() -> None:
    world = training_run.make_world("simple_spread")
    obs, _ = world.reset(seed=3)
    assert {name: np.shape(one) for name, one in obs.items()} == {f"agent_{i}": (18,) for i in range(3)}
    assert world.action_space("agent_0").shape == (5,)


def test_the_scripts_import_nothing_of_shoal() -> None:
    """They run in virtual environments that lack Shoal."""
    for script in Path(training_run.__file__).parent.glob("*.py"):
        text = script.read_text()
        assert not any(f"{word} {name}" in text for word in ("import", "from") for name in ("shoal", "common")), script
