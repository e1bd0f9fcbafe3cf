"""Redis over TLS, as a user with few rights, and with a password that nobody else gets to see."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from common.errors import ConfigError
from common.process import command
from common.process.stop import Stop
from common.run.directory import RunDirectory
from deploy.local.config import TrainConfig
from deploy.local.launcher import LocalRun
from replay_server.cli import replay
from replay_server.durability.chunk_log import ForgetActor
from replay_server.durability.log_index import parse_contents
from replay_server.durability.redis_connection import make_client, wait_for_redis, without_password
from replay_server.durability.redis_log import RedisLog
from tests.conftest import wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.peers import ROOT, Peers, Server
from tests.replay_server.runs import make_run

USERS = ROOT / "deploy" / "kubernetes" / "overlays" / "secure" / "users.acl"
PASSWORD = "xyzzy-plugh"  # noqa: S105  (of a server that lives for seconds)


class TlsFront:
    """Ends TLS in front of a Valkey, whose build here may have none."""

    def __init__(self, valkey: Valkey, certificate: Path) -> None:
        self._path = str(valkey.socket)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate / "server.pem", certificate / "server.key")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(self._tls.wrap_socket(plain, server_side=True),)).start()
            except ssl.SSLError:
                continue  # a client that does not trust us
            except OSError:
                return

    def _pass_on(self, client: ssl.SSLSocket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            while True:
                ready, _, _ = select.select([client, server], [], [], 10)
                for source, target in ((client, server), (server, client)):
                    if source in ready:
                        data = source.recv(2**20)
                        if not data:
                            return
                        target.sendall(data)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that signs itself, good for a day."""
    if not shutil.which("openssl"):
        if os.environ.get("CI") == "true":
            pytest.fail("openssl is not installed")
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("certificates")
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=shoal", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    files = ["-keyout", directory / "server.key", "-out", directory / "server.pem"]
    subprocess.run([*request, *names, *files], check=True, capture_output=True)
    return directory


@pytest.fixture
def front(valkey: Valkey, certificates: Path) -> Iterator[TlsFront]:
    made = TlsFront(valkey, certificates)
    yield made
    made.close()


def reach(url: str, ca_file: str = "") -> None:
    wait_for_redis(make_client(url, "test", ca_file=ca_file), url, 0.0, Stop(), lambda _: None)


@pytest.mark.slow
def test_a_server_is_talked_to_over_tls_once_it_is_trusted(front: TlsFront, certificates: Path) -> None:
    url = f"rediss://127.0.0.1:{front.port}"
    reach(url, str(certificates / "server.pem"))
    with pytest.raises(ConfigError, match=r"its certificate is not trusted.*--redis-ca-file"):
        reach(url)
    with pytest.raises(ConfigError, match="certificate is not trusted"):
        reach(f"rediss://localhost:{front.port}", str(certificates / "server.pem"))


def test_what_makes_no_sense_of_tls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only rediss:// is encrypted"):
        make_client("redis://127.0.0.1", "test", ca_file=str(tmp_path))
    with pytest.raises(ConfigError, match=r"--redis-ca-file .*nowhere is not a file"):
        make_client("rediss://127.0.0.1", "test", ca_file=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="write redis://HOST"):
        make_client("redis://127.0.0.1?ssl_ca_cert=x", "test")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host:6379/0", ("redis://host:6379/0", "")),
        ("redis://user:p%40ss@host:6379/2", ("redis://user@host:6379/2", "p@ss")),
        ("rediss://:secret@host?ssl_ca_certs=/a.pem", ("rediss://host?ssl_ca_certs=%2Fa.pem", "secret")),
        ("unix://user@/run/redis.sock?db=1&password=a%26b", ("unix://user@/run/redis.sock?db=1", "a&b")),
        ("none", ("none", "")),
    ],
)
def test_a_password_is_taken_out_of_an_address(url: str, expected: tuple[str, str]) -> None:
    assert without_password(url) == expected


def _counted(valkey: Valkey) -> set[str]:
    stats = valkey.client().info("commandstats")
    return {name.removeprefix("cmdstat_") for name, figures in stats.items() if figures["calls"]}


