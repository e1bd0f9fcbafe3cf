"""Trains a run under faults and again undisturbed, and prints what was lost, what grew and what both learnt.

    python -m tests.soak.churn --minutes 30

Exit code 1 when a promise of delivery is broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil

from common.run.directory import RunDirectory
from shoal.commands.audit.delivery_check import check_deliveries
from shoal.commands.audit.ledger import read_ledger

from .clock import Clock, missing_for_clock
from .faults import WEIGHTS, ClockStep, Fault, Faults, Kill, Network, Pause, RedisFull, killed_together
from .links import make_links
from .processes import Observer
from .report import TrainedRun, broken_promises, role_figures, tables

ROOT = Path(__file__).parents[3]
LEARNING = 0.5
"""Share of a disturbed run's time that counts as training: time does not while a role is away."""
CAPACITY = 20_000
"""Transitions stored: so few that ring and Redis are soon full, and what grows then is no transitions."""
TOGETHER_S = 15.0
SLOW_WORLD = "pettingzoo:tests.shoal.commands.team_kinds"
PROGRESS_EVERY_S = 30.0


class Churn:
    """One run of `shoal train`, observed and perhaps disturbed."""

    def __init__(self, path: Path, options: argparse.Namespace) -> None:
        self._path, self._options = path, options
        self._links_path = path.with_name(f"{path.name}-links")
        self._links = make_links(self._links_path, path / "sockets")
        self._rng = random.Random(options.seed)
        self._clock = Clock(path.parent) if "clock" in options.faults else None
        self._kill = Kill(self._rng)

    def train(self, budget: tuple[str, str], *, disturbed: bool) -> TrainedRun:
        """Trains to the end of the budget; returns what was seen."""
        began = time.monotonic()
        log = self._path.with_suffix(".log")
        environment = {**os.environ, **(self._clock.environment if self._clock else {})}
        with log.open("wb") as errors:
            launcher = subprocess.Popen(
                self._command(budget),
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        try:
            kinds = self._kinds() if disturbed else {}
            faults = Faults(kinds, self._rng, self._options.every, began)
            observer = Observer(launcher.pid)
            try:
                self._watch(launcher, observer, faults, began)
            finally:
                faults.end_all()
            out, _ = launcher.communicate(timeout=60)
        finally:
            _end(launcher)
            for link in self._links:
                link.close()
        if launcher.returncode != 0:
            raise SystemExit(f"the run ended with code {launcher.returncode}: {log.read_text()[-2_000:]}")
        return TrainedRun(
            minutes=(time.monotonic() - began) / 60,
            roles=role_figures(observer.lives),
            faults={kind: dict(count) for kind, count in faults.counts.items()},
            fault_s=dict(faults.seconds),
            together=killed_together(self._kill.at, TOGETHER_S),
            env_steps=int(last_line(self._path)["env_steps"]),
            most_steps_per_s=max(line.get("env_steps_per_s") or 0.0 for line in metrics_lines(self._path)),
            result=json.loads(out),
        )

    def _watch(self, launcher: subprocess.Popen[bytes], observer: Observer, faults: Faults, began: float) -> None:
        calm_at, give_up_at = began + 60.0 * self._options.minutes, began + 3 * 60.0 * self._options.minutes + 300.0
        shown_at = began
        while launcher.poll() is None:
            now = time.monotonic()
            living = observer.observe(now)
            if now < calm_at and living:
                faults.poll(living, now)
            else:
                faults.end_all()
            if now - shown_at >= PROGRESS_EVERY_S:
                shown_at = now
                steps = last_line(self._path).get("env_steps", 0)
                minutes = (now - began) / 60
                print(f"{self._path.name}: {minutes:.1f} min, {faults.total} faults, {steps:,} steps", file=sys.stderr)
            if now > give_up_at:
                launcher.terminate()
            time.sleep(0.2)

    def _kinds(self) -> dict[str, Fault]:
        """Returns the faults that were chosen."""
        kinds: dict[str, Fault] = {
            "kill": self._kill,
            "pause": Pause(self._rng),
            "network": Network(self._rng, self._links),
            "redis-full": RedisFull(self._rng, self._path / "sockets" / "redis"),
        }
        if self._clock:
            kinds["clock"] = ClockStep(self._rng, self._clock)
        return {name: fault for name, fault in kinds.items() if name in self._options.faults}

    def _command(self, budget: tuple[str, str]) -> list[str]:
        options = self._options
        size = (*budget, "--actors", str(options.actors), "--episodes", str(options.episodes), "--no-film")
        where = ("--run", str(self._path), "--audit", "--json", "--seed", str(options.seed))
        settings = [f"replay.capacity={CAPACITY}", *options.settings]
        scenario = options.scenario
        if options.slow_world:
            scenario, settings = SLOW_WORLD, [*settings, f"world.delay_s={options.slow_world}"]
        module = [sys.executable, "-m", "tests.soak.churn.train", str(self._links_path)]
        return [*module, "train", scenario, *size, *where, *(p for text in settings for p in ("--set", text))]


def _end(launcher: subprocess.Popen[bytes]) -> None:
    """Ends `shoal train` if it runs; the kernel ends its roles with it."""
    if launcher.poll() is not None:
        return
    roles = psutil.Process(launcher.pid).children(recursive=True)
    launcher.send_signal(signal.SIGTERM)
    try:
        launcher.wait(60)
    except subprocess.TimeoutExpired:
        launcher.kill()
        launcher.wait()
    for role in roles:
        with contextlib.suppress(psutil.NoSuchProcess):
            role.kill()


def metrics_lines(run: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics, without those that a kill has torn."""
    lines = []
    with contextlib.suppress(OSError):
        for line in RunDirectory(run).metrics_file.read_text().splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def last_line(run: Path) -> dict[str, Any]:
    """Returns the newest line of a run's metrics; empty if there is none."""
    return (metrics_lines(run) or [{}])[-1]


def run_churn(options: argparse.Namespace) -> list[str]:
    """Trains both runs, prints the tables and writes the JSON; returns the promises that were broken."""
    directory = Path(options.directory or tempfile.mkdtemp(prefix="churn-")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    budget = ("--steps", str(options.steps)) if options.steps else ("--time", f"{LEARNING * options.minutes:.2f}m")
    churned = Churn(directory / "churned", options).train(budget, disturbed=True)
    audit = check_deliveries(read_ledger(RunDirectory(directory / "churned").audit, "", "default"))
    same = ("--steps", str(churned.env_steps))
    quiet = Churn(directory / "quiet", options).train(same, disturbed=False)
    print(tables(churned, quiet, audit), flush=True)
    broken = broken_promises(audit, churned)
    for text in broken:
        print(f"BROKEN: {text}", flush=True)
    if options.out:
        found = {"options": vars(options), "churned": churned, "quiet": quiet, "audit": audit, "broken": broken}
        Path(options.out).write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2))
    return broken


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the options; ends the process for those that cannot work here."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.churn", description=(__doc__ or "").splitlines()[0])
    missing = missing_for_clock()
    possible = [kind for kind in WEIGHTS if kind != "clock" or not missing]
    parser.add_argument("--minutes", type=float, default=30.0, help="how long faults happen [min]")
    parser.add_argument("--every", type=float, default=5.0, help="time between faults, on average [s]")
    parser.add_argument("--faults", default=",".join(possible), help=f"kinds of faults, of {', '.join(WEIGHTS)}")
    parser.add_argument(
        "--steps", type=int, default=0, help="environment steps of either run; 0 = as many as the faults leave time for"
    )
    parser.add_argument("--actors", type=int, default=2, help="number of actor workers")
    parser.add_argument("--episodes", type=int, default=500, help="episodes of the evaluation at the end")
    parser.add_argument("--scenario", default="simple_spread", help="the world")
    parser.add_argument(
        "--slow-world", type=float, default=0.0, help="train in a world that sleeps this long in each step instead [s]"
    )
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the run; repeatable",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the faults and of the runs")
    parser.add_argument("--directory", default="", help="where the runs go; a new temporary directory without")
    parser.add_argument("--out", default="", help="file for the figures, as JSON")
    options = parser.parse_args(arguments)
    options.faults = options.faults.split(",")
    if unknown := set(options.faults) - set(WEIGHTS):
        parser.error(f"--faults {', '.join(sorted(unknown))}: choose from {', '.join(WEIGHTS)}")
    if "clock" in options.faults and missing:
        parser.error(f"--faults clock: {missing}")
    return options


if __name__ == "__main__":
    sys.exit(1 if run_churn(parse()) else 0)
