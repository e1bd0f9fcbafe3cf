"""Remarks on a run's inputs and settings: sizes of observations and rewards, gradient clipping, and discount.

Networks and Adam's steps suit numbers of a size near 1. An environment that counts in watts or cents trains badly and
shows it late, in saturated actions or useless values. So a batch is measured from time to time, and rewards are
compared with those from before a resume. In numpy; only InputStats and RewardChange have state.

n rows     O numbers of the joint observation     A agents
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats
from common.run.run import Run, RunSpec
from common.spec import AgentsSpec
from common.transitions import field_columns, transition_dtype
from common.worlds import is_foreign

LARGEST_SIZE, SMALLEST_SIZE = 100.0, 0.01
"""Root mean squares beyond which a remark is made: a hundred times the size that networks are initialised for."""
LARGEST_CHANGE = 10.0
"""Largest factor between the sizes of rewards before and after a resume that is not remarked on."""
ROWS = 64
"""Rows of a batch whose observations are measured."""
FIRST_BATCHES = 10
"""Batches that are all measured at the start, so that short runs have figures too."""
PERIOD_S = 2.0
FEWEST_REWARDS = 64
"""New rewards other than 0 that are needed for a comparison with those from before a resume."""
MOST_CLIPPED = 0.95
LARGEST_NORM, LARGEST_NORM_KNOWN = 20.0, 200.0
"""Largest median norm of a critic's gradient over `algorithm.gradient_clip` without a remark; in built-in worlds the
latter: the defaults were chosen on them, and simple_tag trains well at 80, because Adam rescales its steps."""
_DISCOUNTS = (0.95, 0.99, 0.995, 0.999)
LONGEST_OVER_HORIZON = 20.0
"""Largest length of an episode over the horizon 1 / (1 - discount) without a remark."""


@dataclass(frozen=True)
class InputFigures:
    """Sizes of one batch's inputs, agent by agent `[A]`; rows in which an agent is absent do not count."""

    obs_mean: list[float]
    """Mean over all numbers of an agent's observation."""
    obs_spread: list[float]
    """Standard deviation over all numbers of an agent's observation."""
    obs_size: list[float]
    """Largest root mean square of one number of an agent's observation."""
    reward_mean: list[float]
    reward_spread: list[float]
    """Standard deviation of an agent's rewards."""
    reward_size: list[float]
    """Root mean square of an agent's rewards that are not 0, before `algorithm.reward_scale`."""


