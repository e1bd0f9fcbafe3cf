"""The random numbers that both engines draw alike: initial parameters and Gumbel noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_MIN_UNIFORM = 1e-30


def initial_weights(
    shapes: Sequence[tuple[int, int]], seed: Sequence[int], first_biases: int = 1, *, normalised: Sequence[bool] = ()
) -> npt.NDArray[np.float32]:
    """Draws one network's weights and biases uniformly from -1 / sqrt(inputs) to 1 / sqrt(inputs), layer by layer.

    This is torch's default for linear layers. Unlike orthogonal matrices it keeps the first logits small, so bounded
    policies do not start at their bounds. numpy draws the numbers because its streams are the same on every device and
    in every version of torch.

    shapes: inputs and outputs of each layer. first_biases: number of sets of biases of the first layer.
    normalised: whether each layer is followed by the gain 1 and the bias 0 of its normalisation; empty: none is.
    """
    generator = np.random.default_rng(seed)
    sets = [first_biases, *[1] * (len(shapes) - 1)]
    pieces = [generator.uniform(-1.0, 1.0, (i + k) * o) / np.sqrt(i) for (i, o), k in zip(shapes, sets, strict=True)]
    for i, ((_, units), is_normalised) in enumerate(zip(shapes, normalised, strict=False)):
        if is_normalised:
            pieces[i] = np.concatenate([pieces[i], np.ones(units), np.zeros(units)])
    return np.concatenate(pieces).astype(np.float32)


def gumbel_noise(rows: int, columns: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Draws standard Gumbel noise `[rows, columns]`: `-log(-log(u))`, u uniform."""
    # A uniform draw and two logarithms take a third of the time of drawing an exponential variable.
    uniform = like.new_empty(rows, columns).uniform_(_MIN_UNIFORM, 1.0, generator=generator)
    return uniform.log_().neg_().log_().neg_()
