"""The schedules of a run: progress, learning rates, team spirit and exploration, as functions without state."""

from __future__ import annotations

import math

from common.run.run import AlgorithmSpec, BudgetSpec, ExplorationSpec


def progress(budget: BudgetSpec, env_steps: int, trained_s: float) -> float:
    """Returns the fraction of the budget used, 0 to 1: of its steps or of its time, whichever is larger."""
    fractions = [env_steps / budget.steps] if budget.steps else []
    fractions += [trained_s / budget.seconds] if budget.seconds else []
    return min(1.0, max(fractions, default=0.0))


def learning_rate_fraction(algorithm: AlgorithmSpec, progress: float) -> float:
    """Returns the factor on the initial learning rates, which falls over the budget linearly or as half a cosine."""
    decay = progress if algorithm.learning_rate_decay == "linear" else (1.0 - math.cos(math.pi * progress)) / 2.0
    return 1.0 + (algorithm.final_learning_rate_share - 1.0) * decay


def team_spirit(algorithm: AlgorithmSpec, progress: float) -> float:
    """Returns the fraction of the side's mean reward in each agent's reward, which changes linearly over the budget."""
    start, end = algorithm.team_spirit, algorithm.final_team_spirit
    return start if end is None else start + (end - start) * progress


def exploration_scale(exploration: ExplorationSpec, progress: float, env_steps: int) -> float:
    """Returns the scale of exploration noise.

    It falls linearly over a part of the budget or over a number of environment steps, or by a factor each step.
    """
    if exploration.decay == "exponential":
        return max(exploration.final_scale, exploration.scale * exploration.decay_rate**env_steps)
    if exploration.decay_steps:
        done = min(1.0, env_steps / exploration.decay_steps)
        return exploration.scale + (exploration.final_scale - exploration.scale) * done
    done = min(1.0, progress / exploration.decay_share) if exploration.decay_share else 1.0
    return exploration.scale + (exploration.final_scale - exploration.scale) * done


def random_fraction(exploration: ExplorationSpec, env_steps: int) -> float:
    """Returns the probability of random actions: 1 in the first `random_steps` of a run, then 0."""
    return 1.0 if env_steps < exploration.random_steps else 0.0
