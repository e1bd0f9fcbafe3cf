"""Warnings from the training log: policy lag, exploding gradients, falling returns, replay ratio, waiting. Pure."""

from __future__ import annotations

from common.run.run import RunSpec
from common.worlds import is_batched, is_foreign
from learner_node.run_checks.inputs import clipping_remarks, horizon_remarks
from shoal.commands.diagnose.log_figures import LogFigures, Returns
from shoal.commands.diagnose.warning import DiagnosisWarning, as_warning

MAX_LAG = 5.0
"""Largest policy lag without a warning [versions]. At five versions a second, such weights are a second old."""
MAX_GROWTH = 10.0
"""Largest factor without a warning by which gradient norms or losses grow from the second to the last quarter."""
MAX_LOST_GAIN = 0.25
"""Largest fraction of a run's gain in return that may be lost by the end without a warning."""
MAX_WAITING = 0.25
"""Largest fraction of the time for which a learner may lack batches without a warning."""
MAX_RATIO_ERROR = 0.25
"""Largest relative error of samples per insert without a warning."""


def log_warnings(figures: LogFigures | None, spec: RunSpec, sides: int) -> list[DiagnosisWarning]:
    """Returns the warnings of a training log. sides: number of sides; falling returns are checked if there is one."""
    if figures is None:
        return []
    found = [
        *_lag_warnings(figures),
        *_growth_warnings(figures),
        *_ratio_warnings(figures, spec),
        *_waiting_warnings(figures, spec),
    ]
    found += [
        as_warning("course", remark)
        for remark in clipping_remarks(figures.critics_clipped, figures.critic_gradient_norm, spec)
    ]
    found += [
        as_warning("course", remark) for remark in horizon_remarks(spec.algorithm.discount, figures.episode_steps)
    ]
    # With several sides, one side's gain is another's loss, so a falling sum is not a problem.
    return [*found, *_return_warnings(figures.returns)] if sides == 1 else found


def _return_warnings(returns: Returns | None) -> list[DiagnosisWarning]:
    if returns is None:
        return []
    gain, loss = returns.best - returns.first, returns.best - returns.last
    if loss <= max(MAX_LOST_GAIN * gain, 3.0 * returns.spread):
        return []
    return [
        DiagnosisWarning(
            "course",
            "returns",
            f"the training return fell from {returns.best:.1f} at best to {returns.last:.1f} in the last tenth",
            "the team forgets: the final learning rates are too high, or the critics diverge",
            (
                "use the best team, stored in checkpoints/best.safetensors",
                "lower algorithm.final_learning_rate_share",
                "raise replay.capacity",
                "lower replay.samples_per_insert",
            ),
        )
    ]


def _lag_warnings(figures: LogFigures) -> list[DiagnosisWarning]:
    if figures.policy_lag is None or figures.policy_lag <= MAX_LAG:
        return []
    return [
        DiagnosisWarning(
            "course",
            "policy lag",
            f"acting weights lag {figures.policy_lag:.1f} versions behind the newest on average",
            "filling or sending a chunk takes longer than publishing new weights (at most five versions a second), so "
            "the replay contains transitions of old policies",
            (
                "use smaller chunks (actor --chunk-rows)",
                "lower --copies",
                "set replay.limit = strict",
                "run fewer actors per core",
            ),
        )
    ]


def _growth_warnings(figures: LogFigures) -> list[DiagnosisWarning]:
    growths = {"critic gradient norms": figures.critic_gradient_growth, "critic losses": figures.critic_loss_growth}
    grown = {name: growth for name, growth in growths.items() if growth is not None and growth > MAX_GROWTH}
    if not grown:
        return []
    return [
        DiagnosisWarning(
            "course",
            "gradients",
            " and ".join(f"{name} grew {growth:.0f}-fold" for name, growth in grown.items())
            + " from the second to the last quarter of the run",
            "values diverge: each target builds on the previous overestimate",
            (
                "set algorithm.gradient_clip = 0.5",
                "lower algorithm.target_rate",
                "lower algorithm.critic_learning_rate",
                "set algorithm.reward_scale below 1",
                "set algorithm.name = matd3",
            ),
        )
    ]


def _ratio_warnings(figures: LogFigures, spec: RunSpec) -> list[DiagnosisWarning]:
    ratio, target = figures.samples_per_insert, figures.target_samples_per_insert
    if ratio is None or target is None or spec.replay.limit == "off" or abs(ratio / target - 1.0) <= MAX_RATIO_ERROR:
        return []
    return [
        DiagnosisWarning(
            "course",
            "samples per insert",
            f"each transition was sampled {ratio:.2f} times instead of {target:g}",
            "the run was too short to reach its ratio, or one side could not keep up within the limiter's tolerance",
            ("train longer", "set replay.limit = strict", "lower replay.error_buffer"),
        )
    ]


def _waiting_warnings(figures: LogFigures, spec: RunSpec) -> list[DiagnosisWarning]:
    if figures.learner_waited is None or figures.learner_waited <= MAX_WAITING:
        return []
    # More than a few copies do not speed up a world that is stepped copy by copy.
    more = (
        "more --actors" if is_foreign(spec.scenario) and not is_batched(spec.scenario) else "more --actors or --copies"
    )
    rate = (
        f" and made one update every {figures.steps_per_update:,.0f} environment steps"
        if figures.steps_per_update
        else ""
    )
    return [
        DiagnosisWarning(
            "course",
            "waiting",
            f"the learner had no batch for {figures.learner_waited:.0%} of the time{rate}",
            "the actors are too slow for the replay ratio"
            if not spec.replay.is_auto
            else "the learner does one update per environment step and could do more",
            (f"use {more}",) if spec.replay.is_auto else ("raise replay.samples_per_insert", f"use {more}"),
        )
    ]
