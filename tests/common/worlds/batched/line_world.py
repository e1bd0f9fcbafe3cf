"""A user's vectorised world: two walkers on a line, whose episodes end where they meet or after some steps."""

import numpy as np

from common.spec import Box, joint_spec
from common.worlds import Step


class LineWorld:
    def __init__(self, copies, seed, max_steps=5, reach=0.05, fault=None):
        self.copies, self.max_steps, self.reach, self.fault = copies, max_steps, reach, fault
        self.spec = joint_spec([(f"walker_{i}", "walker", 2, (Box((-1.0,), (1.0,)),)) for i in range(2)])
        self.rng = np.random.default_rng(seed)
        self.given, self.closed = [], False

    def reset(self, seeds=None):
        if seeds is None:
            self.position = self.rng.uniform(-1, 1, (self.copies, 2))
        else:
            self.position = np.stack([np.random.default_rng(seed).uniform(-1, 1, 2) for seed in seeds])
        self.steps = np.zeros(self.copies, int)
        return self.observe()

    def observe(self):
        a, b = self.position.T
        return np.stack([a, b - a, b, a - b], axis=1)

    def reset_copies(self, copies):
        self.position[copies] = self.rng.uniform(-1, 1, (len(copies), 2))
        self.steps[copies] = 0
        return self.observe()[copies]

    def step(self, actions):
        self.given.append(actions)
        self.position = np.clip(self.position + 0.1 * actions, -1, 1)
        self.steps += 1
        apart = abs(self.position[:, 0] - self.position[:, 1])
        met = apart < self.reach
        over = met | (self.steps >= self.max_steps)
        next_obs = self.observe()
        obs = next_obs.copy()
        if over.any():
            obs[over] = self.reset_copies(np.flatnonzero(over))
        reward = np.repeat(-apart[:, None], 2, axis=1)
        step = Step(
            obs, reward, np.where(met[:, None], 0.0, np.ones((self.copies, 2))), np.ones_like(reward), next_obs, over
        )
        return self.fault(self, step) if self.fault else step

    def close(self):
        self.closed = True


make = LineWorld
