"""Commands that Shoal prints for its users to copy.

shell_command("shoal", "evaluate", Path("my runs/spread"))  # shoal evaluate 'my runs/spread'
"""

from __future__ import annotations

import shlex


def shell_command(*parts: object) -> str:
    """Returns a command that a user can paste into a POSIX shell; quotes parts with special characters."""
    return shlex.join(map(str, parts))
