"""A run whose processes are killed at random all the while: what is lost, what grows, and what it learns all the same.

    python -m tests.soak.churn --minutes 30

Runs `shoal train --audit` twice: with a random process killed every few seconds, and quietly for as many steps. Prints
one table: kills by role, losses and duplicates by the audit, memory, descriptors and threads of each role over time,
and the evaluation of both. Exit code 1 when a promise of delivery is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from common.run.directory import RunDirectory
from deploy.local.embedded_redis import find_server
from shoal.commands.audit.delivery_check import AuditResult, check_deliveries
from shoal.commands.audit.ledger import read_ledger

ROOT = Path(__file__).parents[2]
WORDS = {
    "worker": "spawn_main",
    "actor node": "actor_node",
    "replay server": "replay_server",
    "Redis": Path(find_server()).name,
    "learner": "learner_node",
}
"""What tells a role's process by its command line."""
LAUNCHER = "shoal train"
"""Is looked at, and left alive."""
TOLD = (
    "sent",
    "acknowledged",
    "stored",
    "acknowledged_lost",
    "duplicates",
    "out_of_order",
    "altered",
    "unacknowledged_lost",
    "most_lost_with_an_actor",
    "worker_lives",
    "server_lives",
    "torn_files",
)
"""What is shown of the audit's verdict."""
REST_S = {"worker": 4.0, "actor node": 12.0, "replay server": 12.0, "Redis": 12.0, "learner": 45.0}
"""How long a process has run at least before it is killed: long enough to have done some work."""
LEARNING = 0.65
"""The share of a killed run's time in which it trains: somewhat more than the half that was seen."""
STEADY_S = 70.0
MOST_IN_A_ROW = 5
"""A supervisor gives up what fails eight times in a row, each time within a minute: that is not what is tried here."""
SAMPLE_EVERY_S = 2.0
WARM_S = 60.0
"""Growth is measured from this age of a process on."""
CAPACITY = 20_000
"""Transitions held: so few that ring and Redis are soon full, and what grows then is no transitions."""


class Process:
    """One process of the run, from when it was first seen."""

    def __init__(self, role: str, process: psutil.Process, now: float) -> None:
        self.role, self.process, self.born = role, process, now
        self.samples: list[tuple[float, int, int, int]] = []
        """Age in seconds, private bytes, descriptors, threads."""

    def sample(self, now: float) -> None:
        try:
            with self.process.oneshot():
                memory, threads = self.process.memory_full_info().uss, self.process.num_threads()
                if self.process.status() != psutil.STATUS_ZOMBIE and memory:
                    self.samples.append((now - self.born, memory, self.process.num_fds(), threads))
        except psutil.Error:
            return


class Churn:
    """Looks at a run's processes, and kills some."""

    def __init__(self, launcher: int, seed: int, every_s: float) -> None:
        self._launcher = psutil.Process(launcher)
        self._random = random.Random(seed)
        self._every_s = every_s
        self._next_kill = time.monotonic() + 20.0
        self._sampled_at = 0.0
        self._in_a_row: Counter[str] = Counter()
        self.known = {launcher: Process(LAUNCHER, self._launcher, time.monotonic())}
        self.kills: Counter[str] = Counter()
        self.took_s = 0.0

    def look(self, *, kill: bool) -> None:
        now = time.monotonic()
        living = self._living(now)
        if now - self._sampled_at >= SAMPLE_EVERY_S:
            self._sampled_at = now
            # The launcher while it has a run to watch: what it does once all roles have ended is no soak.
            for one in (self.known[self._launcher.pid], *living) if living else ():
                one.sample(now)
        if kill and now >= self._next_kill:
            self._next_kill = now + self._random.expovariate(1.0 / self._every_s)
            self._kill(living, now)

    def _kill(self, living: list[Process], now: float) -> None:
        ready = [one for one in living if self._may_die(one, now)]
        if not ready:
            return
        role = self._random.choice(sorted({one.role for one in ready}))
        victim = self._random.choice([one for one in ready if one.role == role])
        self._in_a_row[role] = 1 if now - victim.born > STEADY_S else self._in_a_row[role] + 1
        try:
            victim.process.kill()
        except psutil.NoSuchProcess:
            return
        self.kills[role] += 1

    def _may_die(self, one: Process, now: float) -> bool:
        age = now - one.born
        return age > REST_S[one.role] and (self._in_a_row[one.role] < MOST_IN_A_ROW or age > STEADY_S)

    def _living(self, now: float) -> list[Process]:
        found = []
        try:
            children = self._launcher.children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        for child in children:
            known = self.known.get(child.pid)
            if known is None or known.process != child:
                role = _role(child)
                if role is None:
                    continue
                known = self.known[child.pid] = Process(role, child, now)
            found.append(known)
        return found


def _role(process: psutil.Process) -> str | None:
    try:
        line = " ".join(process.cmdline())
    except psutil.Error:
        return None
    return next((role for role, word in WORDS.items() if word in line), None)


