"""Trains AgileRL's MADDPG for a given time; runs in AgileRL's virtual environment.

The loop follows AgileRL's PettingZoo tutorials with one agent instead of a population: no mutations, no selection.
Arguments: see training_run.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from agilerl.algorithms import MADDPG
from agilerl.components.data import MultiAgentTransition, transition_to_tensordict
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.utils.utils import make_multi_agent_vect_envs
from training_run import Act, TrainingRun, main, make_world

MEMORY = 1_000_000
SETTINGS: dict[str, dict[str, Any]] = {
    # The ratio, batches, networks and rates of Shoal's preset `paper`, and 20 environments as XuanCe and VMAS use.
    "paper": {"envs": 20, "warm_up": 25_600, "batch_size": 1024, "lr_actor": 1e-2, "lr_critic": 1e-2},
    # The settings of the tutorials.
    "own": {"envs": 8, "warm_up": 0, "batch_size": 128, "lr_actor": 1e-4, "lr_critic": 1e-3},
}
NETWORK = {"latent_dim": 64, "encoder_config": {"hidden_size": [64]}, "head_config": {"hidden_size": [64]}}
LEARN_STEP = 100


def train(run: TrainingRun, name: str) -> Act:
    """Trains until the run's time is used and returns how the team acts."""
    settings = SETTINGS[name]
    torch.set_num_threads(1)
    torch.manual_seed(run.train_seed)
    env = make_multi_agent_vect_envs(env=lambda: make_world(run.world), num_envs=settings["envs"])
    agent = MADDPG(
        [env.single_observation_space(name) for name in env.agents],
        [env.single_action_space(name) for name in env.agents],
        agent_ids=env.agents,
        vect_noise_dim=settings["envs"],
        net_config=NETWORK,
        learn_step=LEARN_STEP,
        **{name: settings[name] for name in ("batch_size", "lr_actor", "lr_critic")},
    )

    def act(obs: Mapping[str, Any]) -> Mapping[str, Any]:
        agent.set_training_mode(False)
        actions, _ = agent.get_action(obs=obs, infos={name: {} for name in obs})
        agent.set_training_mode(True)
        return {name: np.ravel(actions[name]) for name in obs}

    memory = ReplayBuffer(MEMORY)
    agent.set_training_mode(True)
    obs, info = env.reset()
    run.start()
    while run.running:
        action, raw_action = agent.get_action(obs=obs, infos=info)
        next_obs, reward, termination, truncation, info = env.step(action)
        transition = transition_to_tensordict(
            MultiAgentTransition(obs=obs, action=raw_action, reward=reward, next_obs=next_obs, done=termination)
        )
        transition.batch_size = torch.Size([settings["envs"]])
        memory.add(transition)
        run.count(steps=settings["envs"])
        due = (run.steps // settings["envs"]) % (LEARN_STEP // settings["envs"]) == 0
        if due and run.steps > settings["warm_up"] and len(memory) >= agent.batch_size:
            agent.learn(memory.sample(agent.batch_size))
            run.count(updates=1)
        obs = next_obs
        ended = np.any([np.asarray(truncation[name]) | np.asarray(termination[name]) for name in env.agents], axis=0)
        agent.reset_action_noise(np.flatnonzero(ended).tolist())
        run.evaluate_if_due(act)
    env.close()
    return act


if __name__ == "__main__":
    main(train)
