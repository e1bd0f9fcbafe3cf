"""Which runs a sweep is: every combination of the values to vary, with every seed. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError
from common.files import settings_name

BASE = "default"
"""The name of the one variant of a sweep that varies nothing but the seed."""
RANGE = ".."


class Variant(NamedTuple):
    """One combination of settings."""

    name: str
    settings: tuple[str, ...]
    """As `--set` takes them."""


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    variant: Variant
    seed: int
    directory: Path


def parse_axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Reads `KEY=V1|V2|...`; ConfigError when it cannot be used."""
    key, equals, values = text.partition("=")
    choices = tuple(value.strip() for value in values.split("|"))
    if not equals or not key.strip() or not all(choices):
        raise ConfigError(f"--vary {text}: write KEY=VALUE|VALUE, as in --vary 'replay.batch=128|256'")
    if len(set(choices)) < len(choices):
        raise ConfigError(f"--vary {text}: the same value stands there twice")
    return key.strip(), choices


def variants(vary: Sequence[str]) -> list[Variant]:
    """Returns every combination of `KEY=V1|V2|...` texts; ConfigError names one that cannot be used."""
    axes = [parse_axis(text) for text in vary]
    for text, (_, choices) in zip(vary, axes, strict=True):
        if any(RANGE in choice for choice in choices):
            raise ConfigError(f"--vary {text}: a range has no end of values; add --search N, or list some: V1|V2")
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"--vary names {twice} twice; write all its values in one: {twice}=V1|V2|V3")
    settings = ([f"{key}={choice}" for choice in choices] for key, choices in axes)
    return [Variant(" ".join(chosen) or BASE, chosen) for chosen in itertools.product(*settings)]


def plan(directory: Path, vary: Sequence[str], seeds: Sequence[int]) -> list[PlannedRun]:
    """Returns the runs of a sweep, seed by seed, so that a sweep cut short has as much of every variant."""
    found = variants(vary)
    directories = {variant: directory / settings_name(variant.name) for variant in found}
    if len({name.name.casefold() for name in directories.values()}) < len(found):
        raise ConfigError("two combinations of --vary have the same directory; name their values less alike")
    return [PlannedRun(variant, seed, directories[variant] / f"seed-{seed}") for seed in seeds for variant in found]
