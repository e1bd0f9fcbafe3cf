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
    layer_norm: bool = False,
    initialisation: Initialisation = "uniform",
) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases, layer by layer.

    `uniform` draws both from -1 / sqrt(inputs) to 1 / sqrt(inputs). This is torch's default for linear layers. Unlike
    orthogonal matrices it keeps the first logits small, so bounded policies do not start at their bounds. `xavier`
    draws weights from -sqrt(6 / (inputs + outputs)) to the same positive number, with biases of 0 (Glorot and Bengio
    2010, equation 16). numpy draws the numbers because its streams are the same on every device and in every version of
    torch.

    shapes: inputs and outputs of each layer. first_biases: number of sets of biases of the first layer. layer_norm:
    whether each hidden layer is followed by the gain 1 and the bias 0 of its normalisation.
    """
    generator = np.random.default_rng(seed)
    sets = [first_biases, *[1] * (len(shapes) - 1)]
    pieces = [generator.uniform(-1.0, 1.0, (i + k) * o) / np.sqrt(i) for (i, o), k in zip(shapes, sets, strict=True)]
    if initialisation == "xavier":
        for piece, (i, o) in zip(pieces, shapes, strict=True):
            piece[: i * o] *= np.sqrt(6.0 * i / (i + o))
            piece[i * o :] = 0.0
    if layer_norm:
        for i, (_, units) in enumerate(shapes[:-1]):
            pieces[i] = np.concatenate([pieces[i], np.ones(units), np.zeros(units)])
    return np.concatenate(pieces).astype(np.float32)


def gumbel_noise(rows: int, columns: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, columns]`: `-log(-log(u))`, u uniform."""
    # A uniform draw and two logarithms take a third of the time of drawing an exponential variable.
    uniform = like.new_empty(rows, columns).uniform_(_MIN_UNIFORM, 1.0, generator=generator)
    return uniform.log_().neg_().log_().neg_()
