import multiprocessing
import os
import sys
import time

import pytest
from prometheus_client import Counter, generate_latest

from common.process.monitoring import metrics, resources
from tests.common.examples import make_run

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")


def allocate(size, connection):
    block = bytearray(size)
    block[::4096] = b"x" * len(block[::4096])
    connection.send("held")
    connection.recv()


@pytest.fixture
def child():
    """Starts a process that holds 64 MiB, and ends it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=allocate, args=(64 * 2**20, theirs))
    process.start()
    assert ours.recv() == "held"
    yield process
    if process.is_alive():
        ours.send("end")
    process.join()


def value(registry, name):
    return registry.get_sample_value(name)


def test_the_build_is_exported_with_the_role_and_its_libraries():
    registry = metrics.make_registry("actor", libraries=("msgspec", "nowhere"))
    text = generate_latest(registry).decode()
    [line] = [line for line in text.splitlines() if line.startswith("shoal_build_info{")]
    assert 'role="actor"' in line
    assert f'python="{sys.version.split()[0]}"' in line
    assert 'nowhere="unknown"' in line


@on_linux
@pytest.mark.slow
def test_memory_and_cpu_time_of_workers_count(child):
    alone = metrics.make_registry("actor")
    with_child = metrics.make_registry("actor", lambda: [child.pid])
    more = value(with_child, "shoal_memory_bytes") - value(alone, "shoal_memory_bytes")
    assert 64 * 2**20 < more < 110 * 2**20
    assert resources.private_bytes(child.pid) < more + 2**20
    assert value(with_child, "shoal_cpu_seconds_total") > value(alone, "shoal_cpu_seconds_total")


@on_linux
@pytest.mark.slow
def test_cpu_time_does_not_go_back_when_a_worker_ends(child):
    pids = [child.pid]
    registry = metrics.make_registry("actor", lambda: pids)
    before = value(registry, "shoal_cpu_seconds_total")
    assert before > 0.0
    pids.clear()  # gone from the list before it is waited for: its time is in neither sum
    assert value(registry, "shoal_cpu_seconds_total") >= before
    child.kill()
    child.join()
    assert value(registry, "shoal_cpu_seconds_total") >= before


@on_linux
def test_a_process_that_is_gone_takes_nothing():
    assert (resources.private_bytes(2**22 + 1), resources.cpu_seconds(2**22 + 1)) == (0, 0.0)


@on_linux
def test_cpu_time_is_the_systems():
    give_up_at = time.monotonic() + 5.0
    while time.process_time() < 0.1 and time.monotonic() < give_up_at:
        pass
    times = os.times()
    assert resources.cpu_seconds(os.getpid()) == pytest.approx(sum(times[:4]), abs=0.1)


# ---- the limit ----------------------------------------------------------------------------------------------------

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
AFFINITY = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
GROUPS = {
    "v2": ("0::/box/inner\n", {"box/memory.max": "1000000\n", "box/inner/memory.max": "max\n"}),
    "v2 in a container": ("0::/\n", {"memory.max": "1000000"}),
    "v1 with another": ("5:cpu:/\n4:cpuset,memory:/x\n", {"memory/x/memory.limit_in_bytes": "1000000\n"}),
    "v1 of a container seen from inside": ("4:memory:/docker/abc\n", {"memory/memory.limit_in_bytes": "1000000\n"}),
    "v1 by its path": ("4:memory:/a/b\n0::/\n", {"memory/a/b/memory.limit_in_bytes": "1000000\n"}),
    "v1 without a limit": ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}),
    "none": ("", {}),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_limit_is_the_least_of_all_groups_and_the_machine(name, tmp_path, monkeypatch):
    own, limits = GROUPS[name]
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(own)
    for file, text in limits.items():
        (tmp_path / "cgroup" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / file).write_text(text)
    monkeypatch.setattr(resources, "PROC", tmp_path)
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    limited = any(text.strip() == "1000000" for text in limits.values())
    assert resources.memory_limit_bytes() == (1_000_000 if limited else MACHINE)


USED = {
    "v2, used in the outer group": (
        "0::/box/inner\n",
        {"box/memory.max": "1000000", "box/memory.current": "400000", "box/inner/memory.max": "900000"},
        600_000,
    ),
    "v2, used beyond the limit": ("0::/\n", {"memory.max": "1000000", "memory.current": "1000001"}, 0),
    "v1": (
        "4:memory:/job\n",
        {"memory/job/memory.limit_in_bytes": "1000000", "memory/job/memory.usage_in_bytes": "1"},
        999_999,
    ),
    "no group has a limit": ("0::/box\n", {"box/memory.max": "max", "box/memory.current": "5"}, 2_048_000),
}


@pytest.mark.parametrize("name", USED)
def test_what_is_still_free_is_the_least_of_all_groups_and_the_machine(name, tmp_path, monkeypatch):
    own, files, expected = USED[name]
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(own)
    (tmp_path / "meminfo").write_text("MemTotal:  9000 kB\nMemAvailable:    2000 kB\n")
    for file, text in files.items():
        (tmp_path / "cgroup" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / file).write_text(text)
    monkeypatch.setattr(resources, "PROC", tmp_path)
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    assert resources.available_memory_bytes() == expected


@on_linux
def test_the_limit_of_this_process_is_no_more_than_the_machine_has():
    assert 0 < resources.memory_limit_bytes() <= MACHINE


QUOTAS = {
    "v2, the outer group's": (
        "0::/box/inner\n",
        {"box/cpu.max": "150000 100000", "box/inner/cpu.max": "max 100000"},
        1,
    ),
    "v2, below one core": ("0::/\n", {"cpu.max": "20000 100000"}, 1),
    "v2, beyond the affinity": ("0::/\n", {"cpu.max": "99900000 100000"}, AFFINITY),
    "v1": ("3:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "100000"}, 1),
    "v1, none": ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, AFFINITY),
}


@on_linux
@pytest.mark.parametrize("name", QUOTAS)
def test_the_cores_that_can_be_used_are_the_least_of_all_groups_and_the_affinity(name, tmp_path, monkeypatch):
    own, files, expected = QUOTAS[name]
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(own)
    for file, text in files.items():
        (tmp_path / "cgroup" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroup" / file).write_text(text)
    monkeypatch.setattr(resources, "PROC", tmp_path)
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")
    assert resources.usable_cores() == expected


# ---- the run ------------------------------------------------------------------------------------------------------


def test_a_runs_labels_are_bounded():
    run = make_run(scenario="x" * 200, algorithm={"name": ",".join(f"side{n}=maddpg" for n in range(60))})
    labels = metrics.run_labels(run)
    assert tuple(labels) == metrics.RUN_LABELS
    assert labels["run"] == run.id
    assert max(map(len, labels.values())) == 200
    [sample] = metrics.run_info(labels).samples
    assert (sample.name, sample.labels) == ("shoal_run_info", labels)


def test_counters_have_no_series_of_their_birth():
    registry = metrics.make_registry("actor")
    Counter("shoal_x", "X.", registry=registry).inc()
    assert "_created" not in generate_latest(registry).decode()
