"""Evaluations in words: one run's as lines, several runs' as a table."""

from __future__ import annotations

from rich.table import Table

from actor_node.evaluation import Evaluation
from actor_node.measures import MEANINGS
from deploy.evaluate.summary import Evaluations, Spread


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
    """Returns a row a run, then for each set of seeds the mean and the interquartile mean."""
    metrics = list(dict.fromkeys(name for one in found.runs for name in one.result.metrics))
    drawn = Table("run", "algorithm", "updates", "return", "95 % interval", *metrics)
    for one in found.runs:
        low, high = one.result.return_ci95
        figures = [one.result.metrics.get(name) for name in metrics]
        told = ("" if figure is None else f"{figure.mean:.3f}" for figure in figures)
        returned = (f"{one.result.return_mean:.2f}", f"{low:.2f} .. {high:.2f}")
        drawn.add_row(one.directory, one.algorithm, f"{one.result.updates:,}", *returned, *told)
    for summary in (summary for summary in found.summaries if summary.runs > 1):
        drawn.add_section()
        spreads = [summary.metrics.get(name) for name in metrics]
        for kind in ("mean", "IQM"):
            told = ("" if one is None else f"{_value(one, kind):.3f}" for one in spreads)
            returned = (f"{_value(summary.return_mean, kind):.2f}", _interval(summary.return_mean, kind))
            drawn.add_row(f"{summary.name}: {kind} of {summary.runs} runs", "", "", *returned, *told)
    return drawn


def _value(spread: Spread, kind: str) -> float:
    return spread.mean if kind == "mean" else spread.iqm


def _interval(spread: Spread, kind: str) -> str:
    interval = spread.ci95 if kind == "mean" else spread.iqm_ci95
    return f"{interval[0]:.2f} .. {interval[1]:.2f}" if interval else ""
