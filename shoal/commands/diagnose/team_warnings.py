"""From figures to warnings in words: what was seen, what it usually means, what to try. Pure.

Each verdict takes figures and returns the warnings they give rise to; what each bound is for stands beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from actor_node.evaluation.ablation import Ablation
from common.run.run import ExplorationSpec, RunSpec
from common.worlds import changed_options
from learner_node.inspection.network_stats import NetworkFigures, ValueFigures
from shoal.commands.diagnose.warning import DiagnosisWarning

SMALLEST_EFFECT = 0.02
"""Of a return: messages that change less than this do not carry the task."""
PLATEAU = -29.0
"""Return of a listener that goes to the middle of the landmarks, over 25 steps of simple_speaker_listener in mpe2."""
PLATEAU_WIDTH = 4.0
LARGEST_RELATIVE_BIAS = 0.5
"""Well beyond the 1 % of rest that is cut off, and beyond what short runs of the defaults showed (a quarter)."""
MOST_STEPS = 100.0
"""Of a discounted return, where critics' youth is told: with a discount near 1 nobody would ever be grown."""
SMALLEST_CORRELATION = 0.3
"""Below it a critic's order of states explains less than a tenth of the returns' order."""
SMALLEST_SPREAD = 0.1
"""Standard deviation of the returns over their size: below it there is little to order."""
MOST_DEAD = 0.8
"""Of a layer: teams that learn well show up to half."""
FEWEST_INPUTS = 100
"""Different inputs on which a unit must have been inactive to be called dead."""
MOST_SATURATED = 0.95
"""Full thrust is often right, and healthy policies reach it in most states; here it is nearly all they do."""
LARGEST_LOGITS = 10.0
"""tanh and softmax of such logits have gradients below 1e-4 nearly everywhere."""

_ON_PLATEAU = (
    f"; {PLATEAU:.0f} is the known plateau of this world, a listener that goes to the middle of the landmarks; "
    "a team that talks earns about -15"
)
_ALWAYS_THE_SAME = (
    "listeners react to there being a message but not to what it says, which is the same in every episode or of no use"
)
_NOTHING_TO_HEAR = (
    "listening was worth nothing while the speaker said nothing of use, and speaking nothing while nobody listened"
)
_STRAYED = (
    "after the time limit, where nobody trained, the team behaves in another way; a critic cannot know that, "
    "and so counts what it never saw"
)
_NOT_THERE_YET = (
    "critics start at 0 and have not come as far as the returns yet; if time does not mend it, the policy climbs their "
    "errors"
)
_CLIMBED = "the policy climbs errors of its critic: the maximum over actions picks what is overrated"
_TOO_LOW = (
    "the critic lags behind the policy, or has not met the states that are played now; the lower of two critics "
    "(matd3) counts too low by design"
)
_AGAINST_OVERESTIMATION = (
    "algorithm.name = matd3, which believes the lower of two critics",
    "a smaller algorithm.target_rate",
    "a lower algorithm.critic_learning_rate",
    "a lower replay.samples_per_insert",
    "more exploration (exploration.final_scale), so that what is overrated is tried",
)


def communication_warnings(ablations: Sequence[Ablation], spec: RunSpec) -> list[DiagnosisWarning]:
    """Warns of speakers whom nobody needs, or whom their own side would do better without."""
    found: list[DiagnosisWarning] = []
    for speaker, rows in groupby(ablations, lambda row: row.speaker):
        sides = list(rows)
        if not any(_matters(row.shuffled_cost, row.shuffled_cost_ci95, row.return_with) for row in sides):
            found.append(_ignored(speaker, sides, spec))
        elif len(sides) == 1 and sides[0].shuffled_cost < 0:
            found.append(_harmful(speaker, sides))
        elif _is_on_plateau(sides[0], spec):
            seen = f"{speaker} is hardly heard: {_returns_text(sides)}{_ON_PLATEAU}"
            found.append(DiagnosisWarning("communication", speaker, seen, _NOTHING_TO_HEAR, _advice_for_speakers(spec)))
    return found


def value_warnings(figures: Sequence[ValueFigures], spec: RunSpec, updates: int) -> list[DiagnosisWarning]:
    """Warns of critics that promise too much, too little, or nothing of use; of young ones, that they are young."""
    if updates < fewest_updates(spec):
        return [warned for own in figures for warned in _young_critic_warnings(own, spec, updates)]
    return [warned for own in figures for warned in (*_bias_warnings(own, spec), *_rank_warnings(own))]


