"""Evaluations in words: one run's as lines, several runs' as a table."""

from __future__ import annotations

from rich.table import Table

from actor_node.evaluation.evaluate import Evaluation
from actor_node.evaluation.task_metrics import MEANINGS
from shoal.commands.evaluate.summary import Evaluations
from shoal.commands.evaluate.table_rows import RETURN, table_columns, table_rows


def lines(result: Evaluation) -> list[str]:
    """Returns what one run's evaluation says."""
    told = []
    if not result.updates:
        told.append("these policies have had 0 updates: what follows is how an untrained team plays")
    low, high = result.return_ci95
    where = result.world + (" with the original dynamics" if result.dynamics == "legacy" else "")
    told += [
        f"return S = {result.return_mean:.2f}  (95 % interval {low:.2f} .. {high:.2f}), summed over agents,",
        f"mean of {result.episodes:,} episodes in {where} {_HOW[result.choices]}, {result.updates:,} updates",
    ]
    told += remarks(result)
    told += [f"    {agent:<18} {value:9.2f}" for agent, value in result.return_per_agent.items()]
    for name, found in result.metrics.items():
        interval = f"({found.ci95[0]:.3f} .. {found.ci95[1]:.3f})"
        told.append(f"    {name:<18} {found.mean:9.3f}  {interval:<20} {MEANINGS[name]}")
    if result.published_scales:
        scales = ", ".join(f"{name} = {value:.1f}" for name, value in result.published_scales.items() if name != "S")
        told.append(f"on the scales of published tables: {scales}")
    return told


_HOW: dict[str, str] = {"greedy": "without exploration", "drawn": "with choices drawn as in training"}


def remarks(result: Evaluation) -> list[str]:
    """Returns what must be known of how the figures came about."""
    told = []
    if result.checked_in_mpe2:
        told.append(
            f"{result.episodes:,} episodes in the batched world; {result.checked_in_mpe2} of them also in mpe2: equal"
        )
    if result.return_team is not None:
        told.append(f"shared reward: {result.return_team:,.2f} for the team (every agent's return is the team's)")
    if result.failed_episodes:
        told.append(f"warning: {result.failed_episodes:,} episodes failed and are left out: {result.first_failure}")
    if result.truncated_episodes == result.episodes:
        told.append(
            f"no episode ended in {result.max_episode_steps:,} steps, so each was cut off there; --max-episode-steps N "
            "sets another limit"
        )
    elif result.truncated_episodes:
        told.append(
            f"{result.truncated_episodes:,} of {result.episodes:,} episodes were cut off after "
            f"{result.max_episode_steps:,} steps"
        )
    return told + choice_lines(result)


def choice_lines(result: Evaluation) -> list[str]:
    """Returns how the team's returns differ by how its choices are made; a warning where the likeliest are worse."""
    if not result.compared:
        return []
    returns = {one.name: (one.return_mean, one.return_ci95) for one in result.compared}
    returns[result.choices] = result.return_mean, result.return_ci95
    named = [("greedy", "greedy"), ("drawn", "as trained (drawn)"), ("random", "random")]
    told = [", ".join(f"{words} {returns[name][0]:.2f}" for name, words in named if name in returns)]
    if returns["greedy"][1][1] < returns["drawn"][1][0]:
        told.append("warning: the likeliest choices play clearly worse than drawn ones; evaluate with --sample")
    return told


def table(found: Evaluations) -> Table:
    """Returns a row a run, a row a reference, then for each set of seeds the mean and the interquartile mean."""
    metrics = table_columns(found)[1:]
    drawn = Table("run", "algorithm", "updates", "return", "95 % interval", *metrics)
    kind = "run"
    for row in table_rows(found):
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
