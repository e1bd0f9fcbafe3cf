"""The original Multi-Agent Particle Environment's step, written out body by body, one copy at a time.

Velocity is integrated before position; the agents of a collaborative scenario all receive the sum of their rewards;
simple_spread counts an agent as colliding with itself. The rest is as in mpe2.
"""

from __future__ import annotations

import math

import numpy as np


class OneCopy:
    """One copy of a batched legacy world, taken over at its present state and stepped by plain loops."""

    def __init__(self, world, copy):
        scenario, particles = world.scenario, world.particles
        self.agents = scenario.agents
        self.bodies = [*scenario.agents, *scenario.landmarks]
        self.pos = [particles.pos[i, :, copy].copy() for i in range(len(self.bodies))]
        self.vel = [np.zeros(2) for _ in self.bodies]
        self.drawn = {key: rows[..., copy].copy() for key, rows in particles.drawn.items()}

    def step(self, controls):
        """Moves all bodies under thrusts [agents, 2] in [-1, 1]."""
        force = [np.zeros(2) for _ in self.bodies]
        for i, agent in enumerate(self.agents):
            force[i] = np.array(controls[i], float) * agent.accel
        for a, first in enumerate(self.bodies):
            for b in range(a + 1, len(self.bodies)):
                if first.collides and self.bodies[b].collides:
                    contact = self.contact(a, b)
                    force[a] = force[a] + contact
                    force[b] = force[b] - contact
        for i, agent in enumerate(self.agents):
            if not agent.moves:
                continue
            self.vel[i] = self.vel[i] * 0.75 + force[i] * 0.1
            speed = math.sqrt(self.vel[i][0] ** 2 + self.vel[i][1] ** 2)
            if speed > agent.max_speed:
                self.vel[i] = self.vel[i] / speed * agent.max_speed
            self.pos[i] = self.pos[i] + self.vel[i] * 0.1

    def contact(self, a, b):
        delta = self.pos[a] - self.pos[b]
        penetration = np.logaddexp(0, (self.bodies[a].size + self.bodies[b].size - self.distance(a, b)) / 1e-3) * 1e-3
        return 100.0 * delta / self.distance(a, b) * penetration

    def distance(self, a, b):
        return math.sqrt(((self.pos[a] - self.pos[b]) ** 2).sum())

    def touching(self, a, b):
        return self.distance(a, b) < self.bodies[a].size + self.bodies[b].size


def spread(one):
    n = len(one.agents)
    rewards = []
    for agent in range(n):
        reward = 0.0
        for landmark in range(n, 2 * n):
            reward -= min(one.distance(a, landmark) for a in range(n))
        for a in range(n):
            if one.touching(a, agent):
                reward -= 1
        rewards.append(reward)
    return [sum(rewards)] * n


def speaker_listener(one):
    goal = 2 + int(one.drawn["goal"])
    return [2 * -(one.distance(1, goal) ** 2)] * 2


def reference(one):
    rewards = [-(one.distance(1 - i, 2 + int(one.drawn["goal"][i])) ** 2) for i in range(2)]
    return [sum(rewards)] * 2


def adversary(one):
    goal = len(one.agents) + int(one.drawn["goal"])
    good = range(1, len(one.agents))
    shared = one.distance(0, goal) - min(one.distance(a, goal) for a in good)
    return [-(one.distance(0, goal) ** 2), *[shared for _ in good]]


def push(one):
    goal = 2 + int(one.drawn["goal"])
    return [one.distance(1, goal) - one.distance(0, goal), -one.distance(1, goal)]


def tag(one):
    adversaries = [i for i, agent in enumerate(one.agents) if agent.side == "adversary"]
    good = [i for i, agent in enumerate(one.agents) if agent.side != "adversary"]

    def bound(x):
        if x < 0.9:
            return 0.0
        return (x - 0.9) * 10 if x < 1.0 else min(math.exp(2 * x - 2), 10)

    catches = sum(10 for g in good for a in adversaries if one.touching(g, a))
    caught = [
        -10 * sum(one.touching(g, a) for a in adversaries) - sum(bound(abs(one.pos[g][axis])) for axis in range(2))
        for g in good
    ]
    return [*[catches for _ in adversaries], *caught]


REWARDS = {
    "simple_spread": spread,
    "simple_speaker_listener": speaker_listener,
    "simple_reference": reference,
    "simple_adversary": adversary,
    "simple_push": push,
    "simple_tag": tag,
}
