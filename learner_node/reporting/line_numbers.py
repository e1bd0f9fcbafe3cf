"""The numbers of a line of metrics.jsonl by name, as TensorBoard and trackers show them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.run.run import Run


def step_of(run: Run, line: Mapping[str, Any]) -> int:
    """Returns the position of a line on the x axis: environment steps, or updates for numbered curves."""
    return int(line["updates" if run.spec.logging.tensorboard == "numbered" else "env_steps"])


def finite_numbers(line: Mapping[str, Any], run: Run) -> dict[str, float]:
    """Returns the finite numbers of a line by name.

    A list over agents or players becomes NAME/AGENT, as in critic_loss/agent_0.
    """
    found: dict[str, float] = {}
    for name, value in line.items():
        for label, item in _labelled(value, run):
            if isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
                found[f"{name}/{label}" if label else name] = float(item)
    return found


def _labelled(value: Any, run: Run) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list | tuple):
        yield from zip(_owners(len(value), run), value, strict=True)
    else:
        yield "", value


def _owners(entries: int, run: Run) -> Sequence[str]:
    """Returns the names of the agents or players of a list with `entries` entries; numbers if it has another length."""
    for owners in (run.joint.agents, run.players.agents):
        if len(owners) == entries:
            return [owner.name for owner in owners]
    return [str(i) for i in range(entries)]
