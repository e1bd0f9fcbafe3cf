"""Which runs the tables need, and whether those in a directory are they."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError
from common.run.directory import RunDirectory
from shoal.commands.paper.tasks import TASKS, Task, Variant
from shoal.commands.sweep.runner import Job

_QUICK_SEEDS, _FULL_SEEDS, _FULL_STEPS = 3, 10, 1_500_000
_QUICK = (
    *("--set", "network.policy_hidden=[64,64]", "--set", "network.critic_hidden=[64,64]"),
    *("--set", "network.share_policies=false", "--set", "network.share_critics=false"),
    *("--set", "replay.capacity=1000000"),
)
"""The paper's networks and replay, with the default preset's rates and ratio: a few minutes then teach something."""
_FULL = ("--preset", "paper")


class Scale(NamedTuple):
    """How much is done."""

    quick: bool
    seeds: int = 0
    """0 = 3 quick, else 10: what the paper has for the experiments that succeed or fail."""
    steps: int = 0
    """0 = each task's own quick, else 1,500,000: what openai/maddpg trains for."""

    @property
    def seed_numbers(self) -> range:
        """The seeds of each variant's runs."""
        return range(1, 1 + (self.seeds or (_QUICK_SEEDS if self.quick else _FULL_SEEDS)))

    def steps_of(self, task: Task) -> int:
        """Environment steps of one run."""
        return self.steps or (task.quick_steps if self.quick else _FULL_STEPS)


class TableRun(NamedTuple):
    """One run of a table."""

    task: Task
    variant: Variant
    job: Job


def chosen_tasks(keys: Sequence[str]) -> list[Task]:
    """Returns the tasks of these keys, all without any; ConfigError names one that is none."""
    known = {task.key: task for task in TASKS}
    if unknown := [key for key in keys if key not in known]:
        raise ConfigError(f"--task {unknown[0]}: not one of {', '.join(known)}")
    return [task for task in TASKS if not keys or task.key in keys]


def plan(directory: Path, tasks: Sequence[Task], scale: Scale) -> list[TableRun]:
    """Returns the runs, seed by seed, so that tables cut short have as much of every line."""
    return [
        TableRun(
            task,
            variant,
            Job(task.scenario, _run_directory(directory, task, variant, seed), seed, options(task, variant, scale)),
        )
        for seed in scale.seed_numbers
        for task in tasks
        for variant in task.variants
    ]


def options(task: Task, variant: Variant, scale: Scale) -> tuple[str, ...]:
    """Returns the options of `shoal train` for one line of a table, but for seed and directory."""
    world = [word for setting in task.world for word in ("--set", setting)]
    budget = ("--lockstep", "--steps", str(scale.steps_of(task)), "--episodes", "0", "--no-film")
    return (*(_QUICK if scale.quick else _FULL), "--algorithm", variant.algorithm, *world, *budget)


def refuse_other_runs(runs: Sequence[TableRun], scale: Scale) -> None:
    """Raises ConfigError where the directory holds runs of another scale: their results would mean something else."""
    for run in runs:
        directory = RunDirectory(run.job.directory)
        if not directory.run_file.exists():
            continue
        held, wanted = directory.run.spec, scale.steps_of(run.task)
        batch = 256 if scale.quick else 1024
        if (held.budget.steps, held.replay.batch) != (wanted, batch):
            raise ConfigError(
                f"{directory.path} holds a run of {held.budget.steps:,} steps in batches of {held.replay.batch}, not "
                f"of {wanted:,} in {batch}; name another directory with --run, or give the options it was begun with"
            )


def _run_directory(directory: Path, task: Task, variant: Variant, seed: int) -> Path:
    name = variant.algorithm.replace("=", "-").replace(",", "_")
    return directory / "runs" / task.key / name / f"seed-{seed}"
