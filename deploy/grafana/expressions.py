"""What dashboards ask Prometheus: figures of the chosen runs, and of the chosen processes.

Processes' metrics have no label `run`; shoal_run_info says which run each works for, and joins it on.
"""

from __future__ import annotations

from deploy.grafana.panels import Query


def rate(metric: str) -> str:
    """Returns a counter's growth a second."""
    return f"rate({metric}[$__rate_interval])"


def by_run(expr: str, *labels: str, how: str = "sum") -> str:
    """Returns an expression of processes put together run by run, and by further labels."""
    of_run = f'({expr}) * on (job, instance) group_left (run) shoal_run_info{{run=~"$run"}}'
    return f"{how} by ({', '.join(('run', *labels))}) ({of_run})"


def quantile(q: float, histogram: str) -> str:
    """Returns a quantile of a histogram, run by run."""
    return f"histogram_quantile({q}, {by_run(rate(f'{histogram}_bucket'), 'le')})"


def quantiles(histogram: str) -> list[Query]:
    """Returns median and 99th percentile of a histogram."""
    return [Query(quantile(0.5, histogram), "{{run}} median"), Query(quantile(0.99, histogram), "{{run}} p99")]


def chosen(expr: str) -> str:
    """Returns an expression's series of the chosen roles and instances."""
    return f'({expr}) and on (job, instance) shoal_build_info{{role=~"$role", instance=~"$instance"}}'
