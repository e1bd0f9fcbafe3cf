"""What the roles take of a machine: the tables of docs/operations.md.

    unshare --net sh -c 'ip link set lo up && exec .venv/bin/python tests/bench/sizing.py'

Runs the real roles over TCP in a network of their own (of a plain run the loopback's other traffic would be counted,
too) and reads their /metrics. Rates are per CPU second, so that they hold on a machine that has other work.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import redis

from common.process.stop import Stop
from deploy.local.embedded_redis import EmbeddedRedis

MEASURE_S = 20.0
PORTS = {"replay": 9101, "learner": 9102, "actor": 9103}
MODULES = {"replay": "replay_server", "learner": "learner_node", "actor": "actor_node"}
_SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.MULTILINE)


class Reading(NamedTuple):
    """All metrics of the roles at one time, and the bytes that went over the loopback so far."""

    at_s: float
    metrics: dict[str, float]
    sent_bytes: int


class Roles:
    """Roles as processes, on their usual ports."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, role: str, *options: object) -> None:
        with (self._directory / f"{role}.log").open("ab") as log:
            command = [sys.executable, "-m", MODULES[role], *map(str, options)]
            self._processes[role] = subprocess.Popen(command, stdout=log, stderr=log)

    def stop(self, role: str) -> None:
        self._processes[role].send_signal(signal.SIGTERM)
        self._processes.pop(role).wait(30)

    def stop_all(self) -> None:
        for role in reversed(list(self._processes)):
            self.stop(role)

    def read(self) -> Reading:
        metrics = {}
        for role in self._processes:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[role]}/metrics", timeout=5) as answer:
                    text = answer.read().decode()
            except OSError:
                continue
            metrics |= {f"{role} {name}{labels}": float(value) for name, labels, value in _SAMPLE.findall(text)}
        lo = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
        return Reading(time.monotonic(), metrics, int(lo.split(":")[1].split()[0]))

    def wait_for(self, metric: str, more_than: float) -> None:
        give_up_at = time.monotonic() + 120.0
        while self.read().metrics.get(metric, 0.0) <= more_than:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{metric} is not above {more_than}; logs in {self._directory}")
            time.sleep(0.2)


@contextmanager
def run(workers: int, copies: int, *settings: str, redis_url: str = "none") -> Iterator[Roles]:
    """Starts one run with this many workers, each with its copies."""
    with tempfile.TemporaryDirectory(prefix="sizing-") as directory:
        roles = Roles(Path(directory))
        try:
            roles.start("replay", "--redis", redis_url)
            options = [part for setting in settings for part in ("--set", setting)]
            roles.start("learner", "--scenario", "simple_spread", "--time", "1h", "--run", f"{directory}/run", *options)
            roles.start("actor", "--n", workers, "--copies", copies)
            yield roles
        finally:
            roles.stop_all()


def measure(roles: Roles) -> tuple[Callable[[str], float], float, dict[str, float]]:
    """Returns how much each metric grew, the bytes over the loopback, and the metrics at the end."""
    before = roles.read()
    time.sleep(MEASURE_S)
    after = roles.read()
    # Reading /metrics goes over the loopback, too: some 10 kB a role, which is nothing beside transitions.
    return (
        lambda name: after.metrics[name] - before.metrics.get(name, 0.0),
        after.sent_bytes - before.sent_bytes,
        after.metrics,
    )


def flat_out(workers: int, copies: int) -> None:
    """Prints a row of actors that nothing holds back: no limit, and no learner once there are weights."""
    with run(workers, copies, "replay.limit=off", "exploration.random_steps=0") as roles:
        roles.wait_for("actor shoal_actor_env_steps_total", 10_000)
        roles.stop("learner")
        grew, sent, now = measure(roles)
        steps, chunks = grew("actor shoal_actor_env_steps_total"), grew("actor shoal_actor_chunks_total")
        print(
            f"| {workers} | {copies} | {steps / grew('actor shoal_cpu_seconds_total'):,.0f} "
            f"| {steps / grew('replay shoal_cpu_seconds_total'):,.0f} | {steps / chunks:.0f} | {sent / steps:.0f} "
            f"| {now['actor shoal_memory_bytes'] / 2**20:.0f} |"
        )


def training(workers: int) -> None:
    """Prints the rows of a run as it trains: what each role takes at the ratio that the run holds."""
    with run(workers, 32) as roles:
        roles.wait_for("learner shoal_learner_updates_total", 500)
        grew, sent, now = measure(roles)
        updates, steps = grew("learner shoal_learner_updates_total"), grew("actor shoal_actor_env_steps_total")
        cpu = {role: grew(f"{role} shoal_cpu_seconds_total") for role in MODULES}
        waiting_s = grew('actor shoal_actor_waiting_seconds_total{for="credit"}')
        print(f"updates per CPU second of the learner: {updates / cpu['learner']:.0f}")
        print(f"env steps per update: {steps / updates:.1f}, bytes over the network per update: {sent / updates:,.0f}")
        print(f"workers wait for credit {waiting_s / (workers * MEASURE_S):.0%} of their time")
        for role in MODULES:
            memory = now[f"{role} shoal_memory_bytes"] / 2**20
            print(f"| {role} | {cpu[role] / cpu['learner']:.3f} | {memory:.0f} |")


def kept() -> None:
    """Prints what a transition takes in the replay server's memory, in Redis' and on its disk."""
    with tempfile.TemporaryDirectory(prefix="sizing-") as directory:
        data = Path(directory) / "redis"
        server = EmbeddedRedis(data, Path(directory) / "socket", Path(directory) / "log")
        process = server.start()
        server.wait_ready(process, Stop())
        with run(1, 256, "replay.limit=off", "exploration.random_steps=0", redis_url=server.url) as roles:
            roles.wait_for("replay shoal_replay_ingested_transitions_total", 0)
            before = roles.read().metrics
            roles.wait_for("replay shoal_replay_ingested_transitions_total", 400_000)
            after = roles.read().metrics
            held = after["replay shoal_replay_transitions"]
            grew = after["replay shoal_memory_bytes"] - before["replay shoal_memory_bytes"]
            with redis.Redis.from_url(server.url) as client:
                used = client.info("memory")["used_memory"]
            files = sum(file.stat().st_size for file in data.rglob("*.aof"))
            print(f"bytes a transition: replay {grew / held:.0f}, Redis {used / held:.0f}, its file {files / held:.0f}")
        process.terminate()
        process.wait()


def main() -> None:
    print(f"{socket.gethostname()}, simple_spread; {MEASURE_S:g} s a row")
    print("workers, copies, env steps per actor CPU s, per replay CPU s, steps per chunk, bytes per step, node MiB")
    for workers, copies in ((1, 8), (1, 32), (1, 256), (2, 32), (8, 32)):
        flat_out(workers, copies)
    training(2)
    kept()


main()
