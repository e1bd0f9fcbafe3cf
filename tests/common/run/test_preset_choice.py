"""Which preset suits a world, and what of it depends on the world."""

from __future__ import annotations

import msgspec
import pytest

from common.run.preset_choice import PresetChoice, choose, describe, is_particle_world, layer, without_adapted
from common.run.presets import PRESETS
from common.run.run import UNLIMITED_ROWS, RunSpec, make_run_spec
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec, Box, Categorical, Part, joint_spec

OWN = "pettingzoo:my_env"
CONTINUOUS = joint_spec([("leg_0", "leg", 3, (Box((-1.0,), (1.0,)),))])
DISCRETE = joint_spec([("leg_0", "leg", 3, (Categorical(4),))])
MIXED = joint_spec([("leg_0", "leg", 3, (Categorical(4), Box((-1.0,), (1.0,))))])
CHEETAH = WorldFacts(steps=2_000, step_s=3e-4, time_limit=1_000, longest_episode=1_000)


def spec_of(
    agents: AgentsSpec = CONTINUOUS, facts: WorldFacts | None = CHEETAH, largest: int = UNLIMITED_ROWS
) -> RunSpec:
    choice = choose("control", OWN, agents, facts, 0)
    return make_run_spec({"scenario": OWN}, layer(choice, agents, facts, largest))


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("simple_spread", True),
        ("mpe2:simple_tag", True),
        ("pettingzoo:mpe2.simple_spread_v3", True),
        ("pettingzoo:mpe2_like.env", False),
        (OWN, False),
    ],
)
def test_particle_worlds_are_known_by_name(scenario: str, expected: bool) -> None:
    assert is_particle_world(scenario) == expected


@pytest.mark.parametrize(
    ("scenario", "facts", "limit", "preset", "reason"),
    [
        ("simple_tag", None, 0, "particle", "simple_tag is a particle world"),
        (OWN, CHEETAH, 0, "control", "episodes have up to 1,000 steps; a step takes 0.3 ms, actions are continuous"),
        (OWN, CHEETAH, 30, "particle", "episodes have up to 30 steps"),
        (OWN, WorldFacts(900, 1e-3, 25, 25), 0, "particle", "episodes have up to 25 steps; a step takes 1 ms"),
        (OWN, WorldFacts(20, 5e-2, 25, 0), 0, "control", "a step takes 50 ms"),
        (OWN, WorldFacts(5, 0.25), 0, "control", "no episode ended within 5 steps; a step takes 0.25 s"),
        (OWN, WorldFacts(90, 1e-3, 0, 23), 0, "control", "under random actions have up to 23 steps, without a known"),
        (OWN, None, 0, "control", "the length of its episodes is not known; actions are continuous"),
    ],
)
def test_auto_chooses_by_the_world(
    scenario: str, facts: WorldFacts | None, limit: int, preset: str, reason: str
) -> None:
    choice = choose("auto", scenario, CONTINUOUS, facts, limit)
    assert choice.preset == preset
    assert reason in choice.reason
    first, second = choice.lines(spec_of())
    assert first == f"preset: {preset}, because {choice.reason}"
    assert second.startswith("settings: discount 0.99, 3-step returns, networks of 256-256 not shared")


def test_a_preset_that_the_user_named_is_taken_without_a_word() -> None:
    choice = choose("paper", OWN, CONTINUOUS, CHEETAH, 0)
    assert (choice.preset, choice.lines(spec_of())) == ("paper", ())


@pytest.mark.parametrize(
    ("preset", "scenario", "facts", "copies"),
    [
        ("auto", "simple_spread", None, 32),
        ("control", "simple_spread", None, 32),
        ("auto", OWN, CHEETAH, 4),
        ("auto", OWN, None, 4),
        ("auto", OWN, WorldFacts(2_000, 1e-4, 1_000), 8),
        ("auto", OWN, WorldFacts(2_000, 1e-4, 1_000, batched=True), 32),
        ("particle", OWN, CHEETAH, 32),
        ("paper", OWN, CHEETAH, 32),
    ],
)
def test_copies_suit_the_world(preset: str, scenario: str, facts: WorldFacts | None, copies: int) -> None:
    assert choose(preset, scenario, CONTINUOUS, facts, 0).copies == copies


@pytest.mark.parametrize("preset", ["particle", "fast", "paper", "seed"])
def test_other_presets_are_as_written(preset: str) -> None:
    assert layer(PresetChoice(preset, "", 4, 1_000), DISCRETE, CHEETAH, 10) == PRESETS[preset]


