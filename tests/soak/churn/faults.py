"""The faults: which comes next and for how long, and how each is made and ended."""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil
import redis

from common.process.children.restart_policy import STEADY_S

from .clock import Clock
from .links import HARMS, Link
from .processes import EVALUATOR, LEARNER, NODE, REDIS, REPLAY, WORKER, Process

WEIGHTS = {"kill": 12.0, "pause": 2.0, "network": 2.0, "redis-full": 1.0, "clock": 1.0}
"""How often each kind of fault happens, relative to the others."""
REST_S = {WORKER: 4.0, NODE: 12.0, REPLAY: 12.0, REDIS: 12.0, LEARNER: 45.0, EVALUATOR: 12.0}
"""How long a process has run at least before it is killed: long enough to have done some work."""
MAX_IN_A_ROW = 5
"""A supervisor gives up what fails nine times in a row, each time before STEADY_S: that is not what is tried here."""
PAUSE_S, NETWORK_S, REDIS_FULL_S = (1.0, 60.0), (1.0, 60.0), (2.0, 20.0)
"""Shortest and longest disturbance."""
CLOCK_STEP_S = (1.0, 86_400.0)
REDIS_ROOM_BYTES = 100_000
"""What a full Redis can still take."""
FIRST_AFTER_S = 20.0


class Effect(NamedTuple):
    """A fault that has begun."""

    target: str
    """What was disturbed, for the table."""
    lasts_s: float = 0.0
    end: Callable[[], object] = lambda: None


class Fault(Protocol):
    """A kind of fault."""

    def begin(self, living: list[Process], now: float) -> Effect | None:
        """Begins it; None if nothing can be disturbed in this way now."""


class Kill:
    """SIGKILL to any process whose supervisor will start it again."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._in_a_row: Counter[str] = Counter()
        self.at: list[tuple[float, str]] = []
        """When which role was killed."""

    def begin(self, living: list[Process], now: float) -> Effect | None:
        victim = choose(self._rng, [one for one in living if self.may_die(one.role, now - one.born)])
        if victim is None:
            return None
        self._in_a_row[victim.role] = 1 if now - victim.born > STEADY_S else self._in_a_row[victim.role] + 1
        victim.process.kill()
        self.at.append((now, victim.role))
        return Effect(victim.role)

    def may_die(self, role: str, age_s: float) -> bool:
        """Returns whether the run survives the death of a process of this age."""
        # Ten seconds more, because the supervisor sees a process later start and end earlier than this script does.
        return age_s > REST_S[role] and (self._in_a_row[role] < MAX_IN_A_ROW or age_s > STEADY_S + 10.0)


class Pause:
    """SIGSTOP to any process, then SIGCONT."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._stopped: set[int] = set()

    def begin(self, living: list[Process], now: float) -> Effect | None:
        victim = choose(self._rng, [one for one in living if one.process.pid not in self._stopped])
        if victim is None:
            return None
        victim.process.suspend()
        self._stopped.add(victim.process.pid)
        return Effect(victim.role, log_uniform(self._rng, PAUSE_S), lambda: self._end(victim.process))

    def _end(self, process: psutil.Process) -> None:
        self._stopped.discard(process.pid)
        process.resume()


class Network:
    """A link that is cut, slow or lossy, then whole again."""

    def __init__(self, rng: random.Random, links: Iterable[Link]) -> None:
        self._rng, self._whole = rng, list(links)

    def begin(self, living: list[Process], now: float) -> Effect | None:
        if not living or not self._whole:
            return None
        link, how = self._whole.pop(self._rng.randrange(len(self._whole))), self._rng.choice(HARMS)
        link.harm(how)
        return Effect(f"{link.name} {how}", log_uniform(self._rng, NETWORK_S), lambda: self._end(link))

    def _end(self, link: Link) -> None:
        link.heal()
        self._whole.append(link)


