"""Where a run's sockets go when its own directory, and TMPDIR, have long paths."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from common.errors import ConfigError
from deploy.local import launcher as local
from deploy.local.embedded_redis import MAX_SOCKET_PATH, EmbeddedRedis
from deploy.local.launcher import _socket_directory

LONG = "x" * 120


@pytest.fixture
def long_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a directory of a long path, in which TMPDIR is, too."""
    made = tmp_path / LONG
    (made / "tmp").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(made / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return made


def test_a_long_run_path_has_its_sockets_elsewhere(long_directory: Path) -> None:
    (long_directory / "run").mkdir()
    made = _socket_directory(long_directory / "run")
    try:
        assert len(os.fsencode(made / "weights")) <= MAX_SOCKET_PATH
        assert made.stat().st_mode & 0o777 == 0o700
        assert (long_directory / "run" / "sockets").resolve() == made.resolve()
    finally:
        made.rmdir()


def test_where_nothing_is_short_enough_one_line_says_what_to_do(
    long_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (long_directory / "run").mkdir()
    monkeypatch.setattr(local, "_fits", lambda directory: False)
    with pytest.raises(ConfigError, match="choose a shorter --run or TMPDIR"):
        _socket_directory(long_directory / "run")


def test_a_redis_of_a_long_socket_path_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is longer than the 100 bytes"):
        EmbeddedRedis(tmp_path, tmp_path / LONG, tmp_path / "log")
