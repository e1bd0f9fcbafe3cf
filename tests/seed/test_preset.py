"""`--preset seed` is what docs/seed.md says: number by number, in its units, and whatever the defaults become."""

from __future__ import annotations

from typing import Any

import click
import msgspec
import numpy as np
import pytest

from actor_node.collection.exploration import Exploration
from common.errors import ConfigError
from common.policy.heads import check_head
from common.process import command
from common.run.presets import PRESETS
from common.run.run import RunSpec, make_run_spec
from common.worlds import scenarios, world_spec
from deploy.local.config import PRESET_PROCESSES, TrainConfig
from learner_node.timing import schedule
from shoal.cli import shoal
from tests.common.head_examples import MOVERS
from tests.learner_node.stacked.test_update import Pair
from tests.learner_node.teams import TEAMS

SEED = make_run_spec({"scenario": "simple_adversary"}, PRESETS["seed"])
WORLDS, EPISODE, EPISODES, BATCH = 4, 80, 1_000, 1_000
"""Of the document: `parallel_envs`, `episode_length`, `number_of_episodes`, `batchsize`."""


def document_updates(episodes: int) -> list[int]:
    """Returns how many transitions the document's buffer holds at each of its updates."""
    held, found = 0, []
    for episode in range(0, episodes, WORLDS):
        held += WORLDS * EPISODE
        if held > BATCH and episode % (2 * WORLDS) < WORLDS:
            found.append(held)
    return found


# ---- its numbers --------------------------------------------------------------------------------------------------

NUMBERS: dict[str, Any] = {
    "world": {"max_cycles": 80},
    "network": {
        "policy_hidden": (16, 8),
        "critic_hidden": (32, 16),
        "activation": "relu",
        "policy_layer_norm": False,
        "critic_layer_norm": False,
        "critic_weight_norm": False,
        "share_policies": False,
        "share_critics": False,
        "head": "force",
    },
    "algorithm": {
        "name": "maddpg",
        "discount": 0.95,
        "target_rate": 0.02,
        "policy_learning_rate": 0.01,
        "critic_learning_rate": 0.01,
        "final_learning_rate_share": 1.0,
        "critic_loss": "huber",
        "gradient_clip": 0.0,
        "action_regularisation": 0.0,
        "policy_weight_decay": 0.0,
        "critic_weight_decay": 1e-5,
        "decoupled_weight_decay": False,
        "reward_scale": 1.0,
        "team_spirit": 0.0,
        "teammates": "current",
        "team_critic": False,
    },
    "exploration": {
        "kind": "ornstein_uhlenbeck",
        "scale": 0.2,
        "final_scale": 0.0,
        "decay": "exponential",
        "decay_rate": pytest.approx(0.9999**0.25, rel=1e-12),
        "theta": 0.15,
        "ladder": 1.0,
        "random_steps": 0,
    },
    "replay": {
        "capacity": 400_000,
        "batch": 1_000,
        "samples_per_insert": 1.5625,
        "min_size": 1_000,
        "n_step": 1,
        "priority_exponent": 0.0,
    },
    "budget": {"steps": 80_000, "milestone_steps": 80_000},
    "logging": {"tensorboard": "numbered"},
}

WITHOUT_EFFECT = {
    "network.sides": "the world's",
    "network.share": "nothing is shared",
    "network.tell_apart": "nothing is shared",
    "network.recurrent": "none",
    "algorithm.learning_rate_decay": "rates stay",
    "algorithm.side_learning_rates": "empty",
    "algorithm.policy_every": "1 under maddpg",
    "algorithm.smoothing": "matd3's",
    "algorithm.smoothing_clip": "matd3's",
    "algorithm.perturbation": "m3ddpg's",
    "algorithm.teammate_perturbation": "m3ddpg's",
    "algorithm.final_team_spirit": "none",
    "algorithm.engine": "both learn the same",
    "algorithm.variant": "for a class of the user's",
    "algorithm.entropy_target": "masac's",
    "algorithm.initial_temperature": "masac's",
    "algorithm.gradient_clip_by": "nothing is clipped",
    "algorithm.target_actions": "for choices and soft vectors",
    "algorithm.gumbel": "for choices",
    "algorithm.gumbel_temperature": "for choices",
    "exploration.choices": "for choices",
    "exploration.decay_share": "for a linear decay",
    "exploration.decay_steps": "for a linear decay",
    "replay.error_buffer": "chosen by what is in use",
    "replay.limit": "who waits, not how often",
    "replay.importance_exponent": "for prioritised sampling",
    "replay.sequence_steps": "for recurrent policies",
    "replay.burn_in": "for recurrent policies",
    "budget.seconds": "steps end it",
}


@pytest.mark.parametrize("section", NUMBERS)
def test_every_number_is_the_documents(section: str) -> None:
    found = msgspec.to_builtins(getattr(SEED, section))
    assert {name: found[name] for name in NUMBERS[section]} == NUMBERS[section]


