"""Tests of the report page: contents, structure, accessibility and escaping, of complete, broken and several runs."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from actor_node.evaluation.evaluate import Estimate, Evaluation, save
from shoal.commands.report import write_report
from shoal.commands.report.embedded_film import MAX_BYTES
from shoal.commands.report.run_record import read_record
from shoal.machine_info import describe_machine, record_machine

from .report_runs import evaluate_run, film_run, line, make_run, write_lines

STYLE = (Path(__file__).parents[3] / "shoal" / "commands" / "report" / "style.css").read_text()
VOID = {"meta", "link", "img", "input", "br", "path", "circle"}
SCRIPT = (Path(__file__).parents[3] / "shoal" / "commands" / "report" / "report.js").read_text()


class Page(HTMLParser):
    """The elements of a page in order, with their attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["script"]):
            self.text += " " + " ".join(data.split())

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def scripts_of(page: Page) -> list[str]:
    """Returns the programs of a page; data in a script element are no program."""
    found = re.findall(r"<script([^>]*)>(.*?)</script>", page.html, re.DOTALL | re.IGNORECASE)
    assert len(found) == len(page.all("script"))
    return [content for attributes, content in found if "application/json" not in attributes]


def page_of(tmp_path: Path, *runs: Path) -> Page:
    write_report(runs, tmp_path / "report.html")
    return Page((tmp_path / "report.html").read_text())


@pytest.fixture
def whole(tmp_path: Path) -> Page:
    """A page with everything: evaluation, film and machine information."""
    directory = make_run(tmp_path / "spread")
    evaluate_run(directory)
    film_run(directory)
    record_machine(directory, {"actors": 2, "gpu": False})
    return page_of(tmp_path, directory.path)


# ---- contents -------------------------------------------------------------------------------------------------


def test_the_page_contains_the_results_of_the_run(whole: Page) -> None:
    minus = "\N{MINUS SIGN}"
    for text in (
        *(f"{minus}42.50", f"95 % interval {minus}43.50 to {minus}41.50", "1,000 episodes", "mpe2:simple_spread"),
        *("agent_2", f"{minus}14.17", f"{minus}160.0", "200,000", "11,700", "1 min 14 s", "15.97 of 16"),
        *(
            "Q-values",
            "Critic gradient norm",
            "Replay ratio",
            "target 16",
            "clipped to 0.5",
            "Actors wait",
        ),
        *("actors waiting for the learner", "50 %", "budget.seconds", "80.0", describe_machine()["processor"], "torch"),
    ):
        assert text in whole.text, text
    assert "not finished: 98 % of its budget" in whole.text


def test_a_run_without_evaluation_shows_the_command(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_run(tmp_path / "run").path)
    assert "Not evaluated yet" in page.text
    assert "What to do next" in page.text
    assert f"shoal evaluate {tmp_path / 'run'}" in page.text
    assert "The machine is not recorded" in page.text


def test_a_run_without_metrics_has_a_page(tmp_path: Path) -> None:
    page = page_of(tmp_path, make_run(tmp_path / "run", lines=0).path)
    assert "No metrics yet" in page.text
    assert "nan" not in page.text.lower().split()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"return_mean": null}', '{"return_mean": "high"}'])
def test_an_unreadable_evaluation_is_ignored(tmp_path: Path, content: str) -> None:
    directory = make_run(tmp_path / "run")
    directory.evaluation_file.write_text(content)
    assert "Not evaluated yet" in page_of(tmp_path, directory.path).text


