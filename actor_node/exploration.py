"""How a worker departs from its policies: noise on the heads, and steps taken at random.

Box parts: `clip(middle + half_range * (tanh(logit) + noise))`. The noise is Gaussian, or an Ornstein-Uhlenbeck process
`x <- (1 - theta) x + scale * N(0, 1)`; its scale comes with the weights. Categorical parts: a choice drawn from the
policy's softmax (argmax of logits + Gumbel noise; Gumbel 1954), whatever the scale. Warming up, `random_share` of the
copies act uniformly at random.

Shapes: C copies, A numbers of the joint action.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from common.policy import Floats, box_range, greedy, one_hot
from common.run import ExplorationSpec
from common.spec import Box, JointSpec


class Exploration:
    """Turns logits into explored actions for a fixed number of copies; keeps the noise's state."""

    def __init__(self, joint: JointSpec, spec: ExplorationSpec, copies: int, rng: np.random.Generator) -> None:
        self._joint, self._rng = joint, rng
        self._theta = spec.theta if spec.kind == "ornstein_uhlenbeck" else 1.0
        self._noise = np.zeros((copies, joint.action_dim), np.float32)
        self._low, self._high, self._reach, self._is_box = _ranges(joint)
        self._any_box, self._any_categorical = bool(self._is_box.any()), not self._is_box.all()

    def act(self, logits: Floats, scale: float, random_share: float) -> Floats:
        """Returns explored joint actions [C, A] for logits [C, A]; `random_share` of the copies act at random."""
        if random_share >= 1.0:
            return self._uniform(len(logits))
        if self._any_categorical:
            gumbel = self._rng.gumbel(size=logits.shape).astype(np.float32)
            actions = greedy(self._joint, np.where(self._is_box, logits, logits + gumbel))
        else:
            actions = greedy(self._joint, logits)
        if self._any_box and scale > 0.0:
            actions = self._add_noise(actions, scale)
        if random_share > 0.0:
            random_copies = self._rng.random(len(logits)) < random_share
            actions[random_copies] = self._uniform(int(random_copies.sum()))
        return actions

    def forget(self, copies: npt.NDArray[np.bool_]) -> None:
        """Starts the noise anew in copies [C] whose episode ended."""
        self._noise[copies] = 0.0

    def _add_noise(self, actions: Floats, scale: float) -> Floats:
        # With theta = 1 nothing of the last noise is left: Gaussian noise is the memoryless Ornstein-Uhlenbeck process.
        drawn = self._rng.standard_normal(actions.shape, np.float32)
        drawn *= np.float32(scale)
        if self._theta < 1.0:
            drawn += np.float32(1.0 - self._theta) * self._noise
            self._noise = drawn
        noisy = actions + drawn * self._reach
        return np.clip(noisy, self._low, self._high, out=noisy)

    def _uniform(self, copies: int) -> Floats:
        actions = self._low + self._rng.random((copies, len(self._low)), np.float32) * (self._high - self._low)
        for agent in self._joint.agents:
            own = actions[:, agent.action_slice]
            for part, columns in zip(agent.parts, agent.part_slices, strict=True):
                if not isinstance(part, Box):
                    own[:, columns] = one_hot(self._rng.integers(part.n, size=copies), part.n)
        return actions


def _ranges(joint: JointSpec) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """Returns low, high, reach of the noise and whether it belongs to a Box, each [A]; one-hot parts lie in [0, 1]."""
    low, high = np.zeros(joint.action_dim, np.float32), np.ones(joint.action_dim, np.float32)
    reach = np.zeros(joint.action_dim, np.float32)
    is_box = np.zeros(joint.action_dim, bool)
    for agent in joint.agents:
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            if isinstance(part, Box):
                where = slice(agent.action_start + columns.start, agent.action_start + columns.stop)
                low[where], high[where] = part.low, part.high
                reach[where] = box_range(part)[1]
                is_box[where] = True
    return low, high, reach, is_box
