"""Environments that are hard to play in, each of a kind: `pettingzoo:tests.actor_node.play_worlds`, option `kind`."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import numpy as np
from gymnasium import spaces

alive = 0
"""Environments of this process that are not closed."""


class Walk:
    """Two walkers on a line, paid alike or each for itself; `kind` says what is hard about it."""

    metadata = {"name": "walk", "render_modes": []}  # noqa: RUF012
    possible_agents = ("walker_0", "walker_1")

    def __init__(self, kind: str = "plain", *, choices: bool = False, sides: bool = False) -> None:
        global alive  # noqa: PLW0603
        if kind == "alone" and alive:
            raise RuntimeError("one simulator a process")
        if kind == "unmakeable":
            raise RuntimeError("no licence")
        if "ONE_LICENCE" in os.environ:
            Path(os.environ["ONE_LICENCE"]).touch(exist_ok=False)
        alive += 1
        self.kind, self.choices = kind, choices
        if sides:
            self.possible_agents = ("walker_0", "chaser_0")
        self.agents: list[str] = []
        self.age = 0

    def observation_space(self, _agent: str) -> spaces.Space:
        return spaces.Box(-10.0, 10.0, (2,), np.float32)

    def action_space(self, _agent: str) -> spaces.Space:
        return spaces.Discrete(2) if self.choices else spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, seed: int | None = None, options: object = None) -> tuple[dict, dict]:
        self.agents = list(self.possible_agents)
        self.seed, self.age = int(seed or 0), 0
        self.x = np.random.default_rng(seed).uniform(-1.0, 1.0, 2).astype(np.float32)
        self.length = 3 + 40 * (self.seed % 5 == 0) if self.kind == "uneven" else 5
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        self.age += 1
        if self.kind == "exits at once":
            os._exit(7)
        if self.age == 2 and self.seed % 4 == 1:
            if self.kind == "raises":
                raise ConnectionError("the simulator closed the connection")
            if self.kind == "exits":
                os._exit(7)
            if self.kind == "hangs":
                time.sleep(3600)
        moves = [float(np.asarray(actions[agent]).reshape(-1)[0]) for agent in self.agents]
        self.x = np.clip(self.x + np.float32(0.1) * np.array(moves, np.float32), -10, 10).astype(np.float32)
        rewards = {agent: float(x) for agent, x in zip(self.agents, self.x, strict=True)}
        if self.kind == "shared":
            rewards = dict.fromkeys(self.agents, float(self.x.sum()))
        if self.kind == "coin":
            # Worth something only where the walkers differ from one step to the next.
            rewards = dict.fromkeys(self.agents, float(moves != getattr(self, "before", moves)))
            self.before = moves
        if self.kind == "nan" and self.age == 2 and self.seed % 4 == 1:
            rewards[self.agents[1]] = float("nan")
        is_over = self.kind != "endless" and self.age >= self.length
        flags = dict.fromkeys(self.agents, is_over)
        result = self._seen(), rewards, dict.fromkeys(self.agents, False), flags, {agent: {} for agent in self.agents}
        if is_over:
            self.agents = []
        return result

    def close(self) -> None:
        global alive  # noqa: PLW0603
        alive -= 1
        if self.kind == "does not close" and self.age:
            time.sleep(3600)
        if self.kind == "leaves things behind" and self.age:
            threading.Thread(target=time.sleep, args=(3600,)).start()
            multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,)).start()

    def _seen(self) -> dict:
        return {
            agent: np.array([x, self.age / 100], np.float32)
            for agent, x in zip(self.possible_agents, self.x, strict=True)
        }


def parallel_env(kind: str = "plain", choices: bool = False, sides: bool = False) -> Walk:
    """Makes one."""
    return Walk(kind, choices=choices, sides=sides)
