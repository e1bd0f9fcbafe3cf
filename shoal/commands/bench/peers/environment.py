"""A peer's own environment: a venv in the user's cache, so that nothing of it gets into Shoal's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from common.errors import ConfigError, ShoalError
from shoal.commands.bench.config import BenchConfig


class PeerEnvironment:
    """One peer's venv and what pip said of it."""

    def __init__(self, name: str, packages: tuple[str, ...], config: BenchConfig) -> None:
        base = Path(config.cache).expanduser() if config.cache else _cache() / "shoal" / "peers"
        self.path = base.resolve() / packages[0].replace("==", "-")
        self.python = self.path / "bin" / "python"
        self.log = self.path.with_suffix(".log")
        self._packages, self._pip_options = packages, config.pip
        self._constraints = Path(__file__).with_name(f"{name}.txt")
        self._done = self.path / "installed"

    @property
    def installed(self) -> bool:
        """Whether an installation was brought to its end."""
        return self._done.exists()

    def install(self) -> None:
        """Makes the venv anew; ConfigError when it would hold CUDA, ShoalError when pip fails."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run([sys.executable, "-m", "venv", str(self.path)])
        self._refuse_cuda()
        self._run([*self._pip, *self._packages])
        self._done.touch()

    @property
    def _pip(self) -> list[str]:
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        return [*pip, "--constraint", str(self._constraints), *self._pip_options]

    def _refuse_cuda(self) -> None:
        """Looks at what pip would choose: on Linux that of PyPI brings gigabytes of CUDA, for nothing here."""
        report = self.path / "torch.json"
        torch = [package for package in self._packages if package.startswith("torch==")]
        if not torch:
            return
        self._run([*self._pip, "--dry-run", "--report", str(report), *torch])
        chosen = [one["metadata"]["name"] for one in json.loads(report.read_text("utf-8"))["install"]]
        if any(name.startswith("nvidia-") for name in chosen):
            raise ConfigError(
                "pip would install torch with CUDA, several GB that this benchmark does not use: tell pip where the CPU"
                " builds are, as PyTorch's installation page has it, by PIP_EXTRA_INDEX_URL in the environment or by"
                " --pip=--extra-index-url=URL"
            )

    def _run(self, line: list[str]) -> None:
        with self.log.open("ab") as log:
            done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)  # noqa: S603  (our own argument list)
        if done.returncode:
            last = self.log.read_text(errors="replace").strip().splitlines()[-1:]
            raise ShoalError(f"{' '.join(line[:4])} ... failed: {' '.join(last)} (log: {self.log})")


def _cache() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
