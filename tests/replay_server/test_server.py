"""The real server process over real sockets: service, recovery, faults, ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import msgpack
import numpy as np
import pytest
import zmq

from common.wire.codec import decode_to_peer
from common.wire.messages import Priorities, Refused, Unknown
from common.wire.sample_info import SAMPLE_INFO
from tests.conftest import wait_until
from tests.replay_server.conftest import Valkey
from tests.replay_server.peers import ROOT, Peers, Server, stored
from tests.replay_server.runs import DTYPE, make_run, numbers

pytestmark = pytest.mark.slow

OPEN_RUN = make_run(limit="off", capacity=10_000)


@pytest.fixture
def make_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers with the given options."""
    started: list[Server] = []

    def make(*options: str) -> Server:
        started.append(Server(tmp_path_factory.mktemp("replay"), *options))
        started[-1].start()
        return started[-1]

    yield make
    for server in started:
        server.end()


@pytest.fixture
def connect() -> Iterator[Callable[[Server], Peers]]:
    """Makes peers of a server."""
    made: list[Peers] = []

    def make(server: Server) -> Peers:
        made.append(Peers(server.endpoint))
        return made[-1]

    yield make
    for peers in made:
        peers.close()


MakeServer = Callable[..., Server]
Connect = Callable[[Server], Peers]


def test_chunks_in_batches_out(make_server: MakeServer, connect: Connect) -> None:
    server = make_server("--redis", "none")
    peers, run = connect(server), make_run()
    actor, learner = peers.actor(run), peers.learner(run)
    assert learner.open().inserts == 0
    actor.deliver(2)
    assert set(numbers(bytes(learner.draw(8)))) <= set(range(20))
    status = server.status()
    assert (status.inserts, status.samples, status.durability) == (20, 8, "ram")
    assert server.get("/readyz") == (200, "ok\n")
    metrics = server.get("/metrics")[1]
    assert "shoal_replay_ingested_transitions_total 20.0" in metrics
    assert 'shoal_replay_peers{role="actor"} 1.0' in metrics


def test_a_restarted_server_spans_steps_and_knows_old_places_no_more(
    make_server: MakeServer, connect: Connect, valkey: Valkey
) -> None:
    server = make_server("--redis", valkey.url)
    peers, run = connect(server), make_run(limit="off", n_step=3, priority_exponent=1.0, discount=0.5)
    actor, learner = peers.actor(run, copies=1), peers.learner(run)
    learner.open()
    actor.deliver(2)
    server.end(signal.SIGKILL)
    server.start()
    learner.open()
    actor.deliver(3)
    batch = learner.draw(30)
    rewards = sorted(np.frombuffer(batch, DTYPE, 30)["reward"][:, 0].tolist())
    assert rewards == sorted([*(i + (i + 1) / 2 + (i + 2) / 4 for i in range(28)), 28 + 29 / 2, 29.0])
    server.end(signal.SIGKILL)
    server.start()
    learner.open()
    learner.client.send(Priorities(30), batch[-30 * SAMPLE_INFO.itemsize :])
    wait_until(lambda: server.status().late_priorities == 30, "the late errors")


def test_the_ratio_is_held_between_processes(make_server: MakeServer, connect: Connect) -> None:
    server = make_server("--redis", "none")
    peers, run = connect(server), make_run(capacity=5_000, batch=32, samples_per_insert=4.0)
    actors, learner = [peers.actor(run, name) for name in "ab"], peers.learner(run)
    learner.open()
    for actor in actors:
        actor.deliver(1)
    for _ in range(60):
        _turn(actors, 10_000)
        learner.draw(32)
    status = server.status()
    assert status.samples_per_insert == pytest.approx(4.0, rel=0.25)
    assert {actor.acked > 10 for actor in actors} == {True}


def test_a_killed_server_has_everything_it_acknowledged(
    make_server: MakeServer, connect: Connect, valkey: Valkey
) -> None:
    server = make_server("--redis", valkey.url)
    peers = connect(server)
    learner, actors = peers.learner(OPEN_RUN), [peers.actor(OPEN_RUN, name) for name in "abc"]
    learner.open()
    for goal in (40, 80, 120):
        wait_until(lambda goal=goal: _turn(actors, goal) > goal * 2, "chunks under way")  # type: ignore[misc]
        server.end(signal.SIGKILL)
        acknowledged = {actor.name: actor.acked for actor in actors}
        server.start()
        recovered = server.status()
        assert recovered.inserts >= sum(acknowledged.values()) * 10
        assert recovered.size == recovered.inserts
    for actor in actors:
        actor.deliver(120)
    status = server.status()
    assert (status.inserts, status.size) == (3 * 120 * 10, 3 * 120 * 10)
    assert stored(valkey) == {name: list(range(1, 121)) for name in "abc"}


