"""Tests of the warnings that follow from the figures of a diagnosis."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest

from actor_node.evaluation.ablation import Ablation, ablate
from common.run.run import AlgorithmSpec, RunSpec, make_run_spec
from learner_node.inspection.network_stats import NetworkStats, ValueStats
from shoal.commands.diagnose.log_figures import LogFigures, Returns, log_figures
from shoal.commands.diagnose.log_warnings import log_warnings
from shoal.commands.diagnose.team_warnings import (
    communication_warnings,
    min_updates,
    network_warnings,
    uniform_choice_warnings,
    value_warnings,
)
from shoal.commands.diagnose.warning import DiagnosisWarning, merged
from shoal.run_history import History
from tests.actor_node.talkers import run_of, talkers

from .report_runs import line

SPEC = make_run_spec({"scenario": "simple_speaker_listener"})
EXPLORATION = SPEC.exploration
ENOUGH_UPDATES = 10_000
"""Updates after which the critics of the default settings are meaningful."""


def heard(
    shuffled: float, zeroed: float = 0.0, *, whole: float = -20.0, side: str = "team", half: float = 0.5
) -> Ablation:
    around = [(cost - half, cost + half) for cost in (zeroed, shuffled)]
    return Ablation("speaker_0", side, whole, zeroed, around[0], shuffled, around[1])


def values(relative: float = 0.0, correlation: float | None = 0.9, **fields: Any) -> ValueStats:
    bias = 10.0 * relative
    known = {"value": -10.0 + bias, "realised": -10.0, "realised_std": 3.0, "bias": bias}
    known |= {"bias_ci95": (bias - 0.5, bias + 0.5), "reward_watched": -0.5, "reward_beyond": -0.4}
    return ValueStats(
        **{"player": "agent_0", "relative_bias": relative, "rank_correlation": correlation, **known, **fields}
    )


def network(**fields: Any) -> NetworkStats:
    return NetworkStats(
        **{"network": "agent_0", "inputs": 5000, "hidden_units": (64, 64), "dead": (0.0, 0.1), **fields}
    )


def log(lines: int = 40, **columns: Any) -> LogFigures:
    """Returns the figures of a log whose columns are functions of the progress of the run, 0 to 1."""
    rows = [line(i, 2, **{name: make(i / (lines - 1)) for name, make in columns.items()}) for i in range(lines)]
    run = run_of(replay={"samples_per_insert": 16.0})
    figures = log_figures(History(rows), run)
    assert figures is not None
    return figures


# ---- communication ------------------------------------------------------------------------------------------------


def test_a_team_that_listens_has_no_warning_and_a_deaf_one_has() -> None:
    run = run_of()
    listening, deaf = (ablate(run, talkers(run, listens=listens), 200, 1) for listens in (True, False))
    assert communication_warnings(listening, run.spec) == []
    (ignored,) = communication_warnings(deaf, run.spec)
    assert ignored.seen.startswith("messages of speaker_0 are ignored: return of team -")
    assert "-29 is a known local optimum" in ignored.seen
    assert any("network.head" in one for one in ignored.to_try)


def test_the_plateau_is_only_reported_for_the_default_speaker_listener() -> None:
    hardly = heard(2.0, whole=-29.5)
    (warning,) = communication_warnings([hardly], SPEC)
    assert "hardly used" in warning.seen
    for other in ({"scenario": "simple_reference"}, {"scenario": SPEC.scenario, "world": {"dynamics": "legacy"}}):
        assert not communication_warnings([hardly], make_run_spec(other))
    for off in (heard(2.0, whole=-15.0), heard(2.0, whole=-60.0), heard(8.0, whole=-29.5)):
        assert not communication_warnings([off], SPEC)


@pytest.mark.parametrize(
    ("ablation", "is_ignored"),
    [
        (heard(5.0), False),
        (heard(0.3), True),
        # Significant, but a hundredth of the return.
        (heard(0.2, half=0.1), True),
        # Silence costs, wrong messages do not: the content is ignored.
        (heard(0.1, zeroed=9.0), True),
    ],
)
def test_a_speaker_is_ignored_if_shuffled_messages_cost_nothing(ablation: Ablation, is_ignored: bool) -> None:
    assert bool(communication_warnings([ablation], SPEC)) is is_ignored
    if is_ignored:
        (warning,) = communication_warnings([ablation], SPEC)
        assert ("react to the presence of a message" in warning.means) is (ablation.zeroed_cost > 1)


def test_a_speaker_is_not_ignored_if_one_side_listens() -> None:
    """Eve receives the messages of alice too, and uses them for the return of another side."""
    assert not communication_warnings([heard(0.0, side="agent"), heard(6.0, side="adversary")], SPEC)
    assert len(communication_warnings([heard(0.0, side="agent"), heard(0.1, side="adversary")], SPEC)) == 1


def test_harmful_messages_cause_a_warning() -> None:
    (warning,) = communication_warnings([heard(-4.0)], SPEC)
    assert "do harm" in warning.seen


# ---- values and networks ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        (values(), []),
        (values(0.2), []),
        (values(0.6), ["overestimated"]),
        (values(-0.6), ["underestimated"]),
        (values(0.6, bias_ci95=(-3.0, 15.0)), []),
        (values(correlation=0.1), ["hardly correlates"]),
        (values(0.6, correlation=-0.2), ["overestimated", "hardly correlates"]),
        (values(correlation=0.1, realised_std=0.2), []),
        (values(correlation=None), []),
    ],
)
def test_warnings_of_values(figures: ValueStats, words: list[str]) -> None:
    seen = [warning.seen for warning in value_warnings([figures], SPEC, ENOUGH_UPDATES)]
    assert len(seen) == len(words)
    assert all(word in one for word, one in zip(words, seen, strict=True))


def test_the_usual_causes_of_a_bias() -> None:
    """Closer to 0 than the returns: too young. Beyond 0: exploited. Other rewards later: the time limit."""
    young, exploited, after_limit, low = (
        value_warnings([own], SPEC, ENOUGH_UPDATES)[0]
        for own in (values(0.6), values(1.6), values(0.6, reward_beyond=-5.0), values(-0.6))
    )
    assert "start at 0" in young.means
    assert "exploits errors" in exploited.means
    assert "earns -5.00 a step instead of -0.50" in after_limit.seen
    assert any("world.max_cycles" in one for one in after_limit.to_try)
    assert "lags behind" in low.means


def test_a_run_of_few_updates_is_only_advised_to_train_longer() -> None:
    """The critics are near 0, whatever the team does after the time limit."""
    young = values(0.9, 0.0, reward_beyond=-5.0)
    (warning,) = value_warnings([young], SPEC, 60)
    assert warning.to_try == ("train longer",)
    assert "about 1,000 updates with these settings; this run has made 60" in warning.means
    assert value_warnings([values(0.1, 0.0)], SPEC, 60) == []
    enough = round(min_updates(SPEC))
    assert enough == 1_000
    assert min_updates(msgspec.structs.replace(SPEC, algorithm=AlgorithmSpec(name="matd3"))) == pytest.approx(2_000)
    assert len(value_warnings([young], SPEC, enough + 1)) == 2


def test_equal_warnings_are_merged() -> None:
    three = [values(1.6, player=f"agent_{i}") for i in range(3)]
    (warning,) = merged(value_warnings(three, SPEC, ENOUGH_UPDATES))
    assert warning.about == "agent_0, agent_1, agent_2"
    assert warning.seen.endswith("overestimated; likewise agent_1, agent_2")
    assert len(merged(value_warnings([*three, values(-0.6)], SPEC, ENOUGH_UPDATES))) == 2


def test_over_and_underestimates_are_not_merged() -> None:
    """Both have the same cause and advice: other behaviour after the time limit."""
    over, under = values(1.6, player="a", reward_beyond=-5.0), values(-1.6, player="b", reward_beyond=-9.0)
    first, second = merged(value_warnings([over, under], SPEC, ENOUGH_UPDATES))
    assert (first.means, first.to_try) == (second.means, second.to_try)
    assert ("overestimated" in first.seen, "underestimated" in second.seen) == (True, True)


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        (network(), None),
        (network(dead=(0.1, 0.9)), "90% of hidden layer 2"),
        (network(dead=(0.5, 0.7)), None),
        (network(dead=(0.9, 0.9), inputs=3), None),
        (network(logit_size=2.0, saturated=0.5), None),
        (network(logit_size=4.0, saturated=0.99), "99% of the squashed actions"),
        (network(logit_size=25.0, top_probability=1.0, entropy=0.0), "logits are of size 25.0"),
    ],
)
def test_warnings_of_networks(figures: NetworkStats, word: str | None) -> None:
    found = network_warnings([figures], EXPLORATION)
    assert len(found) == (word is not None)
    assert word is None or word in found[0].seen


FLAT, RISEN = Returns(-80.0, -78.0, -79.0, 1.0), Returns(-80.0, -60.0, -61.0, 1.0)


@pytest.mark.parametrize(
    ("entropy", "returns", "sides", "is_warned"),
    [
        (0.99, FLAT, 1, True),
        (0.80, FLAT, 1, False),
        (None, FLAT, 1, False),
        (0.99, RISEN, 1, False),
        (0.99, None, 1, False),
        (0.99, FLAT, 2, False),
    ],
)
def test_nearly_uniform_choices_are_warned_of_if_the_return_did_not_rise(
    entropy: float | None, returns: Returns | None, sides: int, is_warned: bool
) -> None:
    found = uniform_choice_warnings([network(entropy=entropy)], returns, sides)
    assert len(found) == is_warned
    if found:
        assert "99% of the largest possible" in found[0].seen
        assert "(-80.0 in the first tenth, -78.0 at best)" in found[0].seen
        assert "lower algorithm.action_regularisation" in found[0].to_try


# ---- the log ------------------------------------------------------------------------------------------------------


def test_a_healthy_log_has_no_warnings() -> None:
    assert log_warnings(log(), SPEC, sides=1) == []
    assert log_warnings(None, SPEC, sides=1) == []


@pytest.mark.parametrize(
    ("columns", "about"),
    [
        ({"policy_lag": lambda t: 9.0 * t}, "policy lag"),
        ({"critic_gradient_norm": lambda t: [0.5, 10.0 ** (4 * t)]}, "gradients clipping"),
        ({"critic_gradient_norm": lambda t: [0.5, 300.0]}, "clipping"),
        ({"critic_gradient_norm": lambda t: [0.5, 30.0]}, ""),
        ({"episode_steps": lambda t: 1_000.0}, "discount"),
        ({"episode_steps": lambda t: 100.0}, ""),
        ({"critic_loss": lambda t: [10.0 ** (4 * t), 0.1]}, "gradients"),
        ({"return_mean": lambda t: -80 + 60 * np.sin(np.pi * min(1.0, t + 0.1))}, "returns"),
        ({"samples_per_insert": lambda t: 8.0 * t}, "samples per insert"),
        ({"trained_s": lambda t: 20.0 * t}, "waiting"),
    ],
)
def test_warnings_of_the_log(columns: dict[str, Any], about: str) -> None:
    assert " ".join(warning.about for warning in log_warnings(log(**columns), SPEC, sides=1)) == about


def test_returns_of_several_sides_are_not_compared() -> None:
    fallen = msgspec.structs.replace(log(), returns=Returns(-80.0, -20.0, -75.0, 1.0))
    assert len(log_warnings(fallen, SPEC, sides=1)) == 1
    assert log_warnings(fallen, SPEC, sides=2) == []
    noisy = msgspec.structs.replace(log(), returns=Returns(-80.0, -20.0, -36.0, 6.0))
    assert log_warnings(noisy, SPEC, sides=1) == []


def test_figures_of_the_log() -> None:
    figures = log(
        critic_gradient_norm=lambda t: [0.1, 1.0 if t > 0.5 else 0.25],
        policy_gradient_norm=lambda t: [0.1, 0.2],
        actors_waited_s=lambda t: 39.0 * t,
    )
    assert (figures.critic_gradient_norm, figures.critic_gradient_growth) == (1.0, 4.0)
    assert (figures.critics_clipped, figures.policies_clipped) == (1.0, 0.0)
    assert figures.learner_waited == pytest.approx(0.05)
    # 39 s of two actors' 78 s each.
    assert figures.actors_waited == pytest.approx(0.25)
    assert log_figures(History([line(i, 2) for i in range(5)]), run_of()) is None
    nothing = log_figures(History([{"updates": i} for i in range(20)]), run_of())
    assert nothing is not None
    assert nothing.policy_lag is nothing.returns is nothing.critic_loss_growth is nothing.learner_waited is None


# ---- advice -------------------------------------------------------------------------------------------------------


def test_every_advised_setting_exists() -> None:
    text = " ".join(one for warning in _all_warnings() for one in warning.to_try)
    named = set(re.findall(r"\b(?:network|algorithm|exploration|replay|budget|world)\.[a-z_]+", text))
    assert len(named) > 10
    known = {
        f"{section}.{field.name}"
        for section in ("network", "algorithm", "exploration", "replay", "budget")
        for field in msgspec.structs.fields(type(getattr(SPEC, section)))
    }
    assert named <= known | {"world.max_cycles"}


def test_current_settings_are_not_advised() -> None:
    settings = {"algorithm": {"name": "matd3", "gradient_clip": 0.5}, "network": {"head": "soft"}}
    spec = make_run_spec({"scenario": SPEC.scenario, **settings})
    other = make_run_spec({"scenario": SPEC.scenario, "algorithm": {"name": "iddpg", "gradient_clip": 0.1}})
    advice = {
        name: " ".join(one for warning in _all_warnings() for one in warning.without_current_settings(fits).to_try)
        for name, fits in (("this", spec), ("other", other))
    }
    for setting in ("algorithm.name = matd3", "algorithm.gradient_clip = 0.5", "network.head = soft"):
        assert setting not in advice["this"]
        assert setting in advice["other"]
    assert "lower algorithm.target_rate" in advice["this"]


def _all_warnings() -> list[DiagnosisWarning]:
    discrete: RunSpec = make_run_spec({"scenario": SPEC.scenario, "world": {"continuous_actions": False}})
    bad = msgspec.structs.replace(
        log(), policy_lag=9.0, critic_loss_growth=99.0, learner_waited=0.9, samples_per_insert=1.0
    )
    bad = msgspec.structs.replace(bad, returns=Returns(-80.0, -20.0, -75.0, 1.0))
    maddpg = make_run_spec({"scenario": "simple_spread", "algorithm": {"name": "maddpg"}})
    return [
        *(
            warning
            for spec in (SPEC, discrete)
            for cost in (0.0, 2.0, -4.0)
            for warning in communication_warnings([heard(cost, whole=-29.0)], spec)
        ),
        *uniform_choice_warnings([network(entropy=0.99)], FLAT, 1),
        *(
            warning
            for spec in (SPEC, maddpg)
            for bias in (0.6, 1.6, -1.0)
            for warning in value_warnings([values(bias, 0.0)], spec, ENOUGH_UPDATES)
        ),
        *network_warnings([network(dead=(0.9,), logit_size=99.0, top_probability=1.0)], EXPLORATION),
        *log_warnings(bad, SPEC, sides=1),
    ]
