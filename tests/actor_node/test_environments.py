"""A node of real workers with environments that fail, hang and are slow: what is said, and what follows."""

import contextlib
import re
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from common.run.run import Run, make_run_spec
from common.wire.messages import Status
from common.worlds import world_spec
from replay_server.sessions.session import LEASE_S
from tests.actor_node.conftest import made_processes
from tests.conftest import PATIENCE_S

pytestmark = pytest.mark.system

WORLD = "pettingzoo:tests.actor_node.slow_env"


def start(processes, *node, learner=None, **options):
    """Starts a replay server, a learner that only publishes, and a node with one worker."""
    settings = {"capacity": 100_000, "batch": 64, "min_size": 64, "limit": "off"}
    world = {"directory": str(processes.directory), **options}
    spec = make_run_spec({"scenario": WORLD, "world": world, "replay": settings})
    run = Run("a1b2c3d4", spec, world_spec(WORLD, directory=world["directory"]))
    processes.start_replay()
    processes.start_learner(run).publish()
    return processes.start_node("--n", 1, "--name", "slow", *node)


def steps_done(directory: Path) -> int:
    """Returns how many steps all copies have finished together, over all processes that made them."""
    per_worker: dict[str, list[int]] = {}
    for path in directory.glob("steps-*"):
        per_worker.setdefault(path.name.split("-")[1], []).append(len(path.read_text().splitlines()))
    return sum(min(counts) for counts in per_worker.values() if len(counts) == 4)


# ---- faults that repetition cannot mend ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fail_in", "way", "copy", "words"),
    [
        ("make", "raise", 1, "RuntimeError: the licence server said no"),
        ("reset", "raise", 0, "RuntimeError: the licence server said no"),
        ("step", "raise", 2, "RuntimeError: the licence server said no"),
        ("step", "exit", 1, r"step 1 of copy 2 of 4: the environment called exit\(0\)"),
        ("make", "os_exit", 1, r"ended its process with exit code 0 \(os._exit\?\) in the constructor of copy 2 of 4"),
        ("step", "os_exit", 3, r"ended its process with exit code 0 \(os._exit\?\) in step\(\) of copy 4 of 4"),
        ("reset", "segfault", 0, r"crashed its process with signal 11 \(SIGSEGV\) in reset\(\) of copy 1 of 4"),
    ],
)
def test_a_fault_in_the_first_chunk_ends_the_node_with_its_words(processes, fail_in, way, copy, words):
    node = start(processes, fail_in=fail_in, way=way, copy=copy)
    assert node.process.wait(PATIENCE_S) == 1
    assert re.search(words, node.log)
    assert node.log.strip().splitlines()[-1].startswith("(worker 0 failed before its first chunk was collected")
    if way == "raise":
        assert "slow_env.py" in node.log, "the user's own frames"


def test_the_same_fault_three_times_without_a_chunk_in_between_ends_the_node(processes, eventually):
    # The first worker is killed after it has collected; what follows it never collects.
    mark = processes.directory / "broken"
    code = f"import os\nBROKEN = os.path.exists({str(mark)!r})\n"
    (processes.directory / "breaks_later.py").write_text(
        code
        + "from tests.actor_node.slow_env import SlowEnv\n\n"
        + "def parallel_env(**options):\n    if BROKEN:\n        raise OSError('port %d is in use' % os.getpid())\n"
        + "    return SlowEnv(**options)\n"
    )
    spec = make_run_spec({"scenario": "pettingzoo:breaks_later", "replay": {"limit": "off", "min_size": 64}})
    processes.start_replay()
    processes.start_learner(Run("a1b2c3d4", spec, world_spec(WORLD))).publish()
    node = processes.start_node("--n", 1, "--name", "slow")
    eventually(lambda: node.metric("chunks_total") > 0)
    mark.touch()
    [worker] = node.workers()
    worker.kill()
    assert node.process.wait(PATIENCE_S) == 1
    assert len(re.findall(r"port \d+ is in use; restarts", node.log)) == 2
    assert "3 times in a row without a chunk in between" in node.log


def test_a_rare_fault_is_retried_counted_and_told(processes, eventually):
    # In the 60th step: after some chunks of four steps.
    start(processes, fail_in="step", at=59, copy=1)

    def reported() -> Status | None:
        status = processes.status()
        return status if status.worker_restarts else None

    status = eventually(reported, "the restart is reported")
    assert status.worker_restarts >= 1
    assert "the licence server said no" in status.last_fault


# ---- slow ones ----------------------------------------------------------------------------------------------------


