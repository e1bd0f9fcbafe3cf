"""Directories of runs with policies that nobody has trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from common.policy.file import PolicyFile, save_policy
from common.run.directory import RunDirectory, create
from common.run.run import make_run_spec
from common.worlds import world_spec
from tests.common.examples import numbers_of


def make_team(path: Path, scenario: str, seed: int = 0, **sections: Any) -> RunDirectory:
    """Makes a run's directory; sections: as of a run, such as world={"N": 4}."""
    spec = make_run_spec({"scenario": scenario, "seed": seed}, sections)
    directory, run = create(path, spec, world_spec(scenario, **spec.world))
    size = numbers_of(run)
    weights = 0.3 * np.random.default_rng(seed).normal(size=size)
    save_policy(directory.policy_file, PolicyFile(run, 3, 300, weights.astype(np.float32)))
    return directory