class Remark(msgspec.Struct, frozen=True):
    """A finding about a run's inputs or settings, with advice."""

    about: str
    """The subject, in one or two words."""
    seen: str
    means: str
    to_try: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the remark in one line."""
        return f"{self.seen}; try {self.to_try[0]}"


def measure(joint: AgentsSpec, obs: Floats, reward: Floats, present: Floats) -> InputFigures:
    """Returns the sizes of observations `[n, O]` and rewards `[n, A]`; present: whether each agent acts `[n, A]`."""
    columns: list[tuple[float, float, float, float, float, float]] = []
    for i, agent in enumerate(joint.agents):
        own = obs[present[: len(obs), i] > 0, agent.obs_slice].astype(np.float64)
        rewards = reward[present[:, i] > 0, i].astype(np.float64)
        columns.append((*_mean_and_spread(own), _largest_size(own), *_mean_and_spread(rewards), size_of(rewards)))
    return InputFigures(*(list(column) for column in zip(*columns, strict=True)))


def size_of(rewards: npt.NDArray[np.float64]) -> float:
    """Returns the root mean square of the rewards that are not 0; 0 if there are none."""
    nonzero = rewards[rewards != 0.0]
    return float(np.sqrt(np.mean(np.square(nonzero)))) if nonzero.size else 0.0


def input_remarks(figures: InputFigures, joint: AgentsSpec, reward_scale: float) -> list[Remark]:
    """Returns remarks on observations and rewards that are too large or too small."""
    rounded: list[Remark] = []
    sizes = dict(zip((agent.name for agent in joint.agents), figures.obs_size, strict=True))
    for names, direction in (
        ([name for name, size in sizes.items() if size > LARGEST_SIZE], "large"),
        ([name for name, size in sizes.items() if 0.0 < size < SMALLEST_SIZE], "small"),
    ):
        if names:
            rounded.append(_on_observations(names, max(sizes[name] for name in names), direction))
    size = max(figures.reward_size) * reward_scale
    if size > LARGEST_SIZE or 0.0 < size < SMALLEST_SIZE:
        rounded.append(_on_rewards(max(figures.reward_size), reward_scale))
    return rounded


def clipping_remarks(clipped: float | None, norm: float | None, spec: RunSpec) -> list[Remark]:
    """Returns a remark if almost all critic updates are strongly clipped.

    clipped: fraction of the updates that are clipped. norm: median norm before clipping.
    """
    clip = spec.algorithm.gradient_clip
    largest = LARGEST_NORM if is_foreign(spec.scenario) else LARGEST_NORM_KNOWN
    if clipped is None or norm is None or not clip or clipped < MOST_CLIPPED or norm < largest * clip:
        return []
    if not math.isfinite(norm):
        return []  # weights that are not finite are a separate error
    suggested = 10.0 ** math.ceil(math.log10(norm))
    return [
        Remark(
            "clipping",
            f"critics' gradients are clipped in {clipped:.0%} of the updates (norm {_rounded(norm)}, clip {clip:g})",
            "gradients of all sizes become steps of one size, so that rare large errors count no more than small ones",
            (f"algorithm.gradient_clip={suggested:g}", "algorithm.reward_scale below 1"),
        )
    ]


def horizon_remarks(discount: float, episode_steps: float | None) -> list[Remark]:
    """Returns a remark if the horizon of the discount is a small part of an episode."""
    if episode_steps is None or discount >= 1.0:
        return []
    horizon = 1.0 / (1.0 - discount)
    if episode_steps < LONGEST_OVER_HORIZON * horizon:
        return []
    suggested = next((one for one in _DISCOUNTS if LONGEST_OVER_HORIZON / (1.0 - one) > episode_steps), _DISCOUNTS[-1])
    return [
        Remark(
            "discount",
            f"discount {discount:g} sees about {horizon:,.0f} of an episode's {episode_steps:,.0f} steps",
            "what an action brings later than that does not count",
            (f"algorithm.discount={suggested:g}",),
        )
    ]


class RewardChange:
    """Compares the size of rewards after a resume with their size before it."""

    def __init__(self, size_before: float | None) -> None:
        """size_before: from the checkpoint; None measures it on old transitions in the replay table."""
        self._before, self._old = size_before, (0.0, 0)
        self._new = (0.0, 0)
        self._first_version: int | None = None
        self.is_known = False
        """Whether the change is known."""

    def resumed(self, first_version: int) -> None:
        """Takes the version of the first weights after the resume: rows with this version or a later one are new."""
        self._first_version = first_version

    def observe(self, rewards: Floats, versions: npt.NDArray[np.uint32]) -> float | None:
        """Takes rewards `[n, A]`; returns the new size over the old one, once, as soon as enough rewards arrived."""
        if self.is_known or self._first_version is None:
            return None
        is_new = versions >= self._first_version
        self._new = _added(self._new, rewards[is_new])
        self._old = _added(self._old, rewards[~is_new])
        before = self._before or _size(self._old)
        if self._new[1] < FEWEST_REWARDS or not before:
            return None
        self.is_known = True
        return _size(self._new) / before


def reward_change_remarks(ratio: float | None) -> list[Remark]:
    """Returns a remark if rewards have a different size than before a resume; ratio: new size over old size."""
    if ratio is None or 1.0 / LARGEST_CHANGE < ratio < LARGEST_CHANGE:
        return []
    times = f"{ratio:.1g}" if ratio < 1.0 else f"{float(f'{ratio:.1g}'):,.0f}"
    return [
        Remark(
            "resume",
            f"rewards are about {times} times as large as before the resume",
            "the environment changed: critics, and the transitions that the replay still holds, have the old size",
            ("a new --run, or the environment's old rewards",),
        )
    ]


class InputStats:
    """Measures a batch from time to time; has the newest figures and remarks."""

    def __init__(self, run: Run, size_before: float | None) -> None:
        self._joint, self._spec = run.joint, run.spec
        self._columns = field_columns(transition_dtype(run.joint))
        self._change = RewardChange(size_before)
        self._observed, self._observed_at = 0, -math.inf
        self._reward_size: float | None = None
        self.reward_change: float | None = None
        """Size of rewards over their size before a resume; None if it is not known."""
        self._clipped: list[tuple[bool, float]] = []
        self.figures: InputFigures | None = None
        self.episode_steps: float | None = None
        """Mean number of environment steps of an episode; None while too few have ended."""

    def resumed(self, first_version: int) -> None:
        """Takes the version of the first weights after a resume."""
        self._change.resumed(first_version)

    def is_due(self, now: float) -> bool:
        """Returns whether the next batch is to be measured."""
        return self._observed < FIRST_BATCHES or now - self._observed_at >= PERIOD_S

    def observe(self, words: Floats, now: float) -> None:
        """Measures a batch's rows of 4-byte words `[B, words]`."""
        self._observed, self._observed_at = self._observed + 1, now
        columns = self._columns
        reward, present = words[:, columns["reward"]], words[:, columns["present"]]
        self.figures = measure(self._joint, words[:ROWS, columns["obs"]], reward, present)
        self._reward_size = size_of(reward[present > 0].astype(np.float64)) or self._reward_size
        versions = words.view(np.uint32)[:, columns["policy_version"]].ravel()
        if (change := self._change.observe(reward, versions)) is not None:
            self.reward_change = change

    def observe_norms(self, norms: Sequence[float]) -> None:
        """Takes the norms of the critics' gradients of one update."""
        self._clipped.append((max(norms) > self._spec.algorithm.gradient_clip > 0.0, max(norms)))
        del self._clipped[:-30]

    @property
    def reward_size(self) -> float | None:
        """Root mean square of all agents' rewards that are not 0; None before the first such reward."""
        return self._reward_size

    def remarks(self) -> list[str]:
        """Returns the present remarks, a line each; their first two words identify them."""
        rounded = reward_change_remarks(self.reward_change)
        if self.figures:
            rounded += input_remarks(self.figures, self._joint, self._spec.algorithm.reward_scale)
        if len(self._clipped) >= 10:
            share = sum(clipped for clipped, _ in self._clipped) / len(self._clipped)
            norm = float(np.median([norm for _, norm in self._clipped]))
            rounded += clipping_remarks(share, norm, self._spec)
        rounded += horizon_remarks(self._spec.algorithm.discount, self.episode_steps)
        return [str(remark) for remark in rounded]


