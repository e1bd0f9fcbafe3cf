"""A replay server's settings: the password of Redis from a file, as deployments mount secrets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from common.errors import ConfigError
from common.process import command
from replay_server.cli import replay
from replay_server.config import ReplayConfig
from replay_server.durability.redis_connection import make_client

from .conftest import Valkey


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """A file as an editor leaves it: with an end of line."""
    path = tmp_path / "password"
    path.write_text("right\n")
    return path


def test_the_password_of_redis_is_read_from_a_file(make_valkey: Callable[..., Valkey], password_file: Path) -> None:
    valkey = make_valkey()
    valkey.client().config_set("requirepass", "right")
    config = ReplayConfig(redis=valkey.url, redis_password_file=str(password_file))

    assert make_client(config.redis, "test", config.redis_password).ping()
    with pytest.raises(redis.AuthenticationError):
        make_client(config.redis, "test", ReplayConfig(redis=valkey.url).redis_password).ping()


def test_a_password_in_the_address_wins(make_valkey: Callable[..., Valkey], password_file: Path) -> None:
    valkey = make_valkey()
    valkey.client().config_set("requirepass", "other")
    config = ReplayConfig(redis=valkey.url + "?password=other", redis_password_file=str(password_file))
    assert make_client(config.redis, "test", config.redis_password).ping()


@pytest.mark.parametrize("content", [None, b" \n", b"\xff"], ids=["absent", "empty", "no-text"])
def test_a_file_that_holds_no_password_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"--redis-password-file {path} (cannot be read|is empty)"):
        _ = ReplayConfig(redis_password_file=str(path)).redis_password


@pytest.mark.parametrize("ratio", ["inf", "nan", "5e-324", "-1"])
def test_a_ratio_that_cannot_be_held_is_refused(ratio: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["--samples-per-insert", ratio, "--redis", "none", "--metrics-port", "0"]
    assert command.run(replay, "replay", line) == 2
    assert "--samples-per-insert" in capsys.readouterr().err
