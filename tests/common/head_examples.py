"""Teams under every head, and what their heads must do, one number at a time."""

from __future__ import annotations

import math

import numpy as np

from common.spec import Box, Categorical, JointSpec, joint_spec
from tests.common.examples import CHOICES, MIXED

THRUST = Box((0.0,) * 5, (1.0,) * 5)
WORD = Box((0.0,) * 3, (1.0,) * 3)
UNEVEN_PAIR = Box((-2.0, 0.5), (1.0, 0.75))
MASKED = joint_spec(
    [
        ("chooser", "a", 9, (Categorical(4), Categorical(3))),
        ("mover", "a", 3, (UNEVEN_PAIR,)),
        ("guard", "b", 5, (Box((-1.0,), (1.0,)), Categorical(2))),
    ],
    masked={"chooser", "guard"},
)
MOVERS = joint_spec([(f"agent_{i}", "agent", 6, (THRUST,)) for i in range(3)])

HEAD_TEAMS: dict[str, tuple[JointSpec, str]] = {
    "box": (MIXED, "box"),
    "choices": (CHOICES, "box"),
    "box movers": (MOVERS, "box"),
    "soft movers": (MOVERS, "soft"),
    "soft": (
        joint_spec(
            [
                ("leader", "a", 4, (THRUST, WORD)),
                ("speaker_0", "a", 3, (WORD,)),
                ("speaker_1", "a", 3, (WORD,)),
                ("chooser", "b", 5, (Categorical(3), THRUST, Categorical(2))),
            ]
        ),
        "soft",
    ),
    "force movers": (MOVERS, "force"),
    "force": (
        joint_spec(
            [
                ("leader", "a", 4, (THRUST, WORD)),
                ("speaker", "a", 3, (WORD, Box((0.0,), (1.0,)))),
                ("pusher_0", "b", 2, (UNEVEN_PAIR,)),
                ("pusher_1", "b", 2, (UNEVEN_PAIR, Box((-1.0, -1.0), (1.0, 1.0)))),
                ("chooser", "b", 5, (Categorical(3), THRUST, THRUST, Categorical(2))),
            ]
        ),
        "force",
    ),
}
"""Of each: the team and its head."""


def logits_of(joint: JointSpec, rows: int, size: float = 1.0, seed: int = 1) -> np.ndarray:
    """Returns random logits [rows, sum action]; the last row is all zeros."""
    logits = np.random.default_rng(seed).normal(0.0, size, (rows, joint.action_dim)).astype(np.float32)
    logits[-1] = 0.0
    return logits


def literal_actions(joint: JointSpec, head: str, logits: np.ndarray) -> np.ndarray:
    """Returns the actions without exploration [rows, sum action], by loops in float64."""
    actions = []
    for row in logits.astype(np.float64).tolist():
        out: list[float] = []
        for agent in joint.agents:
            for part in agent.parts:
                out += literal_part(part, head, row[len(out) : len(out) + part.size])
        actions.append(out)
    return np.array(actions)


def literal_part(part: Box | Categorical, head: str, own: list[float]) -> list[float]:
    if isinstance(part, Categorical):
        return [float(i == own.index(max(own))) for i in range(part.n)]
    if head == "soft":
        weights = [math.exp(logit - max(own)) for logit in own]
        return [weight / sum(weights) for weight in weights]
    if head == "force" and part == THRUST:
        x, y = literal_force(own[2] - own[1], own[4] - own[3])
        return [0.0, (1 - x) / 2, (1 + x) / 2, (1 - y) / 2, (1 + y) / 2]
    units = literal_force(*own) if head == "force" and part.size == 2 else [math.tanh(logit) for logit in own]
    ranges = zip(part.low, part.high, units, strict=True)
    return [(low + high) / 2 + (high - low) / 2 * unit for low, high, unit in ranges]


def literal_force(x: float, y: float) -> list[float]:
    norm = math.sqrt(x * x + y * y)
    return [math.tanh(norm) * x / norm, math.tanh(norm) * y / norm] if norm > 0 else [0.0, 0.0]
