"""The first copy of a user's own environment: what it says, and what becomes of a command when it misbehaves."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from common.errors import ConfigError, WorldError
from common.worlds import make_world, world_spaces
from common.worlds.adapters.first_copy import FirstCopy, Watch

NAME = "pettingzoo:first_env"
ENVIRONMENT = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
import numpy as np
from gymnasium import spaces


def leave():
    started = subprocess.Popen(["sleep", "600"])
    Path(__file__).with_name("left").write_text(f"{os.getpid()} {started.pid}")


def hang():
    leave()
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass


def fail():
    raise RuntimeError("the licence \\ud800 said no")


def hold():
    ctypes.PyDLL(None).usleep(600_000_000)


WAYS = {
    "": lambda: None,
    "fail": fail,
    "sys_exit": lambda: sys.exit(4),
    "exit_3": lambda: os._exit(3),
    "exit_0": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "hang": hang,
    "hold": hold,
    "leave": leave,
    "slow": lambda: time.sleep(2.5),
}


class FirstEnv:
    def __init__(self, make="", close="", spaces="", size=2, reset="", step="", max_cycles=3):
        self.possible_agents, self.agents = ["a_0", "b_0"], []
        self.reset_way, self.step_way, self.max_cycles = reset, step, max_cycles
        self.way, self.spaces, self.size = close, spaces, size
        WAYS[make]()

    def observation_space(self, agent):
        WAYS[self.spaces]()
        return spaces.Dict({"x": spaces.Box(-1, 1, (self.size,)), "y": spaces.Discrete(3)})

    def action_space(self, agent):
        return spaces.Discrete(4, start=1) if agent == "a_0" else spaces.Box(-1, 2, (2,))

    def reset(self, seed=None, options=None):
        WAYS[self.reset_way]()
        self.agents, self.age = list(self.possible_agents), 0
        return self.see(), {}

    def step(self, actions):
        WAYS[self.step_way]()
        self.age += 1
        over, agents = self.age == self.max_cycles, list(self.agents)
        self.agents = [] if over else agents
        no, yes = dict.fromkeys(agents, False), dict.fromkeys(agents, over)
        return self.see(), dict.fromkeys(agents, 0.0), no, yes, dict.fromkeys(agents, {})

    def see(self):
        return {agent: {"x": np.zeros(self.size, np.float32), "y": 1} for agent in self.possible_agents}

    def close(self):
        WAYS[self.way]()


def parallel_env(**options):
    return FirstEnv(**options)


def nothing(**options):
    return None
"""