def test_an_outdated_evaluation_is_marked(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    evaluate_run(directory, updates=6_000)
    assert "the run has made 5,700 more updates since" in page_of(tmp_path, directory.path).text


def test_the_metrics_that_an_evaluation_stores_are_in_a_table(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    metrics = {"distance": Estimate(1.234, (1.1, 1.35)), "collisions": Estimate(0.5, (0.25, 0.75))}
    save(
        Evaluation("s", "w", 100, 1, 1, "", -20.0, (-21.0, -19.0), 1.0, {}, {}, metrics=metrics),
        directory.evaluation_file,
    )
    text = page_of(tmp_path, directory.path).text
    assert re.search(
        r"Metrics of the scenario.*distance\s+1.23\s+1.10 to 1.35\s+collisions\s+0.500\s+0.250 to 0.750",
        text,
        re.DOTALL,
    )


def test_a_metric_of_another_form_is_left_out(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    evaluate_run(directory, metrics={"old": 2.0, "distance": {"mean": 1.0, "ci95": [0.5, 1.5]}, "lost": {"mean": None}})
    record = read_record(directory.path)
    assert record.evaluation is not None
    assert record.evaluation.readable_metrics == {"distance": Estimate(1.0, (0.5, 1.5))}


def test_lines_left_out_of_a_resumed_runs_log_are_counted(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    write_lines(directory, [line(i, 3) for i in (*range(20), *range(12, 30))], '{"cut')
    assert "8 lines of metrics.jsonl are left out" in page_of(tmp_path, directory.path).text


def test_seeds_become_a_mean_with_an_interval_and_a_table(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"seed-{seed}", seed=seed, wobble=seed) for seed in (1, 2, 3)]
    for directory, mean in zip(runs, (-40.0, -42.0, -44.0), strict=True):
        evaluate_run(directory, mean)
    page = page_of(tmp_path, *(directory.path for directory in runs))
    minus = "\N{MINUS SIGN}"
    assert f"{minus}42.00" in page.text
    assert f"95 % interval {minus}46.97 to {minus}37.03" in page.text, "Student's t over three runs"
    assert "Mean return S of 3 evaluated runs" in page.text.replace("  ", " ")
    assert all(f"seed-{seed}" in page.text for seed in (1, 2, 3))
    assert any("band" in attributes.get("class", "") for attributes in page.all("path"))


def test_runs_with_different_settings_are_compared_side_by_side(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", replay={"batch": 512}, algorithm={"gradient_clip": 1.0})]
    page = page_of(tmp_path, *(directory.path for directory in runs))
    assert "gradient_clip 0.5, batch 256" in page.text
    assert "gradient_clip 1.0, batch 512" in page.text
    assert "clipped to" not in page.text, "the runs have different thresholds"


def test_groups_of_runs_stand_on_one_scale(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / f"{batch}-{seed}", seed=seed, replay={"batch": batch})
        for batch in (256, 512)
        for seed in (1, 2)
    ]
    for directory, mean in zip(runs, (-40.0, -42.0, -30.0, -32.0), strict=True):
        evaluate_run(directory, mean)
    page = page_of(tmp_path, *(directory.path for directory in runs))
    minus = "\N{MINUS SIGN}"
    assert re.search(rf"batch 512\s+2 runs\s+{minus}31\.00.*batch 256\s+2 runs\s+{minus}41\.00", page.text, re.DOTALL)
    assert "not equally long" not in page.text
    check_accessibility(page)


def test_runs_of_different_lengths_are_marked(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "long", lines=40), make_run(tmp_path / "short", lines=20, seed=1)]
    text = page_of(tmp_path, *(directory.path for directory in runs)).text
    assert "The runs are not equally long: 100,000 to 200,000 environment steps." in text


def test_a_run_stands_among_reference_teams(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    random, scripted = (
        {"name": name, "episodes": 100, "return_mean": mean, "return_ci95": [mean - 1, mean + 1]}
        for name, mean in (("random", -76.5), ("scripted", -17.5))
    )
    scale = {
        "side": "",
        "opponents": "",
        "return_mean": -42.5,
        "return_ci95": [-43.5, -41.5],
        "references": [random, scripted],
        "top": "scripted",
        "fraction": 0.576,
    }
    evaluate_run(directory, scale=[scale])
    page = page_of(tmp_path, directory.path)
    minus = "\N{MINUS SIGN}"
    rows = rf"scripted team\s+{minus}17\.50.*this team\s+{minus}42\.50.*random actions\s+{minus}76\.50"
    assert re.search(rows, page.text, re.DOTALL), "the best first"
    assert "58 % of the way from random actions to the scripted team" in page.text
    check_accessibility(page)


def test_a_contest_shows_sides_in_place_of_their_sum(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    returns = {"adversary_0": 5.0, "adversary_1": 6.0, "adversary_2": 7.0, "agent_0": -30.0}
    minus = "\N{MINUS SIGN}"
    evaluate_run(directory, -12.0, return_per_agent=returns)
    page = page_of(tmp_path, directory.path)
    assert re.search(rf"adversary\s+18\.00\s+agent\s+{minus}30\.00", page.text)
    assert f"{minus}12.00" not in page.text
    check_accessibility(page)


def test_the_diagnosis_is_on_the_page(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    warning = {"topic": "values", "about": "a", "seen": "Q is odd", "means": "errors", "try": ["use matd3", "wait"]}
    values = [{"player": "agent", "value": -6.0, "realised": -5.0}]
    found = {"updates": 11_700, "episodes": 100, "warnings": [warning], "values": values}
    directory.diagnosis_file.write_text(json.dumps(found))
    page = page_of(tmp_path, directory.path)
    for text in ("Q is odd", "Usual cause", "errors", "use matd3; or wait", "discounted return"):
        assert text in page.text, text
    assert "Diagnose it again" not in page.text
    check_accessibility(page)


def test_the_data_of_the_charts_are_the_values_of_the_log(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", "simple_tag")
    page = page_of(tmp_path, directory.path)
    found = re.search(r'<script type="application/json" id="chart-data">(.*?)</script>', page.html, re.DOTALL)
    assert found
    data = json.loads(found[1])
    views = data["figures"]["s0-critic-loss"]["views"]
    assert [one["label"] for one in views["sides"]] == ["adversary", "agent"]
    assert [one["label"] for one in views["agents"]] == ["adversary_0", "adversary_1", "adversary_2", "agent_0"]
    (run,) = views["agents"][2]["runs"]
    assert data["arrays"][run["y"]] == [0.12] * 40
    assert data["arrays"][run["x"][0]] == [5_000 + 5_000 * i for i in range(40)]
    assert data["arrays"][run["x"][2]] == [300 * i for i in range(40)]


def test_runs_of_several_scenarios_have_a_section_each(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name) for name in ("simple_spread", "simple_tag")]
    page = page_of(tmp_path, *(directory.path for directory in runs))
    assert "2 scenarios" in page.text
    assert "This is a contest between sides" in page.text
    check_accessibility(page)


@pytest.mark.slow
def test_a_long_run_of_many_agents_stays_light(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", world={"N": 24}, lines=4_000)
    film_run(directory)
    written = write_report([directory.path], tmp_path / "report.html")
    assert written.bytes < 300_000


# ---- self-contained -----------------------------------------------------------------------------------------


def test_the_page_is_self_contained(whole: Page) -> None:
    for tag, attributes in whole.elements:
        for name in ("src", "href", "srcset", "action", "xlink:href"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert scripts_of(whole) == [SCRIPT]
    policy = next(a["content"] for a in whole.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';"), "no other script is allowed"
    assert "connect-src" not in policy, "a report speaks to nobody"
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_any_name_of_a_run_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;"
    directory = make_run(tmp_path / "a & <b>")
    run_file = directory.run_file.read_text()
    directory.run_file.write_text(
        run_file.replace('scenario = "simple_spread"', f"scenario = {json.dumps(evil)}").replace("agent_1", evil[:20])
    )
    write_lines(directory, [line(i, 3, waiting=[evil]) for i in range(5)])
    metrics = {evil: {"mean": 2.0, "ci95": [1.0, 3.0]}}
    evaluate_run(directory, world=evil, return_per_agent={evil: -1.0}, published_scales={evil: 1.0}, metrics=metrics)
    record_machine(directory, {evil: evil})
    page = page_of(tmp_path, directory.path)
    assert scripts_of(page) == [SCRIPT]
    assert page.all("img") == []
    assert evil in page.text
    assert not any("onerror" in name for _, attributes in page.elements for name in attributes)


def test_a_film_is_embedded_and_can_be_paused(whole: Page) -> None:
    pictures = whole.all("img")
    assert [picture["class"] for picture in pictures] == ["still", "moving"]
    assert pictures[1]["src"].startswith("data:image/gif;base64,")
    assert all(picture["alt"] for picture in pictures)
    box = next(a for a in whole.all("input") if a["type"] == "checkbox")
    assert box["id"] in {a.get("for") for a in whole.all("label")}


def test_videos_have_controls_and_films_that_are_too_large_are_named(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run")
    (directory.path / "film.mp4").write_bytes(b"video")
    assert "controls" in page_of(tmp_path, directory.path).all("video")[0]
    (directory.path / "film.gif").write_bytes(b"\0" * (MAX_BYTES + 1))
    page = page_of(tmp_path, directory.path)
    assert "too large to embed (8.0 MB)" in page.text
    (directory.path / "film.gif").write_bytes(b"no film")
    assert len(page_of(tmp_path, directory.path).all("img")) == 1


# ---- accessibility -----------------------------------------------------------------------------------------


def check_accessibility(page: Page) -> None:
    assert page.all("html")[0]["lang"] == "en"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids), "ids are unique"
    for _, attributes in page.elements:
        for name in ("aria-labelledby", "for"):
            assert set(attributes.get(name, "").split()) <= set(ids), attributes
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in ids
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels)), "no level is skipped"
    assert all(attributes.get("scope") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    for svg in page.all("svg"):
        assert svg.get("aria-hidden") == "true" or (svg["role"], len(svg["aria-label"]) > 40) == ("img", True)
    assert len(page.all("main")) == len(page.all("header")) == len(page.all("nav")) == 1


def test_the_structure_serves_keyboards_and_screen_readers(whole: Page) -> None:
    check_accessibility(whole)
    first_link = whole.all("a")[0]
    assert (first_link["class"], first_link["href"]) == ("skip", "#report")
    figures = len(whole.all("figure"))
    assert len(whole.all("figcaption")) == figures
    assert len(whole.all("details")) == figures - 1 + 1, "values of all figures but the film, and all settings"


def colours(scheme: str) -> dict[str, str]:
    """Returns the named colours of the page; the second block of variables has those of the dark scheme."""
    roots = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    blocks = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", root)) for root in roots]
    return blocks[0] if scheme == "light" else {**blocks[0], **blocks[1]}


def contrast(one: str, other: str) -> float:
    """Returns the contrast of two colours as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_contrast_with_their_background(scheme: str) -> None:
    named = colours(scheme)
    for ground in ("ground", "card"):
        for text in ("ink", "faint", "link", "warn"):
            assert contrast(named[text], named[ground]) >= 4.5, (text, ground)
    for number in range(6):
        assert contrast(named[f"c{number}"], named["card"]) >= 4.5, number
