"""A node of real workers with the real replay server over real sockets, and a learner that only sends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from actor_node.replay_session import ReplaySession
from common.run.run import Run, make_run_spec
from common.worlds import world_spec
from tests.actor_node.processes import ROOT
from tests.common.examples import make_frame
from tests.conftest import PATIENCE_S, wait_until

pytestmark = pytest.mark.slow

CHUNK, COPIES = 16, 4
SMALL = {"N": 2}


def make_run(scenario="simple_spread", world=SMALL, **replay):
    settings = {"capacity": 100_000, "batch": 64, "min_size": 64, "limit": "off", **replay}
    spec = make_run_spec({"scenario": scenario, "world": world, "replay": settings})
    return Run("a1b2c3d4", spec, world_spec("simple_spread", N=2))


def is_gone(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def counters(metrics):
    """What must only grow."""
    return {
        name: value for name, value in metrics.items() if name.split("{")[0].endswith(("_total", "_bucket", "_count"))
    }


# ---- the way to the first transition ------------------------------------------------------------------------------


def test_a_node_that_starts_first_waits_visibly_for_each_peer_then_collects(processes, eventually):
    waits = 'waiting_seconds_total{{for="{}"}}'
    node = processes.start_node("--n", 1, "--name", "first")
    eventually(lambda: node.metric(waits.format("replay")) > 0.0, "waits for the replay")
    eventually(lambda: node.get("/readyz") == "ok\n")
    processes.start_replay()
    [waiting] = processes.status().waiting
    assert "a learner" in waiting
    assert node.metric(waits.format("weights")) == 0.0

    learner = processes.start_learner(make_run(limit="strict", samples_per_insert=1.0))
    eventually(lambda: node.metric(waits.format("weights")) > 0.0, "waits for weights")
    assert node.metric("env_steps_total") == 0.0
    expected = [("first-0", "the learner's first weights")]
    eventually(lambda: [(one.actor, one.waiting_for) for one in processes.status().actors] == expected, "reports it")

    learner.await_subscriber()
    learner.publish(version=3)
    eventually(lambda: node.metric("env_steps_total") > 0.0, "collects")
    eventually(lambda: node.metric(waits.format("credit")) > 0.0, "waits for the learner to draw")
    stood_still = processes.status().inserts
    assert stood_still < 1_000, "the ratio holds it back"
    learner.draw(1_000)
    eventually(lambda: processes.status().inserts > stood_still, "goes on")
    eventually(lambda: node.metric("weights_version") == 3.0)


def test_two_workers_collect_until_they_are_told_to_end_and_nothing_is_lost(processes, eventually):
    processes.start_replay()
    learner = processes.start_learner(make_run(min_size=600, limit="insert_only", samples_per_insert=1.0))
    learner.publish()
    node = processes.start_node("--n", 2)
    eventually(lambda: processes.status().inserts > 500 and len(processes.status().actors) == 2, "two collect")
    workers = node.workers()
    assert node.end(signal.SIGTERM) == 0
    assert all(is_gone(worker) for worker in workers)
    status = processes.status()
    assert status.actors == (), "they said good-bye"
    assert (status.duplicate_chunks, status.rejected) == (0, {})
    assert "not acknowledged" not in node.log
    assert stored_rows(learner, status) == status.inserts
    assert status.inserts % COPIES == 0, "whole steps of all copies; a stop cuts the last chunk"


def stored_rows(learner, status):
    """Returns how many different rows the replay holds, drawn so often that none is missed."""
    assert 64 <= status.inserts <= 2_500, "so few that a draw of 65,536 misses one less than once in a million"
    rows = learner.draw(65_536)
    return len({row.tobytes() for row in rows})


# ---- kills --------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_started_again_and_every_chunk_is_stored_once(processes, eventually):
    processes.start_replay()
    learner = processes.start_learner(make_run(limit="insert_only", samples_per_insert=16.0))
    learner.publish()
    node = processes.start_node("--n", 1)
    before = eventually(lambda: node.metric("env_steps_total") >= CHUNK and node.metrics(), "collects")
    [worker] = node.workers()
    worker.kill()
    eventually(lambda: [a for a in processes.status().actors if a.incarnation == 2], "is another incarnation")
    node.logged(r"worker 0: killed by signal 9; restarts in 0\.5 s \(restart 1\)")
    learner.draw(5_000)
    eventually(lambda: node.metric("env_steps_total") > before["shoal_actor_env_steps_total"] + 200, "goes on")
    after = node.metrics()
    assert after["shoal_actor_worker_restarts_total"] == 1.0
    assert [name for name, value in counters(before).items() if after[name] < value] == [], "nothing went backwards"
    node.end()
    status = processes.status()
    assert stored_rows(learner, status) == status.inserts, "every stored row is there, and none twice"


def test_a_node_outlives_a_restart_of_the_replay(processes, eventually):
    replay = processes.start_replay()
    learner = processes.start_learner(make_run())
    learner.publish()
    node = processes.start_node("--n", 1)
    eventually(lambda: processes.status().inserts > 200)
    replay.process.kill()
    replay.process.wait()
    processes.start_replay()
    collected = node.metric("env_steps_total")
    learner.open()
    eventually(lambda: processes.status().inserts > 200, "goes on")
    assert node.metric("env_steps_total") > collected
    assert node.metric("worker_restarts_total") == 0.0
    assert [actor.incarnation for actor in processes.status().actors] == [1]


def test_workers_end_with_a_node_that_is_killed(processes, eventually):
    node = processes.start_node("--n", 2)
    eventually(lambda: node.metric('waiting_seconds_total{for="replay"}') > 0.1)
    workers = node.workers()
    assert len(workers) == 2
    node.process.kill()
    eventually(lambda: all(is_gone(worker) for worker in workers), "no orphans")


def test_a_terminals_interrupt_reaches_all_and_still_drains(processes, eventually):
    processes.start_replay()
    learner = processes.start_learner(make_run())
    learner.publish()
    node = processes.start_node("--n", 1)
    eventually(lambda: processes.status().inserts > 100)
    for worker in node.workers():
        worker.send_signal(signal.SIGINT)
    assert node.end(signal.SIGINT) == 130
    assert processes.status().actors == ()
    assert "Traceback" not in node.log
    assert "starts again" not in node.log


# ---- one node for all of these ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(shared_processes):
    """Returns the learner and the node of a run that goes on."""
    shared_processes.start_replay()
    learner = shared_processes.start_learner(make_run())
    learner.publish()
    node = shared_processes.start_node("--n", 1, "--name", "shared")
    wait_until(lambda: node.metric("env_steps_total") > 0.0)
    learner.await_subscriber()
    return learner, node


def test_wrong_weights_are_refused_and_counted(running, eventually):
    learner, node = running
    right = make_frame(learner.run, 2)
    damaged = right[:-1] + bytes([right[-1] ^ 1])
    foreign = make_frame(msgspec.structs.replace(learner.run, id="other"), 2)
    learner.broadcast.send(damaged)
    node.logged("weights rejected: reason=weights frame fails its digest")
    learner.broadcast.send(foreign)
    node.logged("weights rejected: reason=the weights belong to run other")
    eventually(lambda: node.metric("weights_rejected_total") == 2.0)
    assert node.metric("weights_version") == 1.0
    learner.publish(version=2)
    eventually(lambda: node.metric("weights_version") == 2.0)


def test_workers_map_no_torch_and_no_environments_library(running):
    _, node = running
    for process in [node.known, *node.workers()]:
        mapped = Path(f"/proc/{process.pid}/maps").read_text()
        for library in ("/libtorch", "/torch/", "/pygame/", "/scipy/", "/pettingzoo/"):
            assert library not in mapped
        assert "/numpy/" in mapped, "so that the test would see the others"


def test_a_worker_has_no_pool_of_threads(running):
    _, node = running
    [worker] = node.workers()
    assert worker.num_threads() <= 4, "its own, ZeroMQ's two, and none of BLAS'"


def test_a_second_worker_of_the_same_name_takes_the_place_and_the_first_ends_with_code_3(running, shared_processes):
    """Last of its section: it ends the node."""
    _, node = running
    twin = ReplaySession("shared-0", shared_processes.replay_url, shared_processes.weights_url)
    try:
        wait_until(lambda: twin.poll(time.monotonic()) or twin.run, "the twin is admitted")
        assert twin.outbox.incarnation == 2
        assert node.process.wait(PATIENCE_S) == 3
    finally:
        twin.close()
    taken = "another worker named shared-0 replaced this one; give each node its own --name"
    assert last_line(node) == f"actor: {taken}"


# ---- mistakes and their codes -------------------------------------------------------------------------------------


def last_line(node):
    return node.log.strip().splitlines()[-1]


def test_giving_up_on_a_replay_that_never_comes_is_code_3(processes):
    node = processes.start_node("--peer-timeout", "0.3s")
    assert node.process.wait(PATIENCE_S) == 3
    assert last_line(node).startswith("actor: waited ")
    assert last_line(node).endswith("; check that it runs and that --replay is right")
    assert processes.replay_url in last_line(node)


def test_an_address_that_is_none_is_code_2(processes):
    node = processes.start_node("--replay", "nowhere")
    assert node.process.wait(PATIENCE_S) == 2
    assert last_line(node).startswith("actor: --replay nowhere: ")
    assert "Traceback" not in node.log


def test_a_port_in_use_is_code_2(processes):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = processes.start_node("--metrics-port", port)
        assert node.process.wait(PATIENCE_S) == 2
    assert last_line(node).startswith(f"actor: --metrics-port {port}: cannot listen")


def test_a_world_that_cannot_be_made_is_code_2(processes):
    processes.start_replay()
    processes.start_learner(make_run("no_such_world")).publish()
    node = processes.start_node()
    assert node.process.wait(PATIENCE_S) == 2
    assert last_line(node).startswith("actor: there is no scenario 'no_such_world'")


BROKEN_WORLD = """
def parallel_env():
    raise ZeroDivisionError("out of " + 9_000 * "coal and " + "water")
"""


def test_a_constructor_that_fails_ends_the_node_with_its_words(processes):
    (processes.directory / "broken_world.py").write_text(BROKEN_WORLD)
    processes.start_replay()
    processes.start_learner(make_run("pettingzoo:broken_world", world={})).publish()
    node = processes.start_node("--n", 1)
    assert node.process.wait(PATIENCE_S) == 1
    assert "ZeroDivisionError: out of coal" in node.log
    assert last_line(node) == "(worker 0 failed before its first chunk was collected; it is not restarted)"


def test_a_workers_modules_import_no_library_it_does_not_need():
    script = "import sys, actor_node.cli, actor_node.supervisor, actor_node.worker; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert not imported & {"torch", "tensorboardX", "mpe2", "pettingzoo", "pygame", "scipy", "safetensors", "redis"}
    assert {"numpy", "zmq", "common"} <= imported
