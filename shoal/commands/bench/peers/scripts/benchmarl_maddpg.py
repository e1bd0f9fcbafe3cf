"""Trains BenchMARL's MADDPG for a given time; runs in BenchMARL's virtual environment. Arguments: see training_run.py.

BenchMARL 1.5.2 makes PettingZoo's worlds by TorchRL, which imports MPE from PettingZoo, where it no longer is. The task
below makes them by TorchRL's public wrapper instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarl.algorithms import MaddpgConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from tensordict import TensorDict
from torchrl.envs import PettingZooWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type
from training_run import Act, TrainingRun, main, make_world

MAX_FRAMES = 10**9
PAPER = {
    "lr": 1e-2, "gamma": 0.95, "polyak_tau": 0.01, "off_policy_collected_frames_per_batch": 100,
    "off_policy_n_envs_per_worker": 4, "off_policy_n_optimizer_steps": 1, "off_policy_train_batch_size": 1024,
    "off_policy_init_random_frames": 25_600, "clip_grad_val": 0.5,
}  # fmt: skip


class Task(PettingZooClass):  # type: ignore[misc]
    """A world of this benchmark."""

    def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Callable[[], Any]:
        """Returns a function that makes the world."""
        del num_envs, continuous_actions
        return lambda: PettingZooWrapper(
            make_world(self.config["task"]), group_map=self.groups, seed=seed, device=device
        )

    @property
    def groups(self) -> dict[str, list[str]]:
        """One group of all agents."""
        return {"agent": list(self.config["agents"])}

    def supports_continuous_actions(self) -> bool:
        """Returns true."""
        return True

    def supports_discrete_actions(self) -> bool:
        """Returns false."""
        return False

    def has_state(self) -> bool:
        """Returns false: critics read the observations."""
        return False

    def has_render(self, env: Any) -> bool:
        """Returns false."""
        del env
        return False


class Stop(Exception):  # noqa: N818  (not an error)
    """Ends the experiment, which has no limit of time."""


class Clock(Callback):  # type: ignore[misc]
    """Counts steps and updates, evaluates, and ends the experiment."""

    def __init__(self, run: TrainingRun, agents: list[str]) -> None:
        super().__init__()
        self._run, self._agents = run, agents

    def on_batch_collected(self, batch: Any) -> None:
        """Counts the steps of a batch."""
        self._run.count(steps=batch.numel())

    def on_train_step(self, batch: Any, group: str) -> None:
        """Counts an update; raises Stop when the time is used."""
        del batch, group
        self._run.count(updates=1)
        if not self._run.running:
            raise Stop

    def on_train_end(self, training_td: Any, group: str) -> None:
        """Evaluates if that is due; raises Stop when the time is used."""
        del training_td, group
        self._run.evaluate_if_due(self.act)
        if not self._run.running:
            raise Stop

    def act(self, obs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the policies' actions without exploration."""
        stacked = torch.from_numpy(np.stack([obs[name] for name in self._agents]).astype(np.float32))[None]
        inputs = TensorDict({"agent": TensorDict({"observation": stacked}, [1, len(self._agents)])}, [1])
        with torch.no_grad(), set_exploration_type(ExplorationType.DETERMINISTIC):
            found = self.experiment.policy(inputs)["agent", "action"][0]
        return {name: found[i].numpy() for i, name in enumerate(self._agents)}


def train(run: TrainingRun, name: str) -> Act:
    """Trains until the run's time is used and returns how the team acts."""
    torch.set_num_threads(1)
    agents = list(make_world(run.world).possible_agents)
    config = ExperimentConfig.get_from_yaml()
    for key, value in (PAPER if name == "paper" else {}).items():
        setattr(config, key, value)
    config.max_n_frames, config.loggers, config.create_json = MAX_FRAMES, [], False
    # Exploration is annealed over a third of the frames of BenchMARL's own budget.
    config.exploration_anneal_frames = 1_000_000
    config.evaluation, config.render, config.save_folder = False, False, str(Path.cwd())
    model, critic = MlpConfig.get_from_yaml(), MlpConfig.get_from_yaml()
    if name == "paper":
        model.num_cells = critic.num_cells = [64, 64]
    clock = Clock(run, agents)
    config_of_task = {"task": run.world, "agents": agents, "max_cycles": 1_000 if ":" in run.world else 25}
    experiment = Experiment(
        task=Task(name="PEERS", config=config_of_task),
        algorithm_config=MaddpgConfig.get_from_yaml(),
        model_config=model,
        critic_model_config=critic,
        seed=run.train_seed,
        config=config,
        callbacks=[clock],
    )
    run.start()
    with suppress(Stop):
        experiment.run()
    return clock.act


if __name__ == "__main__":
    main(train)
