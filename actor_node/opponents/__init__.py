"""Frozen opponents: teams trained once and shipped, so that everybody's teams can be measured against the same ones.

One `SCENARIO.safetensors` each, as runs keep theirs; README.md says how each was trained and how to make it again.
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
    """Returns the frozen team of a scenario; ConfigError where none is shipped."""
    if scenario not in frozen_scenarios():
        raise ConfigError(f"no frozen team is shipped for {scenario}; there is one for {', '.join(frozen_scenarios())}")
    return load_policy(_HERE / f"{scenario}.safetensors")
