"""Tests of the dashboard: served to this machine only, updated while the run trains."""

from __future__ import annotations

import http.client
import io
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

import shoal.commands.train.dashboard
from common.errors import ConfigError
from deploy.local.config import TrainConfig
from deploy.local.live_display import LineDisplay
from shoal.commands.report import write_report
from shoal.commands.train.artifacts import Artifacts
from shoal.commands.train.dashboard import Dashboard
from shoal.machine_info import read_machine
from tests.deploy.local.test_live_display import STATUS

from .report_runs import evaluate_run, line, make_run, write_lines
from .test_report import Page, check_accessibility


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=400)


@pytest.fixture
def dashboard() -> Iterator[Dashboard]:
    served = Dashboard()
    yield served
    served.stop_serving()


def get(dashboard: Dashboard, path: str = "/", method: str = "GET", host: str = "") -> tuple[int, str]:
    """Returns status and body of one request."""
    address = dashboard.url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request(method, path, headers={"Host": host or address})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


def test_it_serves_the_report_with_the_current_status(tmp_path: Path, dashboard: Dashboard, console: Console) -> None:
    dashboard.serve(make_run(tmp_path / "run").path, LineDisplay(console))
    dashboard.show(STATUS, ["replay was killed by signal 9"])
    status, body = get(dashboard)
    page = Page(body)
    assert status == 200
    for text in ("20,000 (2,000/s)", "the learner is the bottleneck", "replay was killed by signal 9", "in training"):
        assert text in page.text
    assert "Q-values" in page.text
    assert {"http-equiv": "refresh", "content": "5"} in page.all("meta"), "for a browser without scripts"
    assert page.all("body")[0]["data-reload"] == "5"
    assert page.all("progress")[0]["value"] == "0.25"
    check_accessibility(page)
    assert "replay was killed by signal 9" in shown(console), "the terminal shows it too"


def test_a_browser_that_watches_receives_the_final_report(
    tmp_path: Path, dashboard: Dashboard, console: Console
) -> None:
    run = make_run(tmp_path / "run").path
    dashboard.serve(run, LineDisplay(console))
    get(dashboard)
    write_report([run], run / "report.html")
    finishing = threading.Thread(target=dashboard.finish, args=(run / "report.html", lambda: False))
    finishing.start()
    while "<body data-reload" in (body := get(dashboard)[1]):
        pass
    assert body == (run / "report.html").read_text(), "which does not ask again"
    finishing.join(10.0)
    assert not finishing.is_alive()
    with pytest.raises(OSError, match=r".*"):
        get(dashboard)


def test_it_waits_for_no_browser_after_a_request_to_stop(
    tmp_path: Path, dashboard: Dashboard, console: Console
) -> None:
    run = make_run(tmp_path / "run").path
    dashboard.serve(run, LineDisplay(console))
    get(dashboard)
    write_report([run], run / "report.html")
    started_at = time.monotonic()
    dashboard.finish(run / "report.html", lambda: True)
    assert time.monotonic() - started_at < shoal.commands.train.dashboard.REFRESH_PERIOD_S


def test_it_can_be_paused(tmp_path: Path, dashboard: Dashboard, console: Console) -> None:
    dashboard.serve(make_run(tmp_path / "run", lines=0).path, LineDisplay(console))
    page = Page(get(dashboard, "/?paused")[1])
    assert not any(meta.get("http-equiv") == "refresh" for meta in page.all("meta"))
    assert "Paused" in page.text


def test_it_is_remade_but_not_for_every_request(
    tmp_path: Path, dashboard: Dashboard, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = make_run(tmp_path / "run", lines=3)
    dashboard.serve(directory.path, LineDisplay(console))
    before = get(dashboard)[1]
    write_lines(directory, [line(i, 3) for i in range(30)])
    monkeypatch.setattr(shoal.commands.train.dashboard, "MAX_PAGE_AGE_S", 1e9)
    assert get(dashboard)[1] == before
    monkeypatch.setattr(shoal.commands.train.dashboard, "MAX_PAGE_AGE_S", 0.0)
    assert "150,000" in Page(get(dashboard)[1]).text


def test_only_this_machine_is_served(tmp_path: Path, dashboard: Dashboard, console: Console) -> None:
    dashboard.serve(make_run(tmp_path / "run").path, LineDisplay(console))
    assert dashboard.url.startswith("http://127.0.0.1:")
    port = dashboard.url.rstrip("/").rpartition(":")[2]
    assert get(dashboard, host="evil.example")[0] == 403, "a name that was bound to this address by someone else"
    assert get(dashboard, host=f"localhost:{port}")[0] == 200
    assert get(dashboard, "/../run.toml")[0] == 404
    assert get(dashboard, method="HEAD") == (200, "")


def test_a_port_in_use_is_named(dashboard: Dashboard) -> None:
    port = int(dashboard.url.rstrip("/").rpartition(":")[2])
    with pytest.raises(
        ConfigError, match=rf"--dashboard-port {port}: cannot listen on 127\.0\.0\.1:{port}.*Pass another port, or 0"
    ):
        Dashboard(port)


# ---- the end of a run ---------------------------------------------------------------------------------------------


def test_a_run_ends_with_its_report(tmp_path: Path, console: Console) -> None:
    directory = make_run(tmp_path / "run")
    artifacts = Artifacts(TrainConfig(actors=7, redis="redis://user:secret@host/0"), console)
    display = LineDisplay(console)
    assert artifacts.start(directory, display) is display
    evaluate_run(directory)
    artifacts.conclude(film=False)
    assert f"report: {directory.path / 'report.html'}" in shown(console)
    assert "42.50" in (directory.path / "report.html").read_text()
    launch = read_machine(directory)["launch"]
    assert launch["actors"] == 7
    assert "secret" not in str(launch)


def test_a_failed_artifact_costs_one_line(tmp_path: Path, console: Console) -> None:
    directory = make_run(tmp_path / "run")
    artifacts = Artifacts(TrainConfig(dashboard=True), console)
    served = artifacts.start(directory, LineDisplay(console))
    assert isinstance(served, Dashboard)
    directory.run_file.unlink()
    artifacts.conclude(film=True)
    said = shown(console)
    assert f"dashboard: {served.url}" in said
    assert "skipped a film: " in said
    assert "skipped the report: " in said
    with pytest.raises(OSError, match=r".*"):
        get(served)
