"""What networks are fed with: the size of observations and rewards, and what to do where it does not suit them.

Networks and Adam's steps suit numbers of a size near 1. An environment that counts in watts or cents trains badly and
shows it late, in saturated actions or values of no use. So a batch is looked at now and then, and rewards are compared
with those from before a resume. Pure, in numpy.

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
from common.worlds import FOREIGN

LARGEST_SIZE, SMALLEST_SIZE = 100.0, 0.01
"""Root mean squares beyond which inputs are remarked on: a hundred times what networks are initialised for."""
LARGEST_CHANGE = 10.0
"""Of the size of rewards at a resume: no policy changes that much in between."""
ROWS = 64
"""Of a batch whose observations are looked at."""
FIRST_BATCHES = 10
"""Looked at one after the other at the start, so that short runs are seen, too."""
PERIOD_S = 2.0
FEWEST_REWARDS = 64
"""New ones, other than 0, before they are compared with those from before a resume."""
MOST_CLIPPED = 0.95
LARGEST_NORM, LARGEST_NORM_KNOWN = 20.0, 200.0
"""Median norm of a critic's gradient over `algorithm.gradient_clip`. The defaults were chosen on the built-in worlds:
simple_tag trains well at 80, where Adam makes up for it, so there only far larger ones are remarked on."""
_DISCOUNTS = (0.95, 0.99, 0.995, 0.999)
LONGEST_OVER_HORIZON = 20.0
"""Steps of an episode over the steps that the discount sees."""


@dataclass(frozen=True)
class InputFigures:
    """Sizes of one batch's inputs, agent by agent [A]; rows in which an agent is absent do not count."""

    obs_mean: list[float]
    """Mean over all numbers that an agent observes."""
    obs_spread: list[float]
    """Standard deviation over them."""
    obs_size: list[float]
    """Root mean square of the largest of them."""
    reward_mean: list[float]
    reward_spread: list[float]
    """Standard deviation."""
    reward_size: list[float]
    """Root mean square of the rewards that are not 0, before `algorithm.reward_scale`."""


