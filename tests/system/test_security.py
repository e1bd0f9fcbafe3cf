"""Real processes with keys over TCP: who may goes on, others are told why not, and nothing secret shows."""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import zmq

from common.errors import PeerError
from common.run.directory import RunDirectory
from common.wire.client import Client
from common.wire.keys import load_keys
from common.wire.messages import Open, PutWeights, Refused, Status, StatusRequest
from shoal.commands.keys import make_keys, revoke_client
from tests.common import zmtp
from tests.conftest import PATIENCE_S, free_port, wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.peers import Actor, Learner
from tests.replay_server.runs import make_run

from .conftest import Commands, family, log_of, status_at

pytestmark = pytest.mark.system

PASSWORD = "correct-horse-battery"  # noqa: S105  (of a server that lives for seconds)
CROWD = 200
Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_keys(tmp_path / "keys", ["carol"])
    return tmp_path / "keys"


@pytest.fixture
def context() -> Iterator[Context]:
    with zmq.Context() as made:
        yield made
        made.destroy(linger=0)


def start_replay(commands: Commands, keys: Path, *options: object) -> str:
    """Starts a replay server for everyone to reach; returns where it is from here."""
    listens = ("--bind", "tcp://0.0.0.0:0", "--metrics-port", 0, "--keys", keys / "replay")
    replay = commands.start("replay", *listens, *(options or ("--redis", "none")))
    (port,) = wait_until(lambda: re.findall(r"serving endpoint=tcp://0.0.0.0:(\d+)", log_of(replay)), "the server")
    return f"tcp://127.0.0.1:{port}"


def secrets_in(keys: Path) -> list[str]:
    found = [re.findall(r'secret-key = "(.{40})"', file.read_text()) for file in keys.glob("*/*.key_secret")]
    assert len(found) == 4
    return [secret for each in found for secret in each]


def test_a_run_over_keys_shows_nothing_that_is_secret(
    commands: Commands, keys: Path, tmp_path: Path, make_valkey: Callable[..., Valkey]
) -> None:
    valkey = make_valkey("--appendonly", "yes")
    valkey.client().config_set("requirepass", PASSWORD)
    (tmp_path / "password").write_text(PASSWORD)
    replay = start_replay(commands, keys, "--redis", valkey.url, "--redis-password-file", tmp_path / "password")
    weights, links = f"tcp://127.0.0.1:{free_port()}", ("--replay", replay, "--metrics-port", 0)
    budget = ("--steps", 8_000, "--set", "replay.min_size=1000", "--stay")
    run = ("--scenario", "simple_spread", "--run", tmp_path / "run", *budget)
    commands.start("learner", *links, *run, "--bind", weights, "--keys", keys / "learner")
    commands.start("actor", *links, "--n", 2, "--copies", 16, "--weights", weights, "--keys", keys / "actor")

    wait_until(RunDirectory(tmp_path / "run").finished_file.exists, "the end of the run")

    code, out, err = commands.run("shoal", "status", "--replay", replay, "--keys", keys / "actor", "--json")
    assert code == 0, err
    status = json.loads(out)
    assert status["inserts"] >= 8_000
    seen = [out, *map(log_of, commands.processes)]
    seen += [urllib.request.urlopen(one["metrics_url"]).read().decode() for one in (status, status["learner"])]
    seen += [file.read_bytes().decode("latin-1") for file in (tmp_path / "run").rglob("*") if file.is_file()]
    for process in commands.processes:
        for one in (psutil.Process(process.pid), *family(process)):
            seen += [*one.cmdline(), *one.environ().values()]
    for secret in (*secrets_in(keys), PASSWORD):
        assert [text[:200] for text in seen if secret in text] == []


def test_who_may_not_in_is_told_how_to_mend_it(commands: Commands, keys: Path, tmp_path: Path) -> None:
    replay = start_replay(commands, keys)
    make_keys(tmp_path / "others", [])
    asks = ("shoal", "status", "--replay", replay)

    for own, words in (
        ((), "the server asks for a key, or is not a Shoal server; pass --keys DIR (`shoal keys` creates the keys)"),
        (("--keys", tmp_path / "others" / "actor"), f"its key is not the one in '{tmp_path}/others/actor'"),
    ):
        code, out, err = commands.run(*asks, *own)
        assert (code, out, words in err) == (3, "", True), err

    revoke_client(keys, "carol")
    make_keys(tmp_path / "draft", ["carol"])
    (tmp_path / "draft" / "carol").rename(keys / "carol")
    (keys / "carol" / "replay.key").write_text((keys / "actor" / "replay.key").read_text())
    links = ("--replay", replay, "--weights", replay, "--keys", keys / "carol", "--metrics-port", 0)
    code, out, err = commands.run("actor", *links, "--peer-timeout", "3s")
    assert (code, "a line with 'carol" in err.splitlines()[-1]) == (3, True), err

    actor = commands.start("actor", *links)
    line, *_ = wait_until(lambda: re.findall(r"a line with '(carol \S{40})' in", log_of(actor)), "the reason")
    with (keys / "replay" / "allowed_clients").open("a") as file:
        file.write(f"actor {line}\n")
    wait_until(lambda: "connection error resolved" in log_of(actor), "the actor to be admitted")
    assert actor.poll() is None


