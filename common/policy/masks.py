"""Action masks: the last numbers of an agent's observation say which of its choices are allowed.

    observation  [ ... | 1 1 0 1 ]      action mask: 1 = allowed, 0 = forbidden
    logits             [ 0.3 1.2 -1e9 0.7 ]

The logits of forbidden choices are lowered so far that no head, no softmax and no exploration chooses them (Huang and
Ontanon 2022, arXiv 2006.14171). All code that turns logits into actions needs no further knowledge of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.spec import Part

Floats = npt.NDArray[np.float32]

FORBIDDEN = 1e9
"""How far the logit of a forbidden choice is lowered. Float32 represents it exactly."""


class ActionMasks:
    """Lowers the logits of forbidden choices, in numpy.

    Example: logits = ActionMasks(run.players.mask_columns).lower(logits, obs)
    """

    def __init__(self, columns: Sequence[tuple[int, int]]) -> None:
        """Takes the column of the observation and the column of the action of each number of the masks."""
        self._obs, self._action = np.array(columns, np.intp).reshape(-1, 2).T

    def lower(self, logits: Floats, obs: Floats) -> Floats:
        """Lowers the logits `[C, A]` of forbidden choices in place, by observations `[C, O]`; returns them."""
        if len(self._obs):
            logits[:, self._action] -= (1 - obs[:, self._obs]) * np.float32(FORBIDDEN)
        return logits


def allowed(logits: Floats) -> npt.NDArray[np.bool_]:
    """Returns which choices `[..., n]` are allowed, from their logits; all of them where the mask allows none."""
    found: npt.NDArray[np.bool_] = logits > -FORBIDDEN / 2
    return found | ~found.any(axis=-1, keepdims=True)


def flat_mask(mask: Any, parts: Sequence[Part]) -> Floats:
    """Returns an action mask as numbers `[sum of parts]`, 1 or 0, from an array or from one array a part.

    parts: the Categorical parts of the action. A part of which nothing is allowed, and None for the mask, count as all
    allowed: an agent that does not act now has such a mask. Raises ValueError with what was expected.
    """
    size = sum(part.size for part in parts)
    if mask is None:
        return np.ones(size, np.float32)
    try:
        joined = np.concatenate([np.ravel(part) for part in mask]) if isinstance(mask, tuple | list) else mask
        given = np.asarray(joined, np.float32).reshape(-1)
    except (TypeError, ValueError):
        given = np.empty(0, np.float32)
    if given.size != size or not ((given == 0) | (given == 1)).all():
        raise ValueError(f"{size} numbers, 1 (allowed) or 0 (forbidden), one for each choice")
    if len(parts) == 1:
        return given if given.any() else np.ones(size, np.float32)
    ends = np.cumsum([part.size for part in parts])[:-1]
    return np.concatenate([part if part.any() else np.ones_like(part) for part in np.split(given, ends)])
