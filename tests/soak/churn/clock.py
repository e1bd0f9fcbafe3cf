"""The wall clock of a run's processes, which can be set while they run; no other process notices.

A small C library shifts the clock and is preloaded. Linux' time namespaces cannot shift the wall clock, and setting the
machine's clock would disturb everything else on it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

_SOURCE = Path(__file__).with_name("clock_step.c")


def missing_for_clock() -> str:
    """Returns why no clock can be set here; empty if it can."""
    if not sys.platform.startswith("linux"):
        return "setting the clock of some processes needs Linux"
    return "" if shutil.which("cc") else "setting the clock of some processes needs a C compiler (cc)"


class Clock:
    """The wall clock of the processes that are started with `environment`.

    Example:
        clock = Clock(directory)
        subprocess.Popen(command, env={**os.environ, **clock.environment})
        clock.set(3_600.0)      # one hour later than the machine's
    """

    def __init__(self, directory: Path) -> None:
        self._file, library = directory / "clock", directory / "clock_step.so"
        self.set(0.0)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, _SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "CHURN_CLOCK": str(self._file)}

    def set(self, offset_s: float) -> None:
        """Sets the clock ahead of the machine's by this time [s]."""
        # Processes have mapped the file: it is written in one piece, and never replaced.
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", round(offset_s * 1e9)))
