"""The action heads in numpy: from a policy's outputs (logits) to joint actions.

| part of an action                          | `network.head`    | executed action without exploration             |
|--------------------------------------------|-------------------|-------------------------------------------------|
| Categorical                                | any               | the one-hot argmax (`choice`)                   |
| Box                                        | box               | `middle + half * tanh(logit)` (`box`)           |
| Box of two or more numbers from 0 to 1     | soft              | `softmax(logits)` (`soft`)                      |
| Box of five numbers from 0 to 1            | force             | a thrust: stay, left, right, down, up (`thrust`)|
| Box of two numbers                         | force             | `middle + half * f` (`force`)                   |
| Box of other numbers from 0 to 1: message  | force             | as `box`                                        |

A force is `f = tanh(|h|) h / |h|`, in the unit disc. For a Box of two numbers, `h` is its two logits. MPE's five
numbers push by right - left and by up - down, so there `h` is the same differences of logits, and
`left = (1 - f_x) / 2`, `right = (1 + f_x) / 2`, likewise down and up, and stay = 0: full thrust at |f| = 1.

Adjacent parts of one kind are computed together, whichever agents they belong to. The learner's torch heads use the
same layout. Shapes: C copies, A numbers of the joint action, P parts of a segment, n numbers of each part.
"""

from __future__ import annotations

from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from common.errors import ConfigError
from common.run.run import NetworkSpec
from common.spec import Box, JointSpec, Part

Floats = npt.NDArray[np.float32]
Kind = Literal["choice", "box", "soft", "thrust", "force"]

THRUST_SIZE, FORCE_SIZE = 5, 2
LEFT_DOWN, RIGHT_UP = slice(1, None, 2), slice(2, None, 2)
"""Of the five numbers of a thrust: those that push backward and those that push forward along x and y."""
MIN_NORM = 1e-30
"""Lower bound of a force's norm; it prevents 0 / 0 and changes no result."""

_NEEDS = {
    "soft": "two or more numbers from 0 to 1",
    "force": "a force (two numbers, or five from 0 to 1) or a message (numbers from 0 to 1)",
}