@pytest.mark.slow
def test_the_users_rights_are_all_that_a_replay_server_uses_and_no_more(
    make_valkey: Callable[..., Valkey], tmp_path: Path
) -> None:
    valkey = make_valkey("--appendonly", "yes")
    (line,) = re.findall(r"^user replay reset (.*)$", USERS.read_text(), flags=re.MULTILINE)
    admin = valkey.client()
    admin.execute_command("ACL", "SETUSER", "replay", *line.replace("CHANGE-ME", PASSWORD).split())
    admin.config_resetstat()
    (tmp_path / "password").write_text(PASSWORD)
    url = f"unix://replay@{valkey.socket}?db=1"
    options = ("--redis", url, "--redis-password-file", str(tmp_path / "password"), "--durability", "fsync")
    server = Server(tmp_path, *options)
    run = make_run(limit="off", capacity=100)
    try:
        server.start()
        peers = Peers(server.endpoint)
        learner, actor = peers.learner(run), peers.actor(run)
        learner.open()
        actor.deliver(20)
        learner.draw(8)
        server.end(signal.SIGKILL)
        server.start()
        learner.open()
        actor.deliver(25)
        assert admin.flushall()
        actor.deliver(30)
        assert server.end(signal.SIGTERM) == 0
        server.start("--fresh")
        wait_until(lambda: "discarded" in server.log.read_text(), "the discarding")
        assert server.status().inserts == 0
        peers.close()
        # A server does this once it remembers ten thousand actors.
        chunk_log = RedisLog(make_client(url, "test", PASSWORD), "test", fsync=False)
        chunk_log.execute(chunk_log.prepare([ForgetActor("a")]))
    finally:
        server.end()
    log = server.log.read_text()
    assert "NOPERM" not in log
    assert "permission" not in log
    assert PASSWORD not in log
    used = _counted(valkey) - {"auth", "hello", "flushall", "config|resetstat", "acl|setuser"}
    allowed = set(re.findall(r"\+(\S+)", line))
    assert used == allowed


@pytest.mark.parametrize(
    "url",
    [
        f"redis://me:{PASSWORD}@127.0.0.1:1",
        f"redis://me:{PASSWORD}/x@127.0.0.1:1",
        f"unix:///x?db=1&password={PASSWORD}",
        f"redis://[me:{PASSWORD}@x",
    ],
)
def test_a_password_on_the_command_line_is_refused_and_one_in_the_environment_not_shown(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command.run(replay, "replay", ["--redis", url]) == 2
    refusal = capsys.readouterr().err
    assert "every user of this machine can see" in refusal
    assert "--redis-password-file" in refusal
    monkeypatch.setenv("SHOAL_REDIS", url)
    assert command.run(replay, "replay", ["--redis-wait", "0", "--metrics-port", "0"]) in (2, 3)
    assert PASSWORD not in refusal + capsys.readouterr().err


def test_shoal_train_hands_a_password_on_by_a_file_of_its_owners(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    config = TrainConfig(redis_ca_file="ca.pem", redis_password_file="unused")  # noqa: S106  (a path)
    environment = LocalRun(directory, config)._redis_environment(f"rediss://me:{PASSWORD}@redis:6379/1")
    file = Path(environment["SHOAL_REDIS_PASSWORD_FILE"])
    assert environment == {
        "SHOAL_REDIS": "rediss://me@redis:6379/1",
        "SHOAL_REDIS_PASSWORD_FILE": str(directory.path.resolve() / "sockets" / "redis-password"),
        "SHOAL_REDIS_CA_FILE": "ca.pem",
    }
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (PASSWORD, 0o600)


@pytest.mark.parametrize("state", [{"tail": 9, "head": 2}, {"tail": -1, "head": 2}, {"head": 2**63}, {"inserts": -5}])
def test_counters_that_a_log_cannot_have_are_refused(state: dict[str, int]) -> None:
    counters = {name.encode(): str(value).encode() for name, value in {"format": 1, **state}.items()}
    with pytest.raises((ValueError, msgspec.ValidationError)):
        parse_contents(counters, {}, msgspec.json.encode(make_run()), None)
