"""What the training scripts of all peers share: the worlds, the clock, the evaluations and the result.

A script passes `main` a function that trains until `TrainingRun.running` is false. It counts its steps and updates, and
calls `evaluate_if_due`, whose time does not count as training.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Act = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Agent -> observation to agent -> action in the environment's range, without exploration."""

POINTS = 5
"""Evaluations while a run trains, evenly over its time; the last one is at its end."""
EPISODES_A_POINT = 10
"""The evaluation at the end has this many times the episodes of the others."""


def make_world(name: str) -> Any:
    """Returns a PettingZoo ParallelEnv with continuous actions: mpe2's simple_spread, or `mamujoco:ROBOT-PARTS`."""
    if name.startswith("mamujoco:"):
        from gymnasium_robotics import mamujoco_v1  # noqa: PLC0415  (only one of both packages is needed)

        return _plain(mamujoco_v1.parallel_env(*name.removeprefix("mamujoco:").split("-")))
    from mpe2 import simple_spread_v3  # noqa: PLC0415

    return simple_spread_v3.parallel_env(continuous_actions=True)


def _plain(world: Any) -> Any:
    """Returns a world with float32 observations and no infos, as TorchRL needs them."""
    from gymnasium.spaces import Box  # noqa: PLC0415
    from pettingzoo.utils import BaseParallelWrapper  # noqa: PLC0415

    class PlainWorld(BaseParallelWrapper):  # type: ignore[misc]
        def reset(self, seed: int | None = None, options: Any = None) -> Any:
            obs, _ = self.env.reset(seed=seed, options=options)
            return _cast(obs), {name: {} for name in obs}

        def step(self, actions: Any) -> Any:
            obs, *rest, _ = self.env.step(actions)
            return _cast(obs), *rest, {name: {} for name in obs}

        def observation_space(self, agent: str) -> Box:
            space = self.env.observation_space(agent)
            return Box(-np.inf, np.inf, space.shape, np.float32)

    return PlainWorld(world)


def _cast(obs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(one, np.float32) for name, one in obs.items()}


class TrainingRun:
    """The clock, counters and evaluations of one run.

    Example:
        while run.running:
            ...
            run.count(steps=20, updates=1)
            run.evaluate_if_due(act)
    """

    def __init__(self, world: str, seconds: float, episodes: int, seed: int, train_seed: int) -> None:
        self.world, self.train_seed = world, train_seed
        self._seconds, self._episodes, self._first_seed = seconds, episodes, seed
        self._points: list[dict[str, float]] = []
        self._steps = self._updates = self._first_steps = 0
        self._started_at = self._learning_at = self._stopped_s = self._stopped_before_learning_s = 0.0

    def start(self) -> None:
        """Starts the clock: imports and construction are not training."""
        self._started_at = time.monotonic()

    @property
    def trained_s(self) -> float:
        """Training time so far, without evaluations [s]."""
        return time.monotonic() - self._started_at - self._stopped_s

    @property
    def running(self) -> bool:
        """Whether there is training time left."""
        return self.trained_s < self._seconds

    @property
    def steps(self) -> int:
        """Environment steps so far."""
        return self._steps

    def count(self, steps: int = 0, updates: int = 0) -> None:
        """Counts environment steps and updates; rates count from the first update."""
        self._steps += steps
        if updates and not self._updates:
            self._learning_at, self._first_steps = self.trained_s, self._steps
        self._updates += updates

    def evaluate_if_due(self, act: Act) -> None:
        """Plays episodes without exploration if the next point of the curve is due."""
        if len(self._points) < POINTS - 1 and self.trained_s >= self._seconds * (len(self._points) + 1) / POINTS:
            self._evaluate(act, max(1, self._episodes // EPISODES_A_POINT))

    def result(self, act: Act) -> dict[str, Any]:
        """Plays the last evaluation and returns rates, return and curve."""
        learnt_s = max(self.trained_s - self._learning_at, 1e-9)
        rates = (self._steps - self._first_steps) / learnt_s, self._updates / learnt_s
        self._evaluate(act, self._episodes)
        return {
            "env_steps_s": rates[0],
            "updates_s": rates[1],
            "return_mean": self._points[-1]["return_mean"],
            "curve": self._points,
        }

    def _evaluate(self, act: Act, episodes: int) -> None:
        trained_s, started_at = self.trained_s, time.monotonic()
        world, returns = make_world(self.world), []
        for episode in range(episodes):
            obs, _ = world.reset(seed=self._first_seed + episode)
            total = 0.0
            while world.agents:
                obs, rewards, _, _, _ = world.step(act(obs))
                total += sum(rewards.values())
            returns.append(total)
        world.close()
        point = {"trained_s": trained_s, "env_steps": self._steps, "return_mean": float(np.mean(returns))}
        self._points.append({**point, "updates": self._updates})
        self._stopped_s += time.monotonic() - started_at


def main(train: Callable[[TrainingRun, str], Act]) -> None:
    """Trains and writes the result; arguments: paper|own WORLD RESULT SECONDS EPISODES SEED TRAIN_SEED.

    train: trains until the run's time is used, with the settings of that name, and returns how the team acts.
    """
    settings, world, result, seconds, episodes, seed, train_seed = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: ends with the benchmark
    # Some peers write logs into the working directory.
    os.chdir(Path(result).parent)
    np.random.seed(int(train_seed))  # noqa: NPY002  (peers draw from numpy's global generator)
    run = TrainingRun(world, float(seconds), int(episodes), int(seed), int(train_seed))
    act = train(run, settings)
    Path(result).write_text(json.dumps(run.result(act)), "utf-8")
    os._exit(0)  # a peer's loggers and collectors may keep the process alive
