"""Milestones: what a run had learnt after each so many environment steps (`budget.milestone_steps`), kept for good.

    milestones/0000080000/                       named by environment steps
        checkpoints/updates-0000000123.safetensors   the learner's full state
        policy.safetensors
        run.toml                                     written last: without it, what a crash left half done

Each is a run's directory of its own: it is evaluated, filmed and set against others as any run, and a copy of it can be
trained on. The first is taken before anything is learnt, the last when the budget is used. What is there is never
written again: a run that goes on from a checkpoint before a milestone does not take it twice.
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
from learner_node.checkpoints import Checkpoints
from learner_node.state import Counters, TrainingState

_log = logging.getLogger(__name__)


class Milestones:
    """Takes the milestones of one run."""

    def __init__(self, run: Run, directory: RunDirectory, done: Counters) -> None:
        """Goes on behind those that `done` has passed."""
        self._run, self._directory = run, directory
        self._every = run.spec.budget.milestone_steps
        self._passed = done.env_steps // self._every if self._every and done.updates else -1
        self._newest: int | None = None
        """Updates of the last one taken."""

    def is_due(self, env_steps: int) -> bool:
        """Whether the next one is reached."""
        return self._every > 0 and env_steps // self._every > self._passed

    def take(self, state: TrainingState, policies: Floats) -> None:
        """Keeps the one that is due; where several were passed at once, the last of them."""
        self._passed = state.counters.env_steps // self._every
        self._keep(self._passed * self._every, state, policies)

    def conclude(self, state: TrainingState, policies: Floats) -> None:
        """Keeps the end of the budget, unless the last one taken holds just that."""
        if self._every and self._newest != state.counters.updates:
            self._keep(state.counters.env_steps, state, policies)

    def _keep(self, steps: int, state: TrainingState, policies: Floats) -> None:
        done = state.counters
        self._newest = done.updates
        kept = RunDirectory(self._directory.milestones / f"{steps:010}")
        if kept.run_file.exists():
            return
        shutil.rmtree(kept.path, ignore_errors=True)
        # An identity of its own: trained on, it must not be taken for the run it comes from by a replay server.
        run = msgspec.structs.replace(self._run, id=secrets.token_hex(4))
        Checkpoints(kept.checkpoints, keep=1).save(state, best=False)
        save_policy(kept.policy_file, PolicyFile(run, done.weights_version, done.updates, policies))
        with writing(kept.run_file):
            write_atomically(kept.run_file, to_toml(run).encode())
        _log.info("kept milestone %s", kept.path.name)
