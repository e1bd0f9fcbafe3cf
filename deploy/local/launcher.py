r"""`shoal train`: all of a run on one machine, supervised, from an empty directory to an evaluated team.

    embedded Redis <-- replay server <-- actors (n workers)
                             ^    \        ^ weights
                             |     v       |
                             +--- learner -+

Sockets are unix sockets in a private directory. Each process logs into the run's `logs/`. The learner ends when the
budget is used; then actors, replay and Redis are ended and the team is evaluated. A process that dies is started again.

| waits for                  | frees it                                    |
|----------------------------|---------------------------------------------|
| Redis to load its data     | its first answer, or its end                |
| the learner to end         | the budget; shows status every half second  |
| a process to end           | its end, SIGKILL after 20 s                 |
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
from common.process.failure_note import VARIABLE
from common.process.own_python import module_command, python_path
from common.process.resources import available_memory_bytes
from common.process.stop import Stop
from common.run.directory import RunDirectory
from common.wire.client import Client
from common.wire.messages import Status, StatusRequest
from deploy.local.config import TrainConfig
from deploy.local.embedded_redis import LONGEST_SOCKET_PATH, EmbeddedRedis, memory_limit
from deploy.local.live_display import Display, known_to_be_endless
from deploy.local.start_checks import StartWatch
from deploy.local.supervisor import Role, Supervisor
from replay_server.durability.redis_connection import without_password

LOOK_PERIOD_S = 0.5
_SOCKETS = "sockets"
_REDIS = "redis"
LOCKSTEP = "lockstep"
"""Where `--lockstep` keeps what an interrupted run goes on from."""
_PREFIX = "shoal-"
"""Of a socket directory that is not in the run's."""

_log = logging.getLogger(__name__)


class LocalRun:
    """The processes of one run on this machine."""

    def __init__(self, directory: RunDirectory, config: TrainConfig) -> None:
        self._directory, self._config = directory, config
        self._supervisor = Supervisor()
        self._sockets = _socket_directory(directory.path)
        self._redis_data = directory.path / _REDIS
        # Not in the run's directory: a full disk there is what a note may have to tell.
        self._notes = Path(tempfile.mkdtemp(prefix="shoal-notes-"))
        self._context = zmq.Context()

    def train(self, stop: Stop, display: Display) -> bool:
        """Runs until the learner is done (True) or a stop is asked for (False)."""
        try:
            learner = self._start(stop)
            if learner is None:
                return False
            client = Client(self._context, self._endpoint("replay"))
            status: Status | None = None
            watch = StartWatch(self._replay.log, learner.log)
            while not learner.finished and not stop.wait(LOOK_PERIOD_S):
                self._look(display)
                status = _newest_status(client) or (status if self._replay.running else None)
                display.show(status, [*self._supervisor.troubles, *watch(status, time.monotonic())])
            if learner.finished and status is not None and (text := without_episodes(status)):
                display.say(text)
            return learner.finished
        finally:
            with contextlib.ExitStack() as stack:
                stack.callback(self._clean_up)
                stack.callback(self._supervisor.end, on_wait=display.say)
                stack.callback(display.close)

    def _clean_up(self) -> None:
        shutil.rmtree(self._notes, ignore_errors=True)
        self._context.destroy(linger=0)
        shutil.rmtree(self._sockets, ignore_errors=True)
        link = self._directory.path / _SOCKETS
        if link.is_symlink():
            link.unlink()

    def _look(self, display: Display) -> None:
        """Looks after the processes and shows at once what failed, also what is tried again."""
        try:
            self._supervisor.look()
        finally:
            for text in self._supervisor.take_news():
                display.say(text)

    def _start(self, stop: Stop) -> Role | None:
        """Starts everything; returns the learner, or None when a stop was asked for meanwhile."""
        directory, config = self._directory, self._config
        directory.logs.mkdir(exist_ok=True)
        audit = self._audit_options()
        redis_url = config.redis
        if redis_url == "embedded":
            redis_url = self._start_redis(stop)
            if stop.requested:
                return None
        replay, weights = self._endpoint("replay"), self._endpoint("weights")
        options: dict[str, object] = {"bind": replay, "name": directory.run.id, **audit}
        self._replay = self._add("replay", "replay_server", options, self._redis_environment(redis_url))
        options = {"run": directory.path, "resume": True, "bind": weights, "replay": replay}
        options |= {"threads": config.threads, "gpu": config.gpu, "track": config.track}
        learner = self._add("learner", "learner_node", options, is_done=directory.finished_file.exists)
        options = {"n": config.actors, "copies": config.copies, "chunk-rows": config.chunk_rows}
        options |= {"replay": replay, "weights": weights, **audit}
        self._add("actor", "actor_node", options)
        return learner

    def _audit_options(self) -> dict[str, object]:
        """Returns where chunks are noted; what was noted of transitions that went with a finished run is put aside."""
        if not self._config.audit:
            return {}
        path = self._directory.audit
        if path.exists() and self._config.redis == "embedded" and not self._redis_data.exists():
            # To the audit they would be lost: Redis had acknowledged them.
            aside = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
            path.rename(next(one for one in aside if not one.exists()))
        return {"audit": path}

    def _redis_environment(self, url: str) -> dict[str, str]:
        """Returns what tells the replay server of Redis; a password in the URL goes by a file of the owner's."""
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
        role = self._supervisor.add(Role("redis", redis.start, redis_log))
        if role.process is not None:
            redis.wait_ready(role.process, stop)
        return redis.url

    def _add(
        self,
        name: str,
        module: str,
        options: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        *,
        is_done: Callable[[], bool] = lambda: False,
    ) -> Role:
        log = self._directory.logs / f"{name}.log"
        arguments = _arguments({**options, "metrics-port": 0, "parent": os.getpid()})
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
                        # One thread a process, unless the user says otherwise: the processes are the parallelism.
                        "OPENBLAS_NUM_THREADS": "1",
                        **_without_settings(os.environ),
                        "PYTHONPATH": python_path(),
                        **(environment or {}),
                        VARIABLE: str(note),
                    },
                    # Ctrl-C in the terminal is for the launcher, which ends the others in order.
                    start_new_session=True,
                )

        return self._supervisor.add(Role(name, start, log, is_done, note))

    def _endpoint(self, name: str) -> str:
        return f"ipc://{self._sockets / name}"


