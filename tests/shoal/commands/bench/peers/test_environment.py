"""Tests of the virtual environments of peers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from common.errors import ConfigError
from shoal.commands.bench import BenchConfig
from shoal.commands.bench.peers.environment import PeerEnvironment


@pytest.fixture
def pip_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PeerEnvironment]:
    """Makes peer environments whose pip reports the given packages."""

    def make(*chosen: str) -> PeerEnvironment:
        environment = PeerEnvironment("agilerl", ("agilerl==2.58.0", "torch==2.13.0"), BenchConfig(cache=str(tmp_path)))

        def run(line: list[str]) -> None:
            if "--report" in line:
                report = Path(line[line.index("--report") + 1])
                report.parent.mkdir(parents=True, exist_ok=True)
                report.write_text(json.dumps({"install": [{"metadata": {"name": name}} for name in chosen]}))

        monkeypatch.setattr(environment, "_run", run)
        return environment

    return make


def test_a_peer_is_installed_once_and_never_with_cuda(pip_reports: Callable[..., PeerEnvironment]) -> None:
    with pytest.raises(ConfigError, match="CPU builds"):
        pip_reports("torch", "nvidia-cublas", "triton").install()
    environment = pip_reports("torch", "numpy")
    assert not environment.installed
    environment.install()
    assert environment.installed
    (environment.path / "installed").write_text("agilerl==2.58.0")
    assert not environment.installed, "other packages of the same program are installed again"
    assert environment.path.name == "agilerl-2.58.0"
