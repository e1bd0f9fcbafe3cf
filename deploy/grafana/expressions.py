"""PromQL expressions of the dashboards, for the selected runs or the selected processes.

The metrics of processes have no label `run`: a join with shoal_run_info adds the run that each process works for.
"""

from __future__ import annotations

from deploy.grafana.panels import Query


def rate(metric: str) -> str:
    """Returns the rate of a counter per second."""
    return f"rate({metric}[$__rate_interval])"


def by_run(expr: str, *labels: str, how: str = "sum") -> str:
    """Returns an expression over processes, aggregated by run and by further labels."""
    of_run = f'({expr}) * on (job, instance) group_left (run) shoal_run_info{{run=~"$run"}}'
    return f"{how} by ({', '.join(('run', *labels))}) ({of_run})"


def quantile(q: float, histogram: str) -> str:
    """Returns a quantile of a histogram for each run."""
    return f"histogram_quantile({q}, {by_run(rate(f'{histogram}_bucket'), 'le')})"


def quantiles(histogram: str) -> list[Query]:
    """Returns the median and the 99th percentile of a histogram for each run."""
    return [Query(quantile(0.5, histogram), "{{run}} median"), Query(quantile(0.99, histogram), "{{run}} p99")]


def selected(expr: str) -> str:
    """Returns the series of an expression for the selected roles and instances."""
    return f'({expr}) and on (job, instance) shoal_build_info{{role=~"$role", instance=~"$instance"}}'