def test_what_it_means_hangs_on_no_default() -> None:
    """Whoever adds a setting says here or in common/run/presets.py what the document has for it."""
    sections = {field.name: field.type for field in msgspec.structs.fields(RunSpec) if field.name in NUMBERS}
    known = {
        f"{name}.{field.name}"
        for name, kind in sections.items()
        if name != "world"
        for field in msgspec.structs.fields(kind)
    }
    said = {f"{name}.{key}" for name, values in PRESETS["seed"].items() if name != "world" for key in values}
    assert known - said == set(WITHOUT_EFFECT)


def test_noise_falls_as_in_the_documents_loop() -> None:
    """It starts at 2 of forces up to 10 and is multiplied by 0.9999 each time that all four worlds take a step."""
    amplitude = 2.0
    for loop in range(20_001):
        if loop % 4_000 == 0:
            scale = schedule.exploration_scale(SEED.exploration, 0.0, WORLDS * loop)
            assert scale == pytest.approx(amplitude / 10.0, rel=1e-9)
        amplitude *= 0.9999


def test_noise_of_an_amplitude_is_that_share_of_a_full_force() -> None:
    explore = Exploration(MOVERS, SEED.exploration, 20_000, np.random.default_rng(0), SEED.network.head)
    thrust = explore.act(np.zeros((20_000, MOVERS.action_dim), np.float32), 0.2, 0.0).reshape(-1, 5)
    for forth, back in ((2, 1), (4, 3)):
        assert (thrust[:, forth] - thrust[:, back]).std() == pytest.approx(0.2, rel=0.02)


def test_it_updates_as_often_as_the_document() -> None:
    expected = document_updates(EPISODES)
    assert len(expected) == 123
    assert set(np.diff(expected)) == {BATCH / SEED.replay.samples_per_insert}
    by_ratio = (SEED.budget.steps - SEED.replay.min_size) * SEED.replay.samples_per_insert / SEED.replay.batch
    assert by_ratio == pytest.approx(len(expected), abs=1.0)


@pytest.mark.parametrize("team", ["spread", "tag"])
def test_its_update_equals_the_literal_one(team: str) -> None:
    pair = Pair(TEAMS[team], SEED.algorithm, SEED.network)
    for seed in range(3):
        pair.update(seed, absences=False)
    pair.compare()


# ---- what `shoal train` starts ------------------------------------------------------------------------------------


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, int]:
    """Returns the workers and copies that `shoal train` would start with these arguments."""
    train = shoal.get_command(click.Context(shoal), "train")
    assert train is not None
    found: list[TrainConfig] = []

    class Enough(Exception):
        """Ends the command where it has read its options."""

    def note(config: TrainConfig, *_: object) -> None:
        found.append(config)
        raise Enough

    monkeypatch.setattr("shoal.commands.train.cli.TrainingSession", note)
    with pytest.raises(Enough), train.make_context("train", ["simple_adversary", *arguments]) as context:
        train.invoke(context)
    return found[0].actors, found[0].copies


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--preset", "seed"], (1, 4)),
        (["--preset", "seed", "--actors", "2"], (2, 4)),
        (["--preset", "seed", "--copies", "32"], (1, 32)),
        (["--preset", "paper"], (2, 0)),
        ([], (2, 0)),
    ],
)
def test_four_worlds_are_played_side_by_side_unless_told_otherwise(
    arguments: list[str], expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert started(monkeypatch, *arguments) == expected


def test_what_environment_or_file_say_wins_over_the_preset(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "shoal.toml"
    file.write_text('preset = "seed"\nactors = 3\n')
    monkeypatch.setenv("SHOAL_COPIES", "5")
    assert started(monkeypatch, "--config", str(file)) == (3, 5)


def test_what_a_preset_starts_are_options_of_the_command() -> None:
    known = {field.name for field in msgspec.structs.fields(TrainConfig)}
    assert PRESET_PROCESSES.keys() <= PRESETS.keys()
    assert all(values.keys() <= known for values in PRESET_PROCESSES.values())


def test_only_defaults_are_replaced() -> None:
    @click.command()
    @click.option("--one", default=1)
    @click.option("--two", default=2)
    def read(one: int, two: int) -> None:
        """Reads."""

    with read.make_context("read", ["--one", "1"]) as context:
        assert command.unless_given(context, {"one": 10, "two": 20}) == {"two": 20}


# ---- where it runs ------------------------------------------------------------------------------------------------

SPEAKERS_ONLY = {"simple_crypto"}


@pytest.mark.parametrize("scenario", sorted(row.name for row in scenarios()))
def test_it_runs_in_every_world_with_agents_that_move(scenario: str) -> None:
    spec = make_run_spec({"scenario": scenario}, PRESETS["seed"])
    joint = world_spec(scenario, **spec.world)
    if scenario not in SPEAKERS_ONLY:
        check_head(joint, spec.network)
        return
    with pytest.raises(ConfigError, match="no agent of this world acts by a force"):
        check_head(joint, spec.network)
