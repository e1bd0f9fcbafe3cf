"""The Gaussian of stochastic policies (`masac`, `isac`), in numpy: from outputs to standard deviations.

    u = logit + std * N(0, 1)          action = middle + half * tanh(u)          without exploration u = logit

log std is `MID + HALF * tanh(output)`, between MIN_LOG_STD and MAX_LOG_STD. A smooth bound keeps a gradient everywhere,
unlike a clip. Haarnoja et al. 2018 (arXiv 1812.05905), appendix C, give the action's density, which the learner
computes (learner_node/algorithms/distribution.py).
"""

from __future__ import annotations

import numpy as np

from common.policy.heads import Floats

MIN_LOG_STD, MAX_LOG_STD = -5.0, 2.0
"""Bounds of log std: standard deviations from 0.007 to 7.4, before the tanh."""
MID, HALF = (MAX_LOG_STD + MIN_LOG_STD) / 2, (MAX_LOG_STD - MIN_LOG_STD) / 2


def std(output: Floats) -> Floats:
    """Returns the standard deviations for outputs of a policy, both `[copies, n]`."""
    deviation = np.tanh(output)
    deviation *= np.float32(HALF)
    deviation += np.float32(MID)
    return np.exp(deviation, out=deviation)
