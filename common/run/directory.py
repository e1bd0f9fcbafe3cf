"""A run's directory: its files, how it is created, and how it is reopened to resume the run.

run.toml               the run: settings, identity, AgentsSpec
policy.safetensors     the policies of all players, with the run in the metadata
checkpoints/           the learner's full state
milestones/0000080000/ a complete run directory: the policies and the learner after that many environment steps
metrics.jsonl          metrics of the learner and the run over time, one JSON object a line
evaluations.jsonl      the evaluations while the run trained, one JSON object a line
tensorboard/           the same metrics for TensorBoard
logs/                  each process's log, when one command started all processes
finished               exists once the learner has used its budget
evaluation.json        the last evaluation
diagnosis.json         the diagnosis at the end of `shoal train`
machine.json           the machine and the number of processes of the last `shoal train`
film.gif, report.html  the film and the report of `shoal train`
audit/                 the chunks that `--audit` recorded
onnx/                  the output of `shoal export`
mlruns/, wandb/        offline data of trackers
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import TextIO

from common.errors import ConfigError
from common.files import file_name, lock_file, write_atomically, writing
from common.run.run import NetworkSpec, Run, RunSpec, from_toml, to_toml
from common.run.spaces import AgentSpaces
from common.spec import AgentsSpec, difference


class RunDirectory:
    """The paths of one run's directory."""

    def __init__(self, path: Path | str) -> None:
        self.path = path = Path(path)
        self.run_file = path / "run.toml"
        self.policy_file = path / "policy.safetensors"
        self.checkpoints = path / "checkpoints"
        self.milestones = path / "milestones"
        self.metrics_file = path / "metrics.jsonl"
        self.evaluations_file = path / "evaluations.jsonl"
        self.tensorboard = path / "tensorboard"
        self.logs = path / "logs"
        self.audit = path / "audit"
        self.finished_file = path / "finished"
        self.evaluation_file = path / "evaluation.json"
        self.diagnosis_file = path / "diagnosis.json"
        self._lock: TextIO | None = None

    @property
    def run(self) -> Run:
        """The run of this directory, read from run.toml; ConfigError if there is none."""
        try:
            return from_toml(self.run_file.read_text("utf-8"), str(self.run_file))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} does not contain a run (no run.toml). Pass a directory that `shoal train` created."
            ) from None
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(
                f"{self.run_file} cannot be read: {e}. Pass a directory that `shoal train` created."
            ) from e

    def mark_finished(self) -> None:
        """Records that the learner has used its budget; LastingError if the file cannot be written."""
        with writing(self.finished_file):
            self.finished_file.touch()

    def lock(self, role: str) -> None:
        """Locks the directory for one process of a role until it exits; ConfigError while another process has it."""
        try:
            lock = (self.path / f".{role}.lock").open("a+")
        except OSError as e:
            raise ConfigError(
                f"--run {self.path} cannot be written: {e.strerror}. Fix the permissions or pass another directory."
            ) from e
        try:
            lock_file(lock)
        except OSError as e:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise ConfigError(
                f"--run {self.path} is in use by another {role}, process {holder}. Wait until it ends, or stop it."
            ) from e
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Releases the lock, so that another process, or this one, can take the role."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def default_path(spec: RunSpec) -> Path:
    """Returns the directory of a new run for which the user passes none: runs/SCENARIO-DATE-TIME."""
    scenario = file_name(spec.scenario.replace(":", "-").replace("/", "-"))
    return Path("runs") / f"{scenario}-{time.strftime('%Y%m%d-%H%M%S')}"


def create(
    path: Path, spec: RunSpec, agents: AgentsSpec, spaces: tuple[AgentSpaces, ...] = ()
) -> tuple[RunDirectory, Run]:
    """Creates the directory of a new run; ConfigError if it already contains a run or any other file."""
    directory = RunDirectory(path)
    if directory.run_file.exists():
        existing = directory.run
        raise ConfigError(
            f"--run {path} already contains run {existing.id} of {existing.spec.scenario}. "
            "Pass --resume to continue it, or pass another directory."
        )
    run = Run(secrets.token_hex(4), spec, agents, spaces)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"--run {path} is not empty and does not contain a run. Pass a new directory.")
        write_atomically(directory.run_file, to_toml(run).encode())
    except OSError as e:
        raise ConfigError(
            f"--run {path} cannot be created: {e.strerror}. Fix the permissions or pass another directory."
        ) from e
    return directory, run


def reopen(
    path: Path, spec: RunSpec | None, agents: AgentsSpec | None, spaces: tuple[AgentSpaces, ...] = ()
) -> tuple[RunDirectory, Run]:
    """Opens a directory to resume its run: with the stored settings, or with new settings for the same world.

    Raises ConfigError if the directory contains no run, or if the new settings would change what its transitions mean.
    """
    directory = RunDirectory(path)
    stored = directory.run
    if spec is None or agents is None:
        return directory, stored
    run = Run(stored.id, spec, agents, spaces or stored.spaces)
    if spec.network.sides != stored.spec.network.sides:
        raise ConfigError(
            f"--run {path} was created with network.sides = {stored.spec.network.sides or 'none'}. Resume it with "
            "the same sides, or pass another directory."
        )
    if spec.algorithm.critic_sees != stored.spec.algorithm.critic_sees:
        raise ConfigError(
            f"--run {path} was created with algorithm.critic_sees = {stored.spec.algorithm.critic_sees!r}. Resume it "
            "with the same value, or pass another directory."
        )
    if (spec.scenario, spec.world) == (stored.spec.scenario, stored.spec.world) and agents != stored.joint:
        raise ConfigError(
            f"--run {path}: {spec.scenario} changed since this run was created: {difference(stored.joint, agents)}. "
            "Install the version that the run was created with, or pass another directory."
        )
    if run.data_hash != stored.data_hash:
        raise ConfigError(
            f"--run {path} contains a run of {_world(stored.spec)}, not of {_world(spec)}. "
            "Resume it with its own world, or pass another directory."
        )
    if run.spec.network != stored.spec.network and directory.checkpoints.exists():
        changed = ", ".join(
            f"network.{name} = {'none' if old is None else json.dumps(old)}"
            for name in NetworkSpec.__struct_fields__
            if (old := getattr(stored.spec.network, name)) != getattr(spec.network, name)
        )
        raise ConfigError(
            f"--run {path} was created with {changed}; its checkpoints do not fit other networks. Resume it with the "
            "same networks, or pass another directory."
        )
    if run != stored:
        with writing(directory.run_file):
            write_atomically(directory.run_file, to_toml(run).encode())
    return directory, run


def _world(spec: RunSpec) -> str:
    options = ", ".join(f"world.{name}={json.dumps(value)}" for name, value in spec.world.items())
    return f"{spec.scenario} with {options or 'its default options'}"
