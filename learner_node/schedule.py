"""What changes over a run: its progress, learning rates and exploration. Pure."""

from __future__ import annotations

import math

from common.run.run import AlgorithmSpec, BudgetSpec, ExplorationSpec


def progress(budget: BudgetSpec, env_steps: int, trained_s: float) -> float:
    """Returns the share of the budget used, 0 to 1: of steps or of time, whichever is further."""
    shares = [env_steps / budget.steps] if budget.steps else []
    shares += [trained_s / budget.seconds] if budget.seconds else []
    return min(1.0, max(shares, default=0.0))


def learning_rate_share(algorithm: AlgorithmSpec, share_done: float) -> float:
    """Returns the share of the initial learning rates to use: falls over the budget, linearly or as half a cosine."""
    fallen = share_done if algorithm.learning_rate_decay == "linear" else (1.0 - math.cos(math.pi * share_done)) / 2.0
    return 1.0 + (algorithm.final_learning_rate_share - 1.0) * fallen


def team_spirit(algorithm: AlgorithmSpec, share_done: float) -> float:
    """Returns the share of the team's mean reward in each agent's: moves linearly over the budget."""
    start, end = algorithm.team_spirit, algorithm.final_team_spirit
    return start if end is None else start + (end - start) * share_done


def exploration_scale(exploration: ExplorationSpec, share_done: float, env_steps: int) -> float:
    """Returns the scale of exploration: falls linearly over a share of the budget, or by a rate each step."""
    if exploration.decay == "exponential":
        return max(exploration.final_scale, exploration.scale * exploration.decay_rate**env_steps)
    done = min(1.0, share_done / exploration.decay_share) if exploration.decay_share else 1.0
    return exploration.scale + (exploration.final_scale - exploration.scale) * done


def random_share(exploration: ExplorationSpec, env_steps: int) -> float:
    """Returns the probability of acting at random: 1 in the first steps of a run, then 0."""
    return 1.0 if env_steps < exploration.random_steps else 0.0
