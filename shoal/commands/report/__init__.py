"""`shoal report`: what became of a run, or of several, as one HTML file that needs nothing else.

history.py    metrics.jsonl as columns            record_files.py   a run's directory, and which runs are seeds of one
figures.py   what is shown, a row a figure       bands.py     runs to mean and band, lines to points
chart.py     a chart's geometry                  views.py     a figure with its legend, words and table
page.py      all of it into page.html, parts.html and style.css
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
"""What `shoal train` makes; a report shows it, or a film.mp4 in its stead."""


class WrittenReport(msgspec.Struct, frozen=True):
    """What was written."""

    path: str
    runs: tuple[str, ...]
    bytes: int
    seconds: float


def write_report(runs: Sequence[Path], output: Path) -> WrittenReport:
    """Writes the report of these runs' directories; ConfigError where one holds no run or nothing can be written."""
    from shoal.commands.report.page import make_page  # noqa: PLC0415  (slow to import: Jinja)
    from shoal.commands.report.run_record import read_record  # noqa: PLC0415

    started_at = time.perf_counter()
    content = make_page([read_record(path) for path in runs]).encode()
    try:
        write_atomically(output, content)
    except OSError as e:
        raise ConfigError(f"-o {output} cannot be written: {e.strerror}; name a file in a directory that exists") from e
    return WrittenReport(str(output), tuple(map(str, runs)), len(content), round(time.perf_counter() - started_at, 3))
