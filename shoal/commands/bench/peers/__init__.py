"""Other programs side by side with Shoal: same machine, same run, same evaluation in the real mpe2.

Each peer is installed in an environment of its own and trained by a small script that uses its public interface as its
documentation does (`PEERS`). Two kinds of settings:

    paper    batches of 1,024, 64-64, rate 1e-2, one update per 100 environment steps: what is compared is speed
    own      what each recommends for itself: what is compared is the return after the same time

One run each, one after the other; S is the mean over episodes of the return summed over agents, 0 at best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from actor_node.evaluation.evaluate import FIRST_SEED
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.end_to_end import RunSpeed, longest_s, run_speed, train_options
from shoal.commands.bench.peers.environment import PeerEnvironment
from shoal.commands.bench.processes import Processes
from shoal.commands.bench.rows import BenchProgress, BenchRow, row

SPEED_GOAL = 8.0
OPTIONS = {"paper": ("--preset", "paper"), "own": ()}
EVALUATE_S = 900.0


class Peer(NamedTuple):
    """A program that trains MADDPG on mpe2 as it is installed, without changes to it."""

    name: str
    packages: tuple[str, ...]
    script: str


PEERS = (
    # It cannot be imported without peft, which it does not ask for.
    Peer("agilerl", ("agilerl==2.58.0", "mpe2==1.1.1", "peft==0.21.2", "torch==2.13.0"), "agilerl_maddpg.py"),
)


class Trained(msgspec.Struct, frozen=True):
    """What came of one run."""

    env_steps_s: float
    updates_s: float
    return_mean: float


def rows(config: BenchConfig) -> Iterator[BenchRow | BenchProgress]:
    """Yields peers/NAME/SETTINGS/return, and for the paper's settings env-steps and updates."""
    for peer in PEERS:
        environment = PeerEnvironment(peer.name, peer.packages, config)
        if not environment.installed:
            yield BenchProgress(
                f"installing {' '.join(peer.packages)} in {environment.path}; its log: {environment.log}"
            )
            environment.install()
        for settings in OPTIONS:
            yield BenchProgress(f"Shoal, {settings} settings, {config.time:g} s of training")
            ours = _train_shoal(config, settings)
            yield BenchProgress(f"{peer.packages[0]}, {settings} settings, {config.time:g} s of training")
            theirs = _train_peer(config, environment, peer, settings)
            yield from _compared(f"peers/{peer.name}/{settings}", peer.name, settings, ours, theirs)


def _compared(name: str, peer: str, settings: str, ours: Trained, theirs: Trained) -> Iterator[BenchRow]:
    if settings == "paper":
        steps = (peer, theirs.env_steps_s)
        yield row(f"{name}/env-steps", "env steps/s", ours.env_steps_s, steps, SPEED_GOAL)
        yield row(f"{name}/updates", "updates/s", ours.updates_s, (peer, theirs.updates_s), SPEED_GOAL)
    yield row(f"{name}/return", "return", ours.return_mean, (peer, theirs.return_mean))


def _train_shoal(config: BenchConfig, settings: str) -> Trained:
    with Processes() as stage:
        directory = stage.directory / "run"
        options = (*train_options(directory, config.time), *OPTIONS[settings], "--episodes", 0)
        stage.command("shoal", *options).wait_for_end(longest_s(config.time))
        evaluation = stage.command(
            "shoal", "evaluate", directory, "--real", "--episodes", config.episodes, "--seed", FIRST_SEED
        )
        evaluation.wait_for_end(EVALUATE_S)
        evaluated = json.loads((directory / "evaluation.json").read_text("utf-8"))
        # Rates are of the paper's settings only; another run may be too short to have any.
        course = run_speed(directory / "metrics.jsonl") if settings == "paper" else RunSpeed(0.0, 0.0)
    return Trained(course.env_steps_s, course.updates_s, evaluated["return_mean"])


def _train_peer(config: BenchConfig, environment: PeerEnvironment, peer: Peer, settings: str) -> Trained:
    with Processes() as stage:
        script = Path(__file__).with_name(peer.script)
        numbers = (config.time, config.episodes, FIRST_SEED)
        started = stage.program(environment.python, script, settings, stage.directory / "result.json", *numbers)
        started.wait_for_end(config.time * 2 + EVALUATE_S)
        return msgspec.json.decode((stage.directory / "result.json").read_bytes(), type=Trained)
