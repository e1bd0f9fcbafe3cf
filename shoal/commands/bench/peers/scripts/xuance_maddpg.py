"""Trains XuanCe's MADDPG for a given time; runs in XuanCe's virtual environment. Arguments: see training_run.py.

XuanCe 1.4.4 imports MPE from PettingZoo, which no longer contains it, and has no MaMuJoCo. `World` below registers both
through its public base class.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import xuance
from training_run import Act, TrainingRun, main, make_world
from xuance.common import load_yaml
from xuance.environment import REGISTRY_MULTI_AGENT_ENV, RawMultiAgentEnv, make_envs
from xuance.torch.agents import MADDPG_Agents

CONFIGS = Path(xuance.__file__).parent / "configs"
ITERATIONS = 10
"""Iterations between two looks at the clock: each steps all environments once."""
PAPER = {
    "parallels": 20, "batch_size": 1024, "buffer_size": 1_000_000, "start_training": 25_600, "training_frequency": 100,
    "learning_rate_actor": 1e-2, "learning_rate_critic": 1e-2, "gamma": 0.95, "tau": 0.01,
    "actor_hidden_size": [64, 64], "critic_hidden_size": [64, 64], "use_grad_clip": True, "grad_clip_norm": 0.5,
}  # fmt: skip


class World(RawMultiAgentEnv):  # type: ignore[misc]
    """A ParallelEnv as XuanCe expects it."""

    def __init__(self, config: Namespace) -> None:
        super().__init__()
        self.env = make_world(config.env_id)
        self.env.reset(seed=config.env_seed)
        self.agents, self.num_agents = list(self.env.agents), len(self.env.agents)
        self.observation_space = {name: self.env.observation_space(name) for name in self.agents}
        self.action_space = {name: self.env.action_space(name) for name in self.agents}
        self.state_space = gymnasium.spaces.Box(-np.inf, np.inf, np.shape(self.env.state()))
        self.max_episode_steps = 1_000 if ":" in config.env_id else self.env.unwrapped.max_cycles

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        """Starts an episode; returns observations and infos."""
        obs, _infos = self.env.reset()
        return obs, {}

    def step(self, action_dict: dict[str, Any]) -> tuple[Any, ...]:
        """Returns observations, rewards, terminations, one truncation for all, and infos."""
        spaces = self.action_space.items()
        actions = {name: np.clip(action_dict[name], space.low, space.high) for name, space in spaces}
        obs, rewards, terminated, truncated, _ = self.env.step(actions)
        return obs, rewards, terminated, any(truncated.values()), {}

    def state(self) -> Any:
        """Returns the global state."""
        return self.env.state()

    def avail_actions(self) -> None:
        """Returns nothing: actions are continuous."""

    def close(self) -> None:
        """Closes the environment."""
        self.env.close()

    def render(self, *_: Any) -> None:
        """Draws nothing."""


def train(run: TrainingRun, name: str) -> Act:
    """Trains until the run's time is used and returns how the team acts."""
    torch.set_num_threads(1)
    REGISTRY_MULTI_AGENT_ENV["peers"] = World
    is_particle = ":" not in run.world
    theirs = load_yaml(CONFIGS / "maddpg" / ("mpe/simple_spread_v3.yaml" if is_particle else "new_env_mas.yaml"))
    config = Namespace(**{
        **load_yaml(CONFIGS / "basic.yaml"), **theirs, **(PAPER if name == "paper" else {}),
        "env_name": "peers", "env_id": run.world, "vectorize": "DummyVecMultiAgentEnv", "seed": run.train_seed,
        "env_seed": run.train_seed, "representation": "Basic_Identical", "representation_hidden_size": [],
        "use_parameter_sharing": theirs.get("use_parameter_sharing", True), "use_actions_mask": False,
        "render": False, "render_mode": "rgb_array", "logger": "tensorboard", "device": "cpu",
        "log_dir": "logs", "model_dir": "models", "distributed_training": False, "use_rnn": False,
    })  # fmt: skip
    envs = make_envs(config)
    envs.reset()
    agents = MADDPG_Agents(config, envs)
    learn = agents.train_epochs

    def counted(*arguments: Any, **named: Any) -> Any:
        found = learn(*arguments, **named)
        run.count(updates=1)
        return found

    agents.train_epochs = counted
    spaces = {name: envs.action_space[name] for name in agents.agent_keys}

    def act(obs: Mapping[str, Any]) -> Mapping[str, Any]:
        (actions,) = agents.get_actions(obs_dict=[dict(obs)], test_mode=True)["actions"]
        return {name: np.clip(actions[name], space.low, space.high) for name, space in spaces.items()}

    run.start()
    while run.running:
        agents.train(ITERATIONS)
        run.count(steps=ITERATIONS * config.parallels)
        run.evaluate_if_due(act)
    return act


if __name__ == "__main__":
    main(train)
