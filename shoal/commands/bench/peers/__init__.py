"""Other programs compared with Shoal: same machine, same benchmark run, same evaluation in the real mpe2.

Each peer is installed in a separate virtual environment and trained by a small script that uses its public interface as
its documentation shows (`PEERS`). There are two kinds of settings:

    paper    batches of 1,024, 64-64 networks, rate 1e-2, one update per 100 environment steps: compares speed
    own      the settings that each program recommends: compares the return after the same time

Each program trains once, one after the other. The return S is summed over agents and averaged over episodes; 0 is best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from actor_node.evaluation.evaluate import FIRST_SEED
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.end_to_end import RunSpeed, max_run_s, run_speed, train_options
from shoal.commands.bench.measurements import BenchProgress, BenchRow, row
from shoal.commands.bench.peers.environment import PeerEnvironment
from shoal.commands.bench.processes import Processes

SPEED_GOAL = 8.0
OPTIONS = {"paper": ("--preset", "paper", "--set", "network.head=box"), "own": ()}
EVALUATE_TIMEOUT_S = 900.0


class Peer(NamedTuple):
    """A program that trains MADDPG on mpe2 without changes to its code."""

    name: str
    packages: tuple[str, ...]
    script: str


PEERS = (
    # AgileRL cannot be imported without peft, which it does not declare as a dependency.
    Peer("agilerl", ("agilerl==2.58.0", "mpe2==1.1.1", "peft==0.21.2", "torch==2.13.0"), "agilerl_maddpg.py"),
)


class TrainingResult(msgspec.Struct, frozen=True):
    """The rates and the return of one run."""

    env_steps_s: float
    updates_s: float
    return_mean: float


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields peers/NAME/SETTINGS/return, and with the paper's settings also env-steps and updates."""
    for peer in PEERS:
        environment = PeerEnvironment(peer.name, peer.packages, config)
        if not environment.installed:
            yield BenchProgress(f"installing {' '.join(peer.packages)} in {environment.path}; log: {environment.log}")
            environment.install()
        for settings in OPTIONS:
            yield BenchProgress(f"Shoal, {settings} settings, {config.time:g} s of training")
            ours = _train_shoal(config, settings)
            yield BenchProgress(f"{peer.packages[0]}, {settings} settings, {config.time:g} s of training")
            theirs = _train_peer(config, environment, peer, settings)
            yield from _comparison_rows(f"peers/{peer.name}/{settings}", peer.name, settings, ours, theirs)


def _comparison_rows(
    name: str, peer: str, settings: str, ours: TrainingResult, theirs: TrainingResult
) -> Iterator[BenchRow]:
    if settings == "paper":
        steps = (peer, theirs.env_steps_s)
        yield row(f"{name}/env-steps", "env steps/s", ours.env_steps_s, steps, SPEED_GOAL)
        yield row(f"{name}/updates", "updates/s", ours.updates_s, (peer, theirs.updates_s), SPEED_GOAL)
    yield row(f"{name}/return", "return", ours.return_mean, (peer, theirs.return_mean))


def _train_shoal(config: BenchConfig, settings: str) -> TrainingResult:
    with Processes() as processes:
        directory = processes.directory / "run"
        options = (*train_options(directory, config.time), *OPTIONS[settings], "--episodes", 0)
        processes.command("shoal", *options).wait_for_end(max_run_s(config.time))
        evaluation = processes.command(
            "shoal", "evaluate", directory, "--real", "--episodes", config.episodes, "--seed", FIRST_SEED
        )
        evaluation.wait_for_end(EVALUATE_TIMEOUT_S)
        evaluated = json.loads((directory / "evaluation.json").read_text("utf-8"))
        # Only the paper's settings compare rates; other runs may be too short to have any.
        speed = run_speed(directory / "metrics.jsonl") if settings == "paper" else RunSpeed(0.0, 0.0)
    return TrainingResult(speed.env_steps_s, speed.updates_s, evaluated["return_mean"])


def _train_peer(config: BenchConfig, environment: PeerEnvironment, peer: Peer, settings: str) -> TrainingResult:
    with Processes() as processes:
        script = Path(__file__).with_name(peer.script)
        numbers = (config.time, config.episodes, FIRST_SEED)
        started = processes.program(environment.python, script, settings, processes.directory / "result.json", *numbers)
        started.wait_for_end(config.time * 2 + EVALUATE_TIMEOUT_S)
        return msgspec.json.decode((processes.directory / "result.json").read_bytes(), type=TrainingResult)
