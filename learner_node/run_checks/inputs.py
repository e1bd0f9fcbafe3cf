"""Checks of a run's inputs and settings: sizes of observations and rewards, gradient clipping, and discount.

Networks and Adam's steps suit numbers of a size near 1. An environment that counts in watts or cents trains badly
unless the run normalises observations and rewards, and the signs are seen late: saturated actions or useless Q-values.
So InputMonitor measures a batch every two seconds and, after a resume, compares rewards with those from before it
(RewardChange). The functions of this module keep no state.

A "size" is a root mean square (RMS).

n rows     O length of the joint observation     A agents
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from common.policy.heads import Floats
from common.run.run import AlgorithmSpec, Run, RunSpec
from common.spec import AgentsSpec
from common.transitions import field_columns, transition_dtype
from common.worlds import is_foreign

MAX_RMS, MIN_RMS = 100.0, 0.01
"""Bounds of sizes without a remark: a hundred times above and below the size that networks are initialised for."""
MAX_REWARD_RATIO = 10.0
"""Largest factor between the sizes of rewards before and after a resume without a remark."""
MEASURED_ROWS = 64
"""Number of rows of a batch whose observations are measured."""
FIRST_BATCHES = 10
"""Number of batches at the start that are all measured, so that short runs have statistics too."""
MEASURE_PERIOD_S = 2.0
MIN_REWARDS = 64
"""Number of new rewards other than 0 that a comparison with those from before a resume needs."""
MAX_CLIPPED_FRACTION = 0.95
"""Largest fraction of clipped critic updates without a remark."""
MAX_CLIP_RATIO, MAX_CLIP_RATIO_BUILT_IN = 20.0, 200.0
"""Bounds of (median norm of the critics' gradients) / `algorithm.gradient_clip`; a larger ratio causes a remark. The
bound of built-in worlds is larger, because the defaults were chosen on them: simple_tag trains well at a ratio of 80,
as Adam rescales its steps."""
_DISCOUNTS = (0.95, 0.99, 0.995, 0.999)
MAX_EPISODE_HORIZONS = 20.0
"""Largest length of an episode without a remark, in horizons 1 / (1 - discount)."""


@dataclass(frozen=True)
class InputStats:
    """Statistics of one batch's inputs, agent by agent `[A]`. Rows in which an agent is absent do not count."""

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
    """A warning of a running learner about its inputs or settings, with advice; logged and reported as one line.

    `shoal check` finds a `Finding` before training, and `shoal diagnose` a `DiagnosisWarning` in a trained run.
    """

    about: str
    """The subject, in one or two words."""
    seen: str
    means: str
    to_try: tuple[str, ...]

    def __str__(self) -> str:
        """Returns the remark as one line; its first two words, those of `seen`, are its key (`remark_key`)."""
        return f"{self.seen}; try {self.to_try[0]}"


def measure_inputs(agents: AgentsSpec, obs: Floats, reward: Floats, present: Floats) -> InputStats:
    """Returns statistics of observations `[m, O]` and rewards `[n, A]`; present: whether each agent acts `[n, A]`.

    The observations are those of the first m <= n rows.
    """
    by_agent: list[tuple[float, float, float, float, float, float]] = []
    for i, agent in enumerate(agents.agents):
        agent_obs = obs[present[: len(obs), i] > 0, agent.obs_slice].astype(np.float64)
        rewards = reward[present[:, i] > 0, i].astype(np.float64)
        by_agent.append(
            (*_mean_and_spread(agent_obs), _max_column_rms(agent_obs), *_mean_and_spread(rewards), nonzero_rms(rewards))
        )
    return InputStats(*(list(column) for column in zip(*by_agent, strict=True)))


def nonzero_rms(rewards: npt.NDArray[np.float64]) -> float:
    """Returns the root mean square of the rewards that are not 0; 0 if there are none."""
    nonzero = rewards[rewards != 0.0]
    return float(np.sqrt(np.mean(np.square(nonzero)))) if nonzero.size else 0.0


def input_remarks(stats: InputStats, agents: AgentsSpec, algorithm: AlgorithmSpec) -> list[Remark]:
    """Returns remarks on observations and rewards that are too large or too small, unless they are normalised."""
    remarks: list[Remark] = []
    sizes = dict(zip((agent.name for agent in agents.agents), stats.obs_size, strict=True))
    for names, direction in (
        ([name for name, size in sizes.items() if size > MAX_RMS], "large"),
        ([name for name, size in sizes.items() if 0.0 < size < MIN_RMS], "small"),
    ):
        if names and not algorithm.normalises_observations:
            remarks.append(_observation_remark(names, max(sizes[name] for name in names), direction))
    size = max(stats.reward_size) * algorithm.reward_scale
    if (size > MAX_RMS or 0.0 < size < MIN_RMS) and not algorithm.normalises_rewards:
        remarks.append(_reward_remark(max(stats.reward_size), algorithm.reward_scale))
    return remarks


def clipping_remarks(clipped: float | None, norm: float | None, spec: RunSpec) -> list[Remark]:
    """Returns a remark if almost all critic updates are strongly clipped.

    clipped: fraction of clipped updates. norm: median norm of the critics' gradients before clipping. None = unknown.
    """
    clip = spec.algorithm.gradient_clip
    largest = MAX_CLIP_RATIO if is_foreign(spec.scenario) else MAX_CLIP_RATIO_BUILT_IN
    if clipped is None or norm is None or not clip or clipped < MAX_CLIPPED_FRACTION or norm < largest * clip:
        return []
    if not math.isfinite(norm):
        return []  # non-finite weights raise an error elsewhere
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
    if episode_steps < MAX_EPISODE_HORIZONS * horizon:
        return []
    suggested = next((one for one in _DISCOUNTS if MAX_EPISODE_HORIZONS / (1.0 - one) > episode_steps), _DISCOUNTS[-1])
    return [
        Remark(
            "discount",
            f"discount {discount:g} sees about {horizon:,.0f} of an episode's {episode_steps:,.0f} steps",
            "what an action brings later than that does not count",
            (f"algorithm.discount={suggested:g}", *(("--preset control in a new run",) if discount < 0.95 else ())),
        )
    ]


class RewardChange:
    """Compares the size of rewards after a resume with the size before it."""

    def __init__(self, size_before: float | None) -> None:
        """size_before: the size in the checkpoint; None = measure it on old transitions in the replay table."""
        self._size_before, self._old_squares = size_before, (0.0, 0)
        self._new_squares = (0.0, 0)
        self._first_version: int | None = None
        self.is_known = False
        """Whether the change is known."""

    def resumed(self, first_version: int) -> None:
        """Sets the version of the first weights after the resume. Rows with this version or a later one are new."""
        self._first_version = first_version

    def observe(self, rewards: Floats, versions: npt.NDArray[np.uint32]) -> float | None:
        """Adds rewards `[n, A]` of weights versions `[n]`; returns the new size over the old one, once it is known."""
        if self.is_known or self._first_version is None:
            return None
        is_new = versions >= self._first_version
        self._new_squares = _add_squares(self._new_squares, rewards[is_new])
        self._old_squares = _add_squares(self._old_squares, rewards[~is_new])
        before = self._size_before or _rms(self._old_squares)
        if self._new_squares[1] < MIN_REWARDS or not before:
            return None
        self.is_known = True
        return _rms(self._new_squares) / before


def reward_change_remarks(ratio: float | None) -> list[Remark]:
    """Returns a remark if the size of rewards changed at a resume; ratio: new size over old size, None = unknown."""
    if ratio is None or 1.0 / MAX_REWARD_RATIO < ratio < MAX_REWARD_RATIO:
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


class InputMonitor:
    """Measures a batch every MEASURE_PERIOD_S; has the newest statistics and remarks."""

    def __init__(self, run: Run, size_before: float | None) -> None:
        self._agents, self._spec = run.joint, run.spec
        self._columns = field_columns(transition_dtype(run.joint))
        self._change = RewardChange(size_before)
        self._observed, self._observed_at = 0, -math.inf
        self._reward_size: float | None = None
        self.reward_change: float | None = None
        """Size of rewards over their size before the resume; None while unknown."""
        self._clipped: list[tuple[bool, float]] = []
        self.stats: InputStats | None = None
        self.episode_steps: float | None = None
        """Mean number of environment steps of an episode; None while too few have ended."""

    def resumed(self, first_version: int) -> None:
        """Sets the version of the first weights after a resume."""
        self._change.resumed(first_version)

    def is_due(self, now: float) -> bool:
        """Returns whether to measure the next batch."""
        return self._observed < FIRST_BATCHES or now - self._observed_at >= MEASURE_PERIOD_S

    def observe(self, records: Floats, now: float) -> None:
        """Measures a batch of records, as rows of 4-byte numbers `[B, numbers]`."""
        self._observed, self._observed_at = self._observed + 1, now
        columns = self._columns
        reward, present = records[:, columns["reward"]], records[:, columns["present"]]
        self.stats = measure_inputs(self._agents, records[:MEASURED_ROWS, columns["obs"]], reward, present)
        self._reward_size = nonzero_rms(reward[present > 0].astype(np.float64)) or self._reward_size
        versions = records.view(np.uint32)[:, columns["policy_version"]].ravel()
        if (change := self._change.observe(reward, versions)) is not None:
            self.reward_change = change

    def observe_norms(self, norms: Sequence[float]) -> None:
        """Adds the norms of the critics' gradients of one update."""
        self._clipped.append((max(norms) > self._spec.algorithm.gradient_clip > 0.0, max(norms)))
        del self._clipped[:-30]

    @property
    def reward_size(self) -> float | None:
        """Root mean square of all agents' rewards that are not 0; None before the first such reward."""
        return self._reward_size

    def remarks(self) -> list[str]:
        """Returns the current remarks, one line each. No two have the same first two words (`remark_key`)."""
        remarks = reward_change_remarks(self.reward_change)
        if self.stats:
            remarks += input_remarks(self.stats, self._agents, self._spec.algorithm)
        if len(self._clipped) >= 10:
            fraction = sum(clipped for clipped, _ in self._clipped) / len(self._clipped)
            norm = float(np.median([norm for _, norm in self._clipped]))
            remarks += clipping_remarks(fraction, norm, self._spec)
        remarks += horizon_remarks(self._spec.algorithm.discount, self.episode_steps)
        return [str(remark) for remark in remarks]


def remark_key(remark: str) -> str:
    """Returns the first two words of a remark, which identify it while its numbers change.

    A remark whose key was shown before is not shown again, so two kinds of remarks must not start with the same two
    words.
    """
    return " ".join(remark.split()[:2])


def _rounded(number: float) -> str:
    """Returns a number with three significant digits, without an exponent if that is short."""
    rounded = float(f"{number:.3g}")
    return f"{rounded:,.0f}" if 1e3 <= rounded < 1e7 else f"{rounded:g}"


def _mean_and_spread(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    return (float(values.mean()), float(values.std())) if values.size else (0.0, 0.0)


def _max_column_rms(rows: npt.NDArray[np.float64]) -> float:
    """Returns the largest root mean square over columns."""
    return float(np.sqrt(np.square(rows).mean(axis=0).max())) if rows.size else 0.0


def _add_squares(known: tuple[float, int], rewards: Floats) -> tuple[float, int]:
    nonzero = rewards[rewards != 0.0].astype(np.float64)
    return known[0] + float(np.square(nonzero).sum()), known[1] + nonzero.size


def _rms(squares: tuple[float, int]) -> float:
    total, count = squares
    return math.sqrt(total / count) if count else 0.0


def _observation_remark(names: Sequence[str], size: float, direction: str) -> Remark:
    whose = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    comparison = "reach a size of" if direction == "large" else "have a size of at most"
    return Remark(
        "observations",
        f"{direction} observations: those of {whose} {comparison} {_rounded(size)} (root mean square)",
        "networks suit numbers of a size near 1: "
        + (
            "units saturate, and one large number hides the others"
            if direction == "large"
            else "they hardly tell them apart"
        ),
        (
            "algorithm.normalise_observations=true in a new --run",
            "to scale the observation in the environment, or in a wrapper, so that each number has a size near 1",
        ),
    )


def _reward_remark(size: float, reward_scale: float) -> Remark:
    exponent = -round(math.log10(size))
    scaled = f", times algorithm.reward_scale {reward_scale:g}" if reward_scale != 1.0 else ""
    fits = abs(exponent) <= 12
    return Remark(
        "rewards",
        f"rewards have a size of {_rounded(size)} (root mean square of those that are not 0{scaled})",
        "critics and their learning rates suit rewards of a size near 1",
        (
            f"algorithm.reward_scale=1e{exponent}" if fits else "to scale the reward in the environment",
            "algorithm.normalise_rewards=true in a new --run",
        ),
    )
