"""Evaluations in words: one run's as lines, several runs' as a table."""

from __future__ import annotations

from rich.table import Table

from actor_node.evaluation import Evaluation
from actor_node.measures import MEANINGS
from deploy.evaluate.rows import RETURN, columns_of, rows_of
from deploy.evaluate.summary import Evaluations


def lines(result: Evaluation) -> list[str]:
    """Returns what one run's evaluation says."""
    told = []
    if not result.updates:
        told.append("these policies have had 0 updates: what follows is how an untrained team plays")
    low, high = result.return_ci95
    where = result.world + (" with the original dynamics" if result.dynamics == "legacy" else "")
    told += [
        f"return S = {result.return_mean:.2f}  (95 % interval {low:.2f} .. {high:.2f}), summed over agents,",
        f"mean of {result.episodes} episodes in {where} without exploration, {result.updates:,} updates",
    ]
    told += [f"    {agent:<18} {value:9.2f}" for agent, value in result.return_per_agent.items()]
    for name, found in result.metrics.items():
        interval = f"({found.ci95[0]:.3f} .. {found.ci95[1]:.3f})"
        told.append(f"    {name:<18} {found.mean:9.3f}  {interval:<20} {MEANINGS[name]}")
    if result.published_scales:
        scales = ", ".join(f"{name} = {value:.1f}" for name, value in result.published_scales.items() if name != "S")
        told.append(f"on the scales of published tables: {scales}")
    return told


def table(found: Evaluations) -> Table:
    """Returns a row a run, a row a reference, then for each set of seeds the mean and the interquartile mean."""
    metrics = columns_of(found)[1:]
    drawn = Table("run", "algorithm", "updates", "return", "95 % interval", *metrics)
    kind = "run"
    for row in rows_of(found):
        if row.kind != kind and row.kind in ("reference", "mean"):
            drawn.add_section()
        kind = row.kind
        name = f"{row.name}: {row.kind} of {row.runs} runs" if kind in ("mean", "IQM") else row.name
        updates = "" if row.updates is None else f"{row.updates:,}"
        mean, interval = row.figures[RETURN]
        told = f"{interval[0]:.2f} .. {interval[1]:.2f}" if interval else ""
        figures = (f"{row.figures[metric][0]:.3f}" if metric in row.figures else "" for metric in metrics)
        drawn.add_row(name, row.algorithm, updates, f"{mean:.2f}", told, *figures)
    return drawn
