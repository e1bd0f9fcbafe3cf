"""The slope that several lives share: exact where the samples are, and an interval that covers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from tests.soak.churn.growth import pooled_slope


def life(slope_per_hour: float, level: float, minutes: int, start_s: float = 60.0) -> list[tuple[float, float]]:
    """Returns a life sampled every two seconds."""
    ages = start_s + 2.0 * np.arange(30 * minutes)
    return [(age, level + slope_per_hour / 3_600 * age) for age in ages]


def test_lives_of_different_levels_share_one_slope() -> None:
    found = pooled_slope([life(3.0, 20.0, 5), life(3.0, 170.0, 7)])
    assert found.per_hour == pytest.approx(3.0)
    assert (found.low, found.high) == (pytest.approx(3.0), pytest.approx(3.0))
    assert found.hours == pytest.approx((300 + 420 - 2 * 2) / 3_600)


def test_lives_that_grow_differently_count_by_their_spread() -> None:
    """The ages of two equal lives have the same spread: the slope is the mean of both."""
    found = pooled_slope([life(2.0, 10.0, 5), life(6.0, 10.0, 5)])
    assert found.per_hour == pytest.approx(4.0)
    assert found.low < 4.0 < found.high


def test_one_life_has_the_slope_of_a_plain_regression() -> None:
    rng = np.random.default_rng(0)
    samples = [(age, value + rng.normal()) for age, value in life(100.0, 50.0, 10)]
    expected = stats.linregress(*zip(*samples, strict=True))
    found = pooled_slope([samples])
    assert found.per_hour == pytest.approx(3_600 * expected.slope)
    # Independent noise: blocks of a minute say about the same of it as single samples.
    assert found.high - found.per_hour == pytest.approx(3_600 * 1.96 * expected.stderr, rel=0.6)


@pytest.mark.slow
def test_the_interval_covers_the_slope_of_samples_that_depend_on_each_other() -> None:
    """Noise that decays within ten seconds, of 20 lives of five minutes: about 95 of 100 intervals cover."""
    rng = np.random.default_rng(1)
    lives, samples, trials, keep = 20, 150, 100, math.exp(-2 / 10)
    noise = np.zeros((trials, lives, samples))
    for i in range(1, samples):
        noise[:, :, i] = keep * noise[:, :, i - 1] + rng.normal(size=(trials, lives))
    ages = 60.0 + 2.0 * np.arange(samples)
    covered = 0
    for trial in noise:
        found = pooled_slope([list(zip(ages, 30.0 + 7.0 * ages / 3_600 + row, strict=True)) for row in trial])
        covered += found.low <= 7.0 <= found.high
    assert 88 <= covered <= 100


@pytest.mark.parametrize("lives", [[], [[(60.0, 1.0)]], [[(60.0, 1.0), (60.0, 2.0)]]], ids=["none", "one", "one age"])
def test_too_little_to_say(lives: list[list[tuple[float, float]]]) -> None:
    found = pooled_slope(lives)
    assert math.isnan(found.per_hour)
    assert math.isnan(found.low)


def test_a_short_life_has_a_slope_and_no_interval() -> None:
    found = pooled_slope([life(3.0, 20.0, 1)])
    assert found.per_hour == pytest.approx(3.0)
    assert math.isnan(found.low)
