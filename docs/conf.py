"""Configuration of the site: README, ARCHITECTURE, CONTRIBUTING and the pages of docs/, as they are in the repository.

`make docs` builds the site into build/site. The source directory is the repository's root, so that a link between two
files is right in the repository and on the site. Nothing is copied and nothing is included.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]

NAVIGATION = {
    "Start": ["docs/tutorial", "docs/commands-by-example", "docs/faq", "docs/glossary"],
    "Guides": [
        "docs/python",
        "docs/own-environment",
        "docs/families",
        "docs/vectorised-worlds",
        "docs/coming-from",
        "docs/own-algorithm",
        "docs/laptop-to-cluster",
        "docs/algorithms",
        "docs/presets",
        "docs/worlds",
        "docs/evaluation",
        "docs/sweeps",
        "docs/diagnostics",
        "docs/report",
        "docs/films",
        "docs/export",
        "docs/tracking",
        "docs/lockstep",
        "docs/seed",
    ],
    "Reference": [
        "docs/reference/commands",
        "docs/reference/settings",
        "docs/reference/scenarios",
        "docs/reference/variables",
        "docs/reference/python",
    ],
    "Operating": [
        "docs/operations",
        "docs/reliability",
        "docs/security",
        "docs/deployment/compose",
        "docs/deployment/kubernetes",
        "docs/deployment/slurm",
        "docs/metrics",
        "docs/runbook",
    ],
    "Results": ["docs/results", "docs/worlds-of-others", "docs/paper", "docs/paper-quick", "docs/benchmarks"],
    "Design": ["ARCHITECTURE", "docs/decisions", "docs/traps", "CONTRIBUTING", "CHANGELOG", "SECURITY"],
}
"""Every page of the site except the first, README. A missing page is a warning, and a warning is an error."""

project = "Shoal"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
author = copyright = "the authors of Shoal"  # noqa: A001  (Sphinx's name)
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md"]
exclude_patterns = [".*", "build", "runs", "sweeps", "tests", "common", "*_node", "replay_server", "shoal"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"Shoal {release}"
templates_path = ["_templates"]
html_additional_pages = {"index": "index.html"}
html_show_sphinx = False
html_copy_source = False
# Blocks without a language are commands and what they print.
highlight_language = "text"


def setup(app: Any) -> None:
    """Connects the navigation, and the handling of links whose target is not a page."""
    app.connect("source-read", _add_navigation)
    app.connect("doctree-read", _keep_links_to_files_as_text)


def _add_navigation(_: Any, page: str, source: list[str]) -> None:
    """Appends the navigation to the first page, where only the site shows it."""
    if page != root_doc:
        return
    for name, pages in NAVIGATION.items():
        entries = "\n".join(f"/{one}" for one in pages)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {name}\n\n{entries}\n```\n"


def _keep_links_to_files_as_text(app: Any, doctree: Any) -> None:
    """Keeps a link to a directory, or to Markdown elsewhere in the repository, as text: the site has no page of it."""
    from sphinx.addnodes import pending_xref  # noqa: PLC0415  (tests read the navigation without Sphinx)

    here = (ROOT / app.env.docname).parent
    for link in list(doctree.findall(pending_xref)):
        target = link["reftarget"]
        is_elsewhere = target not in app.env.found_docs if link.get("refdomain") == "doc" else (here / target).is_dir()
        if link.get("reftype") == "myst" and is_elsewhere:
            link.replace_self(link.children)
