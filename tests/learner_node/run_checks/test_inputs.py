"""Sizes of what networks are fed with, and what is remarked of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.run.run import AlgorithmSpec, Run, make_run_spec
from common.spec import Box, joint_spec
from common.transitions import transition_dtype
from learner_node.run_checks.inputs import (
    InputMonitor,
    RewardChange,
    clipping_remarks,
    horizon_remarks,
    input_remarks,
    measure_inputs,
    nonzero_rms,
    remark_key,
    reward_change_remarks,
)

JOINT = joint_spec([("a_0", "a", 2, (Box((-1.0,), (1.0,)),)), ("b_0", "b", 1, (Box((-1.0,), (1.0,)),))])


def run_of(scenario: str = "pettingzoo:somewhere", **algorithm: object) -> Run:
    return Run("r", make_run_spec({"scenario": scenario, "algorithm": algorithm}), JOINT)


def records(rows: int, observed: float, rewarded: float, version: int = 1) -> np.ndarray:
    """Returns a batch's words: observations and rewards of two sizes of alternating sign."""
    found = np.zeros(rows, transition_dtype(JOINT))
    signs = np.where(np.arange(rows) % 2, 1.0, -1.0)[:, None]
    found["obs"], found["reward"], found["present"] = signs * observed, signs * rewarded, 1.0
    found["policy_version"] = version
    return found.view("<f4").reshape(rows, -1)


def test_figures_are_of_each_agent_and_of_the_rows_in_which_it_acts() -> None:
    obs = np.array([[3.0, 0.0, 1.0], [-3.0, 0.0, 9.0]], np.float32)
    reward = np.array([[2.0, 0.0], [0.0, 7.0]], np.float32)
    present = np.array([[1.0, 1.0], [1.0, 0.0]], np.float32)
    stats = measure_inputs(JOINT, obs, reward, present)
    assert (stats.obs_mean, stats.obs_size) == ([0.0, 1.0], [3.0, 1.0])
    assert stats.obs_spread == pytest.approx([math.sqrt(4.5), 0.0])
    assert (stats.reward_mean, stats.reward_spread, stats.reward_size) == ([1.0, 0.0], [1.0, 0.0], [2.0, 0.0])


def test_rewards_of_any_size_that_float32_holds_are_measured() -> None:
    assert nonzero_rms(np.array([1e38, -1e38, 0.0])) == pytest.approx(1e38)
    assert nonzero_rms(np.zeros(3)) == 0.0


@pytest.mark.parametrize(
    ("observed", "rewarded", "scale", "about", "remedy"),
    [
        (1.0, 1.0, 1.0, [], ""),
        (50.0, 50.0, 1.0, [], ""),
        (0.0, 0.0, 1.0, [], ""),
        (1e4, 1.0, 1.0, ["observations"], "algorithm.normalise_observations=true"),
        (1e-4, 1.0, 1.0, ["observations"], "algorithm.normalise_observations=true"),
        (1.0, 1e5, 1.0, ["rewards"], "algorithm.reward_scale=1e-5"),
        (1.0, 1e5, 1e-5, [], ""),
        (1.0, 1e-4, 1.0, ["rewards"], "algorithm.reward_scale=1e4"),
        (1.0, 1e20, 1.0, ["rewards"], "scale the reward in the environment"),
        (1e4, 3e5, 1.0, ["observations", "rewards"], "algorithm.reward_scale=1e-5"),
    ],
)
def test_what_is_far_from_1_is_remarked_with_a_remedy(
    observed: float, rewarded: float, scale: float, about: list[str], remedy: str
) -> None:
    run = run_of(reward_scale=scale)
    monitor = InputMonitor(run, None)
    monitor.observe(records(256, observed, rewarded), 0.0)
    assert monitor.stats
    found = input_remarks(monitor.stats, JOINT, run.spec.algorithm)
    assert [remark.about for remark in found] == about
    assert [remark_key(line) for line in monitor.remarks()] == [remark_key(remark.seen) for remark in found]
    assert not found or remedy in found[-1].to_try[0]


def test_too_large_and_too_small_observations_are_two_remarks() -> None:
    """Reporters show each key once, so equal keys would hide the second remark."""
    monitor = InputMonitor(run_of(), None)
    batch = records(256, 1e4, 1.0).copy()
    batch[:, 2] = 1e-4  # the observation of the second agent
    monitor.observe(batch, 0.0)
    assert [remark_key(line) for line in monitor.remarks()] == ["large observations:", "small observations:"]


@pytest.mark.parametrize(("observations", "rewards"), [(True, False), (False, True), (True, True)])
def test_normalised_inputs_are_not_remarked_on(observations: bool, rewards: bool) -> None:
    monitor = InputMonitor(run_of(normalise_observations=observations, normalise_rewards=rewards), None)
    monitor.observe(records(256, 1e4, 1e5), 0.0)
    expected = [*["large observations:"] * (not observations), *["rewards have"] * (not rewards)]
    assert [remark_key(line) for line in monitor.remarks()] == expected


