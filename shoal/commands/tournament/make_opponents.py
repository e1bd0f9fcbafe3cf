"""Trains the frozen teams and writes their page.

Usage: `python -m shoal.commands.tournament.make_opponents DIRECTORY`.

Each team is a lockstep run in DIRECTORY; existing runs are not repeated. The policies are copied to
actor_node/opponents/, and the returns against untrained and random teams are written to README.md there.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

import actor_node.opponents
from actor_node.evaluation.evaluate import FIRST_SEED
from actor_node.evaluation.task import EvalTask
from actor_node.evaluation.teams import FROZEN, RANDOM, UNTRAINED, load_teams
from actor_node.evaluation.tournament import Tournament, run_tournament
from common.process.stop import Stop
from common.run.directory import RunDirectory
from shoal.commands.sweep.claims import Claims
from shoal.commands.sweep.runner import Job, make_directory, run_all
from shoal.number_format import mean_with_interval

SCENARIOS = ("simple_adversary", "simple_crypto", "simple_push", "simple_tag", "simple_world_comm")
SEED = 1
OPTIONS = (
    *("--lockstep", "--steps", "1000000", "--episodes", "0", "--no-film"),
    *("--set", "network.policy_hidden=[64,64]", "--set", "network.critic_hidden=[64,64]"),
    *("--set", "replay.capacity=1000000"),
    *("--algorithm", "matd3", "--set", "replay.n_step=1"),
)
_EPISODES = 1_000
_HEAD = """# Frozen opponents

Teams that were trained once and are shipped with Shoal, so that all teams can be measured against the same opponents:
`shoal tournament RUN --opponents frozen`, or `frozen` in place of a run. They are a common reference, not the best
possible teams.

There is one file for each scenario, in the format of a run's `policy.safetensors` with the run in its metadata. Both
sides were trained together with

    shoal train SCENARIO --seed {seed} {options}

on {date}. In lockstep, the same command gives the same bits on the same machine. `python -m
shoal.commands.tournament.make_opponents DIRECTORY` trains the teams and writes this page.

## How good they are

Returns are means over the agents of a side and {episodes:,} episodes without exploration (seeds from {first:,}), with
95 % intervals over episodes. In each row, the named side is played by the team of the last three columns in turn, and
the other side by the team in the column "opponents". A side has learned something if it earns more than untrained
networks against the same opponents.

| scenario | side | opponents | frozen | untrained | random |
|---|---|---|---|---|---|
"""


def main(arguments: list[str]) -> int:
    """Trains the teams, copies the policies and writes the page; returns the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m shoal.commands.tournament.make_opponents DIRECTORY\n")
        return 2
    directory, home = Path(arguments[0]), Path(actor_node.opponents.__file__).parent
    jobs = [Job(scenario, directory / scenario, SEED, OPTIONS) for scenario in SCENARIOS]
    stop = Stop()
    stop.on_signals()
    screen = Console(markup=False, emoji=False, stderr=True)
    claims = Claims(make_directory(directory))
    failed = run_all(jobs, 1, stop, screen, claims=claims, is_done=lambda job: job.finished).failed
    if stop.requested:
        return stop.exit_code
    if failed:
        sys.stderr.write(f"Runs failed. Logs: {', '.join(map(str, failed))}.\n")
        return 1
    lines = []
    for job in jobs:
        shutil.copyfile(RunDirectory(job.directory).policy_file, home / f"{job.scenario}.safetensors")
        lines += _score_rows(job)
    (home / "README.md").write_text(_head(jobs[0]) + "\n".join(lines) + "\n", "utf-8")
    return 0


def _head(job: Job) -> str:
    date = time.strftime("%Y-%m-%d", time.gmtime((job.directory / "finished").stat().st_mtime))
    options = " ".join(f"'{word}'" if "[" in word else word for word in OPTIONS)
    return _HEAD.format(seed=SEED, options=options, date=date, episodes=_EPISODES, first=FIRST_SEED)


def _score_rows(job: Job) -> list[str]:
    """Returns the table rows of one scenario: each side of the three teams against the same opponents."""
    run, teams = load_teams([str(job.directory), UNTRAINED, RANDOM], FIRST_SEED)
    team = teams[0]._replace(name=FROZEN)
    result = run_tournament(run, [team, *teams[1:]], _EPISODES, FIRST_SEED, EvalTask(fast=True))
    return [
        f"| {job.scenario} | {side} | {opponent} | {' | '.join(_returns(result, side, opponent))} |"
        for side in result.sides
        for opponent in (FROZEN, UNTRAINED, RANDOM)
    ]


def _returns(result: Tournament, side: str, opponent: str) -> list[str]:
    """Returns the return of each team as `side` against an opponent."""
    first = side == result.side
    returns = {
        pairing.side if first else pairing.others: pairing.returns[side]
        for pairing in result.pairings
        if (pairing.others if first else pairing.side) == opponent
    }
    return [mean_with_interval(returns[name].mean, returns[name].ci95) for name in (FROZEN, UNTRAINED, RANDOM)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
