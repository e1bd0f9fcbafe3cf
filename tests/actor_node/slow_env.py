"""An environment of the tests' own that fails, hangs or is slow in the way its options say, and counts its steps."""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

MADE = []


def _hold_the_interpreter(seconds):
    """Sleeps in C without giving the interpreter away."""
    ctypes.PyDLL(None).usleep(int(seconds * 1_000_000))


def _nothing():
    """Is what a child process of the environment does: wait."""
    time.sleep(600)


def _sleep_whatever_comes():
    """Goes on when it is interrupted, as code does that catches everything."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(600)


WAYS = {
    "raise": lambda: (_ for _ in ()).throw(RuntimeError("the licence server said no")),
    "exit": lambda: sys.exit(0),
    "os_exit": lambda: os._exit(0),
    "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "sleep": lambda: time.sleep(600),
    "stubborn": _sleep_whatever_comes,
    "spin": lambda: [None for _ in iter(int, 1)],
    "hold": lambda: _hold_the_interpreter(600),
}


class SlowEnv(ParallelEnv):
    """Two agents; every step of copy i appends a line to `directory`/steps-i."""

    metadata: ClassVar = {"name": "slow"}

    def __init__(
        self,
        *,
        directory="",
        fail_in="",
        way="raise",
        at=0,
        copy=0,
        make_s=0.0,
        step_s=0.0,
        hold=False,
        children=False,
        close="",
        thread=False,
    ):
        self.copy = len(MADE)
        MADE.append(self)
        self.directory, self.fail_in, self.way, self.at = directory, fail_in, way, at
        self.fails = copy == self.copy
        self.step_s, self.hold, self.steps = step_s, hold, 0
        self.possible_agents, self.agents = ["a_0", "a_1"], []
        time.sleep(make_s)
        self.calls = {"make": 0, "reset": 0, "step": 0}
        self.close_way = close
        if thread:
            threading.Thread(target=_nothing).start()
        self.child = None
        if children:
            self.child = multiprocessing.get_context("fork").Process(target=_nothing)
            self.child.start()
            self.simulator = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            self._write("children", f"{self.child.pid} {self.simulator.pid}")
        self._call("make")

    def _write(self, name, text):
        with (Path(self.directory) / f"{name}-{os.getpid()}-{self.copy}").open("a") as file:
            file.write(f"{text}\n")

    def _call(self, name):
        self.calls[name] += 1
        if self.fails and self.fail_in == name and self.calls[name] > self.at:
            WAYS[self.way]()

    def observation_space(self, agent):
        return spaces.Box(-1, 1, (2,), np.float32)

    def action_space(self, agent):
        return spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, seed=None, options=None):
        self.agents, self.age = list(self.possible_agents), 0
        self._call("reset")
        return {agent: np.zeros(2, np.float32) for agent in self.agents}, {agent: {} for agent in self.agents}

    def step(self, actions):
        _hold_the_interpreter(self.step_s) if self.hold else time.sleep(self.step_s)
        self._call("step")
        self.age += 1
        live, over = self.agents, self.age == 25
        if over:
            self.agents = []
        if self.directory:
            self._write("steps", self.age)
        seen = {agent: np.full(2, self.age / 25, np.float32) for agent in live}
        truncated = dict.fromkeys(live, over)
        return seen, dict.fromkeys(live, 1.0), dict.fromkeys(live, False), truncated, {agent: {} for agent in live}

    def close(self):
        if self.child is not None:
            self.child.terminate()
        if self.close_way:
            WAYS[self.close_way]()


def parallel_env(**options):
    return SlowEnv(**options)
