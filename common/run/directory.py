"""A run's directory: what lies where, made once and opened again.

run.toml               the run: spec, identity, AgentsSpec
policy.safetensors     what actors need: every agent's policy, with the run in its metadata
checkpoints/           the learner's full state
milestones/0000080000/ a run's directory of its own: what had been learnt after so many environment steps
metrics.jsonl          one JSON object a line, the learner's and the run's figures over time
tensorboard/           the same for TensorBoard
logs/                  each process's log, when one command started them all
finished               there when the learner has used its budget
evaluation.json        the last evaluation
machine.json           what `shoal train` last ran on, and with how many processes
film.gif, report.html  what `shoal train` leaves to be looked at
audit/                 what `--audit` noted of every chunk
onnx/                  what `shoal export` wrote
mlruns/, wandb/        what trackers keep off line
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from pathlib import Path
from typing import TextIO

from common.errors import ConfigError
from common.files import file_name, write_atomically, writing
from common.run.run import Run, RunSpec, from_toml, to_toml
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
        self.tensorboard = path / "tensorboard"
        self.logs = path / "logs"
        self.audit = path / "audit"
        self.finished_file = path / "finished"
        self.evaluation_file = path / "evaluation.json"
        self._lock: TextIO | None = None

    @property
    def run(self) -> Run:
        """Reads the run this directory holds; ConfigError when it holds none."""
        try:
            return from_toml(self.run_file.read_text("utf-8"), str(self.run_file))
        except FileNotFoundError:
            raise ConfigError(
                f"{self.path} holds no run (no run.toml); give a directory that `shoal train` made"
            ) from None
        except (OSError, UnicodeDecodeError) as e:
            raise ConfigError(f"{self.run_file} cannot be read: {e}") from e

    def mark_finished(self) -> None:
        """Notes that the learner has used its budget; LastingError when there is no room for that."""
        with writing(self.finished_file):
            self.finished_file.touch()

    def lock(self, role: str) -> None:
        """Takes the directory for the one process of a role, until it ends; ConfigError while another has it."""
        try:
            lock = (self.path / f".{role}.lock").open("a+")
        except OSError as e:
            raise ConfigError(f"--run {self.path} cannot be written: {e.strerror}") from e
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            raise ConfigError(
                f"--run {self.path} is in use by another {role}, process {holder}; wait for its end or stop it"
            ) from e
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Gives the directory up, so that another process, or this one, may take the role again."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def default_path(spec: RunSpec) -> Path:
    """Returns where a run goes when the user names no directory."""
    scenario = file_name(spec.scenario.replace(":", "-").replace("/", "-"))
    return Path("runs") / f"{scenario}-{time.strftime('%Y%m%d-%H%M%S')}"


def create(
    path: Path, spec: RunSpec, joint: AgentsSpec, spaces: tuple[AgentSpaces, ...] = ()
) -> tuple[RunDirectory, Run]:
    """Makes the directory of a new run; ConfigError when it already holds one or anything else."""
    directory = RunDirectory(path)
    if directory.run_file.exists():
        held = directory.run
        raise ConfigError(
            f"--run {path} already holds run {held.id} of {held.spec.scenario}; "
            "add --resume to go on with it, or name another directory"
        )
    run = Run(secrets.token_hex(4), spec, joint, spaces)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(f"--run {path} is not empty and holds no run; name a new directory")
        write_atomically(directory.run_file, to_toml(run).encode())
    except OSError as e:
        raise ConfigError(f"--run {path} cannot be made: {e.strerror}") from e
    return directory, run


def reopen(
    path: Path, spec: RunSpec | None, joint: AgentsSpec | None, spaces: tuple[AgentSpaces, ...] = ()
) -> tuple[RunDirectory, Run]:
    """Opens a directory to go on with its run, as it was or with a new spec over the same world.

    ConfigError when it holds none, or when the new spec would change what its transitions mean.
    """
    directory = RunDirectory(path)
    held = directory.run
    if spec is None or joint is None:
        return directory, held
    run = Run(held.id, spec, joint, spaces or held.spaces)
    if spec.network.sides != held.spec.network.sides:
        raise ConfigError(
            f"--run {path} was created with network.sides = {held.spec.network.sides or 'none'}; resume it with "
            "those, or name another directory"
        )
    if (spec.scenario, spec.world) == (held.spec.scenario, held.spec.world) and joint != held.joint:
        raise ConfigError(
            f"--run {path}: {spec.scenario} changed since this run was created: {difference(held.joint, joint)}; "
            "install the version it was created with, or name another directory"
        )
    if run.data_hash != held.data_hash:
        raise ConfigError(
            f"--run {path} holds a run of {_world(held.spec)}, not of {_world(spec)}; "
            "resume it with its own world, or name another directory"
        )
    if run.spec.network != held.spec.network and directory.checkpoints.exists():
        raise ConfigError(
            f"--run {path} was begun with other networks ({held.spec.network}); its checkpoints do not fit new sizes"
        )
    if run != held:
        with writing(directory.run_file):
            write_atomically(directory.run_file, to_toml(run).encode())
    return directory, run


def _world(spec: RunSpec) -> str:
    options = ", ".join(f"world.{name}={json.dumps(value)}" for name, value in spec.world.items())
    return f"{spec.scenario} with {options or 'its default options'}"