def fewest_updates(spec: RunSpec) -> float:
    """Returns how many updates a critic needs before its errors mean anything.

    A reward comes into values one step further back with each time that targets follow their networks, which takes
    1 / target_rate of their moves, and 1 / (1 - discount) steps are what a value is made of.
    """
    own = spec.algorithm
    steps = 1.0 / max(1.0 - own.discount, 1.0 / MOST_STEPS)
    return steps / own.target_rate * (own.policy_every or (2 if "matd3" in own.name else 1))


def network_warnings(figures: Sequence[NetworkFigures], exploration: ExplorationSpec) -> list[DiagnosisWarning]:
    """Warns of hidden layers that are mostly dead, and of actions beyond the reach of gradients."""
    found: list[DiagnosisWarning] = []
    for own in figures:
        dead = [(i, share) for i, share in enumerate(own.dead) if share >= MOST_DEAD and own.inputs >= FEWEST_INPUTS]
        if dead:
            layers = ", ".join(f"{share:.0%} of hidden layer {i + 1}" for i, share in dead)
            found.append(
                DiagnosisWarning(
                    "networks",
                    own.network,
                    f"{own.network}: {layers} is active in no state that was played",
                    "steps so large that ReLU units fell below zero everywhere and get no gradient any more",
                    (
                        "lower algorithm.policy_learning_rate and algorithm.critic_learning_rate",
                        "algorithm.gradient_clip = 0.5",
                        "algorithm.reward_scale below 1 where returns are in the hundreds",
                    ),
                )
            )
        found += _output_warnings(own, exploration)
    return found


def _matters(cost: float, interval: tuple[float, float], whole: float) -> bool:
    low, high = interval
    return (low > 0 or high < 0) and abs(cost) > SMALLEST_EFFECT * abs(whole)


def _ignored(speaker: str, sides: Sequence[Ablation], spec: RunSpec) -> DiagnosisWarning:
    needs_sound = any(_matters(row.zeroed_cost, row.zeroed_cost_ci95, row.return_with) for row in sides)
    plateau = _ON_PLATEAU if _is_on_plateau(sides[0], spec) else ""
    return DiagnosisWarning(
        "communication",
        speaker,
        f"{speaker} is ignored: {_returns_text(sides)}{plateau}",
        _ALWAYS_THE_SAME if needs_sound else _NOTHING_TO_HEAR,
        _advice_for_speakers(spec),
    )


def _harmful(speaker: str, sides: Sequence[Ablation]) -> DiagnosisWarning:
    return DiagnosisWarning(
        "communication",
        speaker,
        f"{speaker} does harm: {_returns_text(sides)}",
        "another episode's messages serve better than its own: listeners take it for what it once said",
        ("train longer", "a lower exploration.final_scale", "a lower algorithm.policy_learning_rate"),
    )


def _returns_text(sides: Sequence[Ablation]) -> str:
    return "; ".join(
        f"return of {row.side} {row.return_with:.2f} with messages, {row.return_with - row.shuffled_cost:.2f} with "
        f"those of other episodes, {row.return_with - row.zeroed_cost:.2f} with none"
        for row in sides
    )


def _is_on_plateau(row: Ablation, spec: RunSpec) -> bool:
    """Whether a team of simple_speaker_listener earns what a deaf listener does, and little of it by listening."""
    changed = changed_options(spec.scenario, spec.world).keys()
    if spec.scenario.removeprefix("mpe2:") != "simple_speaker_listener" or changed & {"max_cycles", "dynamics"}:
        return False
    return abs(row.return_with - PLATEAU) < PLATEAU_WIDTH and row.shuffled_cost < PLATEAU_WIDTH


def _young_critic_warnings(own: ValueFigures, spec: RunSpec, updates: int) -> list[DiagnosisWarning]:
    if not _is_biased(own):
        return []
    seen = f"Q of {own.player} is {own.value:.2f} on average, the discounted return {own.realised:.2f}"
    means = (
        f"critics start at 0, and rewards come into their values step by step: with these settings that takes some "
        f"{fewest_updates(spec):,.0f} updates, and this run has had {updates:,}"
    )
    return [DiagnosisWarning("values", own.player, seen, means, ("train longer",), _direction(own))]


