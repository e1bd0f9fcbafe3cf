"""A million inputs of a coverage-guided fuzzer, spread over the decoders (SHOAL_FUZZ_INPUTS: another number)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.decoders import DECODERS

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3_600)]

INPUTS = int(os.environ.get("SHOAL_FUZZ_INPUTS", "1000000")) // len(DECODERS)


@pytest.mark.parametrize("name", DECODERS)
def test_a_fuzzer_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="no fuzzer here: atheris has wheels for Linux on x86-64 only")
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, str(INPUTS)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # it ends without cleaning up
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    print("\n".join(re.findall(r"^stat::.*", done.stderr, flags=re.MULTILINE)))
    assert done.returncode == 0, done.stderr[-4_000:]
    assert f"Done {INPUTS} runs" in done.stderr
