"""Warnings from the figures of a team's messages, values and networks. Pure.

Each function takes figures and returns warnings. The constants are the bounds, with their reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from actor_node.evaluation.ablation import Ablation
from common.run.run import ExplorationSpec, RunSpec
from common.worlds import changed_options
from learner_node.inspection.network_stats import NetworkStats, ValueStats
from learner_node.update.layout import policy_delay
from shoal.commands.diagnose.log_figures import Returns
from shoal.commands.diagnose.warning import DiagnosisWarning

MIN_EFFECT = 0.02
"""Smallest fraction of a return that messages must change to count as useful."""
PLATEAU = -29.0
"""Return in mpe2's simple_speaker_listener (25 steps) if the listener goes to the middle of the landmarks."""
PLATEAU_WIDTH = 4.0
"""Largest distance of a return from PLATEAU, and largest loss by shuffled messages, of a team on the plateau."""
MAX_RELATIVE_BIAS = 0.5
"""Largest |mean Q - mean return| / (size of the returns) without a warning. Short runs with the defaults reach a
quarter; the rest of the return that an episode's end cuts off explains at most 1 %."""
MAX_DISCOUNTED_STEPS = 100.0
"""Most steps of a discounted return in `min_updates`: with a discount near 1 no run would have enough updates."""
MIN_CORRELATION = 0.3
"""Below this rank correlation, a critic explains less than a tenth of the variance of the returns' ranks."""
MIN_SPREAD = 0.1
"""Standard deviation of the returns over their size; below it, the order of the returns is mostly noise."""
MAX_DEAD = 0.8
"""Largest fraction of dead units in a layer without a warning; teams that learn well have up to half."""
MIN_INPUTS = 100
"""Fewest different inputs on which a unit must be inactive to count as dead."""
MAX_SATURATED = 0.95
"""Largest fraction of saturated actions without a warning; good policies often use full thrust in most states too."""
MAX_LOGITS = 10.0
"""Largest size of logits without a warning; tanh and softmax of larger ones have gradients below 1e-4."""
MIN_UNIFORM_ENTROPY = 0.95
"""Entropy of choices, as a fraction of the largest possible, from which they count as nearly uniform. With five choices
the likeliest one then has a probability below about 0.4."""

_ON_PLATEAU = (
    f"; {PLATEAU:.0f} is a known local optimum of this world, in which the listener goes to the middle of the "
    "landmarks; a team that communicates earns about -15"
)
_CONTENT_IGNORED = (
    "listeners react to the presence of a message but not to its content, which is constant or not informative"
)
_NO_INCENTIVE = (
    "listening does not pay while the messages are not informative, and informative messages do not pay while no agent "
    "listens"
)
_AFTER_TIME_LIMIT = (
    "the team behaves differently after the time limit, where it never trained; the critic extrapolates to states that "
    "it never saw"
)
_NOT_CONVERGED = (
    "critics start at 0 and have not reached the returns yet; if longer training does not help, the policy exploits "
    "errors of its critic"
)
_EXPLOITED_ERRORS = "the policy exploits errors of its critic: maximizing over actions selects overestimated ones"
_UNDERESTIMATES = (
    "the critic lags behind the policy, or has not seen the states that the policy visits now; the minimum of two "
    "critics (matd3) underestimates by design"
)
_AGAINST_OVERESTIMATION = (
    "set algorithm.name = matd3, which uses the minimum of two critics",
    "lower algorithm.target_rate",
    "lower algorithm.critic_learning_rate",
    "lower replay.samples_per_insert",
    "raise exploration.final_scale, so that overestimated actions are tried",
)


def communication_warnings(ablations: Sequence[Ablation], spec: RunSpec) -> list[DiagnosisWarning]:
    """Returns warnings of speakers whose messages are ignored or harm their side."""
    found: list[DiagnosisWarning] = []
    for speaker, rows in groupby(ablations, lambda row: row.speaker):
        by_side = list(rows)
        if not any(_is_significant(row.shuffled_cost, row.shuffled_cost_ci95, row.return_with) for row in by_side):
            found.append(_ignored(speaker, by_side, spec))
        # With several sides, what costs one may help another: harm is reported only in a world with one.
        elif len(by_side) == 1 and by_side[0].shuffled_cost < 0:
            found.append(_harmful(speaker, by_side))
        elif _is_on_plateau(by_side[0], spec):
            seen = f"messages of {speaker} are hardly used: {_returns_text(by_side)}{_ON_PLATEAU}"
            found.append(DiagnosisWarning("communication", speaker, seen, _NO_INCENTIVE, _advice_for_speakers(spec)))
    return found


def value_warnings(figures: Sequence[ValueStats], spec: RunSpec, updates: int) -> list[DiagnosisWarning]:
    """Returns warnings of biased or uninformative critics; with too few updates, only that there are too few."""
    if updates < min_updates(spec):
        return [warning for critic in figures for warning in _early_critic_warnings(critic, spec, updates)]
    return [warning for critic in figures for warning in (*_bias_warnings(critic, spec), *_rank_warnings(critic))]