@pytest.fixture
def directory(tmp_path, monkeypatch):
    (tmp_path / "first_env.py").write_text(ENVIRONMENT)
    (tmp_path / "broken_env.py").write_text("import first_env\nfirst_env.fail()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("first_env", None)


def read(name=NAME, said=None, poll=lambda: None, *, measure=False, **options):
    watch = Watch((said if said is not None else []).append, poll)
    return FirstCopy(name, options, watch, measure=measure).read()


def is_gone(pid) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def has_started_all(directory):
    file = directory / "left"
    return file.exists() and len(file.read_text().split()) == 2


@pytest.fixture
def nothing_is_left(directory, eventually):
    """Fails where the copy's process or one that it started still runs."""

    def check():
        pids = [int(pid) for pid in (directory / "left").read_text().split()]
        assert len(pids) == 2
        eventually(lambda: all(map(is_gone, pids)), "nothing is left")

    return check


def test_it_says_what_a_copy_in_this_process_says(directory):
    world = make_world(NAME, options={"size": 3})
    found = read(size=3)
    assert (found.agents, found.spaces) == (world.spec, world_spaces(world))
    assert [agent.obs_dim for agent in found.agents.agents] == [6, 6]


def test_it_is_measured_if_that_is_asked_for(directory):
    assert read().facts is None
    facts = read(measure=True).facts
    assert (facts.time_limit, facts.longest_episode, facts.batched) == (3, 3, False)
    assert facts.step_s > 0.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"step": "fail"}, "step 1 of copy 1 of 1: RuntimeError: the licence"),
        ({"step": "segfault"}, "signal 11 (SIGSEGV) in reset() or step()"),
        ({"step": "hang"}, "reset() or step() did not return in 1 s; killed"),
    ],
)
def test_a_fault_while_it_is_measured_is_said_and_the_copy_is_used(
    directory, monkeypatch, nothing_is_left, options, words
):
    monkeypatch.setattr("common.worlds.adapters.first_copy.STEPS_S", 0.6)
    said = []
    found = read(said=said, measure=True, **options)
    assert len(found.agents.agents) == 2
    assert found.facts is None
    assert words in said[-1]
    assert "the first copy could not be measured" in said[-1]
    if "hang" in options.values():
        nothing_is_left()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (NAME, {"make": "fail"}),
        (NAME, {"make": "sys_exit"}),
        (NAME, {"spaces": "fail"}),
        (NAME, {"reset": "fail"}),
        (NAME, {"close": "fail"}),
        (NAME, {"siez": 3}),
        ("pettingzoo:first_env.nothing", {}),
        ("pettingzoo:broken_env", {}),
        ("pettingzoo:first_envy", {}),
    ],
)
def test_a_fault_has_the_words_it_has_in_this_process(directory, name, options):
    with pytest.raises((ConfigError, WorldError)) as here:
        make_world(name, options=options).close()
    with pytest.raises((ConfigError, WorldError)) as there:
        read(name, **options)
    assert type(there.value) is type(here.value)
    assert getattr(there.value, "copy", None) == getattr(here.value, "copy", None)
    assert str(there.value) == str(here.value).encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"make": "exit_3"}, r"ended its process with exit code 3 \(os._exit\?\) in its constructor"),
        ({"make": "exit_0"}, r"ended its process with exit code 0 \(os._exit\?\) in its constructor"),
        ({"make": "segfault"}, r"crashed its process with signal 11 \(SIGSEGV\) in its constructor"),
        ({"spaces": "segfault"}, r"\(SIGSEGV\) in observation_space\(\), action_space\(\) or reset\(\)"),
        ({"reset": "segfault"}, r"\(SIGSEGV\) in observation_space\(\), action_space\(\) or reset\(\)"),
        ({"close": "exit_3"}, r"exit code 3 \(os._exit\?\) in close\(\)"),
    ],
)
def test_a_process_that_ends_is_a_fault_that_names_the_call(directory, options, words):
    with pytest.raises(WorldError, match=f"{NAME}: making copy 1 of 1: the environment .*{words}"):
        read(**options)


def test_what_it_starts_ends_with_it(directory, nothing_is_left):
    read(make="leave")
    nothing_is_left()


@pytest.mark.parametrize("close", ["hang", "hold"])
@pytest.mark.slow
def test_a_close_that_hangs_is_killed_and_the_copy_is_used(directory, close, nothing_is_left):
    said = []
    began = time.monotonic()
    assert len(read(said=said, close=close).agents.agents) == 2
    assert 5 <= time.monotonic() - began < 15
    assert "close() has not returned for" in said[0]
    assert said[-1] == f"{NAME}: close() of the first copy did not return in 5 s; killed"
    if close == "hang":
        nothing_is_left()


@pytest.mark.slow
def test_a_fault_is_not_lost_where_the_close_after_it_hangs(directory, nothing_is_left):
    with pytest.raises(WorldError, match=r"the licence .* said no"):
        read(spaces="fail", close="hang")
    nothing_is_left()


@pytest.mark.slow
def test_a_constructor_that_takes_long_is_named(directory):
    said = []
    read(said=said, make="slow")
    assert "making one copy of the environment" in said[0]
    assert "its constructor has not returned for" in said[0]


@pytest.mark.parametrize("options", [{"make": "hang"}, {"spaces": "hang"}])
def test_a_stop_ends_it_at_once_with_all_that_it_started(directory, options, nothing_is_left):
    def poll():
        if has_started_all(directory):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read(poll=poll, **options)
    nothing_is_left()


def test_nothing_outlives_a_parent_that_is_killed(directory, eventually, nothing_is_left):
    script = f"from common.worlds.adapters.first_copy import *; FirstCopy({NAME!r}, {{'make': 'hang'}}, Watch()).read()"
    root = str(Path(__file__).parents[4])
    # The environment is found in the working directory, as in a script of the user's.
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=directory, env={**os.environ, "PYTHONPATH": root})
    eventually(lambda: has_started_all(directory), "the constructor hangs")
    parent.kill()
    parent.wait()
    nothing_is_left()
