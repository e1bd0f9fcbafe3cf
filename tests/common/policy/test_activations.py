"""Activations and layer normalisation in numpy: values by hand, and torch's own functions."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from common.policy.activations import ACTIVATIONS, layer_norm
from common.run.run import Activation

TORCH = {
    "relu": functional.relu,
    "leaky_relu": functional.leaky_relu,
    "tanh": torch.tanh,
    "elu": functional.elu,
    "gelu": lambda x: functional.gelu(x, approximate="tanh"),
    "silu": functional.silu,
}
BY_HAND = {
    "relu": (0.0, 0.0, 2.0),
    "leaky_relu": (-0.01, 0.0, 2.0),
    "tanh": (-0.76159416, 0.0, 0.96402758),
    "elu": (-0.63212056, 0.0, 2.0),
    "gelu": (-0.15880801, 0.0, 1.95459769),
    "silu": (-0.26894142, 0.0, 1.76159416),
}
"""Of each activation: its values at -1, 0 and 2."""


def rows(low: float = -1e3, high: float = 1e3) -> st.SearchStrategy[np.ndarray]:
    """Returns arrays [rows, units] of float32, some empty, some of one unit."""
    shape = st.tuples(st.integers(0, 4), st.integers(1, 9))
    return arrays(np.float32, shape, elements=st.floats(low, high, width=32))


def test_there_is_an_activation_for_each_choice_of_the_setting() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation)) == set(TORCH)


@pytest.mark.parametrize("name", BY_HAND)
def test_values_by_hand(name: str) -> None:
    x = np.array([[-1.0, 0.0, 2.0]], np.float32)
    ACTIVATIONS[name](x)
    np.testing.assert_allclose(x[0], BY_HAND[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", TORCH)
@given(x=rows())
def test_activations_are_those_of_torch(name: str, x: np.ndarray) -> None:
    expected = TORCH[name](torch.from_numpy(x.copy())).numpy()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ACTIVATIONS[name](x)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TORCH)
def test_activations_are_those_of_torch_at_every_size(name: str) -> None:
    size = np.float32(10.0) ** np.linspace(-30, 4, 500, dtype=np.float32)
    x = np.concatenate([-size, size])[None]
    expected = TORCH[name](torch.from_numpy(x.copy())).numpy()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ACTIVATIONS[name](x)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)


def test_layer_norm_by_hand() -> None:
    """The mean of 1, 2, 6 is 3, the variance 14 / 3."""
    x = np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]], np.float32)
    layer_norm(x, np.array([1.0, 2.0, 3.0], np.float32), np.array([0.5, 0.0, -1.0], np.float32))
    deviation = np.sqrt(14 / 3 + 1e-5)
    expected = [[0.5 - 2 / deviation, -2 / deviation, 9 / deviation - 1], [0.5, 0.0, -1.0]]
    np.testing.assert_allclose(x, expected, rtol=1e-6)


@given(x=rows(-50.0, 50.0), seed=st.integers(0, 99))
def test_layer_norm_is_that_of_torch(x: np.ndarray, seed: int) -> None:
    units = x.shape[1]
    gain, bias = np.random.default_rng(seed).normal(size=(2, units)).astype(np.float32)
    # In float64: torch's own float32 result has errors too where the units of a row are almost equal.
    expected = functional.layer_norm(torch.from_numpy(x.astype(np.float64)), (units,)).numpy() * gain + bias
    # A float32 mean of n units is exact to n / 2 steps of their size, and the smallest divisor is sqrt(1e-5).
    rounding = units * 6e-8 * np.abs(x).max(initial=0.0) / np.sqrt(1e-5) * np.abs(gain).max()
    layer_norm(x, gain, bias)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6 + rounding)


@pytest.mark.parametrize("units", [1, 64, 1_000])
def test_layer_norm_of_usual_layers_is_that_of_torch(units: int) -> None:
    rng = np.random.default_rng(units)
    x = rng.normal(0.3, 2.0, (50, units)).astype(np.float32)
    gain, bias = rng.normal(size=(2, units)).astype(np.float32)
    expected = functional.layer_norm(
        torch.from_numpy(x.copy()), (units,), torch.from_numpy(gain), torch.from_numpy(bias)
    ).numpy()
    layer_norm(x, gain, bias)
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)
