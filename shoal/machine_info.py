"""The file machine.json: the machine that a run was trained on, library versions, and launch settings."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from common.files import write_atomically
from common.process.monitoring.resources import usable_cores
from common.run.directory import RunDirectory

MACHINE_FILE = "machine.json"
_PACKAGES = ("shoal", "numpy", "torch", "mpe2", "pettingzoo", "pyzmq")
_GIB = 1024**3


def record_machine(directory: RunDirectory, launch: dict[str, Any]) -> None:
    """Writes machine.json for this machine and the given launch settings, replacing that of an earlier start."""
    facts = {"machine": describe_machine(), "versions": _versions(), "launch": launch}
    write_atomically(directory.path / MACHINE_FILE, msgspec.json.format(msgspec.json.encode(facts)) + b"\n")


def read_machine(directory: RunDirectory) -> dict[str, dict[str, Any]]:
    """Returns the sections of machine.json; empty if the run was not started by `shoal train`."""
    try:
        return msgspec.json.decode((directory.path / MACHINE_FILE).read_bytes(), type=dict[str, dict[str, Any]])
    except (OSError, msgspec.DecodeError, msgspec.ValidationError):
        return {}


def describe_machine() -> dict[str, str]:
    """Returns the properties of this machine that determine speed; nothing identifies the machine or its user."""
    return {
        "processor": _processor(),
        "cores": f"{usable_cores()} usable of {os.cpu_count()}",
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} ({platform.machine()})",
        "Python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB"
    except (ValueError, OSError):
        return "unknown"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
