"""Warnings from a run's log: lag, exploding gradients, fallen returns, a ratio that is not held, waiting. Pure."""

from __future__ import annotations

from common.run.run import RunSpec
from common.worlds import FOREIGN
from learner_node.inputs import on_clipping, on_horizon
from shoal.commands.diagnose.log_figures import Returns, RunFigures
from shoal.commands.diagnose.warning import DiagnosisWarning, warned

LARGEST_LAG = 5.0
"""Versions: at five a second, the oldest weights then act a second after they were replaced."""
LARGEST_GROWTH = 10.0
MOST_FALLEN = 0.25
"""Of what a run had gained at its best."""
MOST_WAITING = 0.25
"""A quarter of the time is a third more updates that could have been."""
LARGEST_RATIO_ERROR = 0.25


def log_warnings(figures: RunFigures | None, spec: RunSpec, sides: int) -> list[DiagnosisWarning]:
    """Warns of what the log shows: lag, exploding gradients, fallen returns, a ratio that is not held, waiting."""
    if figures is None:
        return []
    found = [
        *_lag_warnings(figures),
        *_growth_warnings(figures),
        *_ratio_warnings(figures, spec),
        *_waiting_warnings(figures, spec),
    ]
    found += [
        warned("course", remark) for remark in on_clipping(figures.critics_clipped, figures.critic_gradient_norm, spec)
    ]
    found += [warned("course", remark) for remark in on_horizon(spec.algorithm.discount, figures.episode_steps)]
    # Several sides' returns move against each other: no fall of their sum is a loss.
    return [*found, *_return_warnings(figures.returns)] if sides == 1 else found


def _return_warnings(returns: Returns | None) -> list[DiagnosisWarning]:
    if returns is None:
        return []
    gained, fallen = returns.best - returns.first, returns.best - returns.last
    if fallen <= max(MOST_FALLEN * gained, 3.0 * returns.spread):
        return []
    return [
        DiagnosisWarning(
            "course",
            "returns",
            f"training returns were {returns.best:.1f} at best and {returns.last:.1f} in the last tenth",
            "the team forgot: learning rates too high for the end, or critics that went astray",
            (
                "checkpoints/best.safetensors holds the best team",
                "a lower algorithm.final_learning_rate_share",
                "a larger replay.capacity",
                "a lower replay.samples_per_insert",
            ),
        )
    ]


def _lag_warnings(figures: RunFigures) -> list[DiagnosisWarning]:
    if figures.policy_lag is None or figures.policy_lag <= LARGEST_LAG:
        return []
    return [
        DiagnosisWarning(
            "course",
            "policy lag",
            f"actions were chosen by weights {figures.policy_lag:.1f} versions old on average",
            "chunks take longer to fill, or wait longer, than weights take to come (five versions a second at most): "
            "the replay is filled by policies that are gone",
            ("smaller chunks (actor --chunk-rows)", "fewer --copies", "replay.limit = strict", "fewer actors a core"),
        )
    ]


def _growth_warnings(figures: RunFigures) -> list[DiagnosisWarning]:
    told = {"critics' gradient norms": figures.critic_gradient_growth, "critics' losses": figures.critic_loss_growth}
    grown = {name: growth for name, growth in told.items() if growth is not None and growth > LARGEST_GROWTH}
    if not grown:
        return []
    return [
        DiagnosisWarning(
            "course",
            "gradients",
            " and ".join(f"{name} grew {growth:.0f}-fold" for name, growth in grown.items())
            + " from the second quarter of the run to the last",
            "values run away: each target is built on the overestimate before it",
            (
                "algorithm.gradient_clip = 0.5",
                "a smaller algorithm.target_rate",
                "a lower algorithm.critic_learning_rate",
                "algorithm.reward_scale below 1",
                "algorithm.name = matd3",
            ),
        )
    ]


def _ratio_warnings(figures: RunFigures, spec: RunSpec) -> list[DiagnosisWarning]:
    ratio, target = figures.samples_per_insert, figures.target_samples_per_insert
    if ratio is None or spec.replay.limit == "off" or abs(ratio / target - 1.0) <= LARGEST_RATIO_ERROR:
        return []
    return [
        DiagnosisWarning(
            "course",
            "samples per insert",
            f"each transition was learnt from {ratio:.2f} times, not {target:g}",
            "the run was too short to come near its ratio, or one side could not keep up and the limit let it be",
            ("train longer", "replay.limit = strict", "a smaller replay.error_buffer"),
        )
    ]


def _waiting_warnings(figures: RunFigures, spec: RunSpec) -> list[DiagnosisWarning]:
    if figures.learner_waited is None or figures.learner_waited <= MOST_WAITING:
        return []
    # Copies of a world that is stepped one by one bring nothing beyond a few.
    more = "more --actors" if spec.scenario.startswith(FOREIGN) else "more --actors or --copies"
    rate = (
        f", and did one update in {figures.steps_per_update:,.0f} environment steps" if figures.steps_per_update else ""
    )
    return [
        DiagnosisWarning(
            "course",
            "waiting",
            f"the learner had no batch to learn from for {figures.learner_waited:.0%} of the time{rate}",
            "the actors are too slow for the ratio",
            ("a larger replay.samples_per_insert", more),
        )
    ]
