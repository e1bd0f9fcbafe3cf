"""Draws the plots of benchmarks.md from the rows of `shoal bench worlds replay --full --json`.

    shoal bench worlds replay --full --json > docs/benchmarks.json
    python docs/plots.py

Needs what `make docs` installs.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
# The same rows give the same file.
mpl.rcParams.update({"svg.hashsalt": "shoal", "font.family": "sans-serif", "svg.fonttype": "none"})

from matplotlib import pyplot as plt  # noqa: E402  (after what it reads)
from matplotlib.axes import Axes  # noqa: E402
from matplotlib.ticker import LogLocator  # noqa: E402

DOCS = Path(__file__).parent
Points = dict[int, float]


def points(rows: list[dict[str, float | str]], pattern: str, field: str = "value") -> Points:
    """Returns what rows say whose whole name matches, by the number in the name."""
    found = ((re.fullmatch(pattern, str(row["name"])), row) for row in rows)
    return dict(sorted((int(match[1]), float(row[field])) for match, row in found if match))


def panel(axes: Axes, title: str, across: str, lines: dict[str, Points]) -> None:
    """Draws lines by name over both axes in powers."""
    for name, line in lines.items():
        axes.loglog(list(line), list(line.values()), marker="o", markersize=4, label=name)
    axes.set_title(title, fontsize=11)
    axes.set_xlabel(across)
    axes.set_xticks(list(next(iter(lines.values()))), minor=False)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.minorticks_off()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(in_figures)
        axis.set_tick_params(labelsize=8)
    axes.grid(visible=True, which="both", alpha=0.25)
    if len(lines) > 1:
        axes.legend(fontsize=8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, high / 10), high)


def in_figures(value: float, _: int = 0) -> str:
    """Returns a tick's number, short."""
    return f"{value:g}" if value < 1e4 else f"{value:.0e}".replace("e+0", "e")


def main() -> None:
    """Writes docs/images/benchmarks.svg."""
    rows = json.loads((DOCS / "benchmarks.json").read_text())
    figure, places = plt.subplots(2, 3, figsize=(12, 7), layout="constrained")
    world = r"worlds/simple_spread/(\d+)"
    actors, ring = r"replay/actors/(\d+)", r"replay/ring/(\d+)"
    panels = {
        "simple_spread: environment steps/s, one core": (
            "copies",
            {"Shoal": points(rows, world), "mpe2": points(rows, world, "baseline")},
        ),
        "replay: transitions/s taken in": ("actors", {"ingest": points(rows, actors)}),
        "replay: CPU microseconds a transition": ("actors", {"cpu": points(rows, f"{actors}/cpu")}),
        "replay: resident memory, MiB": ("actors", {"memory": points(rows, f"{actors}/memory")}),
        "replay: acknowledged in, p99, ms": ("actors", {"p99": points(rows, f"{actors}/ack-p99")}),
        "replay: batches/s of 1,024": (
            "transitions held",
            {"served": points(rows, ring), "np.take in process": points(rows, ring, "baseline")},
        ),
    }
    for axes, (title, (across, lines)) in zip(places.flat, panels.items(), strict=True):
        panel(axes, title, across, lines)
    figure.savefig(DOCS / "images" / "benchmarks.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
