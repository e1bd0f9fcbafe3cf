"""A real Slurm on one machine: a controller, and several nodes with an address and a host name of their own.

Each node is a slurmd in a network, mount and UTS namespace; a bridge connects them, so that nodes reach each other as
over a network. Needs root on Linux and the programs of REQUIRED (Debian: slurmctld, slurmd, slurm-client, munge,
iproute2). Nothing of the machine's own configuration is read or changed: munge's key and socket, slurm.conf and
/etc/hosts are the cluster's own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

REQUIRED = ("slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel", "munged", "ip", "unshare", "mount")
NETWORK = "198.18.77"
"""Of the range for tests of network devices (RFC 2544), which no network uses."""
KILL_WAIT_S = 30
"""Slurm's default time between SIGTERM and SIGKILL [s]."""
NODE_TIMEOUT_S = 30
"""Time after which the controller declares a silent node dead [s]."""
_CONFIGURATION = """
ClusterName=shoal
SlurmctldHost={host}({network}.1)
SlurmctldPort={port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
CryptoType=crypto/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n/slurmd.pid
SlurmdSpoolDir={directory}/%n/spool
StateSaveLocation={directory}/state
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n/slurmd.log
SlurmdParameters=config_overrides
ReturnToService=2
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MailProg=/bin/true
KillWait={kill_wait}
SlurmdTimeout={node_timeout}
SchedulerParameters=sched_interval=2,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n1 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Returns why there can be no cluster here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "Slurm's nodes are Linux namespaces"
    if os.geteuid() != 0:
        return "Slurm's nodes are namespaces, which need root"
    absent = [name for name in REQUIRED if _program(name) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge iproute2"
    done = subprocess.run(["unshare", "--net", "--mount", "--uts", "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else f"no namespaces: {done.stderr.decode().strip()}"


def until(predicate: Callable[[], object], what: Callable[[], object] | str, within_s: float = 20.0) -> None:
    """Waits until a predicate holds; fails with `what` after the time. It looks seldom: a look may be a command."""
    deadline = time.monotonic() + within_s
    while not predicate():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within_s:g} s: {what() if callable(what) else what}")
        time.sleep(0.5)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


class SlurmCluster:
    """A running cluster.

    Example:
        cluster = SlurmCluster(directory, nodes=3)
        cluster.start()
        job = cluster.submit("deploy/slurm/shoal.sbatch", "--scenario", "simple_spread", cpus=1)
        cluster.wait(job, "COMPLETED")
        cluster.end()
    """

    def __init__(self, directory: Path, nodes: int, cpus: int = 4) -> None:
        self.directory, self.jobs = directory, directory / "jobs"
        self.names = [f"n{i}" for i in range(1, nodes + 1)]
        self._cpus = cpus
        self._link = f"shoal{os.getpid() % 10_000}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._networks: dict[str, str] = {}
        """Identifiers of the nodes' network namespaces, each different from the machine's."""
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SHOAL_", "SLURM_"))},
            "SLURM_CONF": str(directory / "slurm.conf"),
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}:/usr/sbin:/sbin",
        }

    def address(self, node: str) -> str:
        """Returns a node's IP address."""
        return f"{NETWORK}.{11 + self.names.index(node)}"

    def start(self) -> None:
        """Starts the network, munge, the controller and the nodes, and waits until all nodes are idle."""
        (self.directory / "state").mkdir(parents=True)
        self.jobs.mkdir()
        self._ip("link", "add", self._link, "type", "bridge")
        self._ip("addr", "add", f"{NETWORK}.1/24", "dev", self._link)
        self._ip("link", "set", self._link, "up")
        hosts = "".join(f"{self.address(name)} {name}\n" for name in self.names)
        (self.directory / "hosts").write_text(f"127.0.0.1 localhost\n{NETWORK}.1 {socket.gethostname()}\n{hosts}")
        self._configure()
        self._start_munge()
        self._daemons.append(self._start("slurmctld", "slurmctld", "-D"))
        for name in self.names:
            self.start_node(name)
        until(
            lambda: self.states().count("idle") == len(self.names),
            lambda: f"all nodes are idle: {self.states()}; {self._log()}",
            within_s=90,
        )

    def start_node(self, name: str) -> None:
        """Starts a node, or starts it again after `kill_node`."""
        (self.directory / name / "spool").mkdir(parents=True, exist_ok=True)
        setup = f"""
        hostname {name}
        mount --bind {self.directory}/hosts /etc/hosts
        ip link set lo up
        read -r _ # the network is there
        exec slurmd -D -N {name} </dev/null
        """
        reading, writing = os.pipe()
        line = ["unshare", "--net", "--mount", "--uts", "sh", "-c", setup]
        self._nodes[name] = node = self._start(name, *line, stdin=reading)
        os.close(reading)
        # `unshare` becomes the shell; its network namespace is new once it differs from this process's.
        until(lambda: _network(node.pid) not in ("", _network(os.getpid())), "the node has a namespace")
        self._networks[name] = _network(node.pid)
        inside = f"{self._link}{name}"
        self._ip("link", "add", inside, "type", "veth", "peer", "name", f"{inside}p")
        self._ip("link", "set", inside, "master", self._link, "up")
        self._ip("link", "set", f"{inside}p", "netns", str(node.pid))
        for command in (f"addr add {self.address(name)}/24 dev {inside}p", f"link set {inside}p up"):
            subprocess.run(["nsenter", "--target", str(node.pid), "--net", "ip", *command.split()], check=True)
        os.write(writing, b"\n")
        os.close(writing)

    def kill_node(self, name: str) -> None:
        """Kills everything on a node, as when its power fails."""
        namespace = self._networks.get(name, "")
        # Never the machine's own: a node that did not start has no network, and everything else must live.
        for _ in range(20 if namespace not in ("", _network(os.getpid())) else 0):
            members = [p for p in psutil.process_iter() if _network(p.pid) == namespace]
            if not members:
                break
            for member in members:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            time.sleep(0.1)
        node = self._nodes.pop(name)
        node.kill()
        node.wait()

    def submit(self, script: Path, *arguments: str, options: tuple[str, ...] = (), **variables: str) -> str:
        """Submits a script and returns the job's number."""
        line = ["sbatch", "--parsable", f"--output={self.jobs}/%A.log", "--mem=1G", *options, str(script), *arguments]
        done = self._run(*line, **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def scancel(self, *arguments: str) -> None:
        """Signals or cancels a job as a user does."""
        self._run("scancel", *arguments)

    def skip_delay(self, job: str) -> None:
        """Starts a requeued job at once, instead of two minutes later."""
        until(
            lambda: self.state(job) in ("PENDING", "RUNNING"), lambda: f"job {job} is queued again; {self.log(job)}", 90
        )
        self._run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def state(self, job: str) -> str:
        """Returns a job's state, such as RUNNING, without flags."""
        found = re.search(r"JobState=(\w+)", self.describe(job))
        return found[1] if found else ""

    def restarts(self, job: str) -> int:
        """Returns how often a job was queued again."""
        found = re.search(r"Restarts=(\d+)", self.describe(job))
        return int(found[1]) if found else 0

    def node_of(self, job: str) -> str:
        """Returns the job's first node."""
        found = re.search(r"BatchHost=(\S+)", self.describe(job))
        return found[1] if found else ""

    def exit_code(self, job: str) -> str:
        """Returns a job's exit code and signal, as in 0:0."""
        found = re.search(r"ExitCode=(\S+)", self.describe(job))
        return found[1] if found else ""

    def describe(self, job: str) -> str:
        """Returns all that the controller knows of a job."""
        return self._run("scontrol", "show", "job", job).stdout

    def states(self) -> list[str]:
        """Returns the states of all nodes."""
        found = self._run("sinfo", "--noheader", "--Node", "--format=%t", "--partition=main").stdout
        return [state.strip("*") for state in found.split()]

    def log(self, job: str) -> str:
        """Returns what a job's script has written."""
        path = self.jobs / f"{job}.log"
        return path.read_text() if path.exists() else ""

    def run_on(
        self, node: str, *line: str, timeout_s: float = 120, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command on a node, as a user who is logged in there."""
        inside = ["nsenter", "--target", str(self._nodes[node].pid), "--net", "--mount", "--uts", *line]
        return self._run(*inside, timeout_s=timeout_s, **variables)

    def leftovers(self) -> list[str]:
        """Returns the command lines of processes on nodes that belong neither to Slurm nor to the cluster."""
        spaces = {self._networks[name] for name in self._nodes}
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess):
                if _network(process.pid) in spaces and not process.name().startswith(("slurm", "sleep")):
                    found.append(" ".join(process.cmdline()))
        return [line for line in found if line]

    def end(self) -> None:
        """Kills the nodes with everything on them, and removes the network."""
        for name in list(self._nodes):
            self.kill_node(name)
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()
        subprocess.run(["ip", "link", "del", self._link], check=False)

    def _configure(self) -> None:
        nodes = "\n".join(
            f"NodeName={name} NodeAddr={self.address(name)} CPUs={self._cpus} Sockets=1 CoresPerSocket={self._cpus}"
            " ThreadsPerCore=1 RealMemory=20000 State=UNKNOWN"
            for name in self.names
        )
        text = _CONFIGURATION.format(
            host=socket.gethostname(),
            network=NETWORK,
            directory=self.directory,
            port=_free_port(),
            node_port=_free_port(),
            kill_wait=KILL_WAIT_S,
            node_timeout=NODE_TIMEOUT_S,
            nodes=nodes,
        )
        (self.directory / "slurm.conf").write_text(text)

    def _start_munge(self) -> None:
        home = self.directory / "munge"
        home.mkdir(mode=0o755)
        (home / "key").write_bytes(os.urandom(128))
        (home / "key").chmod(0o400)
        files = [f"--{name}-file={home / name}" for name in ("key", "pid", "log", "seed")]
        files.append(f"--socket={home / 'socket'}")
        self._daemons.append(self._start("munged", "munged", "--foreground", "--force", *files))
        until((home / "socket").exists, "munge answers")

    def _start(self, name: str, *line: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.out").open("ab") as output:
            return subprocess.Popen(
                line,
                env=self._environment,
                stdin=stdin,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _run(self, *line: str, timeout_s: float = 120, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**self._environment, **variables}
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)

    def _log(self) -> str:
        files = [*self.directory.glob("*.out"), *self.directory.glob("*.log"), *self.directory.glob("*/slurmd.log")]
        return "\n".join(f"--- {file}\n{file.read_text(errors='replace')[-2_000:]}" for file in files)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True)


def _network(pid: int) -> str:
    """Returns the identifier of a process's network namespace; empty if the process has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
