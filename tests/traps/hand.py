"""Networks set by hand and episodes played by the real parts, so that what must come out can be worked out on paper.

Each network has one hidden unit, lifted so far above zero that its ReLU never bends: a policy's logits and a critic's
values are linear in what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actor_node.collection.collector import Collector
from common.policy.network import Policy
from common.run.presets import PRESETS
from common.run.run import AlgorithmSpec, NetworkSpec, Run, RunSpec, make_run_spec
from common.spec import AgentsSpec, Box, Part, joint_spec
from common.worlds import World, make_world
from learner_node.persistence.state import Counters, copy_state, restore_state
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch
from tests.common.examples import make_header, random_weights
from tests.learner_node.teams import run_for

DOUBLE = torch.zeros((), dtype=torch.float64)
ONE_UNIT = NetworkSpec(policy_hidden=(1,), critic_hidden=(1,), share_policies=False, share_critics=False)
LIFT = 1000.0
UNIT = Box((-1.0,), (1.0,))
"""An action that is the tanh of its logit."""
STILL = 1e-12
"""A learning rate so small that an update measures everything and moves nothing."""


# ---- learners -----------------------------------------------------------------------------------------------------


def team(*teams: str, parts: Sequence[Part] = (UNIT,)) -> AgentsSpec:
    """Returns agents that each see one number, one for each side named."""
    return joint_spec([(f"agent_{i}", side, 1, tuple(parts)) for i, side in enumerate(teams)])


def policy(weights: Sequence[float], gains: Sequence[float] = (1.0,), biases: Sequence[float] = (0.0,)) -> list[float]:
    """Returns a policy whose logits are `gains * (weights . obs) + biases`."""
    return [*weights, LIFT, *gains, *(bias - gain * LIFT for gain, bias in zip(gains, biases, strict=True))]


def critic(weights: Sequence[float], bias: float = 0.0) -> list[float]:
    """Returns a critic whose value is `weights . (joint obs, joint action) + bias`."""
    return [*weights, LIFT, 1.0, bias - LIFT]


def learner(joint: AgentsSpec, *, seed: int = 0, **algorithm: Any) -> StackedUpdate:
    """Returns a learner in float64, plain maddpg unless asked for more, whose networks can be set by hand."""
    return StackedUpdate(run_for(joint, ONE_UNIT, AlgorithmSpec(**{"name": "maddpg", **algorithm}), seed=seed), DOUBLE)


def put(into: StackedUpdate, **networks: Sequence[Sequence[float]]) -> None:
    """Sets networks, one after the other: `critics`, `target_critics`, `policies`, `target_policies`."""
    state = copy_state(into, Counters())
    for name, found in networks.items():
        kind = "target" if name.startswith("target_") else "online"
        flat = [number for network in found for number in network]
        state.tensors[f"{name.removeprefix('target_')}/{kind}"] = torch.tensor(flat, dtype=DOUBLE.dtype)
    restore_state(into, state)


def rows(
    joint: AgentsSpec,
    *,
    obs: Any = 0.0,
    action: Any = 0.0,
    next_obs: Any = 0.0,
    reward: Any = 0.0,
    discount: Any = 1.0,
    present: Any = 1.0,
    count: int = 1,
) -> LossBatch:
    """Returns a batch of `count` rows; a number stands for all places of a field."""

    def field(value: Any, width: int) -> Tensor:
        return torch.tensor(np.broadcast_to(np.asarray(value, float), (count, width)).copy())

    agents = len(joint.agents)
    return LossBatch(
        torch.cat([field(obs, joint.obs_dim), field(action, joint.action_dim)], 1),
        field(next_obs, joint.obs_dim),
        *(field(value, agents) for value in (reward, discount, present)),
    )


def batch_of(records: np.ndarray) -> LossBatch:
    """Returns records as a batch in float64."""
    fields = {name: torch.tensor(records[name].astype(float)) for name in records.dtype.names or ()}
    joint = torch.cat([fields["obs"], fields["action"]], 1)
    return LossBatch(joint, *(fields[name] for name in ("next_obs", "reward", "discount", "present")))


# ---- worlds -------------------------------------------------------------------------------------------------------


def random_actions(world: World, seed: int = 0) -> np.ndarray:
    """Returns one joint action for each copy, uniform between 0 and 1."""
    return np.random.default_rng(seed).random((world.copies, world.spec.action_dim), np.float32)


def paper(scenario: str = "simple_spread") -> RunSpec:
    """Returns the settings of the preset that follows openai/maddpg."""
    return make_run_spec({"scenario": scenario}, PRESETS["paper"])


def run_in(scenario: str, world: dict[str, Any] | None = None, **sections: Any) -> Run:
    """Returns a run in a world."""
    options = world or {}
    joint = make_world(scenario, seed=0, **options).spec
    return Run("a1b2c3d4", make_run_spec({"scenario": scenario, "world": options, **sections}), joint)


def collect(run: Run, steps: int, copies: int = 1, *, seed: int = 1, **header: Any) -> np.ndarray:
    """Returns what an actor records `[steps, copies]` with policies that nobody has trained."""
    world = make_world(run.spec.scenario, copies, seed=seed, **run.spec.world)
    collector = Collector(run, world, np.random.default_rng(seed))
    records, _ = collector.collect(untrained(run), make_header(run, **header), steps)
    world.close()
    return records.reshape(steps, copies)


def untrained(run: Run) -> Policy:
    """Returns the policies that `collect` plays."""
    return Policy(run.players, run.spec.network, random_weights(run) * np.float32(0.3))
