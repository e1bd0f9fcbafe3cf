"""Plays a trained team in two worlds: python examples/play_a_team.py runs/spread.

The first is many copies of Shoal's batched world, with joint arrays; the second is mpe2, with PettingZoo's interface.
"""

import sys

import numpy as np

import shoal

team = shoal.load(sys.argv[1])  # a run's directory or a policy.safetensors; numpy only, no torch
print(team)  # noqa: T201

copies = 256
world = shoal.make_world("simple_spread", copies=copies, seed=0)
obs = world.reset()  # [copies, sum obs]
returns = np.zeros(copies)
for _ in range(25):
    step = world.step(team.act(obs))
    returns += step.reward.sum(axis=1)
    obs = step.obs
print(f"{copies} episodes at once, return summed over agents: {returns.mean():.2f}")  # noqa: T201

from mpe2 import simple_spread_v3  # noqa: E402

environment = simple_spread_v3.parallel_env(continuous_actions=True)
(seen, _), total = environment.reset(seed=0), 0.0
while environment.agents:
    seen, rewards, *_ = environment.step(team.act(seen))
    total += sum(rewards.values())
print(f"one episode of mpe2, return summed over agents: {total:.2f}")  # noqa: T201