def test_a_step_that_never_returns_is_named_and_does_not_keep_the_node_from_ending(eventually):
    # Three nodes at the same time: each hangs beyond the lease of 15 s.
    with contextlib.ExitStack() as stack:
        sites = {way: stack.enter_context(made_processes()) for way in ("sleep", "spin", "hold")}
        nodes = {
            way: start(processes, "--drain", "2s", fail_in="step", at=5, copy=2, way=way)
            for way, processes in sites.items()
        }
        for way, processes in sites.items():
            node = nodes[way]
            node.logged(r"worker 0: step\(\) of copy 3 of 4 has not returned for 1\d s")
            # The supervisor renews the lease: a worker that lives is connected.
            eventually(
                lambda processes=processes: longest_step_s(processes.status()) >= LEASE_S + 3, f"the step, {way}"
            )
            asked_at = time.monotonic()
            assert node.end(signal.SIGTERM) == 0
            assert time.monotonic() - asked_at < 8
            if way != "hold":
                # Nobody can interrupt what holds the interpreter: the step before was of the chunk being collected.
                assert processes.status().inserts == 4 * steps_done(processes.directory)


def longest_step_s(status: Status) -> float:
    """Returns for how long a connected worker has been stepping its third copy [s]."""
    found = [re.fullmatch(r"stepping copy 3 of 4 for (\d+) s", actor.doing) for actor in status.actors]
    return max((float(one[1]) for one in found if one), default=0.0)


def test_constructors_that_take_long_are_told_and_broken_off_at_the_end(processes, eventually):
    node = start(processes, "--drain", "2s", make_s=4.0)
    said = eventually(
        lambda: [a.doing for a in processes.status().actors if a.doing.startswith("making copy 2 of 4")],
        "the second copy",
    )
    assert said
    asked_at = time.monotonic()
    assert node.end(signal.SIGTERM) == 0
    assert time.monotonic() - asked_at < 4
    assert "did not end in time" not in node.log


@pytest.mark.parametrize("hold", [False, True])
def test_slow_steps_are_told_and_none_that_was_finished_is_lost_at_the_end(processes, eventually, hold):
    node = start(processes, step_s=0.4, hold=hold)
    eventually(lambda: [a for a in processes.status().actors if "s a step of all copies" in a.doing], "a report")
    eventually(lambda: processes.status().inserts >= 8, "chunks come although they are far from full")
    assert node.metric("worker_restarts_total") == 0
    assert node.end(signal.SIGTERM) == 0
    status = processes.status()
    assert status.inserts == 4 * steps_done(processes.directory)
    assert (status.duplicate_chunks, status.rejected) == (0, {})
    assert "reconnecting" not in node.log


def test_an_environment_may_start_processes_and_none_of_them_outlives_the_node(processes, eventually):
    node = start(processes, children=True)
    eventually(lambda: node.metric("chunks_total") > 0, "collects")
    children = [int(pid) for path in processes.directory.glob("children-*") for pid in path.read_text().split()]
    assert Counter(psutil.pid_exists(pid) for pid in children) == {True: 8}
    assert node.end(signal.SIGTERM) == 0

    def left() -> bool:
        return any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in children)

    eventually(lambda: not left(), "no orphan")


# ---- ends that an environment hinders -----------------------------------------------------------------------------


@pytest.mark.parametrize("fail_in", ["make", "step"])
@pytest.mark.parametrize("hinders", [{"close": "sleep"}, {"close": "hold"}, {"thread": True}])
def test_a_fault_is_shown_also_where_the_worker_cannot_end_after_it(processes, fail_in, hinders):
    node = start(processes, fail_in=fail_in, copy=1, **hinders)
    assert node.process.wait(PATIENCE_S) == 1
    assert "RuntimeError: the licence server said no" in node.log
    assert ("close() of the environments did not return in 5 s; killed" in node.log) == ("close" in hinders)


def test_a_thread_that_is_left_behind_does_not_keep_the_node_from_ending(processes, eventually):
    node = start(processes, thread=True)
    eventually(lambda: node.metric("chunks_total") > 0, "collects")
    assert node.end(signal.SIGTERM) == 0
    assert "did not end in time" not in node.log


def test_a_worker_that_someone_asks_to_end_is_started_again(processes, eventually):
    node = start(processes)
    eventually(lambda: node.metric("chunks_total") > 0, "collects")
    [worker] = node.workers()
    worker.terminate()
    node.logged("worker 0: ended by a signal that its supervisor did not send; restarts")
    eventually(lambda: node.workers() and node.workers()[0].pid != worker.pid, "another worker")
    assert node.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("way", ["sleep", "stubborn"])
def test_nothing_outlives_a_node_that_is_killed_while_a_step_hangs(processes, eventually, way):
    node = start(processes, fail_in="step", way=way, copy=2, children=True)
    eventually(lambda: [a for a in processes.status().actors if "stepping copy 3" in a.doing], "the step hangs")
    left = node.known.children(recursive=True)
    assert len(left) >= 1 + 8
    node.process.kill()
    _, alive = psutil.wait_procs(left, timeout=PATIENCE_S)
    assert not alive
