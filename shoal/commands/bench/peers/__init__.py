"""Other programs compared with Shoal: same machine, same benchmark run, same evaluation in the real environment.

Each peer is installed in a separate virtual environment and trained by a small script that uses its public interface as
its documentation shows (`PEERS`, scripts/). There are two kinds of settings:

    paper    batches of 1,024, 64-64 networks, rate 1e-2, one update per 100 environment steps: compares speed
    own      the settings that each program recommends: compares the return after the same time

The programs train one after the other. The return S is summed over agents and averaged over episodes.

environment.py   the virtual environments     replay.py   Shoal's replay server beside other replays
scripts/         programs that run in those environments
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from actor_node.evaluation.evaluate import FIRST_SEED
from common.errors import ConfigError, ShoalError
from common.files import write_atomically
from common.run.directory import RunDirectory
from common.run.evaluations import read_evaluations
from common.run.validation_errors import suggest
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.end_to_end import RunSpeed, max_run_s, run_speed, train_options
from shoal.commands.bench.measurements import BenchFailure, BenchProgress, BenchRow, row
from shoal.commands.bench.peers.environment import Peer, PeerFailedError, install_missing
from shoal.commands.bench.processes import Processes

SPEED_GOAL = 8.0
OPTIONS = {"paper": ("--preset", "paper", "--set", "network.head=box"), "own": ()}
EVALUATE_TIMEOUT_S = 900.0
WORLDS = ("simple_spread", "mamujoco:HalfCheetah-2x3")
_WORLD_PACKAGES = ("mpe2==1.1.1", "gymnasium-robotics==1.4.2", "mujoco==4.0.0", "torch==2.13.0")

PEERS = (
    # AgileRL cannot be imported without peft, which it does not declare as a dependency.
    Peer("agilerl", ("agilerl==2.58.0", "peft==0.21.2", *_WORLD_PACKAGES)),
    Peer("xuance", ("xuance==1.4.4", *_WORLD_PACKAGES)),
    Peer("benchmarl", ("benchmarl==1.5.2", *_WORLD_PACKAGES)),
    Peer("torchrl", ("torchrl==0.14.1", "redis==8.1.0", *_WORLD_PACKAGES)),
)


class CurvePoint(msgspec.Struct, frozen=True):
    """One evaluation without exploration while a program trained."""

    trained_s: float
    env_steps: int
    updates: int
    return_mean: float


class TrainingResult(msgspec.Struct, frozen=True):
    """The rates, the return and the curve of one run."""

    env_steps_s: float
    updates_s: float
    return_mean: float
    curve: list[CurvePoint] = []


class LabelledResult(msgspec.Struct, frozen=True):
    """One run as written to the file of curves."""

    program: str
    world: str
    settings: str
    seed: int
    result: TrainingResult


class _Trial(NamedTuple):
    config: BenchConfig
    world: str
    settings: str

    @property
    def seeds(self) -> range:
        return range(1, self.config.seeds + 1)

    @property
    def text(self) -> str:
        runs = f"{self.config.seeds} x " if self.config.seeds > 1 else ""
        return f"{self.world}, {self.settings} settings, {runs}{self.config.time:g} s of training"


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchFailure | BenchProgress]:
    """Yields peers/NAME/SETTINGS/return, and with the paper's settings also env-steps and updates.

    Rows of a world other than simple_spread have the world's name after the peer's. Shoal trains once for all peers.
    """
    peers, worlds = _chosen(config.peer, [peer.name for peer in PEERS]), _chosen(config.peer_world, WORLDS)
    ours: dict[_Trial, list[TrainingResult]] = {}
    written: list[LabelledResult] = []
    for peer in (peer for peer in PEERS if peer.name in peers):
        try:
            python = yield from install_missing(peer, config)
        except PeerFailedError as e:
            yield BenchFailure(f"peers/{peer.name}", str(e))
            continue
        for trial in [_Trial(config, world, name) for world in worlds for name in OPTIONS]:
            if trial not in ours:
                yield BenchProgress(f"Shoal, {trial.text}")
                ours[trial] = [_train_shoal(trial, seed) for seed in trial.seeds]
                written += _labelled("shoal", trial, ours[trial])
            yield BenchProgress(f"{peer.packages[0]}, {trial.text}")
            try:
                theirs = [_train_peer(trial, python, peer, seed) for seed in trial.seeds]
            except ShoalError as e:
                yield BenchFailure(_name(peer, trial), str(e))
                continue
            written += _labelled(peer.packages[0], trial, theirs)
            _write_curves(config, written)
            yield from _comparison_rows(peer, trial, ours[trial], theirs)


def _chosen(named: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Returns the names to measure; the first known world or all peers by default. ConfigError for an unknown name."""
    for name in named:
        if name not in known:
            raise ConfigError(f"{name!r} is not measured; {suggest(name, sorted(known))}.")
    return named or (known[:1] if tuple(known) == WORLDS else known)


