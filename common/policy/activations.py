"""What a hidden layer does after its product, in numpy and in place: layer normalisation, then the activation.

| `network.activation` | f(x)                                                   | source                    |
|----------------------|--------------------------------------------------------|---------------------------|
| relu                 | max(x, 0)                                              | Nair and Hinton 2010      |
| leaky_relu           | x above 0, else 0.01 x                                 | Maas et al. 2013          |
| tanh                 | tanh(x)                                                |                           |
| elu                  | x above 0, else exp(x) - 1                             | Clevert et al. 2016       |
| gelu                 | x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))  | Hendrycks and Gimpel 2016 |
| silu                 | x / (1 + exp(-x))                                      | Elfwing et al. 2018       |

GELU is the tanh form, because numpy has no error function: torch calls it `gelu(x, approximate="tanh")`. In float32 all
of them equal torch's within 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from common.policy.heads import Floats
from common.run.run import Activation

LEAK = 0.01
"""Slope of leaky ReLU below 0, as in torch."""
EPSILON = 1e-5
"""Added to the variance in layer normalisation, as in torch."""
GELU_SLOPE = math.sqrt(2.0 / math.pi)
GELU_CUBE = 0.044715
"""The tanh form of GELU is `x / 2 * (1 + tanh(GELU_SLOPE * (x + GELU_CUBE * x^3)))`."""
_LARGEST_EXPONENT = 80.0
"""Bound of exponents. The exponential of a larger number overflows float32, and changes no result."""


def relu(x: Floats) -> None:
    """Replaces x by max(x, 0)."""
    np.maximum(x, 0.0, out=x)


def leaky_relu(x: Floats) -> None:
    """Replaces x by x where it is positive, else by 0.01 x."""
    np.maximum(x, LEAK * x, out=x)


def tanh(x: Floats) -> None:
    """Replaces x by its hyperbolic tangent."""
    np.tanh(x, out=x)


def elu(x: Floats) -> None:
    """Replaces x by x where it is positive, else by exp(x) - 1."""
    below = np.minimum(x, 0.0)
    np.expm1(below, out=below)
    # exp(x) - 1 is 0 for the positive numbers, which were cut to 0, and never below x for the others.
    np.maximum(x, below, out=x)


def gelu(x: Floats) -> None:
    """Replaces x by x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))."""
    gate = np.square(x)
    gate *= GELU_SLOPE * GELU_CUBE
    gate += GELU_SLOPE
    gate *= x
    np.tanh(gate, out=gate)
    gate += 1.0
    gate *= 0.5
    x *= gate


def silu(x: Floats) -> None:
    """Replaces x by x / (1 + exp(-x))."""
    divisor = np.negative(x)
    np.minimum(divisor, _LARGEST_EXPONENT, out=divisor)
    np.exp(divisor, out=divisor)
    divisor += 1.0
    x /= divisor


ACTIVATIONS: Mapping[Activation, Callable[[Floats], None]] = {
    "relu": relu,
    "leaky_relu": leaky_relu,
    "tanh": tanh,
    "elu": elu,
    "gelu": gelu,
    "silu": silu,
}


def layer_norm(x: Floats, gain: Floats, bias: Floats) -> None:
    """Normalises each row of `x` `[rows, units]` to mean 0 and variance 1, then applies gain and bias `[units]`.

    Ba et al. 2016 (arXiv 1607.06450), equations 3 and 4, with EPSILON added to the variance.
    """
    # np.add.reduce is what np.mean calls, without a third of its time.
    units = x.shape[1]
    mean = np.add.reduce(x, axis=1, keepdims=True)
    mean /= units
    x -= mean
    deviation = np.add.reduce(np.square(x), axis=1, keepdims=True)
    deviation /= units
    deviation += EPSILON
    np.sqrt(deviation, out=deviation)
    x /= deviation
    x *= gain
    x += bias
