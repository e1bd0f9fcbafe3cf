"""The wheel holds every file that the commands need; the source distribution makes the same wheel."""

from __future__ import annotations

import configparser
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("actor_node", "common", "deploy", "learner_node", "replay_server", "shoal")
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")
SOURCES = (".ci", ".github", "docs", "examples", "tests", *PACKAGES)
# The build backend itself, as pip calls it: no network, no separate environment.
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(kind: str, source: Path, out: Path) -> Path:
    out.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-P", "-c", BUILD, f"build_{kind}", str(out)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository: a build writes into its directory."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for file in ROOT.iterdir():
        if file.is_file() and file.name != ".git":
            shutil.copy(file, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> dict[str, bytes]:
    return contents(build("wheel", source, source.parent / "wheel"))


@pytest.fixture(scope="module")
def sdist(source: Path) -> Path:
    return build("sdist", source, source.parent / "sdist")


@pytest.mark.slow
def test_the_wheel_holds_all_modules_and_all_data(source: Path, wheel: dict[str, bytes]) -> None:
    expected = {
        str(file.relative_to(source))
        for package in PACKAGES
        for file in (source / package).rglob("*")
        # The files of deployments belong to the repository: nothing reads them from the installed package.
        if file.is_file() and (package != "deploy" or file.suffix == ".py" or file.name == "py.typed")
    }
    assert {name for name in wheel if ".dist-info/" not in name} == expected
    # By name, so that a file that is missing in the repository, too, is noticed.
    assert {
        "actor_node/opponents/simple_tag.safetensors",
        "common/py.typed",
        "shoal/commands/bench/peers/agilerl.txt",
        "shoal/commands/paper/page.md",
        "shoal/commands/report/page.html",
        "shoal/commands/report/style.css",
        "shoal/commands/tournament/heat_map.svg",
        "shoal/py.typed",
    } <= set(wheel)
    (text,) = (content.decode() for name, content in wheel.items() if name.endswith("entry_points.txt"))
    scripts = configparser.ConfigParser()
    scripts.read_string(text)
    assert set(scripts["console_scripts"]) == {"shoal", "replay", "learner", "actor"}


@pytest.mark.slow
def test_the_source_distribution_holds_the_repository(source: Path, sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    files = {str(file.relative_to(source)) for name in SOURCES for file in (source / name).rglob("*") if file.is_file()}
    assert not files - names
    assert {"CHANGELOG.md", "CITATION.cff", "SECURITY.md", "LICENSE", "README.md", "constraints.txt"} <= names


@pytest.mark.slow
def test_the_source_distribution_makes_the_same_wheel(source: Path, sdist: Path, wheel: dict[str, bytes]) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(source.parent / "unpacked", filter="data")
    (unpacked,) = (source.parent / "unpacked").iterdir()
    assert contents(build("wheel", unpacked, source.parent / "wheel-of-sdist")) == wheel
