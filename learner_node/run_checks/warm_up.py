"""The forecast of a run's warm-up: its remaining time, and a warning if it takes longer than the budget. No I/O.

The first update needs `replay.min_size` transitions, and actions are random in the first `exploration.random_steps`
environment steps. Both are charged to the budget, and a slow world may need more time for them than the budget has.
"""

from __future__ import annotations

import math

from common.run.run import RunSpec

MIN_RATE_WINDOW_S = 3.0
"""Shortest time over which the rate of inserts is measured [s]."""


class InsertRate:
    """The number of transitions inserted a second, since the first ones. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._initial: int | None = None
        self._collecting_since: float | None = None
        """Time of the first observation in which an actor collects."""
        self._first: tuple[int, float] | None = None
        self._last = 0, 0.0
        self._now = 0.0

    def observe(self, inserts: int, now: float, *, collecting: bool = True) -> None:
        """Adds an observation.

        inserts: number of transitions so far. collecting: whether any actor has its environments and weights.
        """
        self._now = now
        if self._initial is None:
            self._initial = inserts
        if self._collecting_since is None and collecting:
            self._collecting_since = now
        if inserts == self._initial:
            return
        if self._first is None:
            self._first = self._last = inserts, now
        elif inserts > self._last[0]:
            self._last = inserts, now

    @property
    def value(self) -> float | None:
        """Transitions a second; None while unknown.

        While no transitions followed the first ones, the rate is the number of the first ones over the longer of two
        times: the time until they arrived, and the time since.
        """
        if self._first is None or self._initial is None or self._now - self._first[1] < MIN_RATE_WINDOW_S:
            return None
        if self._last > self._first:
            return (self._last[0] - self._first[0]) / max(self._last[1] - self._first[1], 1e-9)
        took_s = self._first[1] - (self._first[1] if self._collecting_since is None else self._collecting_since)
        return (self._first[0] - self._initial) / max(self._now - self._first[1], took_s)


def forecast(spec: RunSpec, size: int, rate: float | None) -> str:
    """Returns the progress of the warm-up as text; empty when it is over.

    size: transitions in the replay table. rate: transitions a second; None if it is not known yet.
    """
    missing = spec.replay.min_size - size
    if missing <= 0:
        return ""
    left = f", about {_hours_minutes_seconds(missing / rate)} left" if rate else ""
    return f"warming up: {size:,} of {spec.replay.min_size:,} transitions{left}"


def beyond_budget(spec: RunSpec, size: int, env_steps: int, trained_s: float, rate: float | None) -> str:
    """Returns a warning, with advice, if the warm-up takes longer than the time budget; empty if it does not."""
    seconds = spec.budget.seconds
    if not seconds or not rate:
        return ""
    requirements = (
        ("replay.min_size", spec.replay.min_size, size, "transitions"),
        ("exploration.random_steps", spec.exploration.random_steps, env_steps, "environment steps, which are random,"),
    )
    late = [
        (setting, needed, known, unit)
        for setting, needed, known, unit in requirements
        if (needed - known) / rate > seconds - trained_s
    ]
    if not late:
        return ""
    _, count, _, unit = late[0]
    suggested = _round(max(rate * seconds / 4, 1.0))
    names = " and ".join(name for name, *_ in late)
    settings = " ".join(f"--set {name}={suggested}" for name, *_ in late)
    return (
        f"{rate:.2g} steps/s: the first {count:,} {unit} take {_duration_text(count / rate)}, longer than "
        f"--time {_as_option(seconds)}; lower {names} ({settings}) or give more time"
    )


def steps_within_warm_up(spec: RunSpec, env_steps: int = 0, stored: int = 0) -> str:
    """Returns a warning, with advice, if the budget of steps ends within the warm-up; empty if it does not.

    env_steps: environment steps of a resumed run so far. stored: transitions of these steps that the replay still has.
    """
    steps = spec.budget.steps
    if not steps:
        return ""
    late = []
    if stored + steps - env_steps <= spec.replay.min_size:
        again = ", which a resumed run collects again" if stored < env_steps else ""
        seen = f"updates start at {spec.replay.min_size:,} transitions{again}"
        late.append(("replay.min_size", steps - env_steps, seen))
    if steps <= spec.exploration.random_steps:
        seen = f"the first {spec.exploration.random_steps:,} environment steps are random"
        late.append(("exploration.random_steps", steps, seen))
    if not late:
        return ""
    settings = " ".join(f"--set {name}={_round(max(count / 4, 1.0))}" for name, count, _ in late)
    return (
        f"--steps {steps} ends within the warm-up: {' and '.join(seen for *_, seen in late)}; give more steps or lower "
        f"{' and '.join(name for name, *_ in late)} ({settings})"
    )


def ended_too_early(spec: RunSpec) -> str:
    """Returns the warning for a run whose budget was used before its first update."""
    return (
        f"the budget ended during the warm-up, before the replay held {spec.replay.min_size:,} transitions: no update "
        "was done and the policies are untrained; give more time or lower replay.min_size"
    )


def _round(count: float) -> int:
    """Returns a count with one significant digit, rounded down."""
    unit = 10 ** int(math.log10(count))
    return int(count // unit * unit)


def _hours_minutes_seconds(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _duration_text(seconds: float) -> str:
    if seconds < 90.0:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5_400.0 else f"{seconds / 3_600:.1f} h"


def _as_option(seconds: float) -> str:
    """Returns a duration as `--time` is written."""
    for unit, length in (("h", 3_600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds:g}s"
