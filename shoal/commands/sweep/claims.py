"""Claims: which process executes a run, when processes on one or several machines share a sweep's directory.

The claims on the run DIR/seed-1 are the files DIR/.seed-1.claim-1, -2 and so on. The last one counts:

    no claim --take--> running --end--> executed   not repeated by a process that was already there
                        |   |
                        |   +---stop--> stopped    anyone may take the run, with the next number
                        +-- no sign of life for 120 s, or its process is dead: as if stopped

To take a run, a process creates the file with the next number. Exactly one process can create it, also on NFS
(exclusive creation, since NFS version 3). No claim is ever deleted, so a number that was read too early can only be
refused. An owner that was silent, such as a suspended machine, finds the next number and ends its run.

The time of a file is its owner's last sign of life. All times come from the file server, so the clocks of the machines
do not matter.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from enum import Enum, auto
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from common.errors import ConfigError
from common.files import write_atomically, writing

_CLAIM_NAME = re.compile(r"\.(.+)\.claim-([0-9]+)")
RENEWAL_S = 10.0
"""Time between two signs of life of an owner [s]."""
SILENT_S = 30.0
"""Age of the last sign of life after which an owner is probably dead [s]; worth waiting for LEASE_S."""
LEASE_S = 120.0
"""Age of the last sign of life after which others may take the run [s]. A cached time on NFS is up to 60 s old."""


class Claim(msgspec.Struct, frozen=True):
    """The content of a claim's file."""

    host: str
    pid: int
    machine: str
    """Identifies the machine's boot and its PID namespace, in which `pid` has a meaning; empty: unknown."""
    state: Literal["running", "stopped", "executed"] = "running"

    @property
    def owner(self) -> str:
        """The owner for messages."""
        return f"process {self.pid} on {self.host}"


class LatestClaim(NamedTuple):
    """The claim on a run that counts."""

    number: int
    claim: Claim | None
    """None while its owner is writing it."""
    written_at: float
    """The owner's last sign of life [s], by the file server's clock."""


class Availability(Enum):
    """Whether a process may take a run."""

    FREE = auto()
    TAKEN = auto()
    """This process has just taken it."""
    RUNNING = auto()
    """Another process executes it."""
    SILENT = auto()
    """Another process executes it, or died a short time ago."""
    EXECUTED = auto()
    """Another process has executed it since this process started."""


def availability(latest: LatestClaim | None, now: float, started_at: float, *, owner_is_dead: bool) -> Availability:
    """Returns whether a process that started at `started_at` may take a run [s, by the file server's clock]."""
    if latest is None:
        return Availability.FREE
    state, age_s = latest.claim.state if latest.claim else "running", now - latest.written_at
    if state == "executed":
        return Availability.EXECUTED if latest.written_at > started_at else Availability.FREE
    if state == "stopped" or owner_is_dead or age_s > LEASE_S:
        return Availability.FREE
    return Availability.SILENT if age_s > SILENT_S else Availability.RUNNING


class ClaimNumbers:
    """The number of the claim on each run that counts.

    A directory of many runs is listed once, not once a run; then only the next number of a run is looked for.
    """

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, int]] = {}

    def refresh(self) -> None:
        """Lists every directory again when it is asked for next."""
        self._listed.clear()

    def last(self, run: Path) -> int:
        """Returns the number of the claim on a run that counts; 0 without claims."""
        if run.parent not in self._listed:
            self._listed[run.parent] = _listed_numbers(run.parent)
        numbers = self._listed[run.parent]
        number = numbers.get(run.name, 0)
        while _path(run, number + 1).exists():
            number += 1
        numbers[run.name] = number
        return number