class Remark(msgspec.Struct, frozen=True):
    """Something about a run's inputs or settings that a user should know."""

    about: str
    """One word or two for what it is about."""
    seen: str
    means: str
    to_try: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the remark in one line."""
        return f"{self.seen}; try {self.to_try[0]}"


def measure(joint: AgentsSpec, obs: Floats, reward: Floats, present: Floats) -> InputFigures:
    """Measures observations `[n, O]` and rewards `[n, A]` of rows in which agents are there or not `[n, A]`."""
    columns: list[tuple[float, float, float, float, float, float]] = []
    for i, agent in enumerate(joint.agents):
        own = obs[present[: len(obs), i] > 0, agent.obs_slice].astype(np.float64)
        rewards = reward[present[:, i] > 0, i].astype(np.float64)
        columns.append((*_mean_and_spread(own), _largest_size(own), *_mean_and_spread(rewards), size_of(rewards)))
    return InputFigures(*(list(column) for column in zip(*columns, strict=True)))


def size_of(rewards: npt.NDArray[np.float64]) -> float:
    """Returns the root mean square of the rewards that are not 0; 0 where there are none."""
    nonzero = rewards[rewards != 0.0]
    return float(np.sqrt(np.mean(np.square(nonzero)))) if nonzero.size else 0.0


def on_inputs(figures: InputFigures, joint: AgentsSpec, reward_scale: float) -> list[Remark]:
    """Returns remarks on observations and rewards that are too large or too small."""
    found: list[Remark] = []
    sizes = dict(zip((agent.name for agent in joint.agents), figures.obs_size, strict=True))
    for names, how in (
        ([name for name, size in sizes.items() if size > LARGEST_SIZE], "large"),
        ([name for name, size in sizes.items() if 0.0 < size < SMALLEST_SIZE], "small"),
    ):
        if names:
            found.append(_on_observations(names, max(sizes[name] for name in names), how))
    size = max(figures.reward_size) * reward_scale
    if size > LARGEST_SIZE or 0.0 < size < SMALLEST_SIZE:
        found.append(_on_rewards(max(figures.reward_size), reward_scale))
    return found


def on_clipping(clipped: float | None, norm: float | None, spec: RunSpec) -> list[Remark]:
    """Returns a remark where nearly all updates of critics are clipped, by far; norm: the median before clipping."""
    clip = spec.algorithm.gradient_clip
    largest = LARGEST_NORM if spec.scenario.startswith(FOREIGN) else LARGEST_NORM_KNOWN
    if clipped is None or norm is None or not clip or clipped < MOST_CLIPPED or norm < largest * clip:
        return []
    if not math.isfinite(norm):
        return []  # that weights are no longer finite is an error of its own
    wanted = 10.0 ** math.ceil(math.log10(norm))
    return [
        Remark(
            "clipping",
            f"critics' gradients are clipped in {clipped:.0%} of the updates (norm {_rounded(norm)}, clip {clip:g})",
            "gradients of all sizes become steps of one size, so that rare large errors count no more than small ones",
            (f"algorithm.gradient_clip={wanted:g}", "algorithm.reward_scale below 1"),
        )
    ]


def on_horizon(discount: float, episode_steps: float | None) -> list[Remark]:
    """Returns a remark where the discount sees a small part of an episode."""
    if episode_steps is None or discount >= 1.0:
        return []
    horizon = 1.0 / (1.0 - discount)
    if episode_steps < LONGEST_OVER_HORIZON * horizon:
        return []
    wanted = next((one for one in _DISCOUNTS if LONGEST_OVER_HORIZON / (1.0 - one) > episode_steps), _DISCOUNTS[-1])
    return [
        Remark(
            "discount",
            f"discount {discount:g} sees about {horizon:,.0f} of an episode's {episode_steps:,.0f} steps",
            "what an action brings later than that does not count",
            (f"algorithm.discount={wanted:g}",),
        )
    ]


class RewardChange:
    """Compares the size of the rewards that come in after a resume with those from before it."""

    def __init__(self, size_before: float | None) -> None:
        """size_before: as the checkpoint has it; None takes it from what the replay still holds."""
        self._before, self._old = size_before, (0.0, 0)
        self._new = (0.0, 0)
        self._first_version: int | None = None
        self.is_known = False
        """Whether enough has come to tell."""

    def resumed(self, first_version: int) -> None:
        """Takes the version of the first weights after the resume: rows of it and later ones are new."""
        self._first_version = first_version

    def observe(self, rewards: Floats, versions: npt.NDArray[np.uint32]) -> float | None:
        """Takes rewards `[n, A]` in; returns their size over that of before, once, when enough has come to tell."""
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


def on_change(ratio: float | None) -> list[Remark]:
    """Returns a remark where rewards have another size than before a resume; ratio: new over old."""
    if ratio is None or 1.0 / LARGEST_CHANGE < ratio < LARGEST_CHANGE:
        return []
    times = f"{ratio:.1g}" if ratio < 1.0 else f"{float(f'{ratio:.1g}'):,.0f}"
    return [
        Remark(
            "resume",
            f"rewards are about {times} times as large as before the resume",
            "the environment changed: critics, and the transitions that the replay still holds, have the old size",
            ("a new --run, or to give the environment its old rewards",),
        )
    ]


class InputStats:
    """Looks at batches now and then, and keeps the newest figures and what there is to remark."""

    def __init__(self, run: Run, size_before: float | None) -> None:
        self._joint, self._spec = run.joint, run.spec
        self._columns = field_columns(transition_dtype(run.joint))
        self._change = RewardChange(size_before)
        self._observed, self._observed_at = 0, -math.inf
        self._reward_size: float | None = None
        self.reward_change: float | None = None
        """Size of rewards over that of before a resume; None while, and where, it is not known."""
        self._clipped: list[tuple[bool, float]] = []
        self.figures: InputFigures | None = None
        self.episode_steps: float | None = None
        """Environment steps an episode has had on average; None while too few have ended."""

    def resumed(self, first_version: int) -> None:
        """Takes the version of the first weights after a resume."""
        self._change.resumed(first_version)

    def is_due(self, now: float) -> bool:
        """Says whether the next batch is to be looked at."""
        return self._observed < FIRST_BATCHES or now - self._observed_at >= PERIOD_S

    def observe(self, words: Floats, now: float) -> None:
        """Looks at a batch's rows of 4-byte words `[B, words]`."""
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
        """Root mean square of all agents' rewards that are not 0; None before the first look, and where all were 0."""
        return self._reward_size

    def remarks(self) -> list[str]:
        """Returns what there is to remark now, a line each, which differ in their first two words."""
        found = on_change(self.reward_change)
        if self.figures:
            found += on_inputs(self.figures, self._joint, self._spec.algorithm.reward_scale)
        if len(self._clipped) >= 10:
            share = sum(clipped for clipped, _ in self._clipped) / len(self._clipped)
            norm = float(np.median([norm for _, norm in self._clipped]))
            found += on_clipping(share, norm, self._spec)
        found += on_horizon(self._spec.algorithm.discount, self.episode_steps)
        return [str(remark) for remark in found]


def first_words(remark: str) -> str:
    """Returns what tells one remark from another, whose figures may change."""
    return " ".join(remark.split()[:2])


def _rounded(size: float) -> str:
    """Returns three digits of a number, written out where that is short."""
    found = float(f"{size:.3g}")
    return f"{found:,.0f}" if 1e3 <= found < 1e7 else f"{found:g}"


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


def _on_observations(names: Sequence[str], size: float, how: str) -> Remark:
    whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    many = "reach a size of" if how == "large" else "have a size of at most"
    return Remark(
        "observations",
        f"observations of {whose} {many} {_rounded(size)} (root mean square)",
        "networks suit numbers of a size near 1: "
        + (
            "units saturate, and one large number hides the others" if how == "large" else "they hardly tell them apart"
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
