"""The files about the project that others read by machine: the citation and the workflow of GitHub."""

from __future__ import annotations

import os
import tomllib
from typing import Any

import yaml

from tests.docs.pages import ROOT


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text("utf-8"))
    return found


def test_the_citation_has_what_its_format_requires() -> None:
    citation = load("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # required by version 1.2.0 of the format
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "The Shoal developers"}]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])


def test_the_workflow_runs_what_every_change_must_pass() -> None:
    workflow = load(".github/workflows/ci.yml")
    assert set(workflow) == {"name", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 reads `on` as true
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    (python,) = [step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    assert isinstance(python, str)  # 3.10 as a number is 3.1
