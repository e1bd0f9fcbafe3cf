r"""Runs a training run on this machine: starts and supervises the processes of `shoal train`.

    embedded Redis <-- replay server <-- actors (n workers)
                             ^    \        ^ weights
                             |     v       |
                             +--- learner -+

The sockets are unix sockets in a private directory. Each process logs to a file in the run's `logs/`. A process that
dies is restarted. The learner ends when the budget is used; then the launcher ends actors, replay server and Redis. The
evaluation that follows is in shoal/commands/train/session.py.

| the launcher waits for | what ends the wait                                |
|------------------------|---------------------------------------------------|
| Redis to load its data | its first answer, or its end                      |
| the learner to end     | the budget; the status is shown every half second |
| a process to end       | its end, or SIGKILL after 20 s                    |
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq

from common.errors import ConfigError, ProtocolError
from common.process.children.failure_note import NOTE_VARIABLE
from common.process.children.python_command import module_command, python_path
from common.process.monitoring.resources import available_memory_bytes
from common.process.shell_command import shell_command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.wire.client import Client
from common.wire.messages import Status, StatusRequest
from deploy.local.config import TrainConfig
from deploy.local.embedded_redis import MAX_SOCKET_PATH, EmbeddedRedis, memory_limit
from deploy.local.live_display import Display, no_episode_ended
from deploy.local.start_watch import StartWatch
from deploy.local.supervisor import SupervisedProcess, Supervisor
from replay_server.durability.redis_connection import without_password

POLL_PERIOD_S = 0.5
_SOCKETS = "sockets"
_REDIS = "redis"
LOCKSTEP = "lockstep"
"""Directory of the snapshots from which `--lockstep` continues an interrupted run."""
_SOCKETS_PREFIX = "shoal-"
"""Prefix of a socket directory outside the run's directory."""

_log = logging.getLogger(__name__)


