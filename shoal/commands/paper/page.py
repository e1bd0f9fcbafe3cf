"""The page of the tables: fills the template page.md with results, commands and seeds."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2

from common.process.shell_command import shell_command
from shoal.commands.paper.plan import ExperimentSize, options
from shoal.commands.paper.scores import ResultTable, Score, Verdict
from shoal.commands.paper.tasks import TASKS, PaperTask
from shoal.number_format import interval

_VERDICTS: dict[Verdict, str] = {
    "ahead": "the claim holds here, and the intervals over seeds do not overlap.",
    "ahead, intervals overlap": "the claim holds here in the mean, but the intervals over seeds overlap.",
    "behind": "the claim does not hold here.",
    "not told": "the claim holds here in the mean; one seed has no interval.",
}


class _TableText(NamedTuple):
    """The text of one table."""

    title: str
    scenario: str
    claim: str
    verdict: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    plot: str
    commands: tuple[str, ...]


class Provenance(NamedTuple):
    """The command and settings that made the tables."""

    command: str
    size: ExperimentSize
    episodes: int
    seed: int


def make_page(tables: Sequence[ResultTable], provenance: Provenance) -> str:
    """Returns the page as Markdown, with plots named by `plot_name`."""
    # The page is Markdown, not HTML; the inserted texts contain no special characters of Markdown.
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    templates = jinja2.Environment(loader=loader, autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    tasks = {task.key: task for task in TASKS}
    return templates.get_template("page.md").render(
        provenance=provenance,
        seeds=", ".join(map(str, provenance.size.seed_numbers)),
        machine=f"{platform.machine()}, Python {platform.python_version()}",
        date=time.strftime("%Y-%m-%d"),
        tables=[_table_text(table, tasks[table.key], provenance.size) for table in tables],
    )


def plot_name(table: ResultTable) -> str:
    """Returns the file name of a table's plot."""
    return f"{table.key}.svg"


def _table_text(table: ResultTable, task: PaperTask, size: ExperimentSize) -> _TableText:
    seed = str(size.seed_numbers[0])
    percent = {measure.title: measure.percent for measure in task.measures}
    has_published = bool(task.published)
    rows = tuple(
        (
            line.variant,
            *(_score_text(score, percent=percent[title]) for title, score in line.scores.items()),
            *((task.published.get(line.variant, ""),) if has_published else ()),
        )
        for line in table.lines
    )
    return _TableText(
        title=table.title,
        scenario=" ".join((table.scenario, *task.world)),
        claim=table.claim,
        verdict=_VERDICTS[table.verdict],
        columns=("", *percent, *(("Lowe et al. 2017, not re-checked",) if has_published else ())),
        rows=rows,
        plot=plot_name(table),
        commands=tuple(
            shell_command("shoal", "train", task.scenario, "--seed", seed, *options(task, variant, size))
            for variant in task.variants
        ),
    )


def _score_text(score: Score, *, percent: bool) -> str:
    factor, decimals, unit = (100.0, 1, " %") if percent else (1.0, 3, "")
    mean = f"{factor * score.mean:.{decimals}f}{unit}"
    if score.ci95 is None:
        return mean
    return f"{mean} ({interval((factor * score.ci95[0], factor * score.ci95[1]), decimals)})"
