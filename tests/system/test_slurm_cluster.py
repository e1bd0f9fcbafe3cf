"""The batch scripts on a real Slurm of three nodes: ends, signals, limits, preemption, nodes that fail, arrays."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.run.directory import RunDirectory
from shoal.commands.keys import make_keys
from tests.system import slurm_cluster
from tests.system.slurm_cluster import KILL_WAIT_S, NODE_TIMEOUT_S, SlurmCluster, until

ROOT = Path(__file__).parents[2]
RUN, SWEEP = ROOT / "deploy" / "slurm" / "shoal.sbatch", ROOT / "deploy" / "slurm" / "sweep.sbatch"
SMALL = ("--set", "replay.min_size=500", "--set", "network.policy_hidden=[16]", "--set", "network.critic_hidden=[16]")
SPREAD = ("--scenario", "simple_spread", *SMALL, "--set", "replay.batch=64", "--checkpoint-every", "5s")
REASON = slurm_cluster.missing()
pytestmark = [
    pytest.mark.system,
    pytest.mark.soak,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(REASON), reason=REASON),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    made = SlurmCluster(tmp_path_factory.mktemp("slurm"), nodes=3)
    try:
        made.start()
        yield made
    finally:
        made.end()


class SharedDirectory:
    """A run's directory as the jobs of one test see it."""

    def __init__(self, cluster: SlurmCluster, path: Path) -> None:
        self.cluster, self.path, self.run = cluster, path, RunDirectory(path / "run")
        self.variables = {"SHOAL_DIR": str(path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def submit(self, *arguments: str, options: tuple[str, ...] = (), script: Path = RUN, **variables: str) -> str:
        return self.cluster.submit(
            script, *arguments, options=("--cpus-per-task=1", *options), **{**self.variables, **variables}
        )

    def updates(self) -> int:
        """Returns the number of updates in the newest line of the learner's metrics."""
        lines = self.run.metrics_file.read_text().splitlines() if self.run.metrics_file.exists() else []
        return max((int(json.loads(line).get("updates", 0)) for line in lines), default=0)

    def role_log(self, name: str) -> str:
        path = self.path / "logs" / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def waits_until_it_learns(self, job: str, more_than: int = 0) -> None:
        until(
            lambda: self.updates() > more_than or self.cluster.state(job) in ("FAILED", "COMPLETED"),
            lambda: f"job {job} learns; {self.everything(job)}",
            within_s=240,
        )
        assert self.cluster.state(job) == "RUNNING", self.everything(job)

    def waits_until_it_resumes(self, job: str, times: int = 1) -> None:
        self.cluster.skip_delay(job)
        until(
            lambda: self.role_log("learner").count("resumed: ") >= times,
            lambda: f"job {job} resumes; {self.everything(job)}",
            within_s=240,
        )

    def waits_for(self, job: str, state: str, within_s: float = 300) -> None:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")
        until(
            lambda: self.cluster.state(job) in (*ended, state),
            lambda: f"job {job} is {state}; {self.everything(job)}",
            within_s,
        )
        assert self.cluster.state(job) == state, self.everything(job)

    def ends_well(self, job: str, within_s: float = 300) -> None:
        self.waits_for(job, "COMPLETED", within_s)
        assert self.cluster.exit_code(job) == "0:0", self.everything(job)

    def everything(self, job: str) -> str:
        logs = "\n".join(f"--- {log.name}\n{log.read_text()[-2_000:]}" for log in (self.path / "logs").glob("*.log"))
        return f"{self.cluster.describe(job)}\n{self.cluster.log(job)}\n{logs}"


@pytest.fixture
def shared(cluster: SlurmCluster, tmp_path: Path) -> Iterator[SharedDirectory]:
    made = SharedDirectory(cluster, tmp_path / "shared")
    yield made
    cluster.scancel("--user=root")
    until(lambda: cluster.leftovers() == [], lambda: f"nothing is left; {cluster.leftovers()}", within_s=60)


def test_a_run_on_one_node_is_followed_scraped_evaluated_and_reported(
    cluster: SlurmCluster, shared: SharedDirectory
) -> None:
    job = shared.submit(*SPREAD, "--time", "45s", SHOAL_METRICS="true")
    shared.waits_until_it_learns(job)
    node = cluster.node_of(job)
    assert f"training on {node} in {shared.run.path}" in cluster.log(job)
    targets = json.loads((shared.path / "targets" / "run.json").read_text())
    for target, metric in zip(targets, ("shoal_replay_", "shoal_learner_", "shoal_actor_"), strict=True):
        (address,) = target["targets"]
        host, port = address.split(":")
        assert host == node
        with urllib.request.urlopen(f"http://{cluster.address(host)}:{port}/metrics", timeout=10) as answer:
            assert metric in answer.read().decode(), "another machine can scrape it"
    status = cluster.run_on(node, "shoal", "status", str(shared.run.path), "--json", **shared.variables)
    assert status.returncode == 0, status.stderr
    assert json.loads(status.stdout)["run"]["spec"]["scenario"] == "simple_spread"
    shared.ends_well(job)
    assert shared.run.finished_file.exists()
    assert shared.run.evaluation_file.exists(), shared.everything(job)
    assert (shared.run.path / "report.html").exists()
    assert "95 % interval" in cluster.log(job)
    assert not (shared.path / "redis").exists()


def test_signals_by_hand_save_and_scancel_ends(cluster: SlurmCluster, shared: SharedDirectory) -> None:
    job = shared.submit(*SPREAD, "--time", "10m")
    shared.waits_until_it_learns(job)

    cluster.scancel("--signal=USR1", job)  # without --batch the actors get it, which ignore it
    shared.waits_until_it_learns(job, more_than=shared.updates() + 20)
    assert cluster.restarts(job) == 0

    cluster.scancel("--batch", "--signal=USR1", job)
    until(lambda: cluster.restarts(job) == 1, lambda: f"it is queued again; {shared.everything(job)}", within_s=60)
    assert "SIGUSR1 received: saved" in cluster.log(job)
    assert not (shared.path / "address").exists()
    shared.waits_until_it_resumes(job)

    cluster.scancel(job)
    shared.waits_for(job, "CANCELLED", within_s=KILL_WAIT_S + 30)
    until(lambda: "stopped and saved" in cluster.log(job), "the script ends in order", within_s=KILL_WAIT_S)
    assert not (shared.path / "address").exists()


def test_the_time_limit_queues_it_again_until_the_budget_is_used(
    cluster: SlurmCluster, shared: SharedDirectory
) -> None:
    """Slurm may send the signal up to a minute early: 45 to 105 s after the start, always before the budget is used."""
    job = shared.submit(*SPREAD, "--time", "120s", options=("--time=3", "--signal=B:USR1@75"))
    until(lambda: cluster.restarts(job) == 1, lambda: f"the limit comes; {shared.everything(job)}", within_s=200)
    assert "SIGUSR1 received: saved" in cluster.log(job)

    def is_over() -> bool:
        if cluster.state(job) == "PENDING":
            cluster.skip_delay(job)
        return cluster.state(job) in ("COMPLETED", "FAILED", "TIMEOUT")

    until(is_over, lambda: f"the budget is used; {shared.everything(job)}", within_s=600)
    shared.ends_well(job)
    assert "resumed: " in shared.role_log("learner")
    assert shared.run.evaluation_file.exists(), shared.everything(job)
    assert "recovered transitions=" in shared.role_log("replay")


def test_a_preempted_run_makes_room_at_once_and_goes_on(
    cluster: SlurmCluster, shared: SharedDirectory, tmp_path: Path
) -> None:
    job = shared.submit(*SPREAD, "--time", "10m", options=("--nodelist=n1",))
    shared.waits_until_it_learns(job)
    urgent = tmp_path / "urgent"
    urgent.write_text("#!/bin/sh\nexec sleep 300\n")
    other = cluster.submit(urgent, options=("--partition=urgent", "--exclusive"))

    until(
        lambda: cluster.state(other) == "RUNNING",
        lambda: f"it makes room; {shared.everything(job)}",
        within_s=KILL_WAIT_S + 15,
    )
    assert "stopped and saved" in cluster.log(job), shared.everything(job)
    assert not (shared.path / "address").exists(), "nobody is led to what has ended"
    cluster.scancel(other)
    shared.waits_until_it_resumes(job)
    assert cluster.restarts(job) == 1


def test_nodes_play_together_and_survive_the_death_of_one(
    cluster: SlurmCluster, shared: SharedDirectory, tmp_path: Path
) -> None:
    make_keys(tmp_path / "keys", [])
    keys = {"SHOAL_KEYS": str(tmp_path / "keys"), "SHOAL_METRICS": "true"}
    job = shared.submit(*SPREAD, "--time", "60s", options=("--nodes=2", "--nodelist=n1,n2"), **keys)
    array = shared.submit(options=("--array=1", "--nodelist=n3"), **keys)
    shared.waits_until_it_learns(job)

    def actors() -> int:
        line = ("shoal", "status", str(shared.run.path), "--keys", f"{keys['SHOAL_KEYS']}/actor", "--json")
        status = cluster.run_on("n3", *line, **shared.variables)
        return len(json.loads(status.stdout)["actors"]) if status.returncode == 0 else 0

    until(
        lambda: actors() == 3,
        lambda: f"two nodes of the run's and one of the array's; {shared.everything(job)}",
        within_s=120,
    )
    assert "workers on n3 collect for tcp://n1:" in cluster.log(array), cluster.log(array)
    targets = [one for file in (shared.path / "targets").glob("*.json") for one in json.loads(file.read_text())]
    nodes = sorted((one["labels"]["job"], address.split(":")[0]) for one in targets for address in one["targets"])
    assert nodes == [("actor", "n1"), ("actor", "n2"), ("actor", "n3"), ("learner", "n1"), ("replay", "n1")]

    cluster.kill_node("n2")
    until(
        lambda: cluster.restarts(job) == 1,
        lambda: f"it is queued again; {shared.everything(job)}",
        within_s=NODE_TIMEOUT_S + 150,
    )
    cluster.start_node("n2")
    shared.waits_until_it_resumes(job)
    shared.ends_well(job)
    shared.ends_well(array)
    assert shared.run.finished_file.exists()
    assert not list((shared.path / "targets").iterdir()), "Prometheus forgets what has ended"


@pytest.mark.timeout(1800)
def test_an_array_divides_a_sweep_and_gives_the_table_of_one_machine(
    cluster: SlurmCluster, shared: SharedDirectory
) -> None:
    """Twelve runs on two nodes, each executed once, have the bits of twelve runs on one node."""
    options = ("--lockstep", "--steps", "600", "--episodes", "10", "--no-film", "--copies", "8")
    sizes = (*SMALL[2:], "--set", "replay.min_size=200")

    def sweep(directory: Path) -> tuple[str, ...]:
        variants = ("--seeds", "6", "--vary", "replay.batch=16|32")
        return ("sweep", "simple_spread", "--run", str(directory), *variants, "--", *options, *sizes)

    divided, alone = shared.path / "divided", shared.path / "alone"
    array = shared.submit(*sweep(divided), script=SWEEP, options=("--array=1-2", "--exclusive", "--exclude=n3"))
    tasks = [f"{array}_{task}" for task in (1, 2)]
    for task in tasks:
        shared.ends_well(task, within_s=400)
    assert {cluster.node_of(task) for task in tasks} == {"n1", "n2"}
    claims = sorted(divided.rglob(".*.claim-*"))
    assert [path.name for path in claims] == [f".seed-{seed}.claim-1" for seed in range(1, 7)] * 2
    assert {json.loads(path.read_text())["host"] for path in claims} == {"n1", "n2"}

    done = cluster.run_on("n3", "shoal", *sweep(alone), timeout_s=450, **shared.variables)
    assert done.returncode == 0, done.stderr
    tables = [json.loads((directory / "sweep.json").read_text()) for directory in (divided, alone)]
    assert len(tables[0]["runs"]) == 12
    assert tables[0]["rows"] == tables[1]["rows"]
    assert weights_of(divided) == weights_of(alone)


def weights_of(sweep: Path) -> dict[str, str]:
    """Returns the digest of each run's policies, by the run's directory in the sweep's."""
    files = {file.parent.relative_to(sweep): json.loads(file.read_text()) for file in sweep.rglob("evaluation.json")}
    return {str(directory): evaluation["weights_hash"] for directory, evaluation in files.items()}


def test_a_node_with_few_processors_needs_an_option(cluster: SlurmCluster, shared: SharedDirectory) -> None:
    assert shutil.which("sbatch")
    with pytest.raises(AssertionError, match="CPU count per node can not be satisfied"):
        cluster.submit(RUN, *SPREAD, **shared.variables)
