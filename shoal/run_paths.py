"""Paths on the command line that name runs: a run's directory, or a directory of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import ConfigError
from common.run.directory import RunDirectory

_MILESTONES = "milestones"


def run_directory(path: Path) -> RunDirectory:
    """Returns the run directory at a path; raises ConfigError if the path is a file, such as a policy file."""
    if path.is_file():
        raise ConfigError(f"{path} is a file. Pass the directory of its run, as in {path.parent}.")
    return RunDirectory(path)


def find_runs(paths: Sequence[Path]) -> list[RunDirectory]:
    """Returns the runs at the given paths, each once: a run's own directory, or all runs below any other directory.

    Milestones of a run are not runs. Raises ConfigError for a file and for a directory without runs.
    """
    found: dict[Path, RunDirectory] = {}
    for path in paths:
        directory = run_directory(path)
        below = [path] if directory.run_file.exists() else _runs_below(path)
        if not below:
            directory.run  # noqa: B018  (raises: there is no run)
        found |= {each: RunDirectory(each) for each in below}
    return list(found.values())


def _runs_below(path: Path) -> list[Path]:
    return sorted(file.parent for file in path.glob("**/run.toml") if _MILESTONES not in file.relative_to(path).parts)
