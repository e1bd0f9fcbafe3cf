"""Whether a new run normalises observations and rewards, if its user leaves the choice to the world."""

from __future__ import annotations

from msgspec.structs import replace

from common.run.preset_choice import is_particle_world
from common.run.run import RunSpec


def resolve_normalisation(spec: RunSpec) -> RunSpec:
    """Returns the settings of a new run with `auto` replaced: normalise outside the particle worlds.

    Critics that learn a distribution need returns of a few units in any world, because their bins are fixed.

    The particle worlds count in units near 1, and their published results are made without normalisation. A run stores
    the resolved value, so that it keeps its meaning when this choice changes.
    """
    is_foreign, has_bins = not is_particle_world(spec.scenario), spec.algorithm.critic_loss == "hl_gauss"
    wanted = {"normalise_observations": is_foreign, "normalise_rewards": is_foreign or has_bins}
    choices = {name: value for name, value in wanted.items() if getattr(spec.algorithm, name) == "auto"}
    return replace(spec, algorithm=replace(spec.algorithm, **choices)) if choices else spec
