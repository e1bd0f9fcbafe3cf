"""Milestones: copies of a run, stored permanently after every `budget.milestone_steps` environment steps.

    milestones/0000080000/                       named by environment steps
        checkpoints/updates-0000000123.safetensors   the learner's full state
        policy.safetensors
        run.toml                                     written last: a folder without it is incomplete

Each milestone is a run directory: it can be evaluated, rendered and entered in tournaments like any run, and a copy of
it can be trained further. The first is saved before the first update, the last when the budget is used. An existing
milestone is never overwritten, so a run that resumes from before a milestone does not save it twice.
"""

from __future__ import annotations

import logging
import secrets
import shutil

import msgspec

from common.files import write_atomically, writing
from common.policy.file import PolicyFile, save_policy
from common.policy.heads import Floats
from common.run.directory import RunDirectory
from common.run.run import Run, to_toml
from learner_node.persistence.checkpoints import Checkpoints
from learner_node.persistence.state import Counters, TrainingState

_log = logging.getLogger(__name__)


class Milestones:
    """Saves the milestones of one run."""

    def __init__(self, run: Run, directory: RunDirectory, counters: Counters) -> None:
        """Continues after the last milestone at or before `counters.env_steps`."""
        self._run, self._directory = run, directory
        self._every = run.spec.budget.milestone_steps
        self._passed = counters.env_steps // self._every if self._every and counters.updates else -1
        self._newest: int | None = None
        """Number of updates at the last milestone that this process saved; None before the first."""

    def is_due(self, env_steps: int) -> bool:
        """Returns whether the next milestone is reached."""
        return self._every > 0 and env_steps // self._every > self._passed

    def save(self, state: TrainingState, policies: Floats) -> None:
        """Saves the milestone that is due. If several were passed at once, saves the last of them."""
        self._passed = state.counters.env_steps // self._every
        self._write(self._passed * self._every, state, policies)

    def save_last(self, state: TrainingState, policies: Floats) -> None:
        """Saves a milestone at the end of the budget, unless the last milestone has the same state."""
        if self._every and self._newest != state.counters.updates:
            self._write(state.counters.env_steps, state, policies)

    def _write(self, steps: int, state: TrainingState, policies: Floats) -> None:
        counters = state.counters
        self._newest = counters.updates
        milestone = RunDirectory(self._directory.milestones / f"{steps:010}")
        if milestone.run_file.exists():
            return
        shutil.rmtree(milestone.path, ignore_errors=True)
        # A new run id: a replay server must not take a milestone that is trained further for the original run.
        run = msgspec.structs.replace(self._run, id=secrets.token_hex(4))
        Checkpoints(milestone.checkpoints, keep=1).save(state, best=False)
        save_policy(milestone.policy_file, PolicyFile(run, counters.weights_version, counters.updates, policies))
        with writing(milestone.run_file):
            write_atomically(milestone.run_file, to_toml(run).encode())
        _log.info("saved milestone %s", milestone.path.name)
