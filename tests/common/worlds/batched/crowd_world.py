"""A user's vectorised world: walkers on a line gather at their mean. What a walker observes does not grow with them."""

from __future__ import annotations

import numpy as np

from common.spec import Box, joint_spec
from common.worlds import Step


class CrowdWorld:
    def __init__(self, copies, seed, walkers=2):
        self.copies, self.walkers = copies, walkers
        self.spec = joint_spec([(f"walker_{i}", "walker", 2, (Box((-1.0,), (1.0,)),)) for i in range(walkers)])
        self.rng = np.random.default_rng(seed)

    def reset(self, seeds=None):
        rngs = [self.rng] * self.copies if seeds is None else [np.random.default_rng(seed) for seed in seeds]
        self.position = np.stack([rng.uniform(-1, 1, self.walkers) for rng in rngs])
        self.steps = np.zeros(self.copies, int)
        return self.observe()

    def observe(self):
        return np.stack([self.position, self.position.mean(1, keepdims=True) - self.position], 2).reshape(
            self.copies, -1
        )

    def step(self, actions):
        self.position = np.clip(self.position + 0.1 * actions, -1, 1)
        self.steps += 1
        over = self.steps >= 5
        next_obs = self.observe()
        reward = -abs(next_obs[:, 1::2])
        self.position[over] = self.rng.uniform(-1, 1, (over.sum(), self.walkers))
        self.steps[over] = 0
        ones = np.ones_like(reward)
        return Step(self.observe(), reward, ones, ones, next_obs, over)

    def close(self):
        pass


make = CrowdWorld
