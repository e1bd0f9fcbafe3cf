"""Trains AgileRL's MADDPG on mpe2's simple_spread for a given time, evaluates it, and writes the result.

Runs in AgileRL's virtual environment and imports nothing of Shoal. The loop follows AgileRL's PettingZoo tutorials with
one agent instead of a population: no mutations, no selection.

usage: agilerl_maddpg.py paper|own RESULT SECONDS EPISODES SEED
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from agilerl.algorithms import MADDPG
from agilerl.components.data import MultiAgentTransition, transition_to_tensordict
from agilerl.components.replay_buffer import ReplayBuffer
from agilerl.utils.utils import make_multi_agent_vect_envs
from mpe2 import simple_spread_v3

MEMORY = 1_000_000
SETTINGS: dict[str, dict[str, Any]] = {
    # The ratio, batches, networks and rates of Shoal's preset `paper`, and 20 environments as XuanCe and VMAS use.
    "paper": {"envs": 20, "warm_up": 25_600, "batch_size": 1024, "lr_actor": 1e-2, "lr_critic": 1e-2},
    # The settings of the tutorials.
    "own": {"envs": 8, "warm_up": 0, "batch_size": 128, "lr_actor": 1e-4, "lr_critic": 1e-3},
}
NETWORK = {"latent_dim": 64, "encoder_config": {"hidden_size": [64]}, "head_config": {"hidden_size": [64]}}
LEARN_STEP = 100


def make_world() -> Any:
    """Returns one world with continuous actions."""
    return simple_spread_v3.parallel_env(continuous_actions=True)


def train(settings: dict[str, Any], seconds: float) -> tuple[MADDPG, dict[str, float]]:
    """Returns a trained agent and its rates, counted from the first update."""
    env = make_multi_agent_vect_envs(env=make_world, num_envs=settings["envs"])
    agent = MADDPG(
        [env.single_observation_space(name) for name in env.agents],
        [env.single_action_space(name) for name in env.agents],
        agent_ids=env.agents,
        vect_noise_dim=settings["envs"],
        net_config=NETWORK,
        learn_step=LEARN_STEP,
        **{name: settings[name] for name in ("batch_size", "lr_actor", "lr_critic")},
    )
    memory = ReplayBuffer(MEMORY)
    agent.set_training_mode(True)
    obs, info = env.reset()
    steps = updates = first_steps = 0
    started_at = learning_at = time.monotonic()
    while time.monotonic() - started_at < seconds:
        action, raw_action = agent.get_action(obs=obs, infos=info)
        next_obs, reward, termination, truncation, info = env.step(action)
        transition = transition_to_tensordict(
            MultiAgentTransition(obs=obs, action=raw_action, reward=reward, next_obs=next_obs, done=termination)
        )
        transition.batch_size = torch.Size([settings["envs"]])
        memory.add(transition)
        steps += settings["envs"]
        due = (steps // settings["envs"]) % (LEARN_STEP // settings["envs"]) == 0
        if due and steps > settings["warm_up"] and len(memory) >= agent.batch_size:
            if not updates:
                learning_at, first_steps = time.monotonic(), steps
            agent.learn(memory.sample(agent.batch_size))
            updates += 1
        obs = next_obs
        ended = np.any([np.asarray(truncation[name]) | np.asarray(termination[name]) for name in env.agents], axis=0)
        agent.reset_action_noise(np.flatnonzero(ended).tolist())
    learnt_s = time.monotonic() - learning_at
    env.close()
    return agent, {"env_steps_s": (steps - first_steps) / learnt_s, "updates_s": updates / learnt_s}


def evaluate(agent: MADDPG, episodes: int, seed: int) -> float:
    """Returns the mean return, summed over agents, of episodes without exploration; episode e has seed SEED + e."""
    agent.set_training_mode(False)
    world, returns = make_world(), []
    for episode in range(episodes):
        obs, info = world.reset(seed=seed + episode)
        total = 0.0
        while world.agents:
            actions, _ = agent.get_action(obs=obs, infos=info)
            obs, rewards, _, _, info = world.step({name: np.ravel(actions[name]) for name in world.agents})
            total += sum(rewards.values())
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    """Trains, evaluates and writes the result, as the command line says."""
    kind, result, seconds, episodes, seed = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: ends with the benchmark
    torch.set_num_threads(1)
    agent, figures = train(SETTINGS[kind], float(seconds))
    figures["return_mean"] = evaluate(agent, int(episodes), int(seed))
    Path(result).write_text(json.dumps(figures), "utf-8")


if __name__ == "__main__":
    main()