def test_the_replay_of_control_fits_into_memory() -> None:
    assert spec_of().replay.capacity == 1_000_000
    assert spec_of(largest=60_000).replay.capacity == 60_000
    assert spec_of(largest=10).replay.capacity == spec_of(largest=10).replay.min_size == 8_000


@pytest.mark.parametrize(("step_s", "steps"), [(1e-4, 8_000), (1e-2, 3_000), (0.02, 1_500), (10.0, 1_000)])
def test_a_slow_world_has_a_shorter_warm_up(step_s: float, steps: int) -> None:
    spec = spec_of(facts=WorldFacts(10, step_s))
    assert spec.replay.min_size == spec.exploration.random_steps == steps


def test_choices_keep_their_exploration() -> None:
    assert spec_of().algorithm.action_regularisation == 1e-4
    assert spec_of(DISCRETE).algorithm.action_regularisation == 1e-3


@pytest.mark.parametrize(
    ("facts", "steps"),
    [
        (CHEETAH, 1_000),
        (None, 0),
        (WorldFacts(10, 1.0), 0),
        (WorldFacts(2_000, 1e-4, 1_000, batched=True), 0),
        (WorldFacts(90, 1e-2, 40), 0),
    ],
)
def test_long_episodes_of_separate_environments_start_staggered(facts: WorldFacts | None, steps: int) -> None:
    assert spec_of(facts=facts).episode.stagger_steps == steps


def test_nothing_in_control_depends_on_the_budget() -> None:
    spec = spec_of()
    assert spec.algorithm.final_learning_rate_share == 1.0
    assert spec.exploration.decay_steps > 0
    assert spec.algorithm.final_team_spirit is None
    assert spec.replay.priority_exponent == 0.0, "its importance exponent would rise over the budget"


def test_a_resumed_run_keeps_what_was_adapted_to_its_world() -> None:
    stored = spec_of(DISCRETE, WorldFacts(90, 0.02, 1_000), largest=5_000)
    assert without_adapted("control")["algorithm"]["discount"] == 0.99
    assert make_run_spec(msgspec.to_builtins(stored), without_adapted("control")) == stored


@pytest.mark.parametrize(
    ("parts", "head"),
    [
        ((Box((0.0,) * 5, (1.0,) * 5),), "soft"),
        ((Box((0.0,) * 5, (1.0,) * 5), Box((0.0,) * 3, (1.0,) * 3)), "soft"),
        ((Categorical(5),), "soft"),
        ((Box((-1.0,), (1.0,)),), "box"),
        ((Box((0.0,), (1.0,)),), "box"),
        ((Box((0.0,) * 5, (1.0,) * 5), Box((0.0, 0.0), (1.0, 2.0))), "box"),
    ],
)
def test_the_papers_soft_choices_are_taken_where_actions_can_be_such(parts: tuple[Part, ...], head: str) -> None:
    agents = joint_spec([("walker_0", "walker", 3, parts)])
    made = layer(PresetChoice("paper", "", 4, 25), agents, None, 10)
    assert made == {**PRESETS["paper"], "network": {**PRESETS["paper"]["network"], "head": head}}
    assert "head" not in without_adapted("paper")["network"], "a resumed run keeps its head"


def test_the_settings_are_described_in_one_line() -> None:
    assert describe(spec_of()) == (
        "discount 0.99, 3-step returns, networks of 256-256 not shared, as many updates as the learner can do (0.1 to "
        "1 a step), replay of 1,000,000, noise 0.15 to 0.1 in 200,000 steps, 8,000 steps of warm-up"
    )
    assert "128-128 shared by role, 4 samples per transition, replay of 100,000, noise 0.3 to 0.05, 5,000" in describe(
        RunSpec("simple_tag")
    )


def test_choices_are_described_without_a_scale_that_they_ignore() -> None:
    for agents, is_drawn in ((DISCRETE, True), (CONTINUOUS, False), (MIXED, False)):
        choice = choose("auto", OWN, agents, CHEETAH, 0)
        settings = choice.lines(spec_of(agents))[1]
        assert ("choices drawn from the policy's softmax, 8,000 steps" in settings) == is_drawn
        assert ("noise" in settings) != is_drawn
    greedy = make_run_spec({"scenario": OWN, "exploration": {"choices": "epsilon"}})
    assert "noise 0.3 to 0.05" in describe(greedy, only_choices=True)
