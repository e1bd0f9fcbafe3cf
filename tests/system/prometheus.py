"""A real Prometheus for tests: the shipped configuration over a test's own targets, quickened to seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import free_port, wait_until
from tests.deploy.exported_metrics import PROMETHEUS

PROGRAMS = ("prometheus", "promtool")
INSTALL = "needs prometheus and promtool (Debian: apt-get install --no-install-recommends prometheus)"


def require_prometheus() -> None:
    """Skips the test where Prometheus is not installed; fails it in CI, which installs it."""
    if all(map(shutil.which, PROGRAMS)):
        return
    if os.environ.get("CI") == "true":
        pytest.fail(INSTALL)
    pytest.skip(INSTALL)


def promtool(*arguments: object, text: str | None = None) -> str:
    """Runs promtool and returns what it prints; fails the test with it when it finds something wrong."""
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    return printed


def quickened(rules: str) -> str:
    """Returns rules that fire on the same in seconds: `for` is a second, windows are five, long is three or seven."""
    rules = re.sub(r"\bfor: \w+$", "for: 1s", rules, flags=re.MULTILINE)
    rules = re.sub(r"\[\d+[mh]\]", "[5s]", rules)
    rules = re.sub(r"\boffset \d+m", "offset 5s", rules)
    rules = re.sub(r"(standstill_seconds\{[^}]*\}\)?) > \d+", r"\1 > 3", rules)
    return re.sub(r"(weights_age_seconds) > \d+", r"\1 > 7", rules)


class Prometheus:
    """One server over the given targets (job -> addresses), scraping and evaluating each second."""

    def __init__(
        self, directory: Path, targets: Mapping[str, Sequence[str]], file: str = "prometheus.yml", *, own: bool = False
    ) -> None:
        """own: whether the targets are those that the file names itself."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        config = yaml.safe_load((PROMETHEUS / file).read_text())
        assert {job["job_name"] for job in config["scrape_configs"]} == {*targets, "prometheus"}
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        if not own:
            config["scrape_configs"] = [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                for job, addresses in targets.items()
            ]
        for rules in config["rule_files"]:
            (directory / rules).write_text(quickened((PROMETHEUS / rules).read_text()))
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.log = directory / "prometheus.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(self._is_ready, f"Prometheus answers; its log: {self.log}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Returns the series of an expression now; fails the test when it cannot be evaluated."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def value(self, expr: str) -> float | None:
        """Returns the one value of an expression; None when it has no series."""
        series = self.query(expr)
        assert len(series) < 2, series
        return float(series[0]["value"][1]) if series else None

    def names(self) -> set[str]:
        """Returns every metric ever scraped."""
        return set(self._get("label/__name__/values"))

    def firing(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the alerts that fire, by name."""
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in self._get("alerts")["alerts"]:
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Returns every rule with its state."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as e:
            pytest.fail(f"{parameters}: {json.load(e)['error']}")

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self.log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=1) as answer:
            return bool(answer.status == 200)
        return False
