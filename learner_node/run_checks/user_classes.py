"""Trials of a user's own critics and algorithm before a run starts: each fault is one clear error.

    critic      made for every structure of its input; two forward passes, one backward pass
    algorithm   made for the run; one update on a random batch, then its policies and its state

Importing this module imports torch, which takes seconds: callers import it for runs with such classes only, which
`user_classes` of learner_node/engine_choice.py names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from common.errors import ConfigError, ShoalError
from common.policy.network import weight_count
from common.run.players import players
from common.run.run import Run, RunSpec
from common.spec import AgentsSpec
from common.user_code import exception_lines
from learner_node.engine import Engine, make_engine
from learner_node.engine_choice import user_classes
from learner_node.networks.critic_input import CriticInput, critic_input
from learner_node.networks.user_critics import make_critic
from learner_node.persistence.state import Counters, copy_state
from learner_node.update.batches import LossBatch
from learner_node.update.layout import network_layout

TRIAL_ROWS = 8
"""Rows of the random batches of a trial."""


def check_user_classes(spec: RunSpec, agents: AgentsSpec) -> list[str]:
    """Tries a run's own critics and algorithm; returns warnings, one a line.

    ConfigError that names the setting, the fault, and for an exception the user's lines, if they cannot be used.
    """
    warnings = _try_critics(spec, agents) if spec.network.is_user_critic else []
    with torch.random.fork_rng(devices=[]):
        _try_update(spec, agents)
    return warnings


def _try_critics(spec: RunSpec, agents: AgentsSpec) -> list[str]:
    run_players = players(agents, spec.algorithm.variants)
    layout = network_layout(run_players, spec.network, spec.algorithm)
    inputs: dict[object, CriticInput] = {}
    for i in range(len(layout.critics)):
        found = critic_input(run_players, layout, i)
        inputs.setdefault(found.structure, found)
    warnings: list[str] = []
    for one in inputs.values():
        module = make_critic(spec.network.critic, one, spec.network.critic_hidden, (spec.seed, 1), torch.zeros(()))
        warnings += _try_critic(f"network.critic = {spec.network.critic!r}", module, one)
    return list(dict.fromkeys(warnings))


def _try_critic(label: str, module: nn.Module, inputs: CriticInput) -> list[str]:
    """Returns warnings about a critic; ConfigError if its outputs or its backward pass cannot be used."""
    rows = torch.randn(TRIAL_ROWS, inputs.size, generator=torch.Generator().manual_seed(0))
    named = dict(module.named_parameters())
    with _faults_of(f"{label}: forward(x) for x of shape [{TRIAL_ROWS}, {inputs.size}]"):
        _check_values(label, module.eval()(rows), inputs)
        values = module.train()(rows.requires_grad_())
        _check_values(label, values, inputs)
    with _faults_of(f"{label}: the backward pass"):
        of_rows, *gradients = torch.autograd.grad(values.sum(), [rows, *named.values()], allow_unused=True)
    unused = [name for name, gradient in zip(named, gradients, strict=True) if gradient is None]
    warnings = []
    if unused:
        warnings.append(f"{label}: forward does not use {', '.join(unused)}, which will not be learnt")
    actions = [inputs.agents[i].action for i in inputs.focal]
    if of_rows is None or (of_rows.any() and not any(of_rows[:, columns].any() for columns in actions)):
        warnings.append(
            f"{label}: the values do not depend on the critic's own action (columns {actions[0].start} to"
            f" {actions[-1].stop - 1}), so its policy learns nothing"
        )
    return warnings


def _check_values(label: str, values: object, inputs: CriticInput) -> None:
    """Raises ConfigError unless the values of a trial are finite numbers `[rows, 1]` with a gradient."""
    call, wanted = f"{label}: forward(x) for x of shape [{TRIAL_ROWS}, {inputs.size}]", f"[{TRIAL_ROWS}, 1]"
    if not isinstance(values, Tensor):
        raise ConfigError(f"{call} returned {type(values).__name__}. Return a tensor of shape {wanted}.")
    if values.shape != (TRIAL_ROWS, 1):
        raise ConfigError(f"{call} returned shape {list(values.shape)}. Return one value a row: shape {wanted}.")
    if not values.dtype.is_floating_point or not values.isfinite().all():
        raise ConfigError(f"{call} returned {values.dtype} with {values.flatten()[0]:g} first. Return finite numbers.")
    if not values.requires_grad:
        raise ConfigError(f"{call} returned values without a gradient. Compute them from parameters, without detach().")


def _try_update(spec: RunSpec, agents: AgentsSpec) -> None:
    """Raises ConfigError if an engine with the user's code cannot be made, or fails in its first update."""
    run = Run("trial", spec, agents)
    label = user_classes(spec.network, spec.algorithm)
    with _faults_of(f"{label}: making the networks"):
        engine: Engine = make_engine(run, torch.zeros(()))
        if missing := [name for name in Engine.__annotations__ if not hasattr(engine, name)]:
            raise ConfigError(f"{label}: its objects have no {', '.join(missing)}; see learner_node/engine.py.")
    with _faults_of(f"{label}: an update on {TRIAL_ROWS} random transitions"):
        engine.set_rates(spec.algorithm.policy_learning_rate, spec.algorithm.critic_learning_rate)
        for update_policies in (False, True):
            batch = engine.normalise(_random_batch(agents))
            engine.step(batch, update_policies=update_policies).abs_td_error.tolist()
        engine.step(batch, update_policies=True).losses()
    with _faults_of(f"{label}: policy_weights()"):
        count, wanted = engine.policy_weights().size, weight_count(run.players, spec.network)
        if count != wanted:
            raise ConfigError(f"{label}: policy_weights() returned {count} numbers. Return {wanted}.")
    with _faults_of(f"{label}: its state after an update"):
        state = copy_state(engine, Counters(updates=3))
    try:
        state.check()
    except ShoalError as e:
        raise ConfigError(f"{label}: in a trial, {e}") from e


def _random_batch(agents: AgentsSpec) -> LossBatch:
    generator = torch.Generator().manual_seed(1)
    obs, next_obs = torch.randn(2, TRIAL_ROWS, agents.obs_dim, generator=generator)
    for column, _ in agents.mask_columns:
        obs[:, column] = next_obs[:, column] = 1.0
    action = torch.rand(TRIAL_ROWS, agents.action_dim, generator=generator)
    state, next_state = torch.randn(2, TRIAL_ROWS, agents.state_dim, generator=generator)
    ones = torch.ones(TRIAL_ROWS, len(agents.agents))
    return LossBatch(
        obs_action=torch.cat([obs, action, state], 1),
        next_obs=next_obs,
        reward=torch.randn(ones.shape, generator=generator),
        discount=ones,
        present=ones,
        next_state=next_state if agents.state_dim else None,
    )


@contextmanager
def _faults_of(what: str) -> Iterator[None]:
    """Turns an exception of the user's code into a ConfigError with its last lines."""
    try:
        yield
    except ShoalError:
        raise
    except (Exception, SystemExit) as e:
        raise ConfigError(exception_lines(what, e, "the class")) from e
