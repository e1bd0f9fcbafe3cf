"""Small teams and runs that tests of several files use."""

from __future__ import annotations

import numpy as np

from common.policy import Floats, weight_count
from common.run import Run, make_run_spec
from common.spec import Box, Categorical, JointSpec, joint_spec
from common.weights import WeightsHeader, pack_weights

MIXED: JointSpec = joint_spec(
    [
        ("leader", "blue", 7, (Categorical(3), Box((-2.0, 0.5), (1.0, 0.75)), Categorical(2))),
        ("scout_0", "blue", 4, (Box((-1.0,), (3.0,)),)),
        ("scout_1", "red", 4, (Categorical(5),)),
    ]
)
"""Agents that differ in everything: sizes, kinds of action, number of parts, bounds."""
BOXES: JointSpec = joint_spec([(f"agent_{i}", "agent", 3, (Box((-2.0, 0.0), (1.0, 4.0)),)) for i in range(2)])
CHOICES: JointSpec = joint_spec([("speaker", "a", 3, (Categorical(3),)), ("mover", "a", 5, (Categorical(4),))])


def make_run(joint: JointSpec = MIXED, **settings: object) -> Run:
    """Returns a run over a team."""
    return Run("a1b2c3d4", make_run_spec({"scenario": "somewhere", **settings}), joint)


def random_weights(run: Run, seed: int = 0) -> Floats:
    """Returns flat weights that fit the run's policies."""
    size = weight_count(run.joint, run.spec.network)
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def make_header(run: Run, version: int = 1, **fields: object) -> WeightsHeader:
    """Returns the header of weights of a run."""
    values = {"updates": 10 * version, "exploration_scale": 0.3, "random_share": 0.0, **fields}
    return WeightsHeader(run=run.id, data_hash=run.data_hash, version=version, **values)


def make_frame(run: Run, version: int = 1, **fields: object) -> bytes:
    """Returns weights of a run as the learner broadcasts them."""
    return pack_weights(make_header(run, version, **fields), random_weights(run, seed=version))
