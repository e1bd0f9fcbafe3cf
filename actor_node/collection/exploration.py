"""Exploration: noise on the actions of the policies, and uniform random actions.

| part (common/policy/heads.py)  | noise with the `scale` that weights carry     | uniform random (warm-up)            |
|--------------------------------|-----------------------------------------------|-------------------------------------|
| box, force                     | `clip(action + half * x)`                     | uniform within its bounds           |
| thrust                         | the same on `right - left` and `up - down`    | uniform in both, -1 to 1            |
| soft                           | `softmax(logits + Gumbel)` at any scale       | `softmax(Gumbel)`: equal logits     |
| choice, `gumbel`               | `argmax(logits + Gumbel)` at any scale        | any choice                          |
| choice, `epsilon`              | the best; with probability `scale` any choice | any choice                          |
| box of a stochastic player     | `tanh(logit + std * N(0, 1))` at any scale    | uniform within its bounds           |

Under an action mask "any choice" is any allowed one: the logits of forbidden choices tell (common/policy/masks.py).

x is `scale * N(0, 1)` (`gaussian`) or an Ornstein-Uhlenbeck process, `x <- (1 - theta) x + scale * N(0, 1)`. Gumbel
noise (Gumbel 1954) samples from the distribution that the policy loss samples from. It is never scaled: with scaled
noise the actors would play a different policy from the one that learns. Noise on a thrust adds to one direction what
it takes from the opposite one: every thrust keeps stay = 0 and left + right = down + up = 1, as the critics expect.

Shapes: C copies, A numbers of the joint action, P parts of a segment, n numbers of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from common.policy.heads import LEFT_DOWN, RIGHT_UP, Floats, GreedyHeads, by_part, choose, ranges, softmax
from common.policy.masks import allowed
from common.run.run import ExplorationSpec
from common.spec import JointSpec
from common.state import State, copy_into, generator_state, restore_generator


def ladder_factors(ladder: float, worker: int, workers: int, copies: int) -> npt.NDArray[np.float64]:
    """Returns the factors on the exploration scale of a worker's copies [C].

    The factor is 1 for the first copy of a node's first worker and `ladder` for the last copy of its last worker. The
    copies between follow in geometric steps, as Ape-X spreads its epsilons over its actors (Horgan et al. 2018, arXiv
    1803.00933), in turns over the workers: each of them has copies that explore much and others that explore little.
    """
    positions = np.arange(copies) * workers + worker
    return np.asarray(ladder ** (positions / max(1, copies * workers - 1)), np.float64)


class Exploration:
    """Turns logits into explored actions for a fixed number of copies; has the state of the noise."""

    def __init__(
        self,
        joint: JointSpec,
        spec: ExplorationSpec,
        copies: int,
        rng: np.random.Generator,
        head: str = "box",
        *,
        gaussian_columns: Sequence[int] = (),
        scale_factors: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Raises ConfigError if the head (`network.head`) cannot produce a part of the actions.

        gaussian_columns: columns of the joint action that policies draw themselves (`PlayersSpec.gaussian_columns`).
        scale_factors: factor on the scale for each copy [C]; None for 1 everywhere.
        """
        self._rng = rng
        self._scale_factors = np.ones(copies) if scale_factors is None else scale_factors
        self._theta = spec.theta if spec.kind == "ornstein_uhlenbeck" else 1.0
        self._noise = np.zeros((copies, joint.action_dim), np.float32)
        self._low, self._high, self._half_range = ranges(joint, head)
        self._gaussian_columns = list(gaussian_columns)
        self._half_range[self._gaussian_columns] = 0.0
        self._heads = GreedyHeads(joint, head)
        self._choices, self._soft, self._thrusts = (
            [segment for segment in self._heads.segments if segment.kind == kind]
            for kind in ("choice", "soft", "thrust")
        )
        self._gumbel_segments = self._soft + (self._choices if spec.choices == "gumbel" else [])
        """Segments sampled with Gumbel noise."""
        self._is_masked = bool(joint.mask_columns)
        self._has_epsilon = bool(self._choices) and spec.choices == "epsilon"
        self._has_noise = bool(self._half_range.any())

    def act(self, logits: Floats, scale: float, random_fraction: float, std: Floats | None = None) -> Floats:
        """Returns explored joint actions [C, A] for logits [C, A]; `random_fraction` of the copies act at random.

        std: standard deviations of the logits in `gaussian_columns` [C, G]; None without such columns.
        """
        if random_fraction >= 1.0:
            return self._uniform(logits)
        actions = self._heads(self._sampled(logits, std))
        if self._has_epsilon and scale > 0.0:
            self._choose_any(actions, logits, scale)
        if self._has_noise and scale > 0.0:
            actions = self._add_noise(actions, scale)
        if random_fraction > 0.0:
            random_copies = self._rng.random(len(logits)) < random_fraction
            actions[random_copies] = self._uniform(logits[random_copies])
        return actions

    def reset(self, copies: npt.NDArray[np.bool_]) -> None:
        """Resets the noise of the copies [C] whose episode ended."""
        self._noise[copies] = 0.0

    def state(self) -> State:
        """Returns the noise and the state of the random generator."""
        return {"noise": self._noise.copy(), "rng": generator_state(self._rng)}

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Restores a state; KeyError or ValueError if it is of other copies or actions."""
        self._noise = np.empty_like(self._noise)
        copy_into(self._noise, state["noise"])
        restore_generator(self._rng, state["rng"])

    def _sampled(self, logits: Floats, std: Floats | None) -> Floats:
        """Returns the logits plus Gumbel noise for choices and soft vectors, and the policies' own Gaussian noise."""
        if not self._gumbel_segments and std is None:
            return logits
        noisy = logits.copy()
        for segment in self._gumbel_segments:
            columns = noisy[:, segment.columns]
            columns += self._rng.gumbel(size=columns.shape)
        if std is not None:
            noisy[:, self._gaussian_columns] += std * self._rng.standard_normal(std.shape, np.float32)
        return noisy

    def _choose_any(self, actions: Floats, logits: Floats, scale: float) -> None:
        probability = (scale * self._scale_factors)[:, None]
        for segment in self._choices:
            parts = by_part(actions, segment)
            is_random = self._rng.random(parts.shape[:2]) < probability
            chosen = parts.argmax(axis=2)
            chosen[is_random] = self._any_choices(by_part(logits, segment)[is_random])
            choose(chosen, parts)

    def _any_choices(self, logits: Floats) -> npt.NDArray[np.intp]:
        """Returns uniformly random choices among the allowed ones [...], from logits [..., n]."""
        if not self._is_masked:
            return self._rng.integers(logits.shape[-1], size=logits.shape[:-1])
        # The largest of equally distributed numbers is equally likely to be any of them.
        drawn = self._rng.random(logits.shape)
        chosen: npt.NDArray[np.intp] = np.where(allowed(logits), drawn, -1.0).argmax(axis=-1)
        return chosen

    def _add_noise(self, actions: Floats, scale: float) -> Floats:
        # theta = 1 keeps nothing of the last noise: Gaussian noise is the memoryless Ornstein-Uhlenbeck process.
        noise = self._rng.standard_normal(actions.shape, np.float32)
        noise *= (scale * self._scale_factors).astype(np.float32)[:, None]
        for segment in self._thrusts:
            parts = by_part(noise, segment)
            np.negative(parts[..., RIGHT_UP], out=parts[..., LEFT_DOWN])
        if self._theta < 1.0:
            noise += np.float32(1.0 - self._theta) * self._noise
            self._noise = noise
        noisy = actions + noise * self._half_range
        return np.clip(noisy, self._low, self._high, out=noisy)

    def _uniform(self, logits: Floats) -> Floats:
        """Returns uniformly random joint actions [C, A]; the logits [C, A] say which choices are allowed."""
        actions = self._low + self._rng.random(logits.shape, np.float32) * (self._high - self._low)
        for segment in self._thrusts:
            parts = by_part(actions, segment)
            parts[..., 0] = 0.0
            np.subtract(1.0, parts[..., RIGHT_UP], out=parts[..., LEFT_DOWN])
        for segment in self._choices:
            parts = by_part(actions, segment)
            choose(self._any_choices(by_part(logits, segment)), parts)
        for segment in self._soft:
            parts = by_part(actions, segment)
            softmax(self._rng.gumbel(size=parts.shape).astype(np.float32), parts)
        return actions
