"""The transition dtype: one joint transition is one record of one numpy dtype, from actor to learner.

The same bytes are the actor's block, the wire's payload, the ring's rows, the value in Redis and the learner's
batch. `obs`, `action` and `state` are the first fields, so the critic's input is one slice of a row.
"""

from __future__ import annotations

import numpy as np

from common.spec import AgentsSpec


def transition_dtype(spec: AgentsSpec) -> np.dtype[np.void]:
    """Returns the dtype of one joint transition: little-endian, packed, every field 4 bytes wide.

    obs             f4[sum obs]     joint observation before the action, agents in spec order
    action          f4[sum action]  executed action: Box values, one-hot or soft one-hot parts
    state           f4[state]       global state before the action; only if critics read it
    next_obs        f4[sum obs]     next observation; at an episode's end the final one, never that of the reset
    next_state      f4[state]       next global state, final as next_obs is; only if critics read it
    reward          f4[agents]      reward of the scenario, unscaled
    discount        f4[agents]      0.0 if the agent terminated, else 1.0; a time limit (truncation) is 1.0
    present         f4[agents]      1.0 if the agent acted in this step
    policy_version  u4              version of the weights that chose the action
    """
    agents = len(spec.agents)
    state, next_state = (
        ((name, "<f4", (spec.state_dim,)),) if spec.state_dim else () for name in ("state", "next_state")
    )
    return np.dtype(
        [
            ("obs", "<f4", (spec.obs_dim,)),
            ("action", "<f4", (spec.action_dim,)),
            *state,
            ("next_obs", "<f4", (spec.obs_dim,)),
            *next_state,
            ("reward", "<f4", (agents,)),
            ("discount", "<f4", (agents,)),
            ("present", "<f4", (agents,)),
            ("policy_version", "<u4"),
        ]
    )


def field_columns(dtype: np.dtype[np.void]) -> dict[str, slice]:
    """Returns the columns of each field in a record that is viewed as a flat row of 4-byte words."""
    assert dtype.fields is not None  # noqa: S101  (a structured dtype always has fields; this narrows the type)
    return {
        name: slice(offset // 4, (offset + field.itemsize) // 4)
        for name, (field, offset) in ((name, info[:2]) for name, info in dtype.fields.items())
    }