def without_episodes(status: Status) -> str:
    """Returns what to say of a run in which no episode has ended; empty where some have."""
    if not known_to_be_endless(status):
        return ""
    return (
        f"no episode ended in {status.inserts:,} environment steps; if the environment never ends one, pass "
        "--max-episode-steps N"
    )


def forget_transitions(directory: RunDirectory) -> None:
    """Deletes the replay's data, which only a run that goes on needs."""
    for name in (_REDIS, LOCKSTEP):
        shutil.rmtree(directory.path / name, ignore_errors=True)


def replay_url(directory: RunDirectory) -> str:
    """Returns where the replay server of a run that trains here or under Slurm listens; ConfigError when none does."""
    sockets = directory.path / _SOCKETS
    if not sockets.exists() and (address := _slurm_address(directory)):
        return address
    if not sockets.exists() and (directory.path / LOCKSTEP).exists():
        raise ConfigError(
            f"{directory.path} trains in lockstep, in one process and with no server to ask; "
            f"how it goes is in {directory.metrics_file}"
        )
    if not sockets.exists():
        raise ConfigError(f"{directory.path} is not trained by `shoal train` now; name its replay server by --replay")
    return f"ipc://{sockets.resolve() / 'replay'}"


def _slurm_address(directory: RunDirectory) -> str:
    """Returns the replay server's address that deploy/slurm/shoal.sbatch wrote beside a run's directory, or nothing."""
    try:
        replay, _weights = (directory.path.resolve().parent / "address").read_text("utf-8").split()
    except (OSError, ValueError):
        return ""
    return replay if replay.startswith("tcp://") else ""


def _arguments(options: Mapping[str, object]) -> list[str]:
    """Returns options as a command line's arguments; True is a flag, False is left out."""
    given = [(f"--{name}", value) for name, value in options.items() if value is not False]
    return [part for name, value in given for part in ((name,) if value is True else (name, str(value)))]


def _without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment without SHOAL_ variables: they were this command's, its children are told by option."""
    return {name: value for name, value in environment.items() if not name.startswith("SHOAL_")}


def _newest_status(client: Client) -> Status | None:
    newest = None
    try:
        while received := client.receive():
            if isinstance(received[0], Status):
                newest = received[0]
    except ProtocolError as e:
        _log.warning("ignored an answer of the replay server: %s", e)
    client.send(StatusRequest())
    return newest


def _socket_directory(run: Path) -> Path:
    """Makes the private directory of a run's sockets: in the run's own, or linked from it where its path is too long.

    ConfigError when no directory has a path that is short enough.
    """
    inside = run.resolve() / _SOCKETS
    if inside.is_symlink():
        inside.unlink()
    if _fits(inside):
        inside.mkdir(mode=0o700, exist_ok=True)
        inside.chmod(0o700)
        return inside
    for parent in (tempfile.gettempdir(), "/tmp", f"/run/user/{os.getuid()}"):  # noqa: S108  (a private one in it)
        if _fits(Path(parent) / f"{_PREFIX}12345678"):
            with contextlib.suppress(OSError):
                elsewhere = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
                inside.symlink_to(elsewhere)
                return elsewhere
    raise ConfigError(
        f"--run {run}: its path and TMPDIR ({tempfile.gettempdir()}) are too long for unix sockets, which take"
        f" {LONGEST_SOCKET_PATH} bytes; give a shorter --run or TMPDIR"
    )


def _fits(directory: Path) -> bool:
    """Says whether a directory's path leaves room for the longest name of a socket."""
    return len(os.fsencode(directory)) + len("/weights") <= LONGEST_SOCKET_PATH
