"""The page of environment variables: of options, of Compose and of the Slurm script."""

from __future__ import annotations

import re
from pathlib import Path

from shoal.commands.reference import markdown as md
from shoal.commands.reference.commands import commands

_DEPLOY = Path(__file__).parents[3] / "deploy"
_ASSIGNMENT = re.compile(r"#?(SHOAL_[A-Z_]+)=(.*)")


def variables_page() -> str:
    """Returns the page as Markdown."""
    return md.page(
        "Environment variables",
        "Each option of a command has an environment variable; the command line has priority. Every command with the"
        " option reads the variable, so set variables that are meant for one process only for that process. Write"
        " `true` or `false` for a flag, and values separated by spaces for an option that can be repeated.",
        "## Commands",
        md.table(["variable", "option", "commands"], _of_options()),
        "## Compose",
        "`deploy/compose/prepare` writes these variables to `.env`; change them there. See"
        " [Compose](../deployment/compose.md).",
        md.table(["variable", "default", "meaning"], _of_compose()),
        "`compose.yaml` also reads these variables, which the example file does not contain:",
        md.table(["variable", "default"], _of_compose_only()),
        "## Slurm script",
        f"{', '.join(md.code(name) for name in _of_slurm())}: see [Slurm](../deployment/slurm.md#settings).",
        "## Tests",
        "`SHOAL_TEST_SCREENSHOTS`: directory to which the tests of the report page write screenshots.",
    )


def _of_options() -> list[tuple[str, str, str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for entry in commands():
        for option in entry.options:
            if isinstance(option.envvar, str):
                key = option.envvar, max(option.opts, key=len)
                found.setdefault(key, []).append(md.code(entry.name))
    return [(md.code(name), md.code(option), ", ".join(names)) for (name, option), names in sorted(found.items())]


def _of_compose() -> list[tuple[str, str, str]]:
    """Reads the example file; a comment applies to the assignments below it, up to the next comment or heading."""
    rows: list[tuple[str, str, str]] = []
    comment: list[str] = []
    for line in (_DEPLOY / "compose" / ".env.example").read_text("utf-8").splitlines():
        if assignment := _ASSIGNMENT.fullmatch(line):
            rows.append((md.code(assignment[1]), md.code(assignment[2]), " ".join(comment)))
            comment = ["as above"] if comment else []
        elif line.startswith("# ") and not line.startswith("# ----"):
            comment = [*(comment if comment != ["as above"] else []), line.removeprefix("# ")]
        else:
            comment = []
    return rows


def _of_compose_only() -> list[tuple[str, str]]:
    """Reads `${NAME:-default}` from the Compose files, for names that the example file does not contain."""
    files = sorted((_DEPLOY / "compose").glob("compose*.yaml"))
    found = re.findall(r"\$\{(SHOAL_[A-Z_]+)(?::?-([^}]*))?\}", "\n".join(file.read_text("utf-8") for file in files))
    known = {name for name, *_ in _of_compose()}
    return sorted({md.code(name): md.code(default) for name, default in found if md.code(name) not in known}.items())


def _of_slurm() -> list[str]:
    scripts = "\n".join(file.read_text("utf-8") for file in (_DEPLOY / "slurm").glob("*.sbatch"))
    return sorted(set(re.findall(r"\$\{?(SHOAL_[A-Z_]+)", scripts)))
