"""Chooses a preset by the world, and adapts the presets `control` and `paper` to it. Pure.

| world                                                                          | preset     |
|--------------------------------------------------------------------------------|------------|
| one of the twelve scenarios, also as `mpe2:NAME` or `pettingzoo:mpe2.NAME`     | `particle` |
| another one with episodes of at most MAX_SHORT_EPISODE steps, each at most QUICK_S | `particle` |
| any other                                                                      | `control`  |

`control` depends on the world in a few settings, `paper` in the head of continuous actions (`layer`); everything else
is in common/run/presets.py. The choice is made once: `run.toml` stores the resulting settings, and a resumed run keeps
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from common.run.presets import PRESETS
from common.run.run import RunSpec
from common.run.world_facts import WorldFacts
from common.spec import AgentsSpec, Box, Categorical

AUTO, PARTICLE, CONTROL, PAPER = "auto", "particle", "control", "paper"
MAX_SHORT_EPISODE = 100
"""Longest episode for which `particle` is chosen [environment steps]: ten times the horizon of its
discount, 1 / (1 - discount)."""
QUICK_S = 1e-2
"""Longest step for which `particle` is chosen [s]. `particle` samples each transition 4 times on average; one that
takes longer to collect is worth more samples."""
MAX_WARM_UP_S = 30.0
"""Time that one actor process may take for the warm-up of `control` [s]."""
MIN_WARM_UP_STEPS = 1_000
BATCHED_COPIES = 32
QUICK_COPIES, FEW_COPIES = 8, 4
"""Copies of a world that steps copy by copy, with steps of at most QUICK_STEP_S and with slower ones: more copies do
not step faster, and the first long episode ends later."""
QUICK_STEP_S = 1e-4
"""Longest step for which QUICK_COPIES are chosen [s]. In quicker worlds most of the time goes into the numpy calls
that serve all copies of a worker at once, so more copies share their cost."""
_PARTICLE_PREFIXES = ("mpe2:", "pettingzoo:mpe2.", "pettingzoo:mpe2/", "pettingzoo:mpe/", "pettingzoo:pettingzoo.mpe.")
_ADAPTED: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    CONTROL: {
        "algorithm": ("action_regularisation",),
        "exploration": ("random_steps",),
        "replay": ("capacity", "min_size"),
        "episode": ("stagger_steps",),
    },
    PAPER: {"network": ("head",)},
}
"""Settings of a preset that depend on the world, by section."""


class PresetChoice(NamedTuple):
    """The preset of a new run, and what follows from its world."""

    preset: str
    reason: str
    """Why it was chosen; empty if the user named it."""
    copies: int
    """Copies that each worker steps, unless the user says otherwise."""
    episode_steps: int
    """Length at which episodes are truncated [environment steps]; 0 if it is not known."""
    only_choices: bool = False
    """Whether no agent has a continuous action."""

    def lines(self, spec: RunSpec) -> tuple[str, ...]:
        """Returns two lines about the preset and the settings of the run; none if the user named the preset."""
        if not self.reason:
            return ()
        return (
            f"preset: {self.preset}, because {self.reason}",
            f"settings: {describe(spec, only_choices=self.only_choices)}",
        )


def is_particle_world(scenario: str) -> bool:
    """Returns whether a name is one of the twelve scenarios, or mpe2's environment of that name."""
    return ":" not in scenario or scenario.startswith(_PARTICLE_PREFIXES)


def choose(
    preset: str, scenario: str, agents: AgentsSpec, facts: WorldFacts | None, max_episode_steps: int
) -> PresetChoice:
    """Returns the preset that the user named, or for `auto` the one that suits the world.

    facts: measurements of the first copy; None if there are none. max_episode_steps: the user's time limit; 0 = none.
    """
    limit = _time_limit(facts, max_episode_steps)
    reason = ""
    if preset == AUTO:
        preset, reason = _suited_preset(scenario, agents, facts, limit)
    is_batched = ":" not in scenario or (facts is not None and facts.batched)
    only_choices = all(isinstance(part, Categorical) for agent in agents.agents for part in agent.parts)
    return PresetChoice(preset, reason, _copies(preset, facts, is_batched=is_batched), limit, only_choices)


