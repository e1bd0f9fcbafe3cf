"""The Python functions `shoal.train` and `shoal.evaluate`, and the class `shoal.Run`: the same as the commands.

The functions restore `os.environ` and print nothing on the standard output. A lockstep run adds handlers to Shoal's
loggers and removes them at its end. A signal that stopped a run is raised again for the caller's handler.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack

import click
import msgspec
from rich.console import Console

from actor_node.evaluation.evaluate import FIRST_SEED, Evaluation
from common.errors import ConfigError
from common.process.durations import Duration
from common.run.directory import RunDirectory
from common.run.evaluations import ScheduledEvaluation, read_evaluations
from common.run.open_run import RunOptions
from common.run.run import RunSpec
from common.run.validation_errors import explain, suggest
from common.worlds import world_name
from common.worlds.families.python import refuse_import
from deploy.local.config import PRESET_PROCESSES, TrainConfig
from learner_node.config import Track
from shoal.commands.check.check import DEFAULT_SECONDS, WorldCheck
from shoal.commands.check.cli import check_from_python
from shoal.commands.evaluate.cli import EvaluateConfig, evaluate_run, refuse_contradictions
from shoal.commands.report import REPORT_FILE, write_report
from shoal.commands.train.session import TrainingSession
from shoal.machine_info import read_machine
from shoal.package_finder import PACKAGES
from shoal.team import Team, load

Time = float | str
"""A duration: seconds, or a text such as "90s", "5m" or "1h30m"."""

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
_PARAMETERS_WITHOUT_OPTION: dict[str, Any] = {"settings": {}, "progress": True, "film": True}
"""Parameters of `train` without an option of the same name, and their defaults."""
_LIBRARY_VARIABLES = (
    "CRC32C_SW_MODE",
    "PYGAME_HIDE_SUPPORT_PROMPT",
    "SDL_AUDIODRIVER",
    "SDL_VIDEODRIVER",
    "SDL_VIDEO_X11_WMCLASS",
)
"""Environment variables that crc32c, pettingzoo and pygame set when they are imported."""
_LAUNCH_SETTINGS = ("actors", "copies", "threads", "lockstep")
"""Launch settings in `machine.json` that a resumed run uses again."""


class ResumeOptions(TypedDict, total=False):
    """Parameters of `train` that `Run.resume` also takes, besides the budget."""

    settings: Mapping[str, Any]
    actors: int
    copies: int
    chunk_rows: int
    threads: int
    gpu: bool
    lockstep: bool
    redis: str
    redis_password_file: str | Path
    redis_ca_file: str | Path
    audit: bool
    episodes: int
    film: bool
    track: Track
    dashboard: bool
    dashboard_port: int
    metrics_port: int
    progress: bool


class Run:
    """A run on this machine: its results, and methods to evaluate, report and resume it.

    `train` returns a Run; `Run("runs/spread")` opens an existing one.

    Example:
        >>> run = Run("runs/spread")
        >>> run.evaluate(episodes=100).return_mean
        -22.31
    """

    def __init__(self, directory: str | Path) -> None:
        """Opens the directory of a run; raises ConfigError if it does not contain a run."""
        self._files = _run_directory(directory)
        self.directory = self._files.path
        """The run's directory."""
        known = self._files.run
        self.id, self.scenario = known.id, known.spec.scenario
        self._resume_options: Mapping[str, Any] = {}
        """Parameters of `train` that `resume` uses again; empty for a run that this object did not start."""

    @property
    def settings(self) -> RunSpec:
        """All settings of the run, as in `run.toml`."""
        return self._files.run.spec

    @property
    def finished(self) -> bool:
        """Whether the run has used its budget."""
        return self._files.finished_file.exists()

    @property
    def evaluation(self) -> Evaluation | None:
        """The latest stored evaluation of the run; None if there is none."""
        file = self._files.evaluation_file
        return msgspec.json.decode(file.read_bytes(), type=Evaluation) if file.exists() else None

    @property
    def team(self) -> Team:
        """The trained team, read from the directory at each access; raises ConfigError before the first policies."""
        return load(self.directory)

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The metrics over time, one dict for each line of `metrics.jsonl` (docs/metrics.md)."""
        file = self._files.metrics_file
        if not file.exists():
            return []
        return [msgspec.json.decode(line) for line in file.read_bytes().splitlines() if line.strip()]

    @property
    def evaluations(self) -> list[ScheduledEvaluation]:
        """The evaluations while the run trained, in order: the lines of `evaluations.jsonl` (docs/tracking.md)."""
        return read_evaluations(self._files.evaluations_file)

    def evaluate(self, episodes: int | None = None, **options: Unpack[EvaluateOptions]) -> Evaluation:
        """Evaluates the run's team; parameters and exceptions are those of `shoal.evaluate`."""
        return evaluate(self.directory, episodes, **options)

    def report(self, output: str | Path | None = None) -> Path:
        """Writes the run's report, one HTML file, and returns its path.

        output: the file to write; None: `report.html` in the run's directory. Raises ConfigError if it cannot write.
        """
        path = Path(output) if output is not None else self.directory / REPORT_FILE
        write_report([self.directory], path)
        return path

    def resume(self, *, time: Time | None = None, steps: int | None = None, **options: Unpack[ResumeOptions]) -> Run:
        """Continues the run until a larger budget is used, and returns this object.

        time, steps: the total budget: with `time="10m"` a run of five minutes continues for another five.
        options: parameters of `train`; actors, copies, threads and lockstep default to those of the last start.
        Raises FinishedError, a ConfigError, if the run has already used this budget.
        """
        resume_options = self._resume_options or _recorded_launch(self._files)
        known = ResumeOptions.__annotations__
        if unknown := [name for name in options if name not in known]:
            raise ConfigError(f"{unknown[0]} is not a parameter of resume; {suggest(unknown[0], known)}")
        budget = {"time": time, "steps": steps}
        _train("", {**resume_options, **options, **budget, "run": self.directory, "resume": True})
        return self

    def __repr__(self) -> str:
        """Shows directory, scenario and state."""
        return f"Run({str(self.directory)!r}: {self.scenario}, {'finished' if self.finished else 'not finished'})"