class RedisFull:
    """Redis with too little memory for another group of chunks, then with as much as before."""

    def __init__(self, rng: random.Random, socket: Path) -> None:
        # A Redis that is stopped does not answer: this must not wait for it.
        self._client = redis.Redis(unix_socket_path=str(socket), socket_timeout=0.5, socket_connect_timeout=0.5)
        self._rng, self._full = rng, False

    def begin(self, living: list[Process], now: float) -> Effect | None:
        if self._full or not any(one.role == REDIS for one in living):
            return None
        try:
            before = self._client.config_get("maxmemory")["maxmemory"]
            self._client.config_set("maxmemory", int(self._client.info("memory")["used_memory"]) + REDIS_ROOM_BYTES)
        except redis.RedisError:
            return None
        self._full = True
        return Effect("Redis", log_uniform(self._rng, REDIS_FULL_S), lambda: self._end(before))

    def _end(self, before: str) -> None:
        # One that was killed meanwhile has read its own limit again. One that is stopped is raised later.
        self._client.config_set("maxmemory", before)
        self._full = False


class ClockStep:
    """The wall clock of all processes, set seconds to a day before or after the machine's."""

    def __init__(self, rng: random.Random, clock: Clock) -> None:
        self._rng, self._clock = rng, clock

    def begin(self, living: list[Process], now: float) -> Effect | None:
        sign = self._rng.choice((-1, 1))
        self._clock.set(sign * log_uniform(self._rng, CLOCK_STEP_S))
        return Effect("set to later" if sign > 0 else "set to earlier")


class _Active(NamedTuple):
    ends_at: float
    end: Callable[[], object]


class Faults:
    """Begins faults at random times, ends those whose time is over, and counts them."""

    def __init__(self, kinds: Mapping[str, Fault], rng: random.Random, every_s: float, now: float) -> None:
        self._kinds, self._rng, self._every_s = kinds, rng, every_s
        self._next_at = now + FIRST_AFTER_S
        self._active: list[_Active] = []
        self.counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
        """Number of faults by kind and target."""
        self.seconds: Counter[str] = Counter()
        """How long the faults of each kind lasted together, as planned [s]."""

    def poll(self, living: list[Process], now: float) -> None:
        """Ends what is over, and begins a fault if one is due."""
        self._end([active for active in self._active if active.ends_at <= now])
        if now < self._next_at or not self._kinds:
            return
        self._next_at = now + self._rng.expovariate(1.0 / self._every_s)
        kind = draw_kind(self._rng, self._kinds)
        effect = None
        with contextlib.suppress(psutil.NoSuchProcess):
            effect = self._kinds[kind].begin(living, now)
        if effect is None:
            return
        self.counts[kind][effect.target] += 1
        self.seconds[kind] += effect.lasts_s
        self._active.append(_Active(now + effect.lasts_s, effect.end))

    def end_all(self) -> None:
        """Ends all faults at once."""
        self._end(list(self._active))

    @property
    def total(self) -> int:
        """Number of faults so far."""
        return sum(count.total() for count in self.counts.values())

    def _end(self, over: list[_Active]) -> None:
        for active in over:
            try:
                active.end()
            except psutil.NoSuchProcess:
                pass
            except redis.RedisError:
                continue
            self._active.remove(active)


def draw_kind(rng: random.Random, kinds: Iterable[str]) -> str:
    """Returns the kind of the next fault."""
    names = list(kinds)
    return rng.choices(names, [WEIGHTS[name] for name in names])[0]


def choose(rng: random.Random, processes: list[Process]) -> Process | None:
    """Returns a process of a random role: a role with many processes is not disturbed more often."""
    if not processes:
        return None
    role = rng.choice(sorted({one.role for one in processes}))
    return rng.choice([one for one in processes if one.role == role])


def log_uniform(rng: random.Random, bounds: tuple[float, float]) -> float:
    """Returns a random number whose logarithm is uniform between bounds: most disturbances are short, some long."""
    return math.exp(rng.uniform(*map(math.log, bounds)))


def killed_together(kills: Iterable[tuple[float, str]], within_s: float) -> int:
    """Returns how often Redis and the replay server were killed within a time of each other.

    That is the one case in which acknowledged chunks may be lost at level `redis`: two seconds of them.
    """
    last: dict[str, float] = {}
    together = 0
    for at, role in kills:
        if role not in (REDIS, REPLAY):
            continue
        together += at - last.get(REDIS if role == REPLAY else REPLAY, -math.inf) <= within_s
        last[role] = at
    return together
