"""Results as marl-eval's JSON (Gorsane et al. 2022, arXiv 2209.10485) and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from common.errors import ConfigError
from shoal.commands.export_results.results import OverAgents, RunResults, Scores, seeds_by_algorithm

CSV_COLUMNS = (
    "environment", "task", "algorithm", "seed", "run", "kind", "env_steps", "updates", "trained_s", "metric", "value",
)  # fmt: skip
_STEPS_MAY_DIFFER_BY = 0.02


def to_marl_eval(found: Sequence[RunResults], over_agents: OverAgents, note: Callable[[str], object]) -> bytes:
    """Returns environment -> task -> algorithm -> `seed_N` -> `step_K` and `absolute_metrics`, as JSON.

    Every figure is a list of one number, the mean over the episodes of one evaluation. marl-eval compares arrays, so
    all runs of an environment get equally many steps and the same metrics; `note` receives a line about what was left
    out and what marl-eval will refuse. Raises ConfigError for a run without evaluations while it trained.
    """
    for one in found:
        if not one.scheduled:
            raise ConfigError(
                f"{one.record.path} has no evaluations while it trained (evaluations.jsonl), so it has no curve. Train"
                " it with evaluation.times above 0 and evaluation.share_of_time 1, or pass --format csv."
            )
    document: dict[str, Any] = {}
    for environment in dict.fromkeys(one.environment for one in found):
        runs = [one for one in found if one.environment == environment]
        steps, metrics = _common_steps(runs, note), _common_metrics(runs, over_agents, note)
        _check_seeds(runs, note)
        for one in runs:
            algorithms = document.setdefault(environment, {}).setdefault(one.task, {})
            algorithms.setdefault(one.algorithm, {})[f"seed_{one.seed}"] = {
                **{
                    f"step_{k}": {"step_count": scores.env_steps, **_lists(scores, over_agents, metrics)}
                    for k, scores in enumerate(one.scheduled[:steps], 1)
                },
                "absolute_metrics": _lists(one.final, over_agents, metrics),
            }
    return msgspec.json.format(msgspec.json.encode(document)) + b"\n"


def to_csv(found: Sequence[RunResults], over_agents: OverAgents) -> str:
    """Returns a CSV line for each figure of each evaluation; `kind` is `scheduled`, or `final` after the training."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for one in found:
        for kind, scores in _evaluations(one):
            env_steps, trained_s = ("", "") if kind == "final" else (scores.env_steps, scores.trained_s)
            steps = (env_steps, scores.updates, trained_s)
            for metric, value in scores.values(over_agents).items():
                writer.writerow([*one[1:4], one.seed, one.record.path, kind, *steps, metric, value])
    return out.getvalue()


def _evaluations(one: RunResults) -> Iterator[tuple[str, Scores]]:
    yield from (("scheduled", scores) for scores in one.scheduled)
    yield "final", one.final


def _lists(scores: Scores, over_agents: OverAgents, metrics: Sequence[str]) -> dict[str, list[float]]:
    values = scores.values(over_agents)
    return {name: [values[name]] for name in metrics}


def _common_steps(runs: Sequence[RunResults], note: Callable[[str], object]) -> int:
    """Returns the smallest number of evaluations of a run; notes what is left out, and steps that do not match."""
    fewest = min(runs, key=lambda one: len(one.scheduled))
    steps = len(fewest.scheduled)
    if longer := [one for one in runs if len(one.scheduled) > steps]:
        note(
            f"{fewest.record.path} has {steps} evaluations, so the later ones of {len(longer)} other runs are left out."
            " For whole curves train with equal budgets and equal evaluation.times."
        )
    for k in range(steps):
        counts = [one.scheduled[k].env_steps for one in runs]
        if max(counts) - min(counts) > _STEPS_MAY_DIFFER_BY * max(counts):
            note(
                f"Evaluation {k + 1} was made after {min(counts):,} to {max(counts):,} environment steps. marl-eval"
                " draws the k-th evaluations of all runs at one place. For curves over steps train with --steps."
            )
            break
    return steps


def _common_metrics(
    runs: Sequence[RunResults], over_agents: OverAgents, note: Callable[[str], object]
) -> tuple[str, ...]:
    named = [set(scores.values(over_agents)) for one in runs for _, scores in _evaluations(one)]
    common, every = set.intersection(*named), set.union(*named)
    if left_out := sorted(every - common):
        note(f"Left out, because not every evaluation has it: {', '.join(left_out)}.")
    return tuple(name for name in runs[0].final.values(over_agents) if name in common)


def _check_seeds(runs: Sequence[RunResults], note: Callable[[str], object]) -> None:
    by_algorithm = seeds_by_algorithm(runs)
    if len({tuple(seeds) for seeds in by_algorithm.values()}) > 1:
        texts = (f"{task} {algorithm}: {_listed(seeds)}" for (_, task, algorithm), seeds in by_algorithm.items())
        note(f"marl-eval needs the same seeds of every algorithm and task. The runs have {'; '.join(texts)}.")
    tasks = {task: {a for _, t, a in by_algorithm if t == task} for _, task, _ in by_algorithm}
    if len({frozenset(algorithms) for algorithms in tasks.values()}) > 1:
        texts = (f"{task}: {', '.join(sorted(algorithms))}" for task, algorithms in tasks.items())
        note(f"marl-eval needs the same algorithms in every task. The runs have {'; '.join(texts)}.")


def _listed(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