def train(
    scenario: str | Callable[..., Any] = "",
    *,
    run: str | Path | None = None,
    resume: bool = False,
    time: Time | None = None,
    steps: int | None = None,
    seed: int | None = None,
    algorithm: str | None = None,
    start_from: str | Path | None = None,
    preset: Literal["auto", "particle", "control", "fast", "paper", "seed"] | None = None,
    max_episode_steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    actors: int | None = None,
    copies: int | None = None,
    threads: int | None = None,
    gpu: bool = False,
    lockstep: bool = False,
    redis: str | None = None,
    redis_password_file: str | Path | None = None,
    redis_ca_file: str | Path | None = None,
    chunk_rows: int | None = None,
    audit: bool = False,
    episodes: int | None = None,
    film: bool = True,
    track: Track = "none",
    dashboard: bool = False,
    dashboard_port: int | None = None,
    metrics_port: int | None = None,
    progress: bool = True,
) -> Run:
    """Trains a team with all processes on this machine, evaluates it, writes film and report, and returns the run.

    Equals the command `shoal train` and returns when the run is finished. A parameter that is not given has the default
    of the option of the same name (docs/reference/commands.md). Works in a notebook, in a script without an
    `if __name__ == "__main__"`, and in any thread.

    scenario: the world: a name of `scenarios()` or of a family (`pettingzoo:sisl/pursuit-v5`), or a function or class
    at the top level of a module that returns a PettingZoo or Gymnasium environment; optional with `resume`.
    run: directory of the run; None: runs/SCENARIO-DATE-TIME.
    resume: continue the run in that directory; with a scenario, also start the run if there is none.
    time: budget from the first transition, in seconds or as in "5m" (default: 5m without `steps`).
    steps: budget in environment steps over all copies.
    start_from: directory of a run whose policies and critics are the first ones of this run.
    preset: settings to start from; None or "auto" chooses by the world. With `resume`, None keeps the run's settings.
    max_episode_steps: number of steps after which an episode is truncated; 0: no limit.
    settings: any settings of the run, nested or with dots: {"replay.batch": 512, "world": {"N": 5}}. A parameter
    overrides the setting of the same meaning.
    actors: number of worker processes. copies: number of world copies that each of them steps in one batch (0 = chosen
    by the world).
    threads, gpu: number of the learner's CPU threads, and whether it trains on CUDA.
    lockstep: run everything in this process in a fixed order, so that the same seed gives the same bits.
    redis, redis_password_file, redis_ca_file, chunk_rows, audit, track, dashboard, dashboard_port, metrics_port: the
    same as the options --redis, --redis-password-file and so on of `shoal train`.
    episodes: number of episodes of the final evaluation; 0: none. film: whether to make a film at the end.
    progress: whether to show progress on the standard error.

    Raises ConfigError for invalid parameters, before anything is started, and another ShoalError for a failed run.
    In the main thread Ctrl-C ends the run within seconds, with a checkpoint, and raises KeyboardInterrupt;
    `Run(directory).resume()` continues it. Restores the caller's signal handlers.

    Example:
        >>> run = train("simple_spread", time="5m", actors=2, settings={"replay.batch": 512})
        >>> run.evaluation.return_mean
        -22.31
    """
    return _train(
        world_name(scenario),
        {
            "run": run,
            "resume": resume,
            "time": time,
            "steps": steps,
            "seed": seed,
            "algorithm": algorithm,
            "start_from": start_from,
            "preset": preset,
            "max_episode_steps": max_episode_steps,
            "settings": settings,
            "actors": actors,
            "copies": copies,
            "threads": threads,
            "gpu": gpu,
            "lockstep": lockstep,
            "redis": redis,
            "redis_password_file": redis_password_file,
            "redis_ca_file": redis_ca_file,
            "chunk_rows": chunk_rows,
            "audit": audit,
            "episodes": episodes,
            "film": film,
            "track": track,
            "dashboard": dashboard,
            "dashboard_port": dashboard_port,
            "metrics_port": metrics_port,
            "progress": progress,
        },
    )


