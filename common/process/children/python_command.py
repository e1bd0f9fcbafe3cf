"""The command line that runs a module of Shoal as another Python process.

subprocess.Popen(module_command("learner_node", "--run", "runs/spread"))
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_ENTRY = Path(__file__).parents[3] / "shoal" / "entry.py"


def module_command(module: str, *arguments: str, safe_path: bool = False) -> list[str]:
    """Returns the command line that runs a module of Shoal as `python -m MODULE` does.

    Shoal's own packages win over packages of the same name in the working directory or on PYTHONPATH.
    safe_path: do not import modules from the working directory.
    """
    return [sys.executable, *(["-P"] if safe_path else []), str(_ENTRY), module, *arguments]


def python_path() -> str:
    """Returns the value of PYTHONPATH with which another process can import the same modules as this process."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
