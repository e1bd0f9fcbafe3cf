"""Evaluations as text: one run as lines, several runs as a table."""

from __future__ import annotations

from rich.table import Table

from actor_node.evaluation.episode_metrics import meaning_of
from actor_node.evaluation.evaluate import Evaluation, SideScale
from actor_node.evaluation.task import FOREIGN_DYNAMICS
from actor_node.evaluation.task_metrics import MEANINGS
from shoal.commands.evaluate.summary import Evaluations
from shoal.commands.evaluate.table_rows import RETURN, table_columns, table_rows
from shoal.number_format import interval, mean_with_interval


def lines(result: Evaluation) -> list[str]:
    """Returns the evaluation of one run as lines of text."""
    found = []
    if not result.updates:
        found.append("This team is untrained: its policies have made 0 updates.")
    where = result.world + (" with the original dynamics" if result.dynamics == "legacy" else "")
    found += [
        f"return S = {result.return_mean:.2f}  (95 % interval {interval(result.return_ci95)}), summed over agents,",
        f"mean of {result.episodes:,} episodes in {where} {_HOW[result.choices]}, {result.updates:,} updates",
    ]
    found += remarks(result)
    found += [f"    {agent:<18} {value:9.2f}" for agent, value in result.return_per_agent.items()]
    for name, metric in result.metrics.items():
        ends = f"({interval(metric.ci95, 3)})"
        found.append(f"    {name:<18} {metric.mean:9.3f}  {ends:<20} {_meaning(name, result)}")
    if result.published_scales:
        scales = ", ".join(f"{name} = {value:.1f}" for name, value in result.published_scales.items() if name != "S")
        found.append(f"on the scales of published tables: {scales}")
    return found + scale_lines(result)


def scale_lines(result: Evaluation) -> list[str]:
    """Returns the returns of the reference teams, and where the team stands among them, one line a side."""
    return [_scale_line(one) for one in result.scale]


def _scale_line(scale: SideScale) -> str:
    of = f"{scale.side} against the {scale.opponents} team" if scale.side else "scale"
    teams = ", ".join(f"{_SHORT_NAMES.get(one.name, one.name)} {one.return_mean:.2f}" for one in scale.references)
    # In a world with several sides, the lines above have the return against the team's own other sides.
    this_team = f", this team {scale.return_mean:.2f}" if scale.side else ""
    return f"{of}: {teams}{this_team}; {standing(scale)}"


def standing(scale: SideScale) -> str:
    """Returns where a team stands among the reference teams, as a clause."""
    if missed := scale.weakest_that_is_not_beaten:
        return f"not clearly better than {_NAMES[missed]}"
    if scale.fraction is not None:
        return f"{100 * scale.fraction:.0f} % of the way from {_NAMES['random']} to {_NAMES[scale.top]}"
    return f"clearly better than {_NAMES['random']} and {_NAMES['untrained']}"


# Not the run's own first weights: one size for every run, so that the scales of runs can be compared.
_SHORT_NAMES = {"untrained": "untrained (64-64)"}
_NAMES = {
    "random": "random actions",
    "untrained": "an untrained 64-64 team",
    "frozen": "the frozen team",
    "scripted": "the scripted team",
}


def _meaning(name: str, result: Evaluation) -> str:
    return meaning_of(name, result.metrics) if result.dynamics == FOREIGN_DYNAMICS else MEANINGS[name]


_HOW: dict[str, str] = {"greedy": "without exploration", "drawn": "with choices sampled as in training"}


def remarks(result: Evaluation) -> list[str]:
    """Returns remarks on how the figures were obtained: checks, failures and cut-off episodes."""
    found = []
    if result.checked_in_mpe2:
        found.append(
            f"{result.episodes:,} episodes in the batched world; {result.checked_in_mpe2} repeated in mpe2: equal"
        )
    if result.return_team is not None:
        found.append(f"shared reward: {result.return_team:,.2f} for the team (every agent's return is the team's)")
    if result.failed_episodes:
        found.append(f"warning: {result.failed_episodes:,} episodes failed and are not counted: {result.first_failure}")
    if result.truncated_episodes == result.episodes:
        found.append(
            f"No episode ended within {result.max_episode_steps:,} steps, so each was cut off. Set another limit with "
            "--max-episode-steps."
        )
    elif result.truncated_episodes:
        found.append(
            f"{result.truncated_episodes:,} of {result.episodes:,} episodes were cut off after "
            f"{result.max_episode_steps:,} steps"
        )
    return found + choice_lines(result)


def choice_lines(result: Evaluation) -> list[str]:
    """Returns the returns of greedy, sampled and random choices, with a warning if greedy ones are worse."""
    if not result.compared:
        return []
    returns = {one.name: (one.return_mean, one.return_ci95) for one in result.compared}
    returns[result.choices] = result.return_mean, result.return_ci95
    named = [("greedy", "greedy"), ("drawn", "sampled as in training"), ("random", "random")]
    found = [", ".join(f"{label} {mean_with_interval(*returns[name])}" for name, label in named if name in returns)]
    if returns["greedy"][1][1] < returns["drawn"][1][0]:
        found.append(
            "warning: greedy choices earn clearly less than sampled ones. Evaluate with --sample; play with"
            " team.act(obs, sample=True)."
        )
    return found


def table(evaluations: Evaluations) -> Table:
    """Returns the runs, the references, then the mean and the interquartile mean of each set of seeds."""
    metrics = table_columns(evaluations)[1:]
    drawn = Table("run", "algorithm", "updates", "return", "95 % interval", *metrics)
    kind = "run"
    for row in table_rows(evaluations):
        if row.kind != kind and row.kind in ("reference", "mean"):
            drawn.add_section()
        kind = row.kind
        name = f"{row.name}: {row.kind} of {row.runs} runs" if kind in ("mean", "IQM") else row.name
        updates = "" if row.updates is None else f"{row.updates:,}"
        mean, ends = row.figures[RETURN]
        figures = (f"{row.figures[metric][0]:.3f}" if metric in row.figures else "" for metric in metrics)
        drawn.add_row(name, row.algorithm, updates, f"{mean:.2f}", interval(ends) if ends else "", *figures)
    return drawn