class LocalRun:
    """The processes of one run on this machine."""

    def __init__(self, directory: RunDirectory, config: TrainConfig) -> None:
        self._directory, self._config = directory, config
        self._supervisor = Supervisor()
        self._sockets = _socket_directory(directory.path)
        self._redis_data = directory.path / _REDIS
        # Outside the run's directory, because the failure may be that its disk is full.
        self._notes = Path(tempfile.mkdtemp(prefix="shoal-notes-"))
        self._context = zmq.Context()

    def train(self, stop: Stop, display: Display) -> bool:
        """Runs until the learner has used its budget (returns True) or a stop is requested (returns False)."""
        watch = StartWatch(self._log("replay"), self._log("learner"))
        try:
            learner = self._start(stop)
            if learner is None:
                return False
            client = Client(self._context, self._endpoint("replay"))
            status: Status | None = None
            while not learner.finished and not stop.wait(POLL_PERIOD_S):
                self._poll(display)
                status = _newest_status(client) or (status if self._replay.running else None)
                display.show(status, [*self._supervisor.problems, *watch.explain(status, time.monotonic())])
            if learner.finished and status is not None and (text := endless_episode_text(status)):
                display.print(text)
            return learner.finished
        finally:
            with contextlib.ExitStack() as stack:
                stack.callback(self._clean_up)
                stack.callback(self._supervisor.end, on_wait=display.print)
                stack.callback(display.close)

    def _clean_up(self) -> None:
        shutil.rmtree(self._notes, ignore_errors=True)
        self._context.destroy(linger=0)
        shutil.rmtree(self._sockets, ignore_errors=True)
        link = self._directory.path / _SOCKETS
        if link.is_symlink():
            link.unlink()

    def _poll(self, display: Display) -> None:
        """Polls the processes and shows every failure immediately, including those that are retried."""
        try:
            self._supervisor.poll()
        finally:
            for text in self._supervisor.take_handled_failures():
                display.print(text)

    def _start(self, stop: Stop) -> SupervisedProcess | None:
        """Starts all processes; returns the learner, or None if a stop was requested meanwhile."""
        directory, config = self._directory, self._config
        directory.logs.mkdir(exist_ok=True)
        audit = self._audit_options()
        redis_url = config.redis
        if redis_url == "embedded":
            redis_url = self._start_redis(stop)
            if stop.requested:
                return None
        replay, weights = self._endpoint("replay"), self._endpoint("weights")
        first_port = config.metrics_port
        ports = (first_port, first_port + 1, first_port + 2) if first_port else (0, 0, 0)
        options: dict[str, object] = {"bind": replay, "name": directory.run.id, "metrics-port": ports[0], **audit}
        self._replay = self._add_process("replay", "replay_server", options, self._redis_environment(redis_url))
        options = {"run": directory.path, "resume": True, "bind": weights, "replay": replay}
        options |= {"threads": config.threads, "gpu": config.gpu, "track": config.track}
        options["metrics-port"] = ports[1]
        learner = self._add_process("learner", "learner_node", options, is_done=directory.finished_file.exists)
        options = {"n": config.actors, "copies": config.copies, "chunk-rows": config.chunk_rows}
        options |= {"replay": replay, "weights": weights, "metrics-port": ports[2], **audit}
        self._add_process("actor", "actor_node", options)
        return learner

    def _audit_options(self) -> dict[str, object]:
        """Returns the options for the audit. Renames an audit whose transitions were deleted at the end of the run."""
        if not self._config.audit:
            return {}
        path = self._directory.audit
        if path.exists() and self._config.redis == "embedded" and not self._redis_data.exists():
            # Those transitions were acknowledged and then deleted: a continued audit would count them as lost.
            backups = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
            path.rename(next(backup for backup in backups if not backup.exists()))
        return {"audit": path}

    def _redis_environment(self, url: str) -> dict[str, str]:
        """Returns the replay server's variables for Redis; a password in the URL is passed in a private file."""
        url, password = without_password(url)
        password_file = self._config.redis_password_file
        if password:
            password_file = str(self._sockets / "redis-password")
            Path(password_file).touch(mode=0o600)
            Path(password_file).write_text(password, "utf-8")
        files = {"SHOAL_REDIS_PASSWORD_FILE": password_file, "SHOAL_REDIS_CA_FILE": self._config.redis_ca_file}
        return {"SHOAL_REDIS": url, **{name: file for name, file in files.items() if file}}

    def _start_redis(self, stop: Stop) -> str:
        limit = memory_limit(self._directory.run, available_memory_bytes())
        redis_log = self._directory.logs / "redis.log"
        redis = EmbeddedRedis(self._redis_data, self._sockets / "redis", redis_log, max_bytes=limit)
        server = self._supervisor.add(SupervisedProcess("redis", redis.start, redis_log))
        if server.process is not None:
            redis.wait_ready(server.process, stop)
        return redis.url

    def _add_process(
        self,
        name: str,
        module: str,
        options: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        *,
        is_done: Callable[[], bool] = lambda: False,
    ) -> SupervisedProcess:
        log = self._log(name)
        arguments = _arguments({**options, "parent": os.getpid()})
        command = module_command(module, *arguments)
        note = self._notes / name

        def start() -> subprocess.Popen[bytes]:
            with log.open("ab") as output:
                return subprocess.Popen(  # noqa: S603  (our own argument list, no shell)
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={
                        # One BLAS thread per process by default: the processes already use all cores.
                        "OPENBLAS_NUM_THREADS": "1",
                        **_without_settings(os.environ),
                        "PYTHONPATH": python_path(),
                        **(environment or {}),
                        NOTE_VARIABLE: str(note),
                    },
                    # Ctrl-C in the terminal must reach the launcher only, which ends the processes in order.
                    start_new_session=True,
                )

        return self._supervisor.add(SupervisedProcess(name, start, log, is_done, note))

    def _log(self, name: str) -> Path:
        return self._directory.logs / f"{name}.log"

    def _endpoint(self, name: str) -> str:
        return f"ipc://{self._sockets / name}"


def endless_episode_text(status: Status) -> str:
    """Returns the advice for a run in which no episode has ended; empty if one has."""
    if not no_episode_ended(status):
        return ""
    return (
        f"no episode ended in {status.inserts:,} environment steps; if the environment never ends one, pass "
        "--max-episode-steps N"
    )


