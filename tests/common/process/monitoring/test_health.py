"""common/process/monitoring/health.py: what a process answers about its health, and the port it answers on."""

import re
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter

from common.errors import ConfigError
from common.process.monitoring.health import Health, HttpPort


def test_a_loop_that_does_not_run_is_not_alive():
    now = 0.0
    health = Health(stall_s=60.0, clock=lambda: now)
    now = 60.0
    assert health.not_alive == ""
    now = 61.0
    assert health.not_alive == "the loop has not run for 61 s"
    health.beat()
    assert health.not_alive == ""


@pytest.fixture
def health():
    return Health()


@pytest.fixture
def port(health):
    registry = CollectorRegistry()
    Counter("sheep", "Sheep counted.", registry=registry).inc(3)
    made = HttpPort("127.0.0.1", 0, registry, health)
    yield made
    made.close()


def get(port, path):
    try:
        with urllib.request.urlopen(port.url.replace("/metrics", path), timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as e:
        with e:
            return e.code, e.headers["Content-Type"], e.read().decode()


@pytest.mark.slow
def test_metrics_are_prometheus_text(port):
    status, kind, text = get(port, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "sheep_total 3.0\n" in text
    assert get(port, "/metrics?name=sheep")[0] == 200


@pytest.mark.slow
def test_health_and_readiness_report_their_reason(port, health):
    assert get(port, "/healthz")[::2] == (200, "ok\n")
    assert get(port, "/readyz")[::2] == (503, "starting\n")
    health.not_ready = "1 of 2 workers run"
    assert get(port, "/readyz")[::2] == (503, "1 of 2 workers run\n")
    health.not_ready = ""
    assert get(port, "/readyz")[::2] == (200, "ok\n")


@pytest.mark.slow
def test_a_stuck_process_is_not_healthy():
    port = HttpPort("127.0.0.1", 0, CollectorRegistry(), Health(stall_s=-1.0))
    try:
        status, _, text = get(port, "/healthz")
        assert status == 503
        assert re.fullmatch(r"the loop has not run for 0 s\n", text)
    finally:
        port.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/x", "/../etc/passwd"])
def test_other_paths_are_not_found(port, path):
    assert get(port, path)[::2] == (404, "try /metrics, /healthz or /readyz\n")


@pytest.mark.slow
def test_a_silent_client_blocks_no_other(port):
    number = int(port.url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", number)):
        assert get(port, "/metrics")[0] == 200


@pytest.mark.slow
def test_a_port_in_use_is_a_config_error_and_free_again_after_close(port):
    number = int(port.url.split(":")[2].split("/")[0])
    with pytest.raises(
        ConfigError, match=rf"--metrics-port {number}: cannot listen on 127\.0\.0\.1:{number} \(.*\)\. Pass"
    ):
        HttpPort("127.0.0.1", number, CollectorRegistry(), Health())
    port.close()
    again = HttpPort("127.0.0.1", number, CollectorRegistry(), Health())
    assert get(again, "/metrics")[0] == 200
    again.close()


@pytest.mark.parametrize("host", ["256.0.0.1", "192.0.2.1"])
def test_an_address_that_is_not_this_machines_is_a_config_error(host):
    with pytest.raises(ConfigError, match=rf"cannot listen on {re.escape(host)}:0"):
        HttpPort(host, 0, CollectorRegistry(), Health())


def test_a_port_on_every_address_is_shown_by_the_machines_name():
    made = HttpPort("0.0.0.0", 0, CollectorRegistry(), Health())
    made.close()
    assert re.fullmatch(rf"http://{re.escape(socket.gethostname())}:\d+/metrics", made.url)
