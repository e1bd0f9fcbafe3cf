"""A real Prometheus over a real run of all processes: what is documented is there, what is shown finds data, and real
faults raise the right alerts.

The alerts are deploy/prometheus/alerts.yml with waits and windows cut to seconds (`quickened` in prometheus.py); their
own times are tested by promtool. The tests share one run and take their turns in the order in which they stand.
"""

from __future__ import annotations

import contextlib
import math
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import redis
import yaml
import zmq

from actor_node.config import ActorConfig
from common.wire.messages import Status
from deploy.local.embedded_redis import find_server
from learner_node.config import LearnerConfig
from replay_server.config import ReplayConfig
from tests.conftest import wait_until
from tests.deploy import exported_metrics as e

from .conftest import Commands, log_of, one, status_at
from .prometheus import Prometheus, promtool, require_prometheus

pytestmark = pytest.mark.system

SMALL = ("--actors", 2, "--copies", 16, "--set", "replay.min_size=1000", "--set", "exploration.random_steps=500")
NEVER_ENDS = ("--time", "10m")


# ---- the files ----------------------------------------------------------------------------------------------------


def test_promtool_finds_nothing_wrong_and_every_alert_fires_on_what_it_is_for() -> None:
    require_prometheus()
    promtool("check", "config", e.PROMETHEUS / "prometheus.yml")
    promtool("check", "config", e.PROMETHEUS / "prometheus.local.yml")
    promtool("check", "config", e.PROMETHEUS / "prometheus.slurm.yml")
    promtool("test", "rules", e.PROMETHEUS / "alerts_test.yml")
    tested = (e.PROMETHEUS / "alerts_test.yml").read_text()
    for alert in e.rules("alerts.yml"):
        cases = tested.split(f"alertname: {alert['alert']}\n")
        assert len(cases) > 1, f"{alert['alert']} has no case in which it fires"
        assert all(case.lstrip().startswith("exp_alerts") for case in cases[1:])


DEFAULT_PORTS = {"replay": 9101, "learner": 9102, "actor": 9103}


def test_the_local_configuration_names_the_same_jobs_with_the_default_ports() -> None:
    local, compose = (yaml.safe_load((e.PROMETHEUS / f"prometheus{kind}.yml").read_text()) for kind in (".local", ""))
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in local["scrape_configs"]}
    assert set(jobs) == {job["job_name"] for job in compose["scrape_configs"]}
    assert {role: jobs[role] for role in DEFAULT_PORTS} == {
        role: [f"127.0.0.1:{port}"] for role, port in DEFAULT_PORTS.items()
    }
    defaults = ReplayConfig().metrics_port, LearnerConfig().metrics_port, ActorConfig().metrics_port
    assert defaults == tuple(DEFAULT_PORTS.values())


def test_the_local_configuration_sees_a_run_on_this_machine(commands: Commands, tmp_path: Path) -> None:
    require_prometheus()
    try:
        for port in DEFAULT_PORTS.values():
            socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        pytest.skip(f"a port of {DEFAULT_PORTS} is in use")
    run = ("--run", tmp_path / "run", "--redis", "none", "--metrics-port", DEFAULT_PORTS["replay"])
    commands.start("shoal", "train", "simple_spread", *run, *NEVER_ENDS, *SMALL)
    prometheus = Prometheus(tmp_path, dict.fromkeys(DEFAULT_PORTS, ()), "prometheus.local.yml", own=True)
    try:
        wait_until(lambda: prometheus.value('sum(up{job!="prometheus"})') == 3.0, "all three are scraped")
        roles = {(series["metric"]["job"], series["metric"]["role"]) for series in prometheus.query("shoal_build_info")}
        assert roles == {(role, role) for role in DEFAULT_PORTS}
    finally:
        prometheus.close()


# ---- one run for all of these -------------------------------------------------------------------------------------


@dataclass
class Watched:
    """A run, what it is made of, and the Prometheus that watches it."""

    train: subprocess.Popen[bytes]
    prometheus: Prometheus
    redis: redis.Redis
    endpoint: str
    urls: dict[str, str]

    def process(self, module: str) -> psutil.Process:
        return one(self.train, module)

    def fires(self, alert: str, **labels: str) -> dict[str, str]:
        """Waits until an alert fires; returns its annotations."""
        found = wait_until(lambda: self.firing(alert, labels), f"{alert} {labels} fires")
        annotations: dict[str, str] = found[0]["annotations"]
        assert "<error" not in str(annotations)
        return annotations

    def goes_out(self, alert: str, **labels: str) -> None:
        """Waits until an alert fires no more."""
        wait_until(lambda: not self.firing(alert, labels), f"{alert} {labels} goes out")

    def firing(self, alert: str, labels: dict[str, str]) -> list[dict[str, dict[str, str]]]:
        return [a for a in self.prometheus.firing().get(alert, ()) if labels.items() <= a["labels"].items()]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    require_prometheus()
    directory = tmp_path_factory.mktemp("watched")
    commands, run = Commands(directory), directory / "run"
    with contextlib.ExitStack() as stack:
        stack.callback(commands.kill_all)
        redis_socket = directory / "redis.sock"
        settings = ("--port", 0, "--unixsocket", redis_socket, "--dir", directory, "--save", "", "--appendonly", "yes")
        commands.start(find_server(), *settings)
        client = redis.Redis(unix_socket_path=str(redis_socket))
        wait_until(redis_socket.exists, "Redis starts")
        started = ("--run", run, "--redis", f"unix://{redis_socket}", *NEVER_ENDS, *SMALL)
        train = commands.start("shoal", "train", "simple_spread", *started)
        endpoint = f"ipc://{run / 'sockets' / 'replay'}"
        status = wait_until(lambda: learning(endpoint), "it learns")
        assert status.learner is not None
        urls = {
            "replay": status.metrics_url,
            "learner": status.learner.metrics_url,
            "actor": status.actors[0].metrics_url,
        }
        prometheus = Prometheus(directory, {role: [url.split("/")[2]] for role, url in urls.items()})
        stack.callback(prometheus.close)
        wait_until(lambda: prometheus.value("sum(up)") == 3.0, "all three are scraped")
        wait_until(lambda: prometheus.value("run:shoal_updates:rate1m > 0"), "updates are counted")
        yield Watched(train, prometheus, client, endpoint, urls)
        print(log_of(train))