def test_redis_killed_and_restarted_while_chunks_flow(
    make_server: MakeServer, connect: Connect, make_valkey: Callable[..., Valkey]
) -> None:
    valkey = make_valkey("--appendonly", "yes", "--appendfsync", "always")
    server = make_server("--redis", valkey.url)
    peers = connect(server)
    learner, actors = peers.learner(OPEN_RUN), [peers.actor(OPEN_RUN, name) for name in "ab"]
    learner.open()
    for actor in actors:
        actor.deliver(20)
    valkey.kill()
    wait_until(lambda: _turn(actors, 100) and server.status().unacknowledged_chunks, "the failure")
    wait_until(lambda: "Redis" in "".join(server.status().waiting), "the reason")
    wait_until(lambda: server.get("/readyz")[0] == 503, "not ready")
    # Batches are served from RAM all the while, and what waits for Redis is bounded.
    assert len(numbers(bytes(learner.draw(8)))) == 8
    assert server.status().unacknowledged_chunks <= 16
    valkey.start()
    for actor in actors:
        actor.deliver(100)
    assert server.status().inserts == 2_000
    assert stored(valkey) == {name: list(range(1, 101)) for name in "ab"}
    assert server.get("/readyz")[0] == 200


def test_fresh_discards(make_server: MakeServer, connect: Connect, valkey: Valkey) -> None:
    server = make_server("--redis", valkey.url)
    peers = connect(server)
    peers.learner(OPEN_RUN).open()
    peers.actor(OPEN_RUN).deliver(3)
    assert server.end(signal.SIGTERM) == 0
    server.start("--fresh")
    assert server.status().run is None
    assert valkey.client().dbsize() == 0


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\xff" * 100],
        [b"\x00" * 300_000],
        [msgpack.packb({"kind": "chunk"})],
        [msgpack.packb({"kind": "sample", "request": 1, "count": 10**9})],
        [msgpack.packb([[[[]]]] * 1000)],
        [b"\x91" * 200_000],
        [b"a", b"b", b"c"],
        [b""] * 1_000,
        [msgpack.packb({"kind": "put_weights", "version": 1}), b"SHW1" + b"\xff" * 50],
    ],
    ids=lambda frames: f"{len(frames)}x{len(frames[0])}",
)
def test_malformed_messages_are_refused_and_kill_nothing(
    shared_server: Server, connect: Connect, frames: list[bytes]
) -> None:
    before = shared_server.status()
    socket = connect(shared_server).raw()
    socket.send_multipart(frames)
    assert socket.poll(5_000)
    assert isinstance(decode_to_peer(socket.recv_multipart())[0], Refused | Unknown)
    after = shared_server.status()
    assert after.inserts == before.inserts
    assert after.uptime_s >= before.uptime_s, "it was not restarted"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for tests that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("shared"), "--redis", "none")
    server.start()
    yield server
    server.end()


def test_frames_beyond_the_limit_end_the_connection_only(shared_server: Server, connect: Connect) -> None:
    socket = connect(shared_server).raw()
    socket.send(b"x" * (65 * 2**20), copy=False)
    assert not socket.poll(300)
    assert shared_server.status().run is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_it_ends_cleanly(
    make_server: MakeServer, connect: Connect, valkey: Valkey, number: signal.Signals, code: int
) -> None:
    server = make_server("--redis", valkey.url)
    peers, run = connect(server), make_run()
    learner = peers.learner(run)
    learner.open()
    peers.actor(run).deliver(2)
    learner.draw(8)
    assert server.end(number) == code
    server.start()
    status = server.status()
    assert (status.inserts, status.samples) == (20, 8)


def test_it_ends_within_seconds_when_redis_is_gone(make_server: MakeServer, connect: Connect, valkey: Valkey) -> None:
    server = make_server("--redis", valkey.url)
    peers = connect(server)
    peers.learner(OPEN_RUN).open()
    actor = peers.actor(OPEN_RUN)
    actor.deliver(1)
    valkey.kill()
    wait_until(lambda: actor.turn(9) or server.status().unacknowledged_chunks, "a chunk that waits for Redis")
    started = time.monotonic()
    assert server.end(signal.SIGTERM) == 0
    assert time.monotonic() - started < 5.0
    assert "chunks not committed at shutdown" in server.log.read_text()


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--bind", "tcp://0.0.0.0:0", "--redis", "none"), 2, "--insecure"),
        (("--bind", "nonsense", "--redis", "none"), 2, "--bind nonsense"),
        (("--redis", "none", "--durability", "fsync"), 2, "needs a Redis"),
        (("--redis", "redis://127.0.0.1:1", "--redis-wait", "0"), 3, "--redis none"),
        (("--redis", "none", "--name", "a b"), 2, "--name"),
        (("--redis", "http://x"), 2, "redis://HOST:PORT"),
    ],
)
def test_bad_usage_is_one_line_with_the_way_out(options: tuple[str, ...], code: int, words: str) -> None:
    done = run_command(*options)
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("replay: ")
    assert words in last
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_told() -> None:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        done = run_command("--redis", "none", "--bind", f"tcp://127.0.0.1:{port}")
    assert done.returncode == 2
    assert "in use" in done.stderr


def test_neither_torch_nor_an_environment_is_imported() -> None:
    code = "import json, sys, replay_server.cli; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert not modules & {"torch", "mpe2", "pettingzoo", "common.worlds", "tensorboardX"}


def run_command(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "replay_server", "--metrics-port", "0", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def _turn(actors: list, most: int) -> int:  # type: ignore[type-arg]
    for actor in actors:
        actor.turn(most)
    return sum(actor.acked for actor in actors)
