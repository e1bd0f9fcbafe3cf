"""Action masks: the last numbers of an agent's observation say which of its choices are allowed.

    observation  [ ... | 1 1 0 1 ]      action mask: 1 = allowed, 0 = forbidden
    logits             [ 0.3 1.2 -1e9 0.7 ]

The logits of forbidden choices are lowered so far that no head, no softmax and no exploration chooses them (Huang and
Ontanon 2022, arXiv 2006.14171). All code that turns logits into actions needs no further knowledge of masks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.spec import JointSpec

Floats = npt.NDArray[np.float32]

FORBIDDEN = 1e9
"""How far the logit of a forbidden choice is lowered. Float32 represents it exactly."""


class ActionMasks:
    """The action masks in joint observations, in numpy."""

    def __init__(self, joint: JointSpec) -> None:
        """Takes agents or players; both have the same masks."""
        columns = np.array(joint.mask_columns, np.intp).reshape(-1, 2)
        self._obs, self._action = columns.T

    def lower(self, logits: Floats, obs: Floats) -> Floats:
        """Lowers the logits `[C, A]` of forbidden choices in place, by joint observations `[C, O]`; returns them."""
        if len(self._obs):
            logits[:, self._action] -= (1 - obs[:, self._obs]) * np.float32(FORBIDDEN)
        return logits


def allowed(logits: Floats) -> npt.NDArray[np.bool_]:
    """Returns which choices `[..., n]` are allowed, from their logits; all of them where the mask allows none."""
    found: npt.NDArray[np.bool_] = logits > -FORBIDDEN / 2
    return found | ~found.any(axis=-1, keepdims=True)
