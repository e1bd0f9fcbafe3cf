"""Frozen opponents: teams that were trained once and are shipped with Shoal, so that all users have the same opponents.

Each is a policy file `SCENARIO.safetensors`; README.md describes how each team was trained and how to make it again.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError
from common.policy.file import PolicyFile, load_policy

_HERE = Path(__file__).parent


def frozen_scenarios() -> list[str]:
    """Returns the scenarios that have a frozen team, in alphabetical order."""
    return sorted(path.stem for path in _HERE.glob("*.safetensors"))


def frozen_team(scenario: str) -> PolicyFile:
    """Returns the frozen team of a scenario; ConfigError if there is none."""
    if scenario not in frozen_scenarios():
        raise ConfigError(f"{scenario} has no frozen team. Scenarios with one: {', '.join(frozen_scenarios())}.")
    return load_policy(_HERE / f"{scenario}.safetensors")