@given(st.floats(1e-12, 1e30))
def test_the_advised_scale_brings_rewards_near_1_and_is_one_that_the_setting_takes(size: float) -> None:
    monitor = InputMonitor(run_of(), None)
    monitor.observe(records(8, 1.0, size), 0.0)
    for remark in input_remarks(monitor.stats, JOINT, AlgorithmSpec()) if monitor.stats else ():
        key, _, value = remark.to_try[0].partition("=")
        if key == "algorithm.reward_scale":
            scale = run_of(reward_scale=float(value)).spec.algorithm.reward_scale
            assert 0.3 < size * scale < 3.2


def test_a_batch_is_looked_at_often_at_first_and_then_each_two_seconds() -> None:
    monitor, looks = InputMonitor(run_of(), None), 0
    for update in range(10_000):
        now = update / 1_000.0
        if monitor.is_due(now):
            monitor.observe(records(8, 1.0, 1.0), now)
            looks += 1
    assert 10 <= looks <= 15


# ---- a resume -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (1.0, 1_000.0, "rewards are about 1,000 times as large as before the resume"),
        (900.0, 1.0, "rewards are about 0.001 times as large"),
        (1.0, 3.0, ""),
    ],
)
@pytest.mark.parametrize("kept", ["checkpoint", "replay"])
def test_rewards_of_another_size_after_a_resume_are_remarked(
    before: float, after: float, words: str, kept: str
) -> None:
    monitor = InputMonitor(run_of(), before if kept == "checkpoint" else None)
    monitor.resumed(100)
    batch = np.concatenate([records(200, 1.0, before, version=99), records(56, 1.0, after, version=100)])
    monitor.observe(batch, 0.0)
    found = [line for line in monitor.remarks() if remark_key(line) == "rewards are"]
    assert len(found) == bool(words)
    assert not words or found[0].startswith(words)


def test_a_few_new_rewards_decide_nothing_and_a_new_run_compares_nothing() -> None:
    change = RewardChange(1.0)
    change.resumed(5)
    few = np.full((10, 2), 1e6, np.float32)
    assert change.observe(few, np.full(10, 5, np.uint32)) is None
    assert not change.is_known
    assert RewardChange(1.0).observe(np.full((500, 2), 1e6, np.float32), np.full(500, 5, np.uint32)) is None


def test_rewards_that_were_all_0_before_are_no_change() -> None:
    assert reward_change_remarks(None) == []
    change = RewardChange(None)
    change.resumed(5)
    rewards = np.concatenate([np.zeros((100, 2)), np.ones((100, 2))]).astype(np.float32)
    assert change.observe(rewards, np.repeat(np.array([4, 5], np.uint32), 100)) is None


# ---- settings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scenario", "share", "norm", "warned"),
    [
        ("pettingzoo:somewhere", 1.0, 12.6, True),
        ("pettingzoo:somewhere", 1.0, 5.0, False),
        ("pettingzoo:somewhere", 0.5, 12.6, False),
        ("simple_tag", 1.0, 40.0, False),
        ("simple_tag", 1.0, 5e4, True),
    ],
)
def test_clipping_is_remarked_where_it_is_the_rule_by_far(
    scenario: str, share: float, norm: float, warned: bool
) -> None:
    assert bool(clipping_remarks(share, norm, run_of(scenario).spec)) == warned
    assert clipping_remarks(share, norm, run_of(scenario, gradient_clip=0.0).spec) == []


@pytest.mark.parametrize(
    ("discount", "steps", "remedy"),
    [
        (0.9, 25.0, ""),
        (0.9, 1_000.0, "algorithm.discount=0.99"),
        (0.99, 1_000.0, ""),
        (0.99, 5_000.0, "algorithm.discount=0.999"),
        (1.0, 5_000.0, ""),
        (0.9, None, ""),
    ],
)
def test_a_discount_that_sees_little_of_an_episode_is_remarked(
    discount: float, steps: float | None, remedy: str
) -> None:
    found = horizon_remarks(discount, steps)
    assert [remark.to_try[0] for remark in found] == ([remedy] if remedy else [])
    if discount == 0.9 and found:
        assert "discount 0.9 sees about 10 of an episode's 1,000 steps" in found[0].seen
        assert "--preset control in a new run" in found[0].to_try


def test_norms_of_some_updates_are_needed_to_speak_of_clipping() -> None:
    monitor = InputMonitor(run_of(), None)
    for _ in range(9):
        monitor.observe_norms([100.0])
    assert monitor.remarks() == []
    monitor.observe_norms([100.0])
    assert "clipped in 100% of the updates" in monitor.remarks()[0]