class EvaluateOptions(TypedDict, total=False):
    """Parameters of `evaluate` besides run and episodes."""

    seed: int
    within: Time
    fast: bool
    real: bool
    sample: bool
    dynamics: Literal["mpe2", "legacy"]
    processes: int
    copies: int
    max_episode_steps: int
    progress: bool


def evaluate(run: str | Path | Run, episodes: int | None = None, **options: Unpack[EvaluateOptions]) -> Evaluation:
    """Plays whole episodes with a run's team, without exploration, and returns the evaluation.

    Equals the command `shoal evaluate RUN`, and like the command stores the result in the run's directory.

    run: the run or its directory. episodes: number of episodes; None: 1,000 in a batched world, elsewhere as many as
    fit into `within`.
    seed: seed of the first episode; episode e has seed + e. within: duration in seconds, or as in "60s".
    fast: play in the batched world only, without repeating the first episodes in mpe2. real: play all episodes in mpe2.
    sample: draw actions from the policies, as in training, if they have a softmax or a Gaussian. dynamics: "legacy":
    those of the original MPE.
    processes, copies: numbers of worker processes and of world copies in each; 0 = as in training. max_episode_steps:
    number of steps after which an episode is truncated; 0 = as in training. progress: whether to show progress on the
    standard error.
    Raises ConfigError if there are no policies, and WorldError if the environment fails.

    Example:
        >>> evaluate("runs/spread", episodes=100).return_mean
        -22.31
    """
    refuse_import("shoal.evaluate")
    values: dict[str, Any] = {"seed": FIRST_SEED, **options, "episodes": episodes}
    progress = values.pop("progress", True)
    if "within" in values:
        values["within"] = _seconds("within", values["within"])
    config = _convert(values, EvaluateConfig)
    refuse_contradictions(config)
    directory = _run_directory(run.directory if isinstance(run, Run) else run)
    with _restored_environment():
        return evaluate_run(directory, config, screen=_screen(progress=progress))


def check(
    world: str | Callable[..., Any],
    *,
    settings: Mapping[str, Any] | None = None,
    max_episode_steps: int = 0,
    seconds: Time = DEFAULT_SECONDS,
    seed: int = 0,
    progress: bool = True,
) -> WorldCheck:
    """Checks an environment before training on it, and returns what is wrong and what to expect.

    Equals the command `shoal check WORLD`.

    world: the world, as `scenario` of `train`. settings: settings of the sections world, episode, network, algorithm.
    max_episode_steps: maximum length of an episode before it is truncated; 0: no limit. seconds: time for playing
    episodes. progress: whether to show progress on the standard error.
    Raises ConfigError for an unknown name or option; a fault of the environment is a finding, and `ok` is false.

    Example:
        >>> found = check("simple_spread", seconds=10)
        >>> found.ok
        True
    """
    refuse_import("shoal.check")
    return check_from_python(
        world_name(world),
        _settings_by_section(settings or {}),
        seconds=_seconds("seconds", seconds),
        max_episode_steps=max_episode_steps,
        seed=seed,
        progress=progress,
    )


