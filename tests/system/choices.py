"""Runs that together make every choice that a run's settings offer: the rows of tests/system/test_choices.py.

A row combines several choices, so that few rows cover all of them. `settings` is what a user writes after --set.
"""

from __future__ import annotations

from typing import NamedTuple

from common.run.normalisation import resolve_normalisation
from common.run.presets import PRESETS
from common.run.run import RunSpec, make_run_spec, parse_assignments

QUICK = ("replay.min_size=256", "replay.batch=32", "replay.samples_per_insert=4", "exploration.random_steps=128")
"""What makes a run learn after a few steps; rows may say otherwise."""


class Row(NamedTuple):
    """One run of `shoal train`."""

    scenario: str
    settings: tuple[str, ...]
    preset: str = "fast"
    actors: int = 1

    @property
    def assignments(self) -> list[str]:
        """What is given to --set."""
        return [*QUICK, *self.settings]

    @property
    def spec(self) -> RunSpec:
        """The settings of the run."""
        layer = parse_assignments(self.assignments)
        return resolve_normalisation(make_run_spec({"scenario": self.scenario}, PRESETS[self.preset], layer))


DISCRETE = "world.continuous_actions=false"
NORMALISED = ("algorithm.normalise_observations=true", "algorithm.normalise_rewards=true")

