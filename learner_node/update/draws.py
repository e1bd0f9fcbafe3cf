"""The random numbers that both engines draw alike: initial parameters and Gumbel noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from common.run.run import Initialisation

_MIN_UNIFORM = 1e-30


def initial_weights(
    shapes: Sequence[tuple[int, int]],
    seed: Sequence[int],
    first_biases: int = 1,
    *,
    initialisation: Initialisation = "uniform",
) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases, layer by layer.

    `uniform` draws both from -1 / sqrt(inputs) to 1 / sqrt(inputs). This is torch's default for linear layers. Unlike
    orthogonal matrices it keeps the first logits small, so bounded policies do not start at their bounds. `xavier`
    draws weights from -sqrt(6 / (inputs + outputs)) to the same positive number, with biases of 0 (Glorot and Bengio
    2010, equation 16). numpy draws the numbers because its streams are the same on every device and in every version of
    torch.

    shapes: inputs and outputs of each layer. first_biases: number of sets of biases of the first layer.
    """
    generator = np.random.default_rng(seed)
    layers = [
        initial_layer(shape, generator, 1 if depth else first_biases, initialisation=initialisation)
        for depth, shape in enumerate(shapes)
    ]
    return np.concatenate(layers).astype(np.float32)


def initial_layer(
    shape: tuple[int, int],
    generator: np.random.Generator,
    biases: int = 1,
    *,
    initialisation: Initialisation = "uniform",
    layer_norm: bool = False,
    weight_norm: bool = False,
) -> npt.NDArray[np.float64]:
    """Draws the parameters of one layer: weights, biases, gain and bias of its normalisation, lengths of weights.

    shape: inputs and outputs. biases: number of sets of biases. The distribution is that of `initial_weights`.
    """
    inputs, outputs = shape
    drawn = generator.uniform(-1.0, 1.0, (inputs + biases) * outputs) / np.sqrt(inputs)
    if initialisation == "xavier":
        drawn[: inputs * outputs] *= np.sqrt(6.0 * inputs / (inputs + outputs))
        drawn[inputs * outputs :] = 0.0
    norm = [np.ones(outputs), np.zeros(outputs)] if layer_norm else []
    # The lengths with which the layer computes what it would without normalised weights.
    lengths = [np.linalg.norm(drawn[: inputs * outputs].reshape(shape), axis=0)] if weight_norm else []
    return np.concatenate([drawn, *norm, *lengths])


def gumbel_noise(rows: int, columns: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, columns]`: `-log(-log(u))`, u uniform."""
    # A uniform draw and two logarithms take a third of the time of drawing an exponential variable.
    uniform = like.new_empty(rows, columns).uniform_(_MIN_UNIFORM, 1.0, generator=generator)
    return uniform.log_().neg_().log_().neg_()
