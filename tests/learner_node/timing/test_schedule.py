"""Schedules, versions and devices: small decisions, each a function."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner

from common.errors import ConfigError
from common.run.run import AlgorithmSpec, BudgetSpec, ExplorationSpec
from learner_node import cli
from learner_node.devices import choose_device
from learner_node.publishing.broadcast import first_version
from learner_node.timing import schedule
from learner_node.timing.clocks import Timer, UpdateRate


@pytest.mark.parametrize(
    ("budget", "steps", "seconds", "share"),
    [
        (BudgetSpec(), 10**9, 10**9, 0.0),
        (BudgetSpec(steps=100), 25, 10**6, 0.25),
        (BudgetSpec(seconds=100.0), 10**6, 25.0, 0.25),
        (BudgetSpec(steps=100, seconds=100.0), 25, 75.0, 0.75),
        (BudgetSpec(steps=100), 250, 0.0, 1.0),
    ],
)
def test_progress_is_the_further_share_of_steps_and_time(
    budget: BudgetSpec, steps: int, seconds: float, share: float
) -> None:
    assert schedule.progress(budget, steps, seconds) == share


def test_exploration_falls_over_its_share_of_the_budget() -> None:
    exploration = ExplorationSpec(scale=0.4, final_scale=0.1, decay_share=0.5)
    scales = [schedule.exploration_scale(exploration, share, 10**6) for share in (0.0, 0.25, 0.5, 1.0)]
    assert scales == pytest.approx([0.4, 0.25, 0.1, 0.1])


def test_exploration_falls_over_environment_steps_whatever_the_budget_is() -> None:
    exploration = ExplorationSpec(scale=0.4, final_scale=0.1, decay_share=0.5, decay_steps=1_000)
    for progress in (0.0, 0.5, 1.0):
        scales = [schedule.exploration_scale(exploration, progress, steps) for steps in (0, 500, 1_000, 10**9)]
        assert scales == pytest.approx([0.4, 0.25, 0.1, 0.1])


def test_exploration_falls_by_a_rate_each_environment_step_to_a_floor() -> None:
    exploration = ExplorationSpec(decay="exponential", scale=2.0, final_scale=0.1, decay_rate=0.99)
    scales = [schedule.exploration_scale(exploration, 1.0, steps) for steps in (0, 1, 100, 298, 299, 2**53)]
    assert scales == pytest.approx([2.0, 1.98, 2.0 * 0.99**100, 2.0 * 0.99**298, 0.1, 0.1])
    assert scales[3] > 0.1


def test_exploration_that_does_not_decay_stays() -> None:
    exploration = ExplorationSpec(decay="exponential", scale=0.3, final_scale=0.0, decay_rate=1.0)
    assert schedule.exploration_scale(exploration, 1.0, 2**53) == 0.3


def test_random_actions_end_with_the_warm_up() -> None:
    exploration = ExplorationSpec(random_steps=100)
    assert [schedule.random_fraction(exploration, steps) for steps in (0, 99, 100)] == [1.0, 1.0, 0.0]


def test_learning_rates_fall_linearly() -> None:
    algorithm = AlgorithmSpec(final_learning_rate_share=0.2)
    assert [schedule.learning_rate_fraction(algorithm, share) for share in (0.0, 0.5, 1.0)] == pytest.approx(
        [1, 0.6, 0.2]
    )


def test_the_first_version_after_a_restart_is_beyond_all_that_may_have_been_published() -> None:
    assert first_version(0, 0, 60.0) == 1
    assert first_version(10, 300, 60.0) >= 300 + 1 + 5
    assert first_version(300, 10, 60.0) >= 300 + 1 + 5
    assert first_version(10, 0, 60.0) >= 10 + 1 + 300


def test_a_period_is_over_once() -> None:
    timer = Timer(2.0, 10.0)
    assert [timer.is_due(now) for now in (11.0, 12.0, 12.5, 14.0)] == [False, True, False, True]


def test_the_rate_of_updates() -> None:
    rate = UpdateRate()
    assert rate.value == 0.0
    for now in range(4):
        rate.observe(now * 100, float(now))
    assert rate.value == 100.0


def test_a_gpu_that_is_not_there_is_the_users_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="--gpu") as caught:
        choose_device(gpu=True)
    assert caught.value.exit_code == 2
    assert choose_device(gpu=False).torch == torch.device("cpu")


@pytest.mark.parametrize("option", ["--gpu", "--replay", "--bind", "--run", "--resume", "--seed", "--steps", "--time"])
def test_the_command_has_its_promised_options(option: str) -> None:
    assert option in CliRunner().invoke(cli.learner, ["--help"]).output
