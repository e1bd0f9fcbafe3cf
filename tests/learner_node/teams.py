"""Teams of every kind the learner must train, and random batches for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from common.run.run import AlgorithmSpec, NetworkSpec, ReplaySpec, Run, RunSpec
from common.spec import AgentsSpec, Box, Categorical, joint_spec
from common.transitions import transition_dtype
from learner_node.algorithms.maddpg import Maddpg
from learner_node.update.batches import LossBatch

FIVE = Box((0.0,) * 5, (1.0,) * 5)
UNEVEN = Box((-2.0, 0.5, -1.0), (1.0, 0.75, 3.0))

TEAMS: dict[str, AgentsSpec] = {
    "spread": joint_spec([(f"agent_{i}", "agent", 18, (FIVE,)) for i in range(3)]),
    "alone": joint_spec([("agent_0", "agent", 4, (FIVE,))]),
    "two": joint_spec([(f"agent_{i}", "agent", 7, (UNEVEN,)) for i in range(2)]),
    "discrete": joint_spec([(f"agent_{i}", "agent", 6, (Categorical(5),)) for i in range(4)]),
    "tag": joint_spec(
        [(f"adversary_{i}", "adversary", 16, (FIVE,)) for i in range(3)] + [("agent_0", "agent", 14, (FIVE,))]
    ),
    "speaker_listener": joint_spec(
        [("speaker_0", "agent", 3, (Categorical(3),)), ("listener_0", "agent", 11, (Categorical(5),))]
    ),
    "mixed": joint_spec(
        [
            ("leader", "a", 9, (Categorical(5), Categorical(4))),
            ("scout_0", "a", 5, (UNEVEN,)),
            ("scout_1", "a", 5, (UNEVEN,)),
            ("guard", "b", 5, (Box((-1.0,), (1.0,)), Categorical(2))),
            ("scout_2", "b", 5, (UNEVEN,)),
        ]
    ),
    "masked": joint_spec(
        [
            ("player_0", "a", 9, (Categorical(4), Categorical(3))),
            ("player_1", "a", 9, (Categorical(4), Categorical(3))),
            ("mover", "a", 3, (UNEVEN,)),
            ("guard", "b", 5, (Box((-1.0,), (1.0,)), Categorical(2))),
            ("free", "b", 5, (Box((-1.0,), (1.0,)), Categorical(2))),
        ],
        masked={"player_0", "player_1", "guard"},
    ),
}


def run_for(
    agents: AgentsSpec, network: NetworkSpec, algorithm: AlgorithmSpec, *, seed: int = 0, n_step: int = 1
) -> Run:
    """Returns a run of these agents, with the default settings besides."""
    spec = RunSpec("simple_spread", seed, network=network, algorithm=algorithm, replay=ReplaySpec(n_step=n_step))
    return Run("r", spec, agents)


def random_records(joint: AgentsSpec, rows: int, seed: int, *, absences: bool = False) -> np.ndarray:
    """Returns records with bounded actions, one-hot choices and, if asked, agents that ended or are gone."""
    rng = np.random.default_rng(seed)
    records = np.zeros(rows, transition_dtype(joint))
    for name in ("obs", "next_obs", "reward", *(("state", "next_state") if joint.state_dim else ())):
        records[name] = rng.normal(size=records[name].shape)
    for agent in joint.agents:
        own = records["action"][:, agent.action_slice]
        for part, columns in zip(agent.parts, agent.part_slices, strict=True):
            if isinstance(part, Box):
                own[:, columns] = rng.uniform(part.low, part.high, (rows, part.size))
            else:
                own[:, columns] = np.eye(part.n)[rng.integers(part.n, size=rows)]
    if joint.mask_columns:
        _mask(joint, records, rng)
    shape = rows, len(joint.agents)
    records["discount"] = rng.random(shape) > 0.2 if absences else 1.0
    records["present"] = rng.random(shape) > 0.3 if absences else 1.0
    return records


def _mask(joint: AgentsSpec, records: np.ndarray, rng: np.random.Generator) -> None:
    """Writes random action masks that allow the stored action, and in the next step its opposite or more."""
    seen, masked = np.array(joint.mask_columns).T
    chosen = records["action"][:, masked] > 0
    records["obs"][:, seen] = chosen | (rng.random(chosen.shape) < 0.5)
    records["next_obs"][:, seen] = ~chosen | (rng.random(chosen.shape) < 0.5)


def as_fields(records: np.ndarray, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns the records' fields as tensors."""
    names = [name for name in records.dtype.names or () if name != "policy_version"]
    return {name: torch.from_numpy(records[name].copy()).to(dtype) for name in names}


def as_batch(fields: dict[str, Tensor]) -> LossBatch:
    """Returns fields as the batch of an update."""
    joint = torch.cat([fields[name] for name in ("obs", "action", "state") if name in fields], 1)
    signals = fields["reward"], fields["discount"], fields["present"]
    return LossBatch(joint, fields["next_obs"], *signals, next_state=fields.get("next_state"))


def td_target(maddpg: Maddpg, batch: LossBatch) -> Tensor:
    """Returns the targets of a batch `[N, B]`."""
    signals = maddpg.mixer.signals(batch)
    return maddpg.td_target(batch, signals, maddpg.mixer.row_weights(batch, signals))