class Claims:
    """The claims of this process.

    Example:
        claims = Claims(directory)
        if claims.take(run) is Availability.TAKEN:
            ...                                    # meanwhile every RENEWAL_S: lost = claims.renew()
            claims.end(run)
    """

    def __init__(self, directory: Path) -> None:
        """Starts without claims; LastingError if the sweep's directory cannot be written."""
        self._directory = directory
        self._me = Claim(socket.gethostname(), os.getpid(), _machine())
        self._claimed: dict[Path, Path] = {}
        self._numbers = ClaimNumbers()
        self._started_at = self._now()

    def take(self, run: Path) -> Availability:
        """Takes a run's directory if it is free, and returns TAKEN; otherwise returns why not."""
        latest = latest_claim(run, self._numbers)
        dead = latest is not None and latest.claim is not None and self._is_dead(latest.claim)
        found = availability(latest, self._now(), self._started_at, owner_is_dead=dead)
        if found is not Availability.FREE:
            return found
        path = _path(run, latest.number + 1 if latest else 1)
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as file:
                    file.write(msgspec.json.encode(self._me))
            except FileExistsError:  # another process was faster
                return Availability.RUNNING
        self._claimed[run] = path
        return Availability.TAKEN

    def take_or_refuse(self, run: Path, what: str) -> None:
        """Takes what only one process may do; ConfigError while another process does it."""
        if self.take(run) in (Availability.RUNNING, Availability.SILENT):
            raise ConfigError(f"{what} is in progress: {self.owner_of(run)}. Wait until it ends, or stop it.")

    def renew(self) -> list[Path]:
        """Gives a sign of life for every claim and returns the runs that other processes have taken over."""
        lost = []
        self._numbers.refresh()
        for run, path in self._claimed.items():
            # A file server that does not answer for a moment must not end a run: the next renewal tries again.
            with contextlib.suppress(OSError):
                os.utime(path)
            with contextlib.suppress(OSError):
                if _path(run, self._numbers.last(run)) != path:
                    lost.append(run)
        for run in lost:
            del self._claimed[run]
        return lost

    def end(self, run: Path, *, stopped: bool = False) -> None:
        """Gives up a claim. stopped: the run was not executed to its end, so others may take it."""
        path = self._claimed.pop(run, None)
        if path is not None:
            state: Literal["stopped", "executed"] = "stopped" if stopped else "executed"
            with writing(path):
                write_atomically(path, msgspec.json.encode(msgspec.structs.replace(self._me, state=state)))

    def owner_of(self, run: Path) -> str:
        """Returns the owner of the latest claim on a run, for messages."""
        latest = latest_claim(run, self._numbers)
        return latest.claim.owner if latest and latest.claim else "another process"

    def _is_dead(self, claim: Claim) -> bool:
        """Returns whether the claim's owner ran on this machine and has died."""
        if not claim.machine or claim.machine != self._me.machine:
            return False
        try:
            os.kill(claim.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return claim.pid == self._me.pid  # its number is now this process's

    def _now(self) -> float:
        """Returns the time of the file server [s], which sets the time of a new file."""
        with writing(self._directory), tempfile.TemporaryFile(dir=self._directory) as file:
            return os.fstat(file.fileno()).st_mtime


def latest_claim(run: Path, numbers: ClaimNumbers | None = None) -> LatestClaim | None:
    """Returns the claim on a run that counts; None if nobody has claimed the run."""
    number = (numbers or ClaimNumbers()).last(run)
    if not number:
        return None
    # Opened, because NFS revalidates what it has cached about a file only then.
    with _path(run, number).open("rb") as file:
        try:
            claim = msgspec.json.decode(file.read(), type=Claim)
        except msgspec.MsgspecError:
            claim = None
        return LatestClaim(number, claim, os.fstat(file.fileno()).st_mtime)


def _listed_numbers(directory: Path) -> dict[str, int]:
    """Returns run's name -> largest number of its claims, of all runs in a directory."""
    numbers: dict[str, int] = {}
    for path in directory.iterdir() if directory.exists() else ():
        if found := _CLAIM_NAME.fullmatch(path.name):
            numbers[found[1]] = max(int(found[2]), numbers.get(found[1], 0))
    return numbers


def _path(run: Path, number: int) -> Path:
    return run.with_name(f".{run.name}.claim-{number}")


def _machine() -> str:
    """Returns an identifier of this boot of this machine and of the PID namespace; empty without Linux' /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{socket.gethostname()} {boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
