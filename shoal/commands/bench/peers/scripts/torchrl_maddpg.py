"""Trains TorchRL's MADDPG for a given time; runs in TorchRL's virtual environment. Arguments: see training_run.py.

TorchRL has no trainer of MADDPG. The loop follows the example that its package contains
(sota-implementations/multiagent/maddpg_iddpg.py), with worlds of PettingZoo in place of VMAS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import PettingZooWrapper, SerialEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import AdditiveGaussianModule, ProbabilisticActor, TanhDelta, ValueOperator
from torchrl.modules.models.multiagent import MultiAgentMLP
from torchrl.objectives import DDPGLoss, SoftUpdate, ValueEstimators
from training_run import Act, TrainingRun, main, make_world

SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {"envs": 4, "frames": 100, "updates": 1, "batch": 1024, "warm_up": 25_600, "cells": 64, "lr": 1e-2,
              "gamma": 0.95, "tau": 0.01, "memory": 1_000_000, "activation": nn.ReLU, "max_grad_norm": 0.5},
    # Those of the example: batches of 4,096 from the last 60,000 frames; 45 epochs over 60,000 frames collected at once
    # are as many updates a frame as here.
    "own": {"envs": 10, "frames": 1_000, "updates": 11, "batch": 4_096, "warm_up": 0, "cells": 256, "lr": 5e-5,
            "gamma": 0.9, "tau": 0.005, "memory": 60_000, "activation": nn.Tanh, "max_grad_norm": 40.0},
}  # fmt: skip
ANNEALED_OVER = 1_000_000


def train(run: TrainingRun, name: str) -> Act:
    """Trains until the run's time is used and returns how the team acts."""
    torch.set_num_threads(1)
    torch.manual_seed(run.train_seed)
    settings = SETTINGS[name]
    agents = list(make_world(run.world).possible_agents)

    def make_env() -> PettingZooWrapper:
        return PettingZooWrapper(make_world(run.world), group_map={"agents": agents})

    env = SerialEnv(settings["envs"], make_env)
    spec = make_env().full_action_spec_unbatched
    action_key = ("agents", "action")
    obs_dim, action_dim = env.observation_spec["agents", "observation"].shape[-1], spec[action_key].shape[-1]

    def network(inputs: int, outputs: int, *, centralised: bool) -> MultiAgentMLP:
        return MultiAgentMLP(
            n_agent_inputs=inputs, n_agent_outputs=outputs, n_agents=len(agents), centralised=centralised,
            share_params=True, depth=2, num_cells=settings["cells"], activation_class=settings["activation"],
        )  # fmt: skip

    actor = TensorDictModule(
        network(obs_dim, action_dim, centralised=False), [("agents", "observation")], [("agents", "param")]
    )
    bounds = {"low": spec[action_key].space.low, "high": spec[action_key].space.high}
    policy = ProbabilisticActor(
        actor, spec=spec, in_keys=[("agents", "param")], out_keys=[action_key], distribution_class=TanhDelta,
        distribution_kwargs=bounds, return_log_prob=False,
    )  # fmt: skip
    noise = AdditiveGaussianModule(spec=spec, annealing_num_steps=ANNEALED_OVER, action_key=action_key)
    critic = ValueOperator(
        network(obs_dim + action_dim, 1, centralised=True),
        in_keys=[("agents", "observation"), action_key],
        out_keys=[("agents", "state_action_value")],
    )
    loss = DDPGLoss(actor_network=policy, value_network=critic, delay_value=True)
    loss.set_keys(
        state_action_value=("agents", "state_action_value"), reward=("agents", "reward"), done=("agents", "done"),
        terminated=("agents", "terminated"),
    )  # fmt: skip
    loss.make_value_estimator(ValueEstimators.TD0, gamma=settings["gamma"])
    targets = SoftUpdate(loss, eps=1 - settings["tau"])
    adam = torch.optim.Adam(loss.parameters(), settings["lr"])
    memory = TensorDictReplayBuffer(storage=LazyTensorStorage(settings["memory"]), batch_size=settings["batch"])

    def act(obs: Mapping[str, Any]) -> Mapping[str, Any]:
        stacked = torch.from_numpy(np.stack([obs[name] for name in agents]).astype(np.float32))
        inputs = TensorDict({"agents": TensorDict({"observation": stacked}, [len(agents)])}, [])
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            found = policy(inputs)[action_key]
        return {name: found[i].numpy() for i, name in enumerate(agents)}

    collector = Collector(
        env, TensorDictSequential(policy, noise), frames_per_batch=settings["frames"], total_frames=-1
    )
    run.start()
    for batch in collector:
        run.count(steps=batch.numel())
        memory.extend(batch.reshape(-1))
        for _ in range(settings["updates"] if run.steps > settings["warm_up"] else 0):
            losses = loss(memory.sample())
            (losses["loss_actor"] + losses["loss_value"]).backward()
            nn.utils.clip_grad_norm_(loss.parameters(), settings["max_grad_norm"])
            adam.step()
            adam.zero_grad()
            targets.step()
            run.count(updates=1)
            if not run.running:
                return act
        noise.step(batch.numel())
        collector.update_policy_weights_()
        run.evaluate_if_due(act)
        if not run.running:
            return act
    return act


if __name__ == "__main__":
    main(train)
