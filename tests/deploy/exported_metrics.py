"""Metrics that are exported, documented, shown on dashboards and used in alerts, for tests that compare them."""

from __future__ import annotations

import json
import multiprocessing
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from prometheus_client import CollectorRegistry

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "metrics.md"
RUNBOOK = ROOT / "docs" / "runbook.md"
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"

Described = dict[str, tuple[str, frozenset[str]]]
"""name -> (type, labels)."""
PROMETHEUS_OWN = {"up", "ALERTS"}
"""Metrics that Prometheus creates."""


def actor_registry() -> CollectorRegistry:
    """Returns the registry of an actor node whose workers know their run."""
    from actor_node.metrics import make_registry
    from actor_node.monitoring.shared_metrics import WorkerMetrics, allocate_node_memory

    counters = WorkerMetrics(allocate_node_memory(multiprocessing.get_context("spawn"), 2))
    counters.run = {"run": "a1", "scenario": "tiny", "algorithm": "maddpg"}
    return make_registry(counters, pids=list, restarts=int)


def replay_registry() -> CollectorRegistry:
    """Returns the registry of a replay server with a run, a finished episode and a log."""
    from replay_server.config import ReplayConfig
    from replay_server.durability.committer import Committer
    from replay_server.metrics import CommitterCollector, ReplayCollector, Timings, make_registry
    from replay_server.replay import Replay
    from tests.replay_server.durability.dict_log import DictLog
    from tests.replay_server.runs import make_run

    replay = Replay(ReplayConfig(durability="ram"), now=0.0)
    replay.set_run(make_run())
    replay.recent.returns.add(1, -2.0, (-0.5, -1.5))
    registry = make_registry()
    Timings(registry)
    registry.register(ReplayCollector(replay, lambda: 1.0))
    with closing(Committer(DictLog())) as committer:
        registry.register(CommitterCollector(committer))
    return registry


def learner_registry() -> CollectorRegistry:
    """Returns the registry of a learner with a run."""
    from learner_node.reporting.metrics import Metrics
    from tests.replay_server.runs import make_run

    metrics = Metrics()
    metrics.describe(make_run(), checkpoint_every_s=20.0)
    return metrics.registry


def exported_by(registry: CollectorRegistry) -> Described:
    """Returns every metric of a registry by its Prometheus name."""
    suffix = {"counter": "_total", "info": "_info"}
    found: Described = {}
    for family in registry.collect():
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        kind = "gauge" if family.type == "info" else family.type
        found[family.name + suffix.get(family.type, "")] = kind, labels
    return found


def exported() -> Described:
    """Returns every metric of all three roles."""
    found: Described = {}
    for registry in (actor_registry(), replay_registry(), learner_registry()):
        for name, (kind, labels) in exported_by(registry).items():
            found[name] = kind, labels | found.get(name, (kind, frozenset()))[1]
    return found


def documented() -> Described:
    """Returns every metric in the tables of docs/metrics.md."""
    found: Described = {}
    for line in PAGE.read_text().splitlines():
        if row := re.match(r"\| `(\w+)` \| (\w+) \|([^|]*)\|", line):
            name, kind, labels = row.groups()
            assert name not in found, f"{name} has two rows"
            found[name] = kind, frozenset(re.findall(r"\w+", re.sub(r"\(.*?\)", "", labels)))
    return found


def series_of(described: Described) -> set[str]:
    """Returns the names of the time series of metrics in PromQL."""
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}
    return {name + suffix for name, (kind, _) in described.items() for suffix in suffixes.get(kind, ("",))}


def rules(file: str) -> list[dict[str, Any]]:
    """Returns every rule of a file of deploy/prometheus."""
    groups = yaml.safe_load((PROMETHEUS / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def boards() -> dict[str, dict[str, Any]]:
    """Returns the dashboards by their file's name."""
    return {file.name: json.loads(file.read_text()) for file in sorted(DASHBOARDS.glob("*.json"))}


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the title and expression of every query of a dashboard."""
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def metrics_in(expr: str) -> set[str]:
    """Returns the metric names in a PromQL expression, without labels, strings, functions and keywords."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]|\$\w+', " ", expr)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    names = re.findall(r"[a-zA-Z_][\w:]*(?!\w|\s*\()", bare)
    return {name for name in names if name not in {"and", "or", "unless", "offset", "bool", "by", "s", "m", "h", "d"}}
