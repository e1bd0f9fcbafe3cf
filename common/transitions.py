"""The data model: one transition is one record of one numpy dtype.

The same bytes are the actor's block, the wire's payload, the ring's rows, the value in Redis and the learner's
batch. `obs` and `action` stand first and side by side, so the critic's input is one slice of a row.
"""

from __future__ import annotations

import numpy as np

from common.spec import AgentsSpec


def transition_dtype(spec: AgentsSpec) -> np.dtype[np.void]:
    """Returns the record of one joint transition: little-endian, packed, every field 4 bytes wide.

    obs             f4[sum obs]     joint observation acted on, agents in spec order
    action          f4[sum action]  what the environment executed: Box values, one-hot or soft one-hot parts
    next_obs        f4[sum obs]     the true successor; at an episode's end the final observation, never a reset one
    reward          f4[agents]      as the scenario gives it, unscaled
    discount        f4[agents]      0.0 where the agent truly terminated, else 1.0: a time limit keeps 1.0
    present         f4[agents]      1.0 where the agent acted in this step
    policy_version  u4              version of the weights that chose the action
    """
    agents = len(spec.agents)
    return np.dtype(
        [
            ("obs", "<f4", (spec.obs_dim,)),
            ("action", "<f4", (spec.action_dim,)),
            ("next_obs", "<f4", (spec.obs_dim,)),
            ("reward", "<f4", (agents,)),
            ("discount", "<f4", (agents,)),
            ("present", "<f4", (agents,)),
            ("policy_version", "<u4"),
        ]
    )


def field_columns(dtype: np.dtype[np.void]) -> dict[str, slice]:
    """Returns where each field stands when a record is seen as a flat row of 4-byte words."""
    assert dtype.fields is not None  # noqa: S101  (a structured dtype always has fields; this narrows the type)
    return {
        name: slice(offset // 4, (offset + field.itemsize) // 4)
        for name, (field, offset) in ((name, info[:2]) for name, info in dtype.fields.items())
    }
