"""What needs a POSIX system: process groups, forks, file descriptors that a child inherits, sockets with a path.

Everything that runs in one process works without: lockstep runs of the batched scenarios, evaluation, teams.
"""

from __future__ import annotations

import os
import sys

from common.errors import ConfigError


def require_posix(what: str, way_out: str = "Use Linux, macOS or the Windows Subsystem for Linux.") -> None:
    """Raises ConfigError with `what` and the way out on a system without process groups, such as Windows."""
    if not hasattr(os, "killpg"):
        raise ConfigError(f"{what} needs a POSIX system, and {sys.platform} is not one. {way_out}")
