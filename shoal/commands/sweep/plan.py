"""The runs of a sweep: every combination of the varied values with every seed. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from common.errors import ConfigError
from common.files import settings_name

BASE = "default"
"""Name of the only variant of a sweep that varies just the seed."""
RANGE = ".."
_Run = TypeVar("_Run")


class Variant(NamedTuple):
    """One combination of settings."""

    name: str
    settings: tuple[str, ...]
    """Settings as values of `--set`."""


class PlannedRun(NamedTuple):
    """One run of a sweep."""

    variant: Variant
    seed: int
    directory: Path


def parse_axis(text: str) -> tuple[str, tuple[str, ...]]:
    """Parses `KEY=V1|V2|...`; raises ConfigError if the text is invalid."""
    key, equals, values = text.partition("=")
    choices = tuple(value.strip() for value in values.split("|"))
    if not equals or not key.strip() or not all(choices):
        raise ConfigError(f"--vary {text} is invalid. Write KEY=VALUE|VALUE, as in --vary 'replay.batch=128|256'.")
    if len(set(choices)) < len(choices):
        raise ConfigError(f"--vary {text} contains a value twice. Remove one.")
    return key.strip(), choices


def variants(vary: Sequence[str]) -> list[Variant]:
    """Returns every combination of `KEY=V1|V2|...` texts; raises ConfigError for an invalid text."""
    axes = [parse_axis(text) for text in vary]
    for text, (_, choices) in zip(vary, axes, strict=True):
        if any(RANGE in choice for choice in choices):
            raise ConfigError(f"--vary {text}: a range needs --search N. Add it, or list values: V1|V2.")
    keys = [key for key, _ in axes]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ConfigError(f"--vary names {twice} twice. Write all values in one option: {twice}=V1|V2|V3.")
    settings = ([f"{key}={choice}" for choice in choices] for key, choices in axes)
    return [Variant(" ".join(chosen) or BASE, chosen) for chosen in itertools.product(*settings)]


def plan(directory: Path, vary: Sequence[str], seeds: Sequence[int]) -> list[PlannedRun]:
    """Returns the runs ordered by seed, so that an interrupted sweep has equally many seeds of every variant."""
    found = variants(vary)
    directories = {variant: directory / settings_name(variant.name) for variant in found}
    if len({path.name.casefold() for path in directories.values()}) < len(found):
        raise ConfigError(
            "Two combinations of --vary have the same directory. Use values that differ in letters or digits."
        )
    return [PlannedRun(variant, seed, directories[variant] / f"seed-{seed}") for seed in seeds for variant in found]


def part_of(runs: Sequence[_Run], part: str) -> Sequence[_Run]:
    """Returns the runs of one part, `I/N`, of a list: the I-th of N neighbouring groups of equal size; all for "".

    Raises ConfigError for an invalid part.
    """
    if not part:
        return runs
    index, slash, count = part.partition("/")
    valid = bool(slash) and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)
    if not valid:
        raise ConfigError(f"--part {part} is invalid. Write I/N with I from 1 to N, as in --part 1/4.")
    i, n = int(index), int(count)
    return runs[len(runs) * (i - 1) // n : len(runs) * i // n]