def delete_transitions(directory: RunDirectory) -> None:
    """Deletes the stored transitions of a run, which only a continued run needs."""
    for name in (_REDIS, LOCKSTEP):
        shutil.rmtree(directory.path / name, ignore_errors=True)


def has_transitions(directory: RunDirectory) -> bool:
    """Returns whether a run's directory contains the transitions of an interrupted run."""
    return any((directory.path / name).exists() for name in (_REDIS, LOCKSTEP))


def replay_url(directory: RunDirectory) -> str:
    """Returns the replay server's address of a run that trains here or under Slurm; ConfigError if it does not."""
    sockets = directory.path / _SOCKETS
    if sockets.exists():
        return f"ipc://{sockets.resolve() / 'replay'}"
    if address := _slurm_address(directory):
        return address
    if (directory.path / LOCKSTEP).exists():
        raise ConfigError(
            f"{directory.path} trains in lockstep, in one process without a replay server; read its progress in "
            f"{directory.metrics_file}."
        )
    if not directory.run_file.exists():
        raise ConfigError(f"{directory.path} does not contain a run.")
    resume = shell_command("shoal", "train", "--resume", "--run", directory.path)
    if directory.finished_file.exists():
        report = shell_command("shoal", "report", directory.path)
        raise ConfigError(
            f"the run in {directory.path} has finished. `{report}` shows its result; `{resume} --time ...` continues"
            " it."
        )
    raise ConfigError(
        f"no `shoal train` runs in {directory.path} here. Pass its replay server with --replay, or continue it with"
        f" `{resume}`."
    )


def _slurm_address(directory: RunDirectory) -> str:
    """Returns the address that deploy/slurm/shoal.sbatch wrote beside a run's directory; empty if there is none."""
    try:
        replay, _weights = (directory.path.resolve().parent / "address").read_text("utf-8").split()
    except (OSError, ValueError):
        return ""
    return replay if replay.startswith("tcp://") else ""


def _arguments(options: Mapping[str, object]) -> list[str]:
    """Returns options as command-line arguments; True becomes a flag, False is omitted."""
    given = [(f"--{name}", value) for name, value in options.items() if value is not False]
    return [part for name, value in given for part in ((name,) if value is True else (name, str(value)))]


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without SHOAL_ variables: they configure this command, not the processes it starts."""
    return {name: value for name, value in environment.items() if not name.startswith("SHOAL_")}


def _newest_status(client: Client) -> Status | None:
    newest = None
    try:
        while received := client.receive():
            if isinstance(received[0], Status):
                newest = received[0]
    except ProtocolError as e:
        _log.warning("ignored a malformed reply of the replay server error=%s", e)
    client.send(StatusRequest())
    return newest


def _socket_directory(run: Path) -> Path:
    """Makes the private directory of a run's sockets.

    It is in the run's directory, or linked from there if the path is too long. ConfigError if every path is too long.
    """
    inside = run.resolve() / _SOCKETS
    if inside.is_symlink():
        inside.unlink()
    if _fits(inside):
        inside.mkdir(mode=0o700, exist_ok=True)
        inside.chmod(0o700)
        return inside
    for parent in (tempfile.gettempdir(), "/tmp", f"/run/user/{os.getuid()}"):  # noqa: S108  (mkdtemp makes a private directory in it)
        if _fits(Path(parent) / f"{_SOCKETS_PREFIX}12345678"):
            with contextlib.suppress(OSError):
                elsewhere = Path(tempfile.mkdtemp(prefix=_SOCKETS_PREFIX, dir=parent))
                inside.symlink_to(elsewhere)
                return elsewhere
    raise ConfigError(
        f"--run {run}: the paths of the run and of TMPDIR ({tempfile.gettempdir()}) are too long for unix sockets, "
        f"which allow {MAX_SOCKET_PATH} bytes; choose a shorter --run or TMPDIR."
    )


def _fits(directory: Path) -> bool:
    """Returns whether the path of a directory leaves room for the longest socket name."""
    return len(os.fsencode(directory)) + len("/weights") <= MAX_SOCKET_PATH