def min_updates(spec: RunSpec) -> float:
    """Returns the number of updates after which a critic's errors are meaningful.

    A reward propagates at least one step back each time that the targets follow their networks, which takes
    1 / target_rate target updates, and a value covers about 1 / (1 - discount) steps.
    """
    algorithm = spec.algorithm
    steps = 1.0 / max(1.0 - algorithm.discount, 1.0 / MAX_DISCOUNTED_STEPS)
    return steps / algorithm.target_rate * policy_delay(algorithm)


def network_warnings(figures: Sequence[NetworkStats], exploration: ExplorationSpec) -> list[DiagnosisWarning]:
    """Returns warnings of hidden layers with mostly dead units, and of saturated outputs."""
    found: list[DiagnosisWarning] = []
    for network in figures:
        dead = [
            (i, fraction)
            for i, fraction in enumerate(network.dead)
            if fraction >= MAX_DEAD and network.inputs >= MIN_INPUTS
        ]
        if dead:
            layers = ", ".join(f"{fraction:.0%} of hidden layer {i + 1}" for i, fraction in dead)
            found.append(
                DiagnosisWarning(
                    "networks",
                    network.network,
                    f"{network.network}: {layers} is inactive in all visited states",
                    "updates are so large that ReLU units became negative everywhere and receive no gradient",
                    (
                        "lower algorithm.policy_learning_rate and algorithm.critic_learning_rate",
                        "set algorithm.gradient_clip = 0.5",
                        "set algorithm.reward_scale below 1 if returns are in the hundreds",
                    ),
                )
            )
        found += _output_warnings(network, exploration)
    return found


def uniform_choice_warnings(
    figures: Sequence[NetworkStats], returns: Returns | None, sides: int
) -> list[DiagnosisWarning]:
    """Returns warnings of policies whose choices are nearly uniform in a run whose returns did not rise.

    returns: of the training log; None if it is too short. sides: number of sides; with several, returns need not rise.
    """
    if returns is None or sides > 1 or returns.best - returns.first > 3.0 * returns.spread:
        return []
    return [
        DiagnosisWarning(
            "networks",
            network.network,
            f"{network.network}: the entropy of its choices is {network.entropy:.0%} of the largest possible, nearly"
            f" uniform, and the training return did not rise ({returns.first:.1f} in the first tenth,"
            f" {returns.best:.1f} at best)",
            "the team still acts almost at random: rewards are rare or do not depend on the actions that it tries, or"
            " the policy's gradient is weaker than the penalty on its logits",
            (
                "train longer",
                "look at the rewards of random actions (shoal check WORLD)",
                "set algorithm.reward_scale so that returns are of size 1 to 100",
                "lower algorithm.action_regularisation",
                "raise algorithm.policy_learning_rate",
            ),
        )
        for network in figures
        if network.entropy is not None and network.entropy >= MIN_UNIFORM_ENTROPY
    ]


def _is_significant(cost: float, interval: tuple[float, float], return_with: float) -> bool:
    low, high = interval
    return (low > 0 or high < 0) and abs(cost) > MIN_EFFECT * abs(return_with)


def _ignored(speaker: str, by_side: Sequence[Ablation], spec: RunSpec) -> DiagnosisWarning:
    reacts_to_silence = any(_is_significant(row.zeroed_cost, row.zeroed_cost_ci95, row.return_with) for row in by_side)
    plateau = _ON_PLATEAU if _is_on_plateau(by_side[0], spec) else ""
    return DiagnosisWarning(
        "communication",
        speaker,
        f"messages of {speaker} are ignored: {_returns_text(by_side)}{plateau}",
        _CONTENT_IGNORED if reacts_to_silence else _NO_INCENTIVE,
        _advice_for_speakers(spec),
    )


def _harmful(speaker: str, by_side: Sequence[Ablation]) -> DiagnosisWarning:
    return DiagnosisWarning(
        "communication",
        speaker,
        f"messages of {speaker} do harm: {_returns_text(by_side)}",
        "messages of other episodes lead to higher returns: listeners interpret messages by an outdated meaning",
        ("train longer", "lower exploration.final_scale", "lower algorithm.policy_learning_rate"),
    )


def _returns_text(by_side: Sequence[Ablation]) -> str:
    return "; ".join(
        f"return of {row.side} {row.return_with:.2f} with its messages, {row.return_with - row.shuffled_cost:.2f} with "
        f"messages of other episodes, {row.return_with - row.zeroed_cost:.2f} without messages"
        for row in by_side
    )


def _is_on_plateau(row: Ablation, spec: RunSpec) -> bool:
    """Returns whether a speaker-listener team earns about the plateau and loses little with shuffled messages."""
    changed = changed_options(spec.scenario, spec.world).keys()
    if spec.scenario.removeprefix("mpe2:") != "simple_speaker_listener" or changed & {"max_cycles", "dynamics"}:
        return False
    return abs(row.return_with - PLATEAU) < PLATEAU_WIDTH and row.shuffled_cost < PLATEAU_WIDTH