ROWS = {
    "fast": Row("simple_spread", ("budget.seconds=90",)),
    "particle": Row("simple", ("exploration.decay_steps=4000",), preset="particle"),
    "control": Row(
        "pettingzoo:mpe2.simple_spread_v3",
        ("replay.samples_per_insert=auto", "episode.stagger_steps=20", "world.continuous_actions=true"),
        preset="control",
    ),
    "paper": Row("simple_spread", (DISCRETE,), preset="paper"),
    "seed": Row("simple_spread", ("exploration.theta=0.3", "exploration.random_steps=0"), preset="seed"),
    "joint": Row(
        "simple_spread",
        (
            "algorithm.name=joint",
            "algorithm.team_spirit=0.5",
            "replay.n_step=3",
            "evaluation.times=100",
            "evaluation.episodes=3",
            "evaluation.share_of_time=1",
            *NORMALISED,
        ),
    ),
    "joint against iddpg, discrete": Row(
        "simple_tag",
        (
            DISCRETE,
            "algorithm.name='adversary=joint,agent=iddpg'",
            "algorithm.gumbel=soft",
            "algorithm.gumbel_temperature=0.5",
            "exploration.choices=epsilon",
        ),
    ),
    "joint on sides of the user's": Row(
        "simple_spread",
        (
            "algorithm.name='left=joint,right=maddpg'",
            "network.sides={left = ['agent_0', 'agent_1'], right = ['agent_2']}",
            "algorithm.side_learning_rates={left = 0.5}",
            "algorithm.final_team_spirit=0.5",
            "episode.max_steps=10",
        ),
    ),
    "iddpg, prioritised": Row(
        "simple_adversary",
        (
            "algorithm.name=iddpg",
            "algorithm.engine=stacked",
            *NORMALISED,
            "replay.priority_exponent=0.6",
            "replay.importance_exponent=0.5",
            "network.share_critics=false",
            "replay.limit=insert_only",
        ),
    ),
    "maddpg, told apart": Row(
        "simple_tag",
        (
            "algorithm.name=maddpg",
            "algorithm.engine=autograd",
            "network.tell_apart=true",
            "algorithm.learning_rate_decay=cosine",
            "algorithm.policy_weight_decay=1e-4",
            "algorithm.decoupled_weight_decay=true",
            "algorithm.reward_scale=0.5",
            "replay.error_buffer=2000",
        ),
    ),
    "masac": Row(
        "simple_spread",
        ("algorithm.name=masac", "algorithm.initial_temperature=0.02", "network.activation=gelu", *NORMALISED),
    ),
    "isac, discrete": Row("simple_tag", (DISCRETE, "algorithm.name=isac", "algorithm.entropy_target=0.4")),
    "masac against maddpg": Row("simple_tag", ("algorithm.name='adversary=masac,agent=maddpg'",)),
    "hatd3": Row("simple_spread", ("algorithm.name=hatd3", "algorithm.smoothing=0.1", "network.activation=elu")),
    "hasac, discrete, against masac": Row(
        "simple_tag",
        (DISCRETE, "algorithm.name='adversary=hasac,agent=masac'", "algorithm.side_learning_rates={agent = 0.5}"),
    ),
    "facmac": Row("simple_spread", ("algorithm.name=facmac", "network.activation=silu")),
    "facmac against hasac": Row("simple_tag", ("algorithm.name='adversary=facmac,agent=hasac'",)),
    "hasac": Row("simple_spread", ("algorithm.name=hasac",)),
    "m3ddpg": Row("simple_tag", ("algorithm.name=m3ddpg", "algorithm.perturbation=0.01")),
    "m3ddpg against masac, discrete": Row(
        "simple_tag",
        (DISCRETE, "algorithm.name='adversary=m3ddpg,agent=masac'", "algorithm.teammate_perturbation=0.01"),
    ),
    "soft choices": Row(
        "simple_spread",
        (
            "replay.batch=64",
            "replay.samples_per_insert=8",
            "replay.min_size=512",
            "network.head=soft",
            "network.initialisation=xavier",
            "algorithm.target_actions=sampled",
            "algorithm.gradient_clip_by=tensor",
            "algorithm.teammates=current",
            "algorithm.policy_every=3",
            "network.share=[['agent_0', 'agent_2']]",
            "budget.milestone_steps=500",
        ),
    ),
    "critics that read the state": Row(
        "pettingzoo:tests.actor_node.stateful_env",
        (
            "algorithm.critic_sees=state",
            "algorithm.engine=autograd",
            "network.activation=leaky_relu",
            "replay.n_step=2",
            "replay.sampler=tests.replay_server.own_samplers:Recent",
        ),
    ),
    "critics that read the state beside the observations": Row(
        "pettingzoo:tests.actor_node.stateful_env",
        ("algorithm.critic_sees=both", "algorithm.name=joint"),
    ),
    "critics and an algorithm of the user's own": Row(
        "simple_tag",
        (
            "network.critic=tests.learner_node.own_classes:Normed",
            "algorithm.name=tests.learner_node.own_classes:Doubled",
            "algorithm.variant=matd3",
            *NORMALISED,
        ),
    ),
    "weight norm": Row("simple_tag", ("network.critic_weight_norm=true", "algorithm.name=matd3")),
    "layer norm": Row(
        "simple_tag",
        (
            "network.activation=tanh",
            "network.policy_layer_norm=true",
            "network.critic_layer_norm=true",
            "algorithm.team_critic=true",
            *NORMALISED,
        ),
    ),
    "recurrent": Row(
        "simple_tag",
        (
            "network.recurrent=gru",
            "replay.sequence_steps=8",
            "replay.burn_in=4",
            "replay.n_step=2",
            "algorithm.teammates=current",
            *NORMALISED,
        ),
    ),
    "recurrent masac against joint, discrete": Row(
        "simple_tag",
        (DISCRETE, "network.recurrent=gru", "replay.burn_in=0", "algorithm.name='adversary=joint,agent=masac'"),
    ),
    "set critics": Row(
        "simple_tag",
        ("network.critic=set", "network.critic_layer_norm=true", "replay.n_step=2", *NORMALISED),
    ),
    "attention critics": Row("simple_tag", (DISCRETE, "network.critic=attention", "algorithm.teammates=current")),
    "distributions": Row(
        "simple_spread", ("algorithm.critic_loss=hl_gauss", "replay.priority_exponent=0.6", "replay.n_step=2")
    ),
    "off the ratio, discrete, a ladder": Row(
        "simple_speaker_listener",
        (
            DISCRETE,
            "world.history=2",
            "algorithm.smoothing=0.1",
            "algorithm.smoothing_clip=0.3",
            "exploration.ladder=0.1",
            "exploration.decay_share=0.5",
            "replay.limit=off",
            "replay.capacity=5000",
        ),
        actors=2,
    ),
}
