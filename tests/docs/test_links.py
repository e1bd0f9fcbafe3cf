"""Links between pages have targets, headings included; files and names in pages exist; the navigation is complete."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from functools import cache
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import msgspec
import pytest

from common.run.run import RunSpec
from shoal.commands.reference.commands import commands
from tests.docs.pages import NAMES, ROOT, anchors, blocks, links, spans

CODE = ("common", "actor_node", "learner_node", "replay_server", "deploy", "shoal", "tests")
FOLDERS = (*CODE, "docs", "examples")
_PATH = re.compile(rf"(?<![\w/])(?:{'|'.join(FOLDERS)})/[\w./*-]+")


@cache
def sources() -> str:
    """Returns the text of all code, tests and deployment files."""
    kinds = {".py", ".sh", ".yaml", ".yml", ".sbatch", ".toml", ".example", ".html", ""}
    files = [path for folder in CODE for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml"]
    texts = [path.read_text("utf-8", errors="replace") for path in files if path.is_file()]
    return "\n".join(texts)


def conf() -> ModuleType:
    """Returns the site's configuration."""
    spec = importlib.util.spec_from_file_location("conf", ROOT / "docs" / "conf.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", NAMES)
def test_links_have_targets(page: str) -> None:
    for link in links(page):
        url = urlsplit(link)
        if url.scheme:
            assert url.scheme in ("http", "https"), link
            assert re.fullmatch(r"[\w.-]+\.[a-z]+|localhost:\d+", url.netloc), link
            continue
        target = (ROOT / page).parent / url.path if url.path else ROOT / page
        assert target.exists(), link
        if url.fragment:
            assert url.fragment in anchors(str(target.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("page", NAMES)
def test_named_files_exist(page: str) -> None:
    """Checks paths in spans of code, from the repository's root or from the page's folder."""
    for span in spans(page):
        for path in _PATH.findall(span.partition("::")[0]):
            if path.rstrip("/.").endswith("kustomize") or "/build/" in path or "overlays/spread" in path:
                continue
            found = [*ROOT.glob(path.rstrip("/.")), *(ROOT / page).parent.glob(path.rstrip("/."))]
            assert found or path in MADE, f"{page}: `{span}`"


MADE = {"deploy/compose/.env", "shoal/peers"}
"""Paths that exist only after a command has run; `shoal/peers` lies in the user's cache directory."""


@pytest.mark.parametrize("page", NAMES)
def test_named_tests_exist(page: str) -> None:
    for span in spans(page):
        for name in re.findall(r"\btest_(?!mode\b)\w+", span):
            is_file = f"{name}.py" in span or "*" in span
            assert is_file or re.search(rf"def {name}\w*\(", sources()), f"{page}: `{span}`"


@pytest.mark.parametrize("page", NAMES)
def test_named_settings_exist(page: str) -> None:
    fields = {field.name: field.type for field in msgspec.structs.fields(RunSpec)}
    sections = {
        name: {field.name for field in msgspec.structs.fields(kind)}
        for name, kind in fields.items()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    }
    for span in spans(page):
        for section, name in re.findall(rf"(?<![\w./-])({'|'.join(sections)})\.([a-z_]+)(?![\w./])", span):
            assert name in sections[section] | {"json", "jsonl", "md", "py", "safetensors"}, f"{page}: `{span}`"


@pytest.mark.parametrize("page", NAMES)
def test_named_variables_are_read(page: str) -> None:
    options = {option.envvar for command in commands() for option in command.options}
    text = (ROOT / page).read_text("utf-8")
    for name in set(re.findall(r"\bSHOAL_[A-Z_]*[A-Z]\b", text)) - {"SHOAL_SOME_NAME"}:
        assert name in options or name in sources(), f"{page}: {name}"


def test_no_variable_is_undocumented() -> None:
    page = (ROOT / "docs" / "reference" / "variables.md").read_text("utf-8")
    read = set(re.findall(r"\$\{?(SHOAL_[A-Z_]+)", sources()))
    options = {str(option.envvar) for command in commands() for option in command.options if option.envvar}
    assert {name for name in read | options if f"`{name}`" not in page} == set()


# ---- the site -----------------------------------------------------------------------------------------------------


def test_the_navigation_has_every_page_once() -> None:
    """A page that is missing in NAVIGATION of docs/conf.py is missing from the site."""
    named = [page for pages in conf().NAVIGATION.values() for page in pages]
    assert sorted(named) == sorted(name.removesuffix(".md") for name in NAMES if name != "README.md")


def test_the_built_site_is_not_committed() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "build/site"], cwd=ROOT, check=False)
    if ignored.returncode == 128:
        pytest.skip("not a repository")
    assert ignored.returncode == 0


# ---- text that must equal the code ----------------------------------------------------------------------------------


def test_messages_in_the_faq_are_those_of_the_code() -> None:
    text = (ROOT / "docs" / "faq.md").read_text("utf-8")
    section = text.partition("## What Shoal says")[2].partition("\n## ")[0]
    messages = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
    assert len(messages) > 12
    flat = re.sub(r'"\s*\n\s*f?"', "", sources())
    assert [message for message in messages if message not in flat] == []


def test_the_worked_example_fits_the_code() -> None:
    """Each change in docs/own-algorithm.md applies to exactly one place in the code."""
    changes = [block for block in blocks("docs/own-algorithm.md") if block.language == "diff"]
    assert len(changes) > 4
    for change in changes:
        head, *lines = change.text.splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] in ("", " ", "-"))
        assert (ROOT / Path(head.removeprefix("--- a/"))).read_text("utf-8").count(before) == 1, str(change)
