"""The page of environment variables: those of options, of Compose and of the Slurm script."""

from __future__ import annotations

import re
from pathlib import Path

from shoal.commands.reference import markdown as md
from shoal.commands.reference.commands import commands

_DEPLOY = Path(__file__).parents[3] / "deploy"
_ASSIGNMENT = re.compile(r"#?(SHOAL_[A-Z_]+)=(.*)")


def variables_page() -> str:
    """Returns the page."""
    return md.page(
        "Environment variables",
        "Each command reads the variable of each of its options; the command line wins over it. A variable is read by"
        " every command that has the option, so give those that mean one process to that process alone. A flag is"
        " given by `true` or `false`, an option that may be repeated by words with spaces between.",
        "## Of the commands",
        md.table(["variable", "option", "of"], _of_options()),
        "## Of Compose",
        "`deploy/compose/prepare` writes them to `.env`, where they are changed;"
        " [Compose](../deployment/compose.md) tells more.",
        md.table(["variable", "default", "meaning"], _of_compose()),
        "`compose.yaml` reads these, too, which the example leaves out:",
        md.table(["variable", "default"], _of_compose_besides()),
        "## Of the Slurm script",
        f"{', '.join(md.code(name) for name in _of_slurm())}: their meaning is in"
        " [Slurm](../deployment/slurm.md#settings).",
        "## Of the tests",
        "`SHOAL_TEST_SCREENSHOTS`: a directory in which the tests of the report's page keep what they saw.",
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
    """Reads the example file: a comment is of the assignments below it, up to the next comment or heading."""
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


def _of_compose_besides() -> list[tuple[str, str]]:
    """Reads the Compose files: `${NAME:-default}`, of names that the example does not have."""
    files = sorted((_DEPLOY / "compose").glob("compose*.yaml"))
    found = re.findall(r"\$\{(SHOAL_[A-Z_]+)(?::?-([^}]*))?\}", "\n".join(file.read_text("utf-8") for file in files))
    known = {name for name, *_ in _of_compose()}
    return sorted({md.code(name): md.code(default) for name, default in found if md.code(name) not in known}.items())


def _of_slurm() -> list[str]:
    script = (_DEPLOY / "slurm" / "shoal.sbatch").read_text("utf-8")
    return sorted(set(re.findall(r"\$\{?(SHOAL_[A-Z_]+)", script)))
