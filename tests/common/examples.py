"""Small teams and runs that tests of several files use."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from common.policy.heads import Floats
from common.run.run import Run, make_run_spec
from common.spec import AgentsSpec, Box, Categorical, joint_spec
from common.wire.weights import WeightsHeader, pack_weights

MIXED: AgentsSpec = joint_spec(
    [
        ("leader", "blue", 7, (Categorical(3), Box((-2.0, 0.5), (1.0, 0.75)), Categorical(2))),
        ("scout_0", "blue", 4, (Box((-1.0,), (3.0,)),)),
        ("scout_1", "red", 4, (Categorical(5),)),
    ]
)
"""Agents that differ in everything: sizes, kinds of action, number of parts, bounds."""
BOXES: AgentsSpec = joint_spec([(f"agent_{i}", "agent", 3, (Box((-2.0, 0.0), (1.0, 4.0)),)) for i in range(2)])
CHOICES: AgentsSpec = joint_spec([("speaker", "a", 3, (Categorical(3),)), ("mover", "a", 5, (Categorical(4),))])


def make_run(joint: AgentsSpec = MIXED, **settings: object) -> Run:
    """Returns a run over a team."""
    return Run("a1b2c3d4", make_run_spec({"scenario": "somewhere", **settings}), joint)


def numbers_of(run: Run) -> int:
    """Counts the numbers of a run's policies by hand: what is tested must come to the same, so it is not asked."""
    algorithms = run.spec.algorithm.name.split(",")
    sizes: dict[str, list[int]] = {}
    for agent in run.joint.agents:
        merged = {"joint", f"{agent.team}=joint"} & set(algorithms)
        size = sizes.setdefault(f"side {agent.team}" if merged else agent.name, [0, 0])
        size[0] += agent.obs_dim
        # A stochastic policy also has a standard deviation for each number of a Box.
        stochastic = {"masac", "isac", f"{agent.team}=masac", f"{agent.team}=isac"} & set(algorithms)
        box = 2 if stochastic else 1
        size[1] += sum(part.n if isinstance(part, Categorical) else box * len(part.low) for part in agent.parts)
    widths = run.spec.network.policy_hidden
    inner = sum((inputs + 1) * outputs for inputs, outputs in pairwise(widths))
    if run.spec.network.policy_layer_norm:
        inner += 2 * sum(widths)
    numbers = 0
    for obs, action in sizes.values():
        numbers += (obs + 1) * widths[0] + inner + (widths[-1] + 1) * action
        if run.spec.network.recurrent:
            # Three gates in place of one layer, and as many from the memory.
            inputs, units = widths[-2] if len(widths) > 1 else obs, widths[-1]
            numbers += 3 * units * (inputs + 1 + units + 1) - (inputs + 1) * units
    return numbers


def random_weights(run: Run, seed: int = 0) -> Floats:
    """Returns flat weights that fit the run's policies."""
    return np.random.default_rng(seed).normal(size=numbers_of(run)).astype(np.float32)


def make_header(run: Run, version: int = 1, **fields: object) -> WeightsHeader:
    """Returns the header of weights of a run."""
    values = {"updates": 10 * version, "exploration_scale": 0.3, "random_share": 0.0, **fields}
    return WeightsHeader(run=run.id, data_hash=run.data_hash, version=version, **values)


def make_frame(run: Run, version: int = 1, **fields: object) -> bytes:
    """Returns weights of a run as the learner broadcasts them."""
    return pack_weights(make_header(run, version, **fields), random_weights(run, seed=version))