def _train(scenario: str, parameters: Mapping[str, Any]) -> Run:
    """Trains with the given parameters of `train`; None means that a parameter was not given."""
    refuse_import("shoal.train")
    given = {name: value for name, value in parameters.items() if value is not None}
    resume_options = {name: value for name, value in given.items() if name in ResumeOptions.__annotations__}
    settings, progress, film = (given.pop(name, usual) for name, usual in _PARAMETERS_WITHOUT_OPTION.items())
    config, options = _configs({**given, "no_film": not film})
    session = TrainingSession(config, _screen(progress=progress))
    directory = session.open(scenario, options, _settings_by_section(settings))
    try:
        with session.stop.signals(), _restored_environment(), _logging_into(directory, lockstep=config.lockstep):
            if session.train():
                if config.episodes != 0:
                    session.evaluate(lambda _: None)
                session.conclude()
    finally:
        session.close()
    if session.stop.signal == signal.SIGINT:
        raise KeyboardInterrupt
    if session.stop.signal:
        signal.raise_signal(session.stop.signal)  # for the caller's handler
    if session.problem:
        warnings.warn(
            f"{directory.path} is trained but could not be evaluated: {session.problem}\n"
            f"Call Run({str(directory.path)!r}).evaluate() after the fault is fixed.",
            stacklevel=3,
        )
    trained = Run(directory.path)
    trained._resume_options = resume_options
    return trained


def _configs(given: dict[str, Any]) -> tuple[TrainConfig, RunOptions]:
    """Returns the config structs of the given values, as the command line does; ConfigError names an invalid value."""
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    if "time" in given:
        given["time"] = _seconds("time", given["time"])
    of_run = RunOptions.__struct_fields__
    options = _convert({name: value for name, value in given.items() if name in of_run}, RunOptions)
    process_options = {name: value for name, value in given.items() if name not in of_run}
    # A preset may also change the numbers of actors and copies, unless they are given.
    return _convert({**PRESET_PROCESSES.get(options.preset, {}), **process_options}, TrainConfig), options


def _convert(values: dict[str, Any], kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as e:
        raise ConfigError(explain(e, values, kind)) from e


def _seconds(parameter: str, duration: Time) -> float:
    """Returns a duration in seconds; ConfigError names the parameter that it was passed as."""
    try:
        return Duration().convert(duration, None, None)
    except click.BadParameter as e:
        raise ConfigError(f"{parameter} = {e.message}") from e


def _settings_by_section(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings as nested sections; splits keys at their dots."""
    sections: dict[str, Any] = {}
    for path, value in settings.items():
        *parents, key = path.split(".")
        table = sections
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"settings: {path} = {value!r}, but {parent} also has a value. Remove one of them.")
        if isinstance(value, Mapping) and isinstance(table.get(key), dict):
            table[key] |= value
        else:
            table[key] = dict(value) if isinstance(value, Mapping) else value
    return sections


def _screen(*, progress: bool) -> Console:
    """Returns the console for progress: it shows a live table in a main thread with a terminal, otherwise lines."""
    if not progress:
        return Console(file=io.StringIO(), markup=False, emoji=False, force_terminal=False, force_jupyter=False)
    # The terminal belongs to the main thread, so that other threads print lines.
    is_main = threading.current_thread() is threading.main_thread()
    return Console(
        stderr=True, markup=False, emoji=False, force_jupyter=False, force_terminal=None if is_main else False
    )


def _run_directory(run: str | Path) -> RunDirectory:
    directory = RunDirectory(run)
    if directory.path.is_file():
        raise ConfigError(f"{run} is a file. Pass the directory of its run, as in {directory.path.parent}.")
    _ = directory.run  # raises ConfigError if there is no run
    return directory


def _recorded_launch(directory: RunDirectory) -> Mapping[str, Any]:
    """Returns the launch settings of the last start, from `machine.json`."""
    recorded = read_machine(directory).get("launch", {})
    return {name: recorded[name] for name in _LAUNCH_SETTINGS if name in recorded}


@contextlib.contextmanager
def _restored_environment() -> Iterator[None]:
    """Restores the environment variables that libraries set if they are imported in the block."""
    before = {name: os.environ.get(name) for name in _LIBRARY_VARIABLES}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _logging_into(directory: RunDirectory, *, lockstep: bool) -> Iterator[None]:
    """Writes Shoal's log of a lockstep run to the run's directory; the caller's log receives warnings only.

    Other runs have processes with separate logs.
    """
    if not lockstep:
        yield
        return
    directory.logs.mkdir(exist_ok=True)
    file = logging.FileHandler(directory.logs / "lockstep.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    handlers = (file, _RootLogHandler(logging.WARNING))
    loggers = [logging.getLogger(name) for name in PACKAGES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in handlers:
                logger.removeHandler(handler)
        file.close()


class _RootLogHandler(logging.Handler):
    """Forwards records to the caller's log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Forwards a record to the handlers of the root logger."""
        logging.getLogger().callHandlers(record)