class Segment(NamedTuple):
    """Adjacent parts of one kind and, except for boxes, of one size."""

    kind: Kind
    columns: slice
    """Columns of the parts in the joint action."""
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of parts and numbers of each part `[P, n]`; boxes count as one part."""
        total = self.columns.stop - self.columns.start
        return (1, total) if self.kind == "box" else (len(self.parts), total // len(self.parts))

    def range(self) -> tuple[Floats, Floats]:
        """Returns middle and half range of Box parts, each `[P, n]`."""
        ranges = [box_range(part) for part in self.parts if isinstance(part, Box)]
        middle, half_range = (np.concatenate(arrays).reshape(self.shape) for arrays in zip(*ranges, strict=True))
        return middle, half_range


class Ranges(NamedTuple):
    """Bounds and half range of each number of the joint action, each `[A]`; noise is scaled by the half range."""

    low: Floats
    high: Floats
    half_range: Floats
    """0 for numbers without noise: choices, soft choices, and the stay of a thrust."""


def box_range(part: Box) -> tuple[Floats, Floats]:
    """Returns middle and half range of a Box part, each `[size]`."""
    low, high = np.array(part.low, np.float32), np.array(part.high, np.float32)
    two = np.float32(2)
    return (high + low) / two, (high - low) / two


def segments(joint: JointSpec, head: str) -> tuple[Segment, ...]:
    """Returns the segments of the joint action; ConfigError if the head does not fit a part."""
    parts = [
        (_kind(part, head, f"part {i + 1} of the action of {agent.name}"), part)
        for agent in joint.agents
        for i, part in enumerate(agent.parts)
    ]
    found: list[Segment] = []
    start = 0
    for (kind, _), group in groupby(parts, lambda each: (each[0], 0 if each[0] == "box" else each[1].size)):
        members = tuple(part for _, part in group)
        columns = slice(start, start + sum(part.size for part in members))
        start = columns.stop
        found.append(Segment(kind, columns, members))
    return tuple(found)


def check_head(joint: JointSpec, network: NetworkSpec) -> None:
    """Raises ConfigError for a head that does not fit a part of an action, or for `force` in a world without forces."""
    kinds = {segment.kind for segment in segments(joint, network.head)}
    if network.head == "force" and not kinds & {"thrust", "force"}:
        raise ConfigError(
            "network.head = 'force': no agent of this world acts by a force, which is a Box of two numbers or of five "
            "from 0 to 1. Pass --set network.head=box."
        )


def ranges(joint: JointSpec, head: str) -> Ranges:
    """Returns the ranges of the joint action; a one-hot part has the bounds 0 and 1."""
    low, high = np.zeros(joint.action_dim, np.float32), np.ones(joint.action_dim, np.float32)
    half_range = np.zeros(joint.action_dim, np.float32)
    for kind, columns, parts in segments(joint, head):
        boxes = [part for part in parts if isinstance(part, Box)]
        if boxes:
            low[columns] = np.concatenate([part.low for part in boxes])
            high[columns] = np.concatenate([part.high for part in boxes])
        if kind in ("box", "thrust", "force"):
            half_range[columns] = np.concatenate([box_range(part)[1] for part in boxes])
        if kind == "thrust":
            half_range[columns][::THRUST_SIZE] = 0.0
    return Ranges(low, high, half_range)


class GreedyHeads:
    """The heads of all agents without exploration."""

    def __init__(self, joint: JointSpec, head: str = "box") -> None:
        """Raises ConfigError if the head does not fit a part of an action."""
        self.segments = segments(joint, head)
        self._ranges = {s.columns.start: s.range() for s in self.segments if s.kind in ("box", "force")}

    def __call__(self, logits: Floats) -> Floats:
        """Returns the joint actions `[C, A]` for logits `[C, A]`."""
        actions = np.empty_like(logits)
        for segment in self.segments:
            part_logits, out = by_part(logits, segment), by_part(actions, segment)
            if segment.kind == "choice":
                choose(part_logits.argmax(axis=2), out)
            elif segment.kind == "soft":
                softmax(part_logits, out)
            elif segment.kind == "thrust":
                _thrust(part_logits, out)
            else:
                middle, half = self._ranges[segment.columns.start]
                bounded = np.tanh(part_logits) if segment.kind == "box" else bounded_force(part_logits)
                np.multiply(bounded, half, out=out)
                out += middle
        return actions


def by_part(joint: Floats, segment: Segment) -> Floats:
    """Returns a segment's columns of joint vectors `[C, A]` as a view `[C, P, n]`."""
    return joint[:, segment.columns].reshape(len(joint), *segment.shape)


def choose(choices: npt.NDArray[np.intp], out: Floats) -> None:
    """Writes the one-hot vectors of the choices `[C, P]` into `out` `[C, P, n]`."""
    np.equal(choices[..., None], np.arange(out.shape[-1]), out=out)


def softmax(logits: Floats, out: Floats) -> None:
    """Writes the softmax over each part's logits `[C, P, n]` into `out`."""
    np.subtract(logits, logits.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)


def bounded_force(h: Floats) -> Floats:
    """Returns `tanh(|h|) h / |h|` of vectors `[..., 2]`: smooth, inside the unit disc, and 0 at 0."""
    norm: Floats = np.hypot(h[..., 0], h[..., 1])
    np.maximum(norm, MIN_NORM, out=norm)
    shrink: Floats = np.tanh(norm)
    shrink /= norm
    return h * shrink[..., None]


def _thrust(logits: Floats, out: Floats) -> None:
    force = bounded_force(logits[..., RIGHT_UP] - logits[..., LEFT_DOWN])
    force *= 0.5
    out[..., 0] = 0.0
    np.subtract(0.5, force, out=out[..., LEFT_DOWN])
    np.add(0.5, force, out=out[..., RIGHT_UP])


def _kind(part: Part, head: str, name: str) -> Kind:
    if not isinstance(part, Box):
        return "choice"
    if head == "box":
        return "box"
    of_unit_range = set(part.low) == {0.0} and set(part.high) == {1.0}
    if head == "soft" and part.fits_soft_choice:
        return "soft"
    if head == "force" and part.size == FORCE_SIZE:
        return "force"
    if head == "force" and of_unit_range:
        return "thrust" if part.size == THRUST_SIZE else "box"
    numbers = "1 number" if part.size == 1 else f"{part.size} numbers"
    bounds = f"{numbers} from {min(part.low):g} to {max(part.high):g}"
    raise ConfigError(f"network.head = {head!r}: {name} is {bounds}, not {_NEEDS[head]}. Pass --set network.head=box.")
