"""Values as distributions over bins: critics that classify (HL-Gauss, Farebrother et al. 2024, arXiv 2403.03950).

A critic has one logit a bin, and its value is the mean of the bins' values under the softmax of the logits. A target y
becomes a Gaussian around y, whose probability in each bin is what the logits learn by cross-entropy. The size of that
gradient does not grow with the error, which is why values learn well where returns have large or changing scales.

    bins       equally wide in symlog(y) = sign(y) log(1 + |y|), as in DreamerV3 (Hafner et al. 2023, arXiv 2301.04104):
               fine near 0 and wide far from it, so that one support fits all tasks
    smoothing  the standard deviation is 0.75 bins, the value of Farebrother et al. 2024, section 3.1
    values     those under which the mean of a target's bins is the target again. Departure: bins' centres would
               overestimate |y|, because symexp is not linear, and bootstrapping would multiply that error.

C critics     B rows of the batch     M bins
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from learner_node.update.layout import BINS

LAST_BIN = 5.0
"""Centre of the last bin in symlog, which is beyond `LIMIT` so that the Gaussian of every target fits."""
LIMIT = 100.0
"""Largest absolute target; larger ones are clipped. A reward of 1 each step has a return of 100 at a discount of
0.99, and normalised rewards have returns of a few units (learner_node/update/normalisation.py)."""
SMOOTHING = 0.75
"""Standard deviation of the Gaussian around a target [bins]."""


class ValueBins:
    """The bins of all critics of a run.

    Example:
        bins = ValueBins(torch.zeros(()))
        q = bins.values(logits)
        loss = cross_entropy(logits, bins.probabilities(target_q))
    """

    def __init__(self, like: Tensor) -> None:
        """Takes the number type and the device from `like`."""
        width = 2 * LAST_BIN / (BINS - 1)
        centres = np.linspace(-LAST_BIN, LAST_BIN, BINS)
        edges = np.append(centres - width / 2, LAST_BIN + width / 2)
        self._edges = torch.tensor(edges, dtype=like.dtype, device=like.device)
        self._scale = 1.0 / (SMOOTHING * width * math.sqrt(2.0))
        exact = torch.tensor(edges, dtype=torch.float64)
        by_target = _probabilities(torch.tensor(centres, dtype=torch.float64), exact, self._scale)
        targets = np.sign(centres) * np.expm1(np.abs(centres))
        values = np.linalg.solve(by_target.numpy(), targets)
        self._values = torch.tensor(values, dtype=like.dtype, device=like.device)

    def values(self, logits: Tensor) -> Tensor:
        """Returns the values `[...]` of logits `[..., M]`."""
        return logits.softmax(-1) @ self._values

    def probabilities(self, target: Tensor) -> Tensor:
        """Returns the probability of each bin `[..., M]` for targets `[...]`."""
        limited = target.clamp(-LIMIT, LIMIT)
        return _probabilities(limited.sign() * limited.abs().log1p(), self._edges, self._scale)


def cross_entropy(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Returns `-sum p log softmax(logits)` `[...]`, for logits and probabilities `[..., M]`."""
    # The probabilities of a target add up to 1.
    return logits.logsumexp(-1) - (logits * probabilities).sum(-1)


def _probabilities(centre: Tensor, edges: Tensor, scale: float) -> Tensor:
    """Returns the probabilities between edges `[M + 1]` of Gaussians around `[...]`, `[..., M]`; they add up to 1."""
    cumulative = torch.erf((edges - centre[..., None]) * scale)
    within = cumulative[..., 1:] - cumulative[..., :-1]
    return within / (cumulative[..., -1:] - cumulative[..., :1])
