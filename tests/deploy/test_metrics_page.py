"""docs/metrics.md, the dashboards and the alerts speak of the metrics that are exported, and of all of them."""

from __future__ import annotations

import re

import pytest

from deploy.grafana import make_dashboards
from tests.deploy import exported_metrics as e

pytestmark = pytest.mark.slow  # the learner's registry imports torch

RECORDED = {rule["record"] for rule in e.rules("rules.yml")}
ALERTS = e.rules("alerts.yml")


@pytest.fixture(scope="module")
def exported() -> e.Described:
    return e.exported()


# ---- the page -----------------------------------------------------------------------------------------------------


def test_the_page_lists_every_metric_with_its_type_and_labels(exported: e.Described) -> None:
    assert e.documented() == exported


def test_every_role_tells_build_and_run_and_its_own() -> None:
    registries = {"actor": e.actor_registry(), "replay": e.replay_registry(), "learner": e.learner_registry()}
    for role, registry in registries.items():
        names = set(e.exported_by(registry))
        assert {"shoal_build_info", "shoal_run_info", "shoal_memory_bytes", "process_start_time_seconds"} <= names
        own = {name for name in names if not name.startswith(("process_", f"shoal_{role}_"))}
        assert own == {name for name in own if re.match(r"shoal_(build|run|memory|cpu)_", name)}
        assert registry.get_sample_value("shoal_build_info", _labels(registry, "shoal_build")) == 1.0
        assert _labels(registry, "shoal_build")["role"] == role


def _labels(registry: object, family: str) -> dict[str, str]:
    [found] = [one for one in registry.collect() if one.name == family]  # type: ignore[attr-defined]
    return found.samples[0].labels


def test_names_follow_the_conventions(exported: e.Described) -> None:
    for name, (kind, labels) in exported.items():
        assert re.fullmatch(r"(shoal|process)(_[a-z0-9]+)+", name)
        assert (kind == "counter") == name.endswith("_total")
        assert kind in ("histogram", "summary") or not name.endswith(("_bucket", "_count", "_sum"))
        assert not re.search(r"_(ms|us|minutes|hours|kb|mb|percent)(_|$)", name), "base units"
        assert not labels & {"worker", "episode", "instance", "job", "run"} or name == "shoal_run_info"


def test_labels_have_their_values_before_anything_happens() -> None:
    text = {(s.name, *sorted(s.labels.values())) for family in e.replay_registry().collect() for s in family.samples}
    assert ("shoal_replay_rejected_total", "checksum") in text
    assert ("shoal_replay_blocked_seconds_total", "actors", "redis") in text


# ---- rules and alerts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [*ALERTS, *e.rules("rules.yml")], ids=lambda r: r.get("alert") or r["record"])
def test_a_rule_asks_for_metrics_that_there_are(rule: dict[str, str], exported: e.Described) -> None:
    asked = e.metrics_in(rule["expr"])
    assert asked
    assert asked - e.series_of(exported) - RECORDED <= e.PROMETHEUS_OWN


def test_every_alert_tells_what_why_and_where_to_read_on() -> None:
    for alert in ALERTS:
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.findall(r"^## (Shoal\w+)$", e.RUNBOOK.read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


def test_every_link_to_the_runbook_leads_somewhere() -> None:
    anchors = {alert["alert"].lower() for alert in ALERTS}
    assert set(re.findall(r"runbook\.md#(\w+)", e.PAGE.read_text())) <= anchors


# ---- dashboards ---------------------------------------------------------------------------------------------------


def test_the_files_are_what_the_script_writes() -> None:
    written = {name: make_dashboards.as_text(board) for name, board in make_dashboards.boards().items()}
    files = {file.name: file.read_text() for file in e.DASHBOARDS.iterdir()}
    assert files == written, "run: python -m deploy.grafana.make_dashboards"


@pytest.mark.parametrize("name", ["run.json", "fleet.json"])
def test_a_dashboard_can_be_told_from_others_and_its_panels_from_each_other(name: str) -> None:
    board = e.boards()[name]
    assert board["uid"] == f"shoal-{name.removesuffix('.json')}"
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    places = {(x, y) for panel in board["panels"] for x, y in _cells(panel["gridPos"])}
    assert len(places) == sum(len(list(_cells(panel["gridPos"]))) for panel in board["panels"]), "none covers another"
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["type"] == "row" or panel["description"]
        assert len({target["refId"] for target in panel.get("targets", ())}) == len(panel.get("targets", ()))


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    assert place["x"] + place["w"] <= 24
    return [(place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"])]


def test_panels_ask_for_metrics_that_there_are(exported: e.Described) -> None:
    for name, board in e.boards().items():
        for title, expr in e.queries(board):
            asked = e.metrics_in(expr)
            assert asked, (name, title)
            assert asked - e.series_of(exported) <= e.PROMETHEUS_OWN, (name, title)


def test_every_variable_in_a_query_is_one_of_the_dashboard() -> None:
    for board in e.boards().values():
        variables = {variable["name"] for variable in board["templating"]["list"]}
        used = {name for _, expr in e.queries(board) for name in re.findall(r"\$\{?(\w+)", expr)}
        assert used <= variables | {"__rate_interval"}
        assert variables <= used | {"datasource"}


def test_what_is_provisioned_is_what_the_dashboards_ask_for() -> None:
    import yaml

    from deploy.grafana.panels import DATASOURCE_UID

    folder = e.DASHBOARDS.parent / "provisioning"
    [source] = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["uid"], source["type"]) == (DATASOURCE_UID, "prometheus")
    scraped = yaml.safe_load((e.PROMETHEUS / "prometheus.yml").read_text())
    assert source["jsonData"]["timeInterval"] == scraped["global"]["scrape_interval"]
    for board in e.boards().values():
        assert {panel["datasource"]["uid"] for panel in board["panels"] if "datasource" in panel} == {"${datasource}"}


def test_every_metric_is_looked_at_by_a_panel_or_an_alert(exported: e.Described) -> None:
    exprs = [expr for board in e.boards().values() for _, expr in e.queries(board)]
    exprs += [rule["expr"] for rule in (*ALERTS, *e.rules("rules.yml"))]
    seen = set().union(*map(e.metrics_in, exprs))
    unseen = {name for name in exported if not e.series_of({name: exported[name]}) & seen}
    assert unseen == NOT_SHOWN


NOT_SHOWN = {
    # Fixed for a run; its log and report show it.
    "shoal_learner_engine_info",
    # The usual ones of any process; shoal_memory_bytes and shoal_cpu_seconds_total count workers too.
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_cpu_seconds_total",
    # For sums over long times; the graphs show the replay's means, and the rates of what these count.
    "shoal_actor_episode_return",
    "shoal_actor_episodes_total",
    "shoal_replay_recovered_transitions",
    "shoal_learner_weights_published_total",
    "shoal_learner_last_update_timestamp_seconds",
}