def layer(
    choice: PresetChoice, agents: AgentsSpec, facts: WorldFacts | None, max_capacity: int
) -> dict[str, dict[str, Any]]:
    """Returns the layer of settings of a preset: its differences from the defaults, adapted to the world.

    max_capacity: transitions that fit into memory.
    """
    settings = {section: dict(values) for section, values in PRESETS[choice.preset].items()}
    parts = [part for agent in agents.agents for part in agent.parts]
    if choice.preset == PAPER and any(isinstance(part, Box) and not part.fits_soft_choice for part in parts):
        # Only moves and words of the particle worlds can be soft choices.
        settings["network"]["head"] = "box"
    if choice.preset != CONTROL:
        return settings
    replay, exploration = settings["replay"], settings["exploration"]
    warm_up = _warm_up(exploration["random_steps"], facts)
    replay["capacity"] = max(min(replay["capacity"], max_capacity), warm_up)
    replay["min_size"] = exploration["random_steps"] = warm_up
    if any(isinstance(part, Categorical) for part in parts):
        # Large logits end the exploration of choices, which are drawn from the policy's softmax.
        settings["algorithm"]["action_regularisation"] = 1e-3
    if facts is not None and not facts.batched and choice.episode_steps > MAX_SHORT_EPISODE:
        settings["episode"] = {"stagger_steps": choice.episode_steps}
    return settings


def without_adapted(preset: str) -> dict[str, dict[str, Any]]:
    """Returns a preset's settings without those that depend on the world, which a resumed run keeps."""
    adapted = _ADAPTED.get(preset, {})
    return {
        section: {key: value for key, value in values.items() if key not in adapted.get(section, ())}
        for section, values in PRESETS[preset].items()
    }


def describe(spec: RunSpec, *, only_choices: bool = False) -> str:
    """Returns the settings that presets differ in, as text. only_choices: whether no agent has a continuous action."""
    algorithm, replay, network, exploration = spec.algorithm, spec.replay, spec.network, spec.exploration
    sharing = "shared by role" if network.share_policies or network.share_critics else "not shared"
    ratio = (
        f"{replay.samples_per_insert:g} samples per transition"
        if not replay.is_auto
        else "as many updates as the learner can do (0.1 to 1 a step)"
    )
    drawn = only_choices and exploration.choices == "gumbel"  # which has no scale
    falls = "" if exploration.scale == exploration.final_scale else f" to {exploration.final_scale:g}"
    span = f" in {exploration.decay_steps:,} steps" if falls and exploration.decay_steps else ""
    explored = "choices drawn from the policy's softmax" if drawn else f"noise {exploration.scale:g}{falls}{span}"
    normalised = (["observations"] if algorithm.normalises_observations else []) + (
        ["rewards"] if algorithm.normalises_rewards else []
    )
    normalisation = f", normalised {' and '.join(normalised)}" if normalised else ""
    return (
        f"discount {algorithm.discount:g}, {replay.n_step}-step returns, networks of "
        f"{'-'.join(map(str, network.policy_hidden))} {sharing}, {ratio}, replay of {replay.capacity:,}, "
        f"{explored}, {replay.min_size:,} steps of warm-up{normalisation}"
    )


def _time_limit(facts: WorldFacts | None, max_episode_steps: int) -> int:
    known = [limit for limit in (facts.time_limit if facts else 0, max_episode_steps) if limit]
    return min(known, default=0)


def _suited_preset(scenario: str, agents: AgentsSpec, facts: WorldFacts | None, limit: int) -> tuple[str, str]:
    """Returns the preset for a world and the reason."""
    if is_particle_world(scenario):
        return PARTICLE, f"{scenario} is a particle world"
    kinds = {type(part) for agent in agents.agents for part in agent.parts}
    actions = "mixed" if len(kinds) > 1 else "discrete" if Categorical in kinds else "continuous"
    if facts is None:
        return CONTROL, f"the length of its episodes is not known; actions are {actions}"
    step = f"a step takes {_milliseconds(facts.step_s)}, actions are {actions}"
    if not limit:
        seen = (
            f"episodes under random actions have up to {facts.longest_episode:,} steps, without a known limit"
            if facts.longest_episode
            else f"no episode ended within {facts.steps:,} steps"
        )
        return CONTROL, f"{seen}; {step}"
    length = f"episodes have up to {limit:,} steps"
    is_short = limit <= MAX_SHORT_EPISODE and facts.step_s <= QUICK_S
    return PARTICLE if is_short else CONTROL, f"{length}; {step}"


def _copies(preset: str, facts: WorldFacts | None, *, is_batched: bool) -> int:
    if preset != CONTROL or is_batched:
        return BATCHED_COPIES
    return QUICK_COPIES if facts is not None and facts.step_s <= QUICK_STEP_S else FEW_COPIES


def _warm_up(steps: int, facts: WorldFacts | None) -> int:
    """Returns the length of the warm-up: shorter in a slow world, where it would use the whole time of a run."""
    if facts is None:
        return steps
    fitting = int(MAX_WARM_UP_S / max(facts.step_s, 1e-9))
    return min(steps, max(MIN_WARM_UP_STEPS, fitting // 100 * 100))


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s"
