"""Run directories with artificial logs, evaluations and films, for tests of the report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from common.run.directory import RunDirectory, create
from common.run.run import make_run_spec
from common.worlds import world_spec

_SETTINGS = {
    "algorithm": {"name": "maddpg", "gradient_clip": 0.5},
    "replay": {"batch": 256, "samples_per_insert": 16.0, "capacity": 1_000_000},
}
"""Settings that the tests expect on the page, independent of the defaults."""


def line(i: int, agents: int, wobble: float = 0.0, **fields: Any) -> dict[str, Any]:
    """Returns the i-th line of a log, two seconds after the one before."""
    value = -80.0 + 40.0 * (1 - math.exp(-i / 10)) + wobble * math.sin(i)
    return {
        "time": 1_800_000_000.0 + 2 * i,
        "updates": 300 * i,
        "trained_s": 1.9 * i,
        "env_steps": 5_000 + 5_000 * i,
        "updates_per_s": 150.0,
        "progress": i / 40,
        "exploration_scale": 0.3 - 0.006 * i,
        "critic_loss": [0.1 + 0.01 * a for a in range(agents)],
        "policy_loss": [5.0 + i / 10] * agents,
        "q_mean": [-5.0 - i / 10] * agents,
        "critic_gradient_norm": [1.0] * agents,
        "policy_gradient_norm": [0.1] * agents,
        "return_mean": value if i else None,
        "return_means": [value / agents] * agents if i else [],
        "env_steps_per_s": 2_500.0 if i else 0.0,
        "samples_per_insert": 16.0 - 1 / (1 + i) if i else 0.0,
        "policy_lag": 0.01,
        "replay_size": 5_000 * i,
        "actors": 2,
        "actors_waited_s": 3.0 * i,
        "waiting": ["actors waiting for the learner: 6.5 k samples behind (0 s)"] if i % 2 else [],
        **fields,
    }


def make_run(
    path: Path, scenario: str = "simple_spread", lines: int = 40, *, wobble: float = 0.0, **settings: Any
) -> RunDirectory:
    """Creates the directory of a run with a log of `lines` lines."""
    spec = make_run_spec({"scenario": scenario, "budget": {"seconds": 80.0}}, _SETTINGS, settings)
    directory, run = create(path, spec, world_spec(scenario, **spec.world))
    write_lines(directory, [line(i, len(run.joint.agents), wobble) for i in range(lines)])
    return directory


def write_lines(directory: RunDirectory, lines: list[dict[str, Any]], end: str = "") -> None:
    """Writes a log, followed by `end`: the remains of a crash."""
    directory.metrics_file.write_text("".join(json.dumps(one) + "\n" for one in lines) + end)


def evaluate_run(directory: RunDirectory, mean: float = -42.5, **fields: Any) -> None:
    """Writes an evaluation."""
    per_agent = {agent.name: mean / 3 for agent in directory.run.joint.agents}
    found: Mapping[str, Any] = {
        "scenario": directory.run.spec.scenario,
        "world": f"mpe2:{directory.run.spec.scenario}",
        "episodes": 1_000,
        "seed": 1_000_000,
        "updates": 11_700,
        "return_mean": mean,
        "return_ci95": [mean - 1, mean + 1],
        "return_std": 9.0,
        "return_per_agent": per_agent,
        "published_scales": {"S": mean, "P": 2 * mean - 75},
        **fields,
    }
    directory.evaluation_file.write_text(json.dumps(found))


def film_run(directory: RunDirectory, name: str = "film.gif") -> None:
    """Writes a small film to the run's directory."""
    frames = [Image.new("RGB", (60, 40), (40 * i, 0, 0)) for i in range(4)]
    frames[0].save(directory.path / name, save_all=True, append_images=frames[1:], duration=100, loop=0)