def learning(endpoint: str) -> Status | None:
    """Returns the status once updates flow and every actor has reported."""
    status = status_at(endpoint)
    busy = status is not None and status.learner is not None and status.learner.updates > 20
    return status if busy and status and all(a.metrics_url for a in status.actors) else None


def test_every_process_is_seen_and_no_alarm_is_raised(watched: Watched) -> None:
    roles = {series["metric"]["role"] for series in watched.prometheus.query("shoal_build_info")}
    assert roles == {"actor", "learner", "replay"}
    runs = {series["metric"]["run"] for series in watched.prometheus.query("shoal_run_info")}
    assert len(runs) == 1
    # Two actors beside a learner on few cores: who of them waits is no fault.
    wait_until(lambda: not set(watched.prometheus.firing()) - {"ShoalActorsIdle", "ShoalLearnerStarved"}, "quiet")


def test_pages_of_the_roles_are_as_prometheus_wants_them(watched: Watched) -> None:
    for url in watched.urls.values():
        with urllib.request.urlopen(url, timeout=30) as answer:
            printed = promtool("check", "metrics", text=answer.read().decode())
        assert not printed, printed


def test_every_documented_metric_is_there(watched: Watched) -> None:
    missing = e.series_of(e.documented()) - watched.prometheus.names()
    assert not missing


def test_a_full_redis_raises_the_alarm(watched: Watched) -> None:
    watched.redis.config_set("maxmemory", "1mb")
    watched.fires("ShoalRedisRefuses", job="replay")
    held_back = watched.fires("ShoalActorsHeldBack", cause="redis")
    assert "redis" in held_back["summary"]
    watched.redis.config_set("maxmemory", "0")
    watched.goes_out("ShoalRedisRefuses")
    watched.goes_out("ShoalActorsHeldBack")


def test_a_message_that_is_none_raises_the_alarm(watched: Watched) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.connect(watched.endpoint)
        stranger.send(b"let me in")
        watched.fires("ShoalMessagesRejected", reason="malformed")


def test_every_panel_finds_data(watched: Watched) -> None:
    saved = "shoal_learner_last_checkpoint_timestamp_seconds > 0"
    wait_until(lambda: watched.prometheus.query(saved), "the first checkpoint")
    for name, board in e.boards().items():
        for title, expr in e.queries(board):
            wait_until(lambda expr=expr: has_data(watched.prometheus, expr), f"data of {name}, {title}: {expr}")


def has_data(prometheus: Prometheus, expr: str) -> bool:
    """Says whether a panel's query shows a number now."""
    for variable, value in {"$__rate_interval": "5s", "$run": ".*", "$role": ".*", "$instance": ".*"}.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr
    return any(math.isfinite(float(series["value"][1])) for series in prometheus.query(expr))


def test_every_rule_can_be_evaluated(watched: Watched) -> None:
    rules = watched.prometheus.rules()
    assert len(rules) == len(e.rules("rules.yml")) + len(e.rules("alerts.yml"))
    for rule in rules:
        assert (rule["health"], rule.get("lastError", "")) == ("ok", ""), rule
    for rule in e.rules("rules.yml"):
        assert watched.prometheus.query(rule["record"]), f"{rule['record']} has no value"


def test_a_learner_that_hangs_raises_the_alarms(watched: Watched) -> None:
    learner = watched.process("learner_node")
    learner.suspend()
    stalled = watched.fires("ShoalLearnerStalled")
    [info] = watched.prometheus.query('shoal_run_info{job="replay"}')
    assert f"run {info['metric']['run']}" in stalled["summary"]
    watched.fires("ShoalTargetDown", job="learner")
    watched.fires("ShoalWeightsOld", job="actor")
    learner.resume()
    for alert in ("ShoalLearnerStalled", "ShoalTargetDown", "ShoalWeightsOld"):
        watched.goes_out(alert)


def test_a_replay_server_that_hangs_raises_the_alarms(watched: Watched) -> None:
    server = watched.process("replay_server")
    server.suspend()
    watched.fires("ShoalTargetDown", job="replay")
    watched.fires("ShoalActorsCutOff", job="actor")
    server.resume()
    for alert in ("ShoalTargetDown", "ShoalActorsCutOff"):
        watched.goes_out(alert)


def test_actors_that_are_gone_raise_the_alarms(watched: Watched) -> None:
    """Last: the node that is started in their place has another port."""
    watched.train.send_signal(signal.SIGSTOP)  # it would start them again at once
    watched.process("actor_node").terminate()
    watched.fires("ShoalNoActors")
    watched.fires("ShoalTargetDown", job="actor")
    watched.train.send_signal(signal.SIGCONT)
    watched.goes_out("ShoalNoActors")
