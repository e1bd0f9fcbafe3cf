"""`shoal report`: writes the results of one or several runs as one self-contained HTML file.

run_record.py    everything read from a run's directory, and the grouping of runs that differ by their seed
figures.py       the figures, one table row each       traces.py         means and 95 % bands over runs, thinned lines
chart.py         the geometry of a chart               axis_ticks.py     round values and labels for axes
figure_view.py   a figure with its legend and table    embedded_film.py  a film inside the page
page.py          fills page.html, parts.html and style.css
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from common.errors import ConfigError
from common.files import write_atomically

REPORT_FILE = "report.html"
FILM_FILE = "film.gif"
"""Name of the film that `shoal train` makes; a report shows it, or film.mp4."""


class WrittenReport(msgspec.Struct, frozen=True):
    """The written report file."""

    path: str
    runs: tuple[str, ...]
    bytes: int
    seconds: float


def write_report(runs: Sequence[Path], output: Path) -> WrittenReport:
    """Writes the report of the runs in these directories; raises ConfigError if it cannot read one or write."""
    from shoal.commands.report.page import make_page  # noqa: PLC0415  (slow to import: Jinja)
    from shoal.commands.report.run_record import read_record  # noqa: PLC0415

    started_at = time.perf_counter()
    content = make_page([read_record(path) for path in runs]).encode()
    try:
        write_atomically(output, content)
    except OSError as e:
        raise ConfigError(f"-o {output} cannot be written: {e.strerror}. Name a file in an existing directory.") from e
    return WrittenReport(str(output), tuple(map(str, runs)), len(content), round(time.perf_counter() - started_at, 3))
