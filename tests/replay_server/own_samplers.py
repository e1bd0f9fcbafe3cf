"""A sampler as a user writes one, for runs that name it by its import path."""

from __future__ import annotations

import numpy as np


class Recent:
    """Draws records of exponentially distributed age."""

    def sample(self, rng: np.random.Generator, size: int, count: int) -> np.ndarray:
        return rng.exponential(size / 4, count).astype(np.int64) % size
