"""Joint environment steps a second of VMAS' own versions of the MPE scenarios, for docs/benchmarks.md.

Run it in an environment of its own: `pip install torch==2.13.0 vmas==1.5.2`, then `python tests/bench/vmas_worlds.py`.
One thread, CPU, random actions drawn beforehand; medians of three.
"""

from __future__ import annotations

import statistics
import time

import torch
import vmas  # type: ignore[import-not-found]

SCENARIOS = (
    "simple",
    "simple_adversary",
    "simple_crypto",
    "simple_push",
    "simple_reference",
    "simple_speaker_listener",
    "simple_spread",
    "simple_tag",
    "simple_world_comm",
)
COPIES = (1, 8, 64, 256, 2048)
SECONDS = 0.3
REPEATS = 3


def steps_a_second(scenario: str, copies: int) -> float:
    """Returns the median rate of one scenario at one number of copies."""
    env = vmas.make_env(scenario=scenario, num_envs=copies, device="cpu", continuous_actions=True, seed=0)
    env.reset()
    actions = [[env.get_random_action(agent) for agent in env.agents] for _ in range(8)]
    rates = []
    for _ in range(REPEATS):
        done, started_at = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - started_at) < SECONDS:
            env.step(actions[done % len(actions)])
            done += 1
        rates.append(done * copies / elapsed)
    return statistics.median(rates)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in SCENARIOS:
        print(name, *(f"{steps_a_second(name, copies):,.0f}" for copies in COPIES), sep=" | ", flush=True)
