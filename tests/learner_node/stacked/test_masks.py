"""Action masks in the update: gradients by finite differences, and what forbidden choices receive."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.policy.network import Policy
from common.run.run import AlgorithmSpec, NetworkSpec
from learner_node.algorithms.maddpg import Maddpg
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records, run_for

JOINT = TEAMS["masked"]
NETWORK = NetworkSpec(policy_hidden=(6,), critic_hidden=(8,), share_policies=False, share_critics=False)
ALGORITHM = AlgorithmSpec(name="maddpg", gumbel="soft", action_regularisation=0.1, gradient_clip=0.0)
ROWS = 24
DOUBLE = torch.zeros((), dtype=torch.float64)


def plain() -> Maddpg:
    return Maddpg(run_for(JOINT, NETWORK, ALGORITHM), DOUBLE)


def batch_of(**changed: torch.Tensor) -> LossBatch:
    return as_batch({**as_fields(random_records(JOINT, ROWS, 1), torch.float64), **changed})


def policy_loss(engine: Maddpg, batch: LossBatch) -> torch.Tensor:
    """Returns the policies' loss with the same Gumbel noise in each call."""
    engine.generator.manual_seed(5)
    row_weights = engine.mixer.row_weights(batch, engine.mixer.signals(batch))
    return engine.policy_loss(batch, engine.critic_inputs(batch.obs_action), row_weights)[0]


def test_policy_gradients_under_masks_equal_finite_differences() -> None:
    engine, batch = plain(), batch_of()
    parameters = [parameter for module in engine.policies.online for parameter in module.parameters()]
    gradients = torch.autograd.grad(policy_loss(engine, batch), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        at, step = np.unravel_index(int(gradient.abs().argmax()), gradient.shape), 1e-6
        parameter.data[at] += step
        above = policy_loss(engine, batch).item()
        parameter.data[at] -= 2 * step
        below = policy_loss(engine, batch).item()
        parameter.data[at] += step
        np.testing.assert_allclose((above - below) / (2 * step), gradient[at], rtol=1e-5, atol=1e-9)


def test_a_choice_that_is_never_allowed_gets_no_gradient_and_is_never_a_target() -> None:
    fields = as_fields(random_records(JOINT, ROWS, 1), torch.float64)
    seen, numbers = JOINT.mask_columns[0]
    obs, next_obs = fields["obs"], fields["next_obs"]
    obs[:, seen] = next_obs[:, seen] = 0.0
    obs[:, seen + 1] = next_obs[:, seen + 1] = 1.0
    engine = plain()
    last = engine.policies.online[0].layers[-1].bias
    (gradient,) = torch.autograd.grad(policy_loss(engine, as_batch(fields)), [last])
    assert gradient[0, 0, numbers] == 0.0
    assert (gradient[0, 0, numbers + 1 :].abs() > 0.0).all()
    action = engine.actions.greedy(engine.logits(next_obs))
    assert (action[:, numbers] == 0.0).all()


@pytest.mark.parametrize("make", [StackedUpdate, Maddpg])
def test_the_engines_and_numpy_policies_lower_the_same_logits(make: type[StackedUpdate | Maddpg]) -> None:
    engine = make(run_for(JOINT, NETWORK, ALGORITHM, seed=3), torch.zeros(()))
    obs = random_records(JOINT, ROWS, 1)["obs"]
    ours = engine.logits(torch.from_numpy(obs.copy())).numpy()
    others = Policy(engine.players, NETWORK, engine.policy_weights()).logits(obs)
    np.testing.assert_allclose(ours, others, rtol=1e-5, atol=1e-5)
    is_forbidden = np.zeros_like(obs, bool, shape=ours.shape)
    seen, numbers = np.array(JOINT.mask_columns).T
    is_forbidden[:, numbers] = obs[:, seen] == 0.0
    np.testing.assert_array_equal(ours < -1e8, is_forbidden)
