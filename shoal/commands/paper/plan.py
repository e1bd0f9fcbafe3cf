"""The runs that the tables need, and a check that existing runs match."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError
from common.run.directory import RunDirectory
from shoal.commands.paper.tasks import TASKS, PaperTask, TeamVariant
from shoal.commands.sweep.runner import Job

_QUICK_SEEDS, _FULL_SEEDS, _FULL_STEPS = 3, 10, 1_500_000
_QUICK = (
    *("--set", "network.policy_hidden=[64,64]", "--set", "network.critic_hidden=[64,64]"),
    *("--set", "network.share_policies=false", "--set", "network.share_critics=false"),
    *("--set", "replay.capacity=1000000", "--set", "replay.n_step=1"),
)
"""The paper's networks, replay size and one-step targets with the default preset's rates and ratio, which learn within
minutes."""
_FULL = ("--preset", "paper")
_ORIGINAL_DYNAMICS = "world.dynamics=legacy"


class ExperimentSize(NamedTuple):
    """The size of the experiment."""

    quick: bool
    seeds: int = 0
    """Number of seeds; 0: 3 if quick, else the paper's 10 of its success-rate experiments."""
    steps: int = 0
    """Environment steps of a run; 0: the task's `quick_steps` if quick, else the 1,500,000 of openai/maddpg."""

    @property
    def seed_numbers(self) -> range:
        """The seeds of the runs of each variant."""
        return range(1, 1 + (self.seeds or (_QUICK_SEEDS if self.quick else _FULL_SEEDS)))

    def steps_of(self, task: PaperTask) -> int:
        """Returns the environment steps of one run of a task."""
        return self.steps or (task.quick_steps if self.quick else _FULL_STEPS)


class TableRun(NamedTuple):
    """One run of a table."""

    task: PaperTask
    variant: TeamVariant
    job: Job


def chosen_tasks(keys: Sequence[str]) -> list[PaperTask]:
    """Returns the tasks with the given keys, or all without keys; raises ConfigError for an unknown key."""
    known = {task.key: task for task in TASKS}
    if unknown := [key for key in keys if key not in known]:
        raise ConfigError(f"--task {unknown[0]} does not exist. Choose from {', '.join(known)}.")
    return [task for task in TASKS if not keys or task.key in keys]


def plan(directory: Path, tasks: Sequence[PaperTask], size: ExperimentSize) -> list[TableRun]:
    """Returns the runs ordered by seed, so that an interrupted experiment has equally many seeds of every line."""
    return [
        TableRun(
            task,
            variant,
            Job(task.scenario, _run_directory(directory, task, variant, seed), seed, options(task, variant, size)),
        )
        for seed in size.seed_numbers
        for task in tasks
        for variant in task.variants
    ]


def options(task: PaperTask, variant: TeamVariant, size: ExperimentSize) -> tuple[str, ...]:
    """Returns the options of `shoal train` for one line of a table, without seed and directory."""
    dynamics = [] if size.quick or not task.has_physics else [_ORIGINAL_DYNAMICS]
    world = [word for setting in (*task.world, *dynamics) for word in ("--set", setting)]
    budget = ("--lockstep", "--steps", str(size.steps_of(task)), "--episodes", "0", "--no-film")
    return (*(_QUICK if size.quick else _FULL), "--algorithm", variant.algorithm, *world, *budget)


def refuse_other_runs(runs: Sequence[TableRun], size: ExperimentSize) -> None:
    """Raises ConfigError if the directory contains runs of another size or preset, whose results are not comparable."""
    for run in runs:
        directory = RunDirectory(run.job.directory)
        if not directory.run_file.exists():
            continue
        existing, steps = directory.run.spec, size.steps_of(run.task)
        batch, head = (256, "box") if size.quick else (1024, "soft")
        found = existing.budget.steps, existing.replay.batch, existing.network.head
        if found != (steps, batch, head):
            raise ConfigError(
                f"{directory.path} contains a run of {found[0]:,} steps in batches of {found[1]} with network.head = "
                f"{found[2]}, not of {steps:,} in {batch} with {head}. Name another directory with --run, or pass the "
                "options that the run was started with."
            )


def _run_directory(directory: Path, task: PaperTask, variant: TeamVariant, seed: int) -> Path:
    name = variant.algorithm.replace("=", "-").replace(",", "_")
    return directory / "runs" / task.key / name / f"seed-{seed}"