def first_words(remark: str) -> str:
    """Returns the first two words of a remark, which identify it while its numbers change."""
    return " ".join(remark.split()[:2])


def _rounded(size: float) -> str:
    """Returns a number with three significant digits, without an exponent if that is short."""
    rounded = float(f"{size:.3g}")
    return f"{rounded:,.0f}" if 1e3 <= rounded < 1e7 else f"{rounded:g}"


def _mean_and_spread(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)


def _largest_size(rows: npt.NDArray[np.float64]) -> float:
    """Returns the largest root mean square of a column."""
    return float(np.sqrt(np.square(rows).mean(axis=0).max())) if rows.size else 0.0


def _added(known: tuple[float, int], rewards: Floats) -> tuple[float, int]:
    nonzero = rewards[rewards != 0.0].astype(np.float64)
    return known[0] + float(np.square(nonzero).sum()), known[1] + nonzero.size


def _size(squares: tuple[float, int]) -> float:
    total, count = squares
    return math.sqrt(total / count) if count else 0.0


def _on_observations(names: Sequence[str], size: float, direction: str) -> Remark:
    whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    many = "reach a size of" if direction == "large" else "have a size of at most"
    return Remark(
        "observations",
        f"observations of {whose} {many} {_rounded(size)} (root mean square)",
        "networks suit numbers of a size near 1: "
        + (
            "units saturate, and one large number hides the others"
            if direction == "large"
            else "they hardly tell them apart"
        ),
        ("to scale the observation in the environment, or in a wrapper, so that each number has a size near 1",),
    )


def _on_rewards(size: float, reward_scale: float) -> Remark:
    exponent = -round(math.log10(size))
    scaled = f", times algorithm.reward_scale {reward_scale:g}" if reward_scale != 1.0 else ""
    fits = abs(exponent) <= 12
    return Remark(
        "rewards",
        f"rewards have a size of {_rounded(size)} (root mean square of those that are not 0{scaled})",
        "critics and their learning rates suit rewards of a size near 1",
        (f"algorithm.reward_scale=1e{exponent}" if fits else "to scale the reward in the environment",),
    )