def test_an_actors_key_cannot_change_the_run_or_its_policies(commands: Commands, keys: Path, context: Context) -> None:
    replay, run = start_replay(commands, keys), make_run()
    actor = Client(context, replay, keys=load_keys(str(keys / "actor")))
    for message, payload in ((Open("a", run), None), (PutWeights(7), b"x")):
        wait_until(lambda message=message, payload=payload: actor.send(message, payload), "the connection")
        answer = actor.receive(10.0)
        assert answer
        assert isinstance(answer[0], Refused)
        assert "listed as `learner`" in answer[0].reason
    status = actor.ask(StatusRequest(), Status, 10.0)
    assert (status.run, status.rejected) == (None, {"key": 2})
    assert Learner(context, replay, run, keys=load_keys(str(keys / "learner"))).open().inserts == 0


def test_strangers_in_crowds_starve_nobody(commands: Commands, keys: Path, context: Context) -> None:
    replay, run = start_replay(commands, keys), make_run(limit="off", capacity=100_000)
    Learner(context, replay, run, keys=load_keys(str(keys / "learner"))).open()
    actor = Actor(context, replay, run, "a", rows=10, copies=0, keys=load_keys(str(keys / "actor")))
    actor.deliver(100)
    server = psutil.Process(commands.processes[0].pid)
    files = server.num_fds()
    most, allowed = server.rlimit(psutil.RLIMIT_NOFILE)
    assert most == min(allowed, 65_536), "a file a peer, and peers may be many"

    with contextlib.ExitStack() as crowd:
        silent = [crowd.enter_context(zmtp.dial(replay)) for _ in range(CROWD)]
        for one in silent[: CROWD // 4]:
            one.sendall(zmtp.SIGNATURE)
        for one in silent[CROWD // 4 : CROWD // 2]:
            one.sendall(b"GET / HTTP/1.1\r\nHost: replay\r\n\r\n")
        keyless = [Client(context, replay) for _ in range(10)]
        wait_until(lambda: server.num_fds() >= files + CROWD // 4, "the crowd to be at the door")

        actor.deliver(1_100)

        assert [client.send(StatusRequest()) for client in keyless] == [False] * 10
        for one in silent:
            one.settimeout(PATIENCE_S)
            with contextlib.suppress(ConnectionResetError):
                while one.recv(4096):  # its greeting, then the end: nobody may stay at the door
                    pass
    actor.deliver(1_200)
    status = Client(context, replay, keys=load_keys(str(keys / "actor"))).ask(StatusRequest(), Status, 10.0)
    assert (status.inserts, status.duplicate_chunks, status.rejected) == (12_000, 0, {})
    for client in keyless:
        wait_until(client.connection_error, "the reason why it is not admitted")
        with pytest.raises(PeerError, match="asks for a key"):
            client.ask(StatusRequest(), Status, 0.1)


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        ("learner", ["--scenario", "simple_spread", "--bind", "tcp://0.0.0.0:0"], ["0.0.0.0", "--keys", "--insecure"]),
        ("replay", ["--redis", "none", "--keys", "nowhere"], ["--keys nowhere", "shoal keys"]),
        ("learner", ["--scenario", "simple_spread", "--keys", "nowhere"], ["--keys nowhere", "shoal keys"]),
        ("actor", ["--keys", "nowhere"], ["--keys nowhere", "shoal keys"]),
        ("replay", ["--redis", f"redis://me:{PASSWORD}@127.0.0.1:1"], ["--redis", "--redis-password-file"]),
        (
            "shoal",
            ["train", "simple_spread", "--redis", f"unix:///x?password={PASSWORD}"],
            ["--redis", "--redis-password-file"],
        ),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else None,
)
def test_what_would_be_open_or_seen_is_refused(
    commands: Commands, command: str, arguments: list[str], words: list[str]
) -> None:
    port = () if command == "shoal" else ("--metrics-port", 0)
    code, out, err = commands.run(command, *arguments, *port)
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    assert PASSWORD not in err
    for word in words:
        assert word in err.splitlines()[-1]


@pytest.mark.parametrize("part", [2**20, 0], ids=["large parts", "empty parts"])
def test_a_message_without_end_ends_and_the_run_goes_on(commands: Commands, context: Context, part: int) -> None:
    where = ("--bind", "tcp://127.0.0.1:0", "--metrics-port", 0, "--redis", "none")
    server = commands.start("replay", *where, "--peer-memory", 128)
    (port,) = wait_until(lambda: re.findall(r"serving endpoint=tcp://127.0.0.1:(\d+)", log_of(server)), "the server")
    replay, run = f"tcp://127.0.0.1:{port}", make_run(limit="off", capacity=100_000)
    Learner(context, replay, run).open()
    actor = Actor(context, replay, run, "a", rows=10, copies=0)
    actor.deliver(100)

    block = zmtp.frame(b"x" * part, zmtp.MORE) * (1 if part else 20_000)
    sent = 0
    with zmtp.greet(replay) as peer, contextlib.suppress(OSError):
        while sent < 2**31:
            peer.sendall(block)
            sent += len(block)

    assert sent < 2**31, "it was cut off"
    wait_until(lambda: "closing all connections" in log_of(server), "the server to say so")
    actor.deliver(200)
    status = wait_until(lambda: status_at(replay), "a status")
    assert status.rejected["endless"] >= 1
    assert psutil.Process(server.pid).memory_info().rss < 512 * 2**20
