"""The virtual environment of a peer, in the user's cache directory and separate from Shoal's environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from common.errors import ConfigError, ShoalError
from shoal.commands.bench.config import BenchConfig
from shoal.commands.bench.measurements import BenchProgress


class PeerFailedError(ShoalError):
    """A peer cannot be measured; the others can."""


class Peer(NamedTuple):
    """Another program, as its package index has it."""

    name: str
    """Name in rows, and of the file of constraints."""
    packages: tuple[str, ...]
    """What pip installs; the program itself is the first."""


class PeerEnvironment:
    """The virtual environment of one peer, and the log of its installation."""

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
        """Whether an installation of the same packages was completed."""
        try:
            return self._done.read_text("utf-8") == self._contents
        except OSError:
            return False

    def install(self) -> None:
        """Recreates the environment; raises ConfigError if pip would install CUDA, ShoalError if pip fails."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._run([sys.executable, "-m", "venv", str(self.path)])
        self._refuse_cuda()
        self._run([*self._pip, *self._packages])
        self._done.write_text(self._contents, "utf-8")

    @property
    def _contents(self) -> str:
        """What is installed: the packages, then the constraints, since the path names the program alone."""
        return "\n".join((*self._packages, self._constraints.read_text("utf-8")))

    @property
    def _pip(self) -> list[str]:
        pip = [str(self.python), "-m", "pip", "install", "--disable-pip-version-check"]
        return [*pip, "--constraint", str(self._constraints), *self._pip_options]

    def _refuse_cuda(self) -> None:
        """Raises ConfigError if pip would install CUDA, as PyPI's build for Linux does: gigabytes that are not used."""
        report = self.path / "torch.json"
        torch = [package for package in self._packages if package.startswith("torch==")]
        if not torch:
            return
        self._run([*self._pip, "--dry-run", "--report", str(report), *torch])
        chosen = [one["metadata"]["name"] for one in json.loads(report.read_text("utf-8"))["install"]]
        if any(name.startswith("nvidia-") for name in chosen):
            raise ConfigError(
                "pip would install torch with CUDA, several GB that this benchmark does not use. Point pip to the CPU"
                " builds (see PyTorch's installation page): set PIP_EXTRA_INDEX_URL, or pass"
                " --pip=--extra-index-url=URL."
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


def install_missing(peer: Peer, config: BenchConfig) -> Generator[BenchProgress, None, Path]:
    """Installs a peer if it is not installed, and returns the Python of its environment.

    Raises PeerFailedError if pip fails, and ConfigError if pip would install CUDA.
    """
    environment = PeerEnvironment(peer.name, peer.packages, config)
    if not environment.installed:
        yield BenchProgress(f"installing {' '.join(peer.packages)} in {environment.path}; log: {environment.log}")
        try:
            environment.install()
        except ConfigError:
            raise
        except ShoalError as e:
            version = ".".join(map(str, sys.version_info[:2]))
            raise PeerFailedError(f"{peer.packages[0]} does not install on Python {version}: {e}") from e
    return environment.python
