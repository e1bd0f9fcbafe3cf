"""Whether a new run normalises observations and rewards, if its user leaves the choice to the world."""

from __future__ import annotations

from msgspec.structs import replace

from common.run.preset_choice import is_particle_world
from common.run.run import RunSpec


def resolve_normalisation(spec: RunSpec) -> RunSpec:
    """Returns the settings of a new run with `auto` replaced: normalise outside the particle worlds.

    The particle worlds count in units near 1, and their published results are made without normalisation. A run stores
    the resolved value, so that it keeps its meaning when this choice changes.
    """
    normalise = not is_particle_world(spec.scenario)
    names = ("normalise_observations", "normalise_rewards")
    choices = {name: normalise for name in names if getattr(spec.algorithm, name) == "auto"}
    return replace(spec, algorithm=replace(spec.algorithm, **choices)) if choices else spec
