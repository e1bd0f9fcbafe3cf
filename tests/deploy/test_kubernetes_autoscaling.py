"""The autoscaler and the rule that makes its metric: of metrics that actors have, with the values it needs."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from actor_node.metrics import make_registry
from actor_node.monitoring.shared_metrics import WorkerMetrics, allocate_node_memory
from tests.deploy.manifests import KUBERNETES, OVERLAYS, objects, of_kind, yaml

(RULE,) = yaml.safe_load((KUBERNETES / "addons" / "autoscaling" / "prometheus-adapter.yaml").read_text())["rules"]
QUERY = (
    RULE["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'namespace="shoal",pod=~"a|b|c"')
)
SERIES = {
    # pod: seconds collected, waited for credit, waited for a replay server, each minute
    "a": (60, 0, 0),
    "b": (24, 36, 0),
    "c": (0, 0, 60),
}


def test_the_autoscaler_scales_what_exists_and_nothing_else_sets_its_number() -> None:
    (autoscaler,) = of_kind(objects("autoscaling"), "HorizontalPodAutoscaler").values()
    target = autoscaler["spec"]["scaleTargetRef"]
    for overlay in OVERLAYS:
        deployment = of_kind(objects(overlay), target["kind"])[target["name"]]
        assert deployment["apiVersion"] == target["apiVersion"]
        assert "replicas" not in deployment["spec"]
    assert {metric["type"] for metric in autoscaler["spec"]["metrics"]} == {"Pods"}, "by waiting, not by CPU"


def test_the_rule_makes_the_autoscalers_metric_of_pods() -> None:
    (autoscaler,) = of_kind(objects("autoscaling"), "HorizontalPodAutoscaler").values()
    (metric,) = autoscaler["spec"]["metrics"]
    assert RULE["name"]["as"] == metric["pods"]["metric"]["name"]
    assert set(RULE["resources"]["overrides"]) == {"namespace", "pod"}


def test_its_metrics_are_the_actors() -> None:
    registry = make_registry(
        WorkerMetrics(allocate_node_memory(multiprocessing.get_context("spawn"), 1)), list, lambda: 0
    )
    samples = [sample for family in registry.collect() for sample in family.samples]
    named = set(re.findall(r"shoal_\w+", RULE["seriesQuery"] + RULE["metricsQuery"]))
    assert named <= {sample.name for sample in samples}
    (label,) = set(re.findall(r'(\w+="\w+"),<<', RULE["metricsQuery"]))
    assert label in {f'{name}="{value}"' for sample in samples for name, value in sample.labels.items()}


def test_actors_that_collect_are_busy_and_those_without_a_run_have_no_value(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    names = ("collecting_seconds_total", 'waiting_seconds_total{for="credit"}', 'waiting_seconds_total{for="replay"}')
    series = [
        {"series": _series(name, pod), "values": f"0+{figure}x10"}
        for pod, figures in SERIES.items()
        for name, figure in zip(names, figures, strict=True)
    ]
    expected = [{"labels": f'{{pod="{pod}"}}', "value": value} for pod, value in (("a", 1.0), ("b", 0.4))]
    test = {"expr": QUERY, "eval_time": "10m", "exp_samples": expected}
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": [test]}]
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _series(name: str, pod: str) -> str:
    metric, _, labels = name.partition("{")
    return f'shoal_actor_{metric}{{{labels.removesuffix("}")}{"," if labels else ""}namespace="shoal",pod="{pod}"}}'