def train(
    run: Path, options: argparse.Namespace, budget: tuple[str, str], *, kill: bool
) -> tuple[Churn, dict[str, Any]]:
    """Trains a run to its end; returns who was seen and killed, and the evaluation."""
    size = (*budget, "--actors", str(options.actors), "--episodes", "500", "--no-film")
    where = ("--run", str(run), "--audit", "--json", "--seed", str(options.seed))
    settings = ("--set", f"replay.capacity={CAPACITY}")
    command = [sys.executable, "-m", "shoal", "train", options.scenario, *size, *where, *settings]
    began = time.monotonic()
    log = run.with_suffix(".log")
    with log.open("wb") as errors:
        launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT, start_new_session=True)
    churn = Churn(launcher.pid, options.seed, options.every)
    give_up_at = began + 3 * 60.0 * options.minutes + 300.0
    while launcher.poll() is None:
        churn.look(kill=kill and time.monotonic() - began < 60.0 * options.minutes)
        if time.monotonic() > give_up_at:
            os.killpg(launcher.pid, signal.SIGTERM)
        time.sleep(0.2)
    churn.took_s = time.monotonic() - began
    assert launcher.stdout is not None
    out = launcher.stdout.read()
    if launcher.returncode != 0:
        raise SystemExit(f"the run ended with code {launcher.returncode}: {log.read_text()[-2_000:]}")
    return churn, json.loads(out)


def steps_of(run: Path) -> int:
    """Returns the environment steps that a run has learnt from."""
    *_, last = RunDirectory(run).metrics_file.read_text().splitlines()
    return int(json.loads(last)["env_steps"])


def growth(churn: Churn, role: str) -> tuple[str, str, str]:
    """Returns, of a role's longest life, memory first and last with its slope; descriptors; threads."""
    lives = [one for one in churn.known.values() if one.role == role and one.samples]
    longest = max(lives, key=lambda one: one.samples[-1][0], default=None)
    if longest is None:
        return "-", "-", "-"
    # Without its last seconds, in which it may have been ending.
    whole = longest.samples[:-3] or longest.samples
    warm = [sample for sample in whole if sample[0] >= min(WARM_S, whole[-1][0] / 2)]
    ages, memory = [sample[0] for sample in warm], [sample[1] / 2**20 for sample in warm]
    slope = statistics.linear_regression(ages, memory).slope * 3_600 if len(set(ages)) > 1 else 0.0
    at_most = max(max(sample[1] for sample in one.samples) for one in lives) / 2**20
    told = f"{memory[0]:.0f} to {memory[-1]:.0f} in {ages[-1] / 60:.1f} min ({slope:+.0f} MiB/h), at most {at_most:.0f}"
    return told, _range(sample[2] for sample in warm), _range(sample[3] for sample in warm)


def _range(values: Any) -> str:
    found = list(values)
    return f"{found[0]} to {found[-1]}, at most {max(found)}"


def roles_table(churn: Churn, *, kills: bool) -> list[str]:
    """Returns what each role's processes took, as lines of Markdown."""
    lives = Counter(one.role for one in churn.known.values())
    lines = [
        f"| role |{' kills | lives |' if kills else ''} private MiB of its longest life | descriptors | threads |",
        f"|---|{'---|---|' if kills else ''}---|---|---|",
    ]
    for role in (*WORDS, LAUNCHER):
        counts = f" {churn.kills[role]} | {lives[role]} |" if kills else ""
        lines.append(f"| {role} |{counts} {' | '.join(growth(churn, role))} |")
    return lines


def table(quiet: dict[str, Any], churned: dict[str, Any], churns: tuple[Churn, Churn], verdict: AuditResult) -> str:
    """Returns the tables as Markdown; churns: of the quiet run, of the churned one."""
    calm, churn = churns
    lines = [*roles_table(churn, kills=True), ""]
    lines += [f"{sum(churn.kills.values())} kills in {churn.took_s / 60:.1f} minutes. The quiet run,"]
    lines += [f"{calm.took_s / 60:.1f} minutes:", "", *roles_table(calm, kills=False), ""]
    lines += ["| chunks | |", "|---|---|"]
    lines += [f"| {name.replace('_', ' ')} | {getattr(verdict, name):,} |" for name in TOLD]
    lines += ["", "| run | updates | return S | 95 % |", "|---|---|---|---|"]
    for name, result in {"quiet": quiet, "churned": churned}.items():
        low, high = result["return_ci95"]
        lines.append(f"| {name} | {result['updates']:,} | {result['return_mean']:.2f} | {low:.2f} to {high:.2f} |")
    return "\n".join(lines)


def run_churn(options: argparse.Namespace) -> AuditResult:
    """Runs it all and prints the table; returns the verdict over the churned run."""
    directory = Path(options.directory or tempfile.mkdtemp(prefix="churn-"))
    directory.mkdir(parents=True, exist_ok=True)
    # Training time stands still while a role is away: that much of it lasts longer than the kills do.
    budget = ("--steps", str(options.steps)) if options.steps else ("--time", f"{LEARNING * options.minutes:.2f}m")
    churn, churned = train(directory / "churned", options, budget, kill=True)
    same = ("--steps", str(steps_of(directory / "churned")))
    calm, quiet = train(directory / "quiet", options, same, kill=False)
    verdict = check_deliveries(read_ledger(RunDirectory(directory / "churned").audit, "", "default"))
    print(table(quiet, churned, (calm, churn), verdict), flush=True)
    for broken in verdict.broken:
        print(f"BROKEN: {broken}", flush=True)
    return verdict


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=30.0, help="how long processes are killed")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between kills, on average")
    parser.add_argument(
        "--steps", type=int, default=0, help="environment steps of either run; 0 = as many as the kills leave time for"
    )
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--scenario", default="simple_spread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", default="", help="where the runs go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(1 if run_churn(parse()).broken else 0)
