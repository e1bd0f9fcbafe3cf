"""`make gpu-check` on a machine without CUDA ends with the reason."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.system
def test_without_cuda_nothing_is_checked() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.check"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "gpu-check: nothing was checked. --gpu: torch" in done.stderr
    assert "has no CUDA device." in done.stderr