def _early_critic_warnings(critic: ValueStats, spec: RunSpec, updates: int) -> list[DiagnosisWarning]:
    if not _is_biased(critic):
        return []
    seen = f"the mean Q of {critic.player} is {critic.value:.2f}, the mean discounted return {critic.realised:.2f}"
    means = (
        f"critics start at 0 and rewards propagate step by step, which takes about {min_updates(spec):,.0f} updates "
        f"with these settings; this run has made {updates:,}"
    )
    return [DiagnosisWarning("values", critic.player, seen, means, ("train longer",), _direction(critic))]


def _direction(critic: ValueStats) -> str:
    return "over" if critic.bias > 0 else "under"


def _is_biased(critic: ValueStats) -> bool:
    low, high = critic.bias_ci95
    over = critic.relative_bias > MAX_RELATIVE_BIAS and low > 0
    return over or (critic.relative_bias < -MAX_RELATIVE_BIAS and high < 0)


def _bias_warnings(critic: ValueStats, spec: RunSpec) -> list[DiagnosisWarning]:
    if not _is_biased(critic):
        return []
    direction = _direction(critic)
    seen = (
        f"the mean Q of {critic.player} is {critic.value:.2f}, the mean discounted return {critic.realised:.2f} "
        f"({critic.relative_bias:+.0%} of the size of the returns): {direction}estimated"
    )
    # reward_watched: mean reward of the measured steps, within the time limit. reward_beyond: of the steps after it.
    earns_otherwise_beyond_limit = abs(critic.reward_beyond - critic.reward_watched) > abs(critic.reward_watched)
    if earns_otherwise_beyond_limit:
        seen += (
            f"; after the time limit it earns {critic.reward_beyond:.2f} a step instead of {critic.reward_watched:.2f}"
        )
        return [
            DiagnosisWarning(
                "values", critic.player, seen, _AFTER_TIME_LIMIT, ("train with a larger world.max_cycles",), direction
            )
        ]
    lies_between_zero_and_return = 0.0 <= critic.value * critic.realised < critic.realised**2
    if lies_between_zero_and_return:
        to_try = ("train longer", *_AGAINST_OVERESTIMATION[:1])
        return [DiagnosisWarning("values", critic.player, seen, _NOT_CONVERGED, to_try, direction)]
    if direction == "over":
        return [DiagnosisWarning("values", critic.player, seen, _EXPLOITED_ERRORS, _AGAINST_OVERESTIMATION)]
    advice = ("train longer", "raise algorithm.target_rate", *_advice_maddpg(spec))
    return [DiagnosisWarning("values", critic.player, seen, _UNDERESTIMATES, advice)]


def _rank_warnings(critic: ValueStats) -> list[DiagnosisWarning]:
    if critic.rank_correlation is None or critic.rank_correlation >= MIN_CORRELATION:
        return []
    if critic.realised_std < MIN_SPREAD * abs(critic.realised):
        return []
    return [
        DiagnosisWarning(
            "values",
            critic.player,
            f"Q of {critic.player} hardly correlates with the returns (rank correlation {critic.rank_correlation:.2f})",
            "the critic does not distinguish good from bad states, so its gradient does not improve the policy",
            (
                "train longer",
                "raise replay.batch or network.critic_hidden",
                "set algorithm.reward_scale so that returns are of size 1 to 100",
            ),
        )
    ]


def _advice_for_speakers(spec: RunSpec) -> tuple[str, ...]:
    discrete = spec.world.get("continuous_actions") is False
    return (
        "try another --seed",
        "set algorithm.gumbel = soft" if discrete else "set network.head = soft, so that messages are soft choices",
        "raise exploration.scale and exploration.final_scale, so that the speaker explores longer",
        "set algorithm.teammates = current, so that listener and speaker learn from each other's current policy",
        "lower algorithm.action_regularisation",
        "train longer",
    )


def _advice_maddpg(spec: RunSpec) -> tuple[str, ...]:
    return ("set algorithm.name = maddpg, which has one critic",) if "matd3" in spec.algorithm.variants else ()


def _output_warnings(network: NetworkStats, exploration: ExplorationSpec) -> list[DiagnosisWarning]:
    large = network.logit_size is not None and network.logit_size > MAX_LOGITS
    saturated = network.saturated is not None and network.saturated > MAX_SATURATED
    if not large and not saturated:
        return []
    seen = [f"the logits are of size {network.logit_size:.1f}"]
    if network.saturated is not None:
        seen.append(f"{network.saturated:.0%} of the squashed actions are beyond 0.99 of their range")
    if network.top_probability is not None:
        seen.append(f"the likeliest choices have probability {network.top_probability:.3f}")
    sampled = network.top_probability is not None and exploration.choices == "gumbel"
    return [
        DiagnosisWarning(
            "networks",
            network.network,
            f"{network.network}: {', '.join(seen)}",
            "the outputs are saturated: the gradient almost vanishes and the policy hardly learns"
            + ("; sampling from such choices does not explore either" if sampled else ""),
            (
                "raise algorithm.action_regularisation (1e-3 to 1e-2)",
                "lower algorithm.policy_learning_rate",
                *(("set exploration.choices = epsilon",) if sampled else ()),
            ),
        )
    ]