def _direction(own: ValueFigures) -> str:
    return "over" if own.bias > 0 else "under"


def _is_biased(own: ValueFigures) -> bool:
    low, high = own.bias_ci95
    over = own.relative_bias > LARGEST_RELATIVE_BIAS and low > 0
    return over or (own.relative_bias < -LARGEST_RELATIVE_BIAS and high < 0)


def _bias_warnings(own: ValueFigures, spec: RunSpec) -> list[DiagnosisWarning]:
    if not _is_biased(own):
        return []
    direction = _direction(own)
    seen = (
        f"Q of {own.player} is {own.value:.2f} on average, the discounted return {own.realised:.2f} "
        f"({own.relative_bias:+.0%} of the returns' size): {direction}estimated"
    )
    strays = abs(own.reward_beyond - own.reward_watched) > abs(own.reward_watched)
    if strays:
        seen += (
            f", where beyond the time limit it earns {own.reward_beyond:.2f} a step instead of {own.reward_watched:.2f}"
        )
        return [
            DiagnosisWarning(
                "values", own.player, seen, _STRAYED, ("a larger world.max_cycles to train in",), direction
            )
        ]
    if 0.0 <= own.value * own.realised < own.realised**2:
        first = ("train longer", *_AGAINST_OVERESTIMATION[:1])
        return [DiagnosisWarning("values", own.player, seen, _NOT_THERE_YET, first, direction)]
    if direction == "over":
        return [DiagnosisWarning("values", own.player, seen, _CLIMBED, _AGAINST_OVERESTIMATION)]
    tries = ("train longer", "a larger algorithm.target_rate", *_advice_maddpg(spec))
    return [DiagnosisWarning("values", own.player, seen, _TOO_LOW, tries)]


def _rank_warnings(own: ValueFigures) -> list[DiagnosisWarning]:
    if own.rank_correlation is None or own.rank_correlation >= SMALLEST_CORRELATION:
        return []
    if own.realised_std < SMALLEST_SPREAD * abs(own.realised):
        return []
    return [
        DiagnosisWarning(
            "values",
            own.player,
            f"Q of {own.player} and the returns are hardly ordered alike (rank correlation {own.rank_correlation:.2f})",
            "the critic does not tell good states from bad ones, so its gradient teaches the policy little",
            (
                "train longer",
                "a larger replay.batch or network.critic_hidden",
                "algorithm.reward_scale so that returns are of size 1 to 100",
            ),
        )
    ]


def _advice_for_speakers(spec: RunSpec) -> tuple[str, ...]:
    discrete = spec.world.get("continuous_actions") is False
    return (
        "another --seed, to see whether it was this one's luck",
        "algorithm.gumbel = soft" if discrete else "network.head = soft, so that messages are soft choices",
        "more exploration by the speaker for longer (exploration.scale, exploration.final_scale)",
        "algorithm.teammates = current, so that listener and speaker learn from what the other does now",
        "a smaller algorithm.action_regularisation",
        "train longer",
    )


def _advice_maddpg(spec: RunSpec) -> tuple[str, ...]:
    return ("algorithm.name = maddpg, which has one critic",) if "matd3" in spec.algorithm.name else ()


def _output_warnings(own: NetworkFigures, exploration: ExplorationSpec) -> list[DiagnosisWarning]:
    large = own.logit_size is not None and own.logit_size > LARGEST_LOGITS
    saturated = own.saturated is not None and own.saturated > MOST_SATURATED
    if not large and not saturated:
        return []
    seen = [f"its logits are of size {own.logit_size:.1f}"]
    if own.saturated is not None:
        seen.append(f"{own.saturated:.0%} of its squashed actions stand beyond 0.99 of their range")
    if own.top_probability is not None:
        seen.append(f"its likeliest choices have probability {own.top_probability:.3f}")
    drawn = own.top_probability is not None and exploration.choices == "gumbel"
    return [
        DiagnosisWarning(
            "networks",
            own.network,
            f"{own.network}: {', '.join(seen)}",
            "the policy stands where its gradient is next to nothing and hardly learns any more"
            + ("; drawing from such choices explores nothing either" if drawn else ""),
            (
                "a larger algorithm.action_regularisation (1e-3 to 1e-2)",
                "a lower algorithm.policy_learning_rate",
                *(("exploration.choices = epsilon",) if drawn else ()),
            ),
        )
    ]
