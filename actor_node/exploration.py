"""How a worker departs from its policies: noise on the heads, and steps taken at random.

| part (common/policy/heads.py)  | noise, `scale` as it came with the weights    | at random (warm-up)                 |
|--------------------------------|-----------------------------------------------|-------------------------------------|
| box, force                     | `clip(action + half * x)`                     | uniform within its bounds           |
| thrust                         | the same on `right - left` and `up - down`    | uniform in both, -1 to 1            |
| soft                           | `softmax(logits + Gumbel)`, whatever the scale| `softmax(Gumbel)`: equal logits     |
| choice, `gumbel`               | `argmax(logits + Gumbel)`, whatever the scale | any choice                          |
| choice, `epsilon`              | the best; with probability `scale` any choice | any choice                          |

x is `scale * N(0, 1)` (`gaussian`) or an Ornstein-Uhlenbeck process, `x <- (1 - theta) x + scale * N(0, 1)`. Gumbel
noise (Gumbel 1954) makes a draw from the policy's own distribution, the one its loss draws from too: scaled, the actors
would play another policy than the one that learns. Noise on a thrust pushes one way as much as it holds back the other,
so that every thrust keeps stay = 0 and left + right = down + up = 1: the critics never see others.

Shapes: C copies, A numbers of the joint action, P parts of a segment, n numbers of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from common.policy.heads import LEFT_DOWN, RIGHT_UP, Floats, GreedyHeads, by_part, choose, ranges, softmax
from common.run.run import ExplorationSpec
from common.spec import JointSpec
from common.state import State, copy_into, generator_state, restore_generator


def scale_share(ladder: float, worker: int, workers: int) -> float:
    """Returns a worker's share of the scale: 1 for a node's first, `ladder` for its last, in geometric steps between.

    So Ape-X spreads its epsilons over its actors (Horgan et al. 2018, arXiv 1803.00933): some try much and others
    little, whatever the schedule says.
    """
    return float(ladder ** (worker / (workers - 1))) if workers > 1 else 1.0


class Exploration:
    """Turns logits into explored actions for a fixed number of copies; keeps the noise's state."""

    def __init__(
        self, joint: JointSpec, spec: ExplorationSpec, copies: int, rng: np.random.Generator, head: str = "box"
    ) -> None:
        """Raises ConfigError for parts of an action that the head (`network.head`) cannot make."""
        self._rng = rng
        self._theta = spec.theta if spec.kind == "ornstein_uhlenbeck" else 1.0
        self._noise = np.zeros((copies, joint.action_dim), np.float32)
        self._low, self._high, self._reach = ranges(joint, head)
        self._heads = GreedyHeads(joint, head)
        self._choices, self._soft, self._thrusts = (
            [segment for segment in self._heads.segments if segment.kind == kind]
            for kind in ("choice", "soft", "thrust")
        )
        self._drawn = self._soft + (self._choices if spec.choices == "gumbel" else [])
        """What is drawn from the policies' own distributions."""
        self._has_epsilon = bool(self._choices) and spec.choices == "epsilon"
        self._has_noise = bool(self._reach.any())

    def act(self, logits: Floats, scale: float, random_share: float) -> Floats:
        """Returns explored joint actions [C, A] for logits [C, A]; `random_share` of the copies act at random."""
        if random_share >= 1.0:
            return self._uniform(len(logits))
        actions = self._heads(self._with_gumbel(logits))
        if self._has_epsilon and scale > 0.0:
            self._choose_any(actions, scale)
        if self._has_noise and scale > 0.0:
            actions = self._add_noise(actions, scale)
        if random_share > 0.0:
            random_copies = self._rng.random(len(logits)) < random_share
            actions[random_copies] = self._uniform(int(random_copies.sum()))
        return actions

    def forget(self, copies: npt.NDArray[np.bool_]) -> None:
        """Starts the noise anew in copies [C] whose episode ended."""
        self._noise[copies] = 0.0

    def state(self) -> State:
        """Returns the noise and where the generator stands."""
        return {"noise": self._noise.copy(), "rng": generator_state(self._rng)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Takes a state over; KeyError or ValueError when it is of other copies or actions."""
        self._noise = np.empty_like(self._noise)
        copy_into(self._noise, state["noise"])
        restore_generator(self._rng, state["rng"])

    def _with_gumbel(self, logits: Floats) -> Floats:
        if not self._drawn:
            return logits
        noisy = logits.copy()
        for segment in self._drawn:
            own = noisy[:, segment.columns]
            own += self._rng.gumbel(size=own.shape)
        return noisy

    def _choose_any(self, actions: Floats, probability: float) -> None:
        for segment in self._choices:
            own = by_part(actions, segment)
            swayed = self._rng.random(own.shape[:2]) < probability
            chosen = own.argmax(axis=2)
            chosen[swayed] = self._rng.integers(own.shape[2], size=int(swayed.sum()))
            choose(chosen, own)

    def _add_noise(self, actions: Floats, scale: float) -> Floats:
        # With theta = 1 nothing of the last noise is left: Gaussian noise is the memoryless Ornstein-Uhlenbeck process.
        drawn = self._rng.standard_normal(actions.shape, np.float32)
        drawn *= np.float32(scale)
        for segment in self._thrusts:
            own = by_part(drawn, segment)
            np.negative(own[..., RIGHT_UP], out=own[..., LEFT_DOWN])
        if self._theta < 1.0:
            drawn += np.float32(1.0 - self._theta) * self._noise
            self._noise = drawn
        noisy = actions + drawn * self._reach
        return np.clip(noisy, self._low, self._high, out=noisy)

    def _uniform(self, copies: int) -> Floats:
        actions = self._low + self._rng.random((copies, len(self._low)), np.float32) * (self._high - self._low)
        for segment in self._thrusts:
            own = by_part(actions, segment)
            own[..., 0] = 0.0
            np.subtract(1.0, own[..., RIGHT_UP], out=own[..., LEFT_DOWN])
        for segment in self._choices:
            own = by_part(actions, segment)
            choose(self._rng.integers(own.shape[2], size=own.shape[:2]), own)
        for segment in self._soft:
            own = by_part(actions, segment)
            softmax(self._rng.gumbel(size=own.shape).astype(np.float32), own)
        return actions