def _labelled(program: str, trial: _Trial, results: Sequence[TrainingResult]) -> list[LabelledResult]:
    return [
        LabelledResult(program, trial.world, trial.settings, seed, result)
        for seed, result in zip(trial.seeds, results, strict=True)
    ]


def _write_curves(config: BenchConfig, written: Sequence[LabelledResult]) -> None:
    if config.curves:
        write_atomically(Path(config.curves), msgspec.json.format(msgspec.json.encode(written)) + b"\n")


def _comparison_rows(
    peer: Peer, trial: _Trial, ours: Sequence[TrainingResult], theirs: Sequence[TrainingResult]
) -> Iterator[BenchRow]:
    """Yields medians over seeds of the rates, and the mean over seeds of the return."""
    name = _name(peer, trial)
    if trial.settings == "paper":
        for figure, unit, of in (
            ("env-steps", "env steps/s", "env_steps_s"),
            ("updates", "updates/s", "updates_s"),
        ):
            rates = [statistics.median(getattr(one, of) for one in results) for results in (ours, theirs)]
            yield row(f"{name}/{figure}", unit, rates[0], (peer.name, rates[1]), SPEED_GOAL)
    returns = [statistics.fmean(one.return_mean for one in results) for results in (ours, theirs)]
    yield row(f"{name}/return", "return", returns[0], (peer.name, returns[1]))


def _name(peer: Peer, trial: _Trial) -> str:
    """Returns the first part of the names of a trial's rows."""
    world = () if trial.world == WORLDS[0] else (trial.world.partition(":")[2],)
    return "/".join(("peers", peer.name, *world, trial.settings))


def _train_shoal(trial: _Trial, seed: int) -> TrainingResult:
    config = trial.config
    with Processes() as processes:
        directory = processes.directory / "run"
        options = (*train_options(directory, config.time, trial.world), *OPTIONS[trial.settings], "--seed", seed)
        processes.command("shoal", *options, "--episodes", 0).wait_for_end(max_run_s(config.time))
        real = () if ":" in trial.world else ("--real",)
        evaluation = processes.command(
            "shoal", "evaluate", directory, *real, "--episodes", config.episodes, "--seed", FIRST_SEED
        )
        evaluation.wait_for_end(EVALUATE_TIMEOUT_S)
        evaluated = json.loads((directory / "evaluation.json").read_text("utf-8"))
        last = CurvePoint(config.time, 0, evaluated["updates"], evaluated["return_mean"])
        return TrainingResult(*_speed(directory, trial), evaluated["return_mean"], [*_curve(directory), last])


def _speed(directory: Path, trial: _Trial) -> RunSpeed:
    # Only the paper's settings compare rates; other runs may be too short to have any.
    return run_speed(directory / "metrics.jsonl") if trial.settings == "paper" else RunSpeed(0.0, 0.0)


def _curve(directory: Path) -> list[CurvePoint]:
    """Returns the evaluations while a run of Shoal's trained."""
    return [
        CurvePoint(one.trained_s, one.env_steps, one.updates, one.return_mean)
        for one in read_evaluations(RunDirectory(directory).evaluations_file)
    ]


def _train_peer(trial: _Trial, python: Path, peer: Peer, seed: int) -> TrainingResult:
    config = trial.config
    with Processes() as processes:
        script = Path(__file__).parent / "scripts" / f"{peer.name}_maddpg.py"
        result = processes.directory / "result.json"
        numbers = (config.time, config.episodes, FIRST_SEED, seed)
        started = processes.program(python, script, trial.settings, trial.world, result, *numbers)
        started.wait_for_end(config.time * 2 + EVALUATE_TIMEOUT_S)
        return msgspec.json.decode(result.read_bytes(), type=TrainingResult)
