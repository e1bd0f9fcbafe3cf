"""One core a process: numpy's products in the launcher take no thread of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

LOOK = """
import contextlib, os, sys
from shoal.__main__ import main
sys.argv = ["shoal", "--version"]
with contextlib.redirect_stdout(None), contextlib.suppress(SystemExit):
    main()
import numpy as np
np.ones((600, 600)) @ np.ones((600, 600))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")  # noqa: PTH112
def test_products_in_the_launcher_run_on_its_own_thread() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    look = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert int(look.stdout) == 1
