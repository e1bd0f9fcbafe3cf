"""The report in a real browser: at the sizes of a phone and a desk, in light and dark; live while a run trains."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from actor_node.rendering.film import render
from common.policy.file import PolicyFile, save_policy
from common.run.directory import RunDirectory
from deploy.local.live_display import LineDisplay
from shoal.commands.report import FILM_FILE, write_report
from shoal.commands.report.figures import LEARNING, RETURN, curve_of, figure_lines
from shoal.commands.report.run_record import grouped, read_record
from shoal.commands.train import dashboard
from shoal.machine_info import record_machine
from tests.common.examples import random_weights
from tests.conftest import PATIENCE_S, wait_until
from tests.shoal.commands.report_runs import evaluate_run, line, make_run, write_lines

from .browser import Browser, find_browser
from .conftest import Commands, log_of, metrics_of
from .test_train import SMALL

pytestmark = pytest.mark.system

PHONE, DESK = (390, 844), (1280, 900)
Size = tuple[int, int]
SCREENSHOTS = os.environ.get("SHOAL_TEST_SCREENSHOTS", "")
"""A directory to keep what the browser showed in, to be looked at."""

OVERLAPS = """
(() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg.chart')) {
    if (getComputedStyle(svg).display === 'none') continue;
    const boxes = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
    for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
      const [a, p] = boxes[i], [b, q] = boxes[j];
      if (p.left < q.right && q.left < p.right && p.top + 2 < q.bottom && q.top + 2 < p.bottom) found.push([a, b]);
    }
  }
  return found;
})()
"""
TOO_WIDE = """
[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, .hidden, .skip') &&
  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 120))
"""
SMALLEST_TEXT = """
Math.min(...[...document.querySelectorAll('svg.chart text')].map(t => t.getBoundingClientRect().height).filter(h => h))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = find_browser()
    if program is None:
        missing = "no Chromium here; on Debian: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    started = Browser(program)
    yield started
    started.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Returns the addresses of reports: of one run with everything, of three seeds, of two scenarios."""
    home = tmp_path_factory.mktemp("reports")
    one = make_run(home / "one")
    run = one.run
    save_policy(one.policy_file, PolicyFile(run, 3, 300, random_weights(run) * np.float32(0.2)))
    render([one], one.path / FILM_FILE, episodes=1, width=360)
    evaluate_run(one)
    record_machine(one, {"actors": 2, "copies": 32})
    seeds = [make_run(home / f"seed-{seed}", seed=seed, wobble=seed) for seed in (1, 2, 3)]
    for i, directory in enumerate(seeds):
        evaluate_run(directory, -40.0 - i)
    tag = make_run(home / "tag", "simple_tag")
    pages = {"one": [one], "seeds": seeds, "scenarios": [one, tag]}
    for name, directories in pages.items():
        write_report([directory.path for directory in directories], home / f"{name}.html")
    return {name: (home / f"{name}.html").as_uri() for name in pages}


def look(browser: Browser, url: str, name: str, size: Size, *, dark: bool) -> None:
    browser.open(url, width=size[0], height=size[1], dark=dark)
    if SCREENSHOTS:
        browser.screenshot(Path(SCREENSHOTS) / f"{name}-{size[0]}-{'dark' if dark else 'light'}.png")


@pytest.mark.parametrize("name", ["one", "seeds", "scenarios"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_every_screen(browser: Browser, reports: dict[str, str], name: str, size: Size, dark: bool) -> None:
    look(browser, reports[name], name, size, dark=dark)
    width = size[0]
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate(SMALLEST_TEXT) >= 11
    assert browser.requests == [reports[name]], "it asks for nothing but itself"
    assert browser.problems == []


def test_light_and_dark_are_different_and_the_browsers_choice(browser: Browser, reports: dict[str, str]) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(reports["one"], width=390, height=844, dark=dark)
        rgb = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        grounds.append(sum(int(part) for part in rgb.removeprefix("rgb(").rstrip(")").split(",")))
    assert grounds[0] > 3 * 230
    assert grounds[1] < 3 * 40


@pytest.mark.parametrize(("size", "shown"), [(PHONE, "narrow"), (DESK, "wide")])
def test_without_scripts_the_great_chart_is_drawn_for_the_screen(
    browser: Browser, reports: dict[str, str], size: Size, shown: str
) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(reports["one"], width=size[0], height=size[1])
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    charts = "figure.wide svg.chart"
    script = f"[...document.querySelectorAll('{charts}')].map(s => [s.classList[1], s.checkVisibility()])"
    assert dict(browser.evaluate(script)) == {"wide": shown == "wide", "narrow": shown == "narrow"}
    assert not browser.evaluate("document.querySelector('.tools').checkVisibility()"), "no control that does nothing"


# ---- the charts under the pointer ---------------------------------------------------------------------------------

PLOT = """
(() => {
  const plot = document.querySelector('figure.wide .plot');
  plot.scrollIntoView({block: 'center'});
  const box = plot.getBoundingClientRect();
  return [box.left, box.top, box.width, box.height];
})()
"""
AXIS = "[...document.querySelectorAll('figure.wide .x text')].map(t => t.textContent)"
LINES = "document.querySelectorAll('figure.wide .plot path.line').length"


def point(browser: Browser, fraction: float, kind: str = "mouseMoved", **more: Any) -> None:
    """Moves the mouse to a fraction of the width of the great chart; kind: of the protocol's mouse events."""
    left, top, width, height = browser.evaluate(PLOT)
    browser.call("Input.dispatchMouseEvent", type=kind, x=left + fraction * width, y=top + height / 2, **more)


def click(browser: Browser, fraction: float, count: int) -> None:
    for kind in ("mousePressed", "mouseReleased"):
        point(browser, fraction, kind, button="left", clickCount=count)


def choose(browser: Browser, control: str, value: str) -> None:
    """Sets a control of the toolbar as a user does."""
    browser.evaluate(
        f"""(() => {{
          const found = [...document.querySelectorAll('.tools [name={control}]')];
          const one = found.find(c => c.type !== 'radio' || c.value === '{value}');
          if (one.type === 'radio') one.checked = true; else one.value = '{value}';
          one.dispatchEvent(new Event('input', {{bubbles: true}}));
        }})()"""
    )


def test_the_pointer_shows_the_values_of_all_lines(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    point(browser, 0.5)
    tip = browser.evaluate("document.querySelector('figure.wide .tip').innerText")
    found = re.search(r"([\d,]+) environment steps\s+Return while acting\s+(\S+)", tip)
    assert found, tip
    steps = int(found[1].replace(",", ""))
    logged = {5_000 + 5_000 * i: line(i, 3)["return_mean"] for i in range(1, 40)}
    assert float(found[2].replace("\N{MINUS SIGN}", "-")) == pytest.approx(logged[steps], rel=1e-3)
    crosshairs = browser.evaluate("document.querySelectorAll('.crosshair').length")
    assert crosshairs > 10, "in all charts at once"
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)
    assert browser.evaluate("document.querySelectorAll('.crosshair').length") == 0


def test_a_drag_zooms_all_charts_and_a_double_click_resets_them(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    whole = browser.evaluate(AXIS)
    point(browser, 0.4, "mousePressed", button="left", clickCount=1)
    point(browser, 0.6, button="left")
    point(browser, 0.6, "mouseReleased", button="left", clickCount=1)
    zoomed = browser.evaluate("shoalReport.state.zoom")
    assert 60_000 < zoomed[0] < 90_000
    assert 110_000 < zoomed[1] < 140_000
    assert browser.evaluate(AXIS) != whole
    assert browser.evaluate(OVERLAPS) == []
    assert browser.evaluate("document.getElementById('reset-zoom').disabled") is False
    click(browser, 0.5, 1)
    click(browser, 0.5, 2)
    assert browser.evaluate("shoalReport.state.zoom") is None
    assert browser.evaluate(AXIS) == whole


def test_the_axis_the_lines_and_the_smoothing_can_be_chosen(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    assert browser.evaluate(LINES) == 1
    choose(browser, "lines", "agents")
    assert browser.evaluate(LINES) == 3
    legend = "[...document.querySelectorAll('figure.wide .legend button')].map(b => b.textContent)"
    assert browser.evaluate(legend) == ["agent_0", "agent_1", "agent_2"]
    choose(browser, "axis", "1")
    assert browser.evaluate("document.querySelector('figure.wide .label').textContent") == "minutes of training"
    choose(browser, "lines", "sides")
    choose(browser, "smoothing", "0.9")
    raw = [line(i, 3)["return_mean"] for i in range(1, 40)]
    average, smoothed = 0.0, []
    for i, value in enumerate(raw, 1):
        average = 0.9 * average + 0.1 * value
        smoothed.append(average / (1 - 0.9**i))
    shown = browser.evaluate("shoalReport.linesOf('s0-return')[0].y")
    assert shown[0] is None, "no return is known yet"
    assert shown[1:] == pytest.approx(smoothed, rel=1e-4)


def test_a_click_on_the_legend_hides_a_line_and_a_double_click_shows_only_one(
    browser: Browser, reports: dict[str, str]
) -> None:
    browser.open(reports["one"], width=1280, height=900)
    choose(browser, "lines", "agents")
    browser.evaluate("document.querySelector('figure.wide .legend button').click()")
    assert browser.evaluate("[...shoalReport.state.hidden]") == ["agent_0"]
    assert browser.evaluate(LINES) == 2
    pressed = "[...document.querySelectorAll('figure.wide .legend button')].map(b => b.getAttribute('aria-pressed'))"
    assert browser.evaluate(pressed) == ["false", "true", "true"]
    browser.evaluate("document.querySelectorAll('figure.wide .legend button')[1].ondblclick()")
    assert browser.evaluate(pressed) == ["false", "true", "false"]


def test_means_and_bands_of_the_script_are_those_of_the_pictures(
    browser: Browser, reports: dict[str, str], tmp_path: Path
) -> None:
    browser.open(reports["seeds"], width=1280, height=900)
    runs = [make_run(tmp_path / f"seed-{seed}", seed=seed, wobble=seed) for seed in (1, 2, 3)]
    groups = grouped([read_record(run.path) for run in runs])
    for key, figure in (("return", RETURN), ("critic-loss", LEARNING[1])):
        (one,) = figure_lines(figure, groups)
        drawn = curve_of(one, log=key == "critic-loss")
        (shown,) = browser.evaluate(f"shoalReport.linesOf('s0-{key}')")
        assert shown["x"] == pytest.approx(drawn.line.x.tolist(), rel=1e-5)
        assert shown["y"] == pytest.approx(drawn.line.y.tolist(), rel=1e-4)
        assert drawn.low is not None
        assert shown["low"] == pytest.approx(drawn.low.tolist(), rel=1e-4)


def test_the_keyboard_moves_through_a_chart(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    browser.evaluate("document.querySelector('figure.wide svg.chart').focus()")
    browser.press("ArrowLeft")
    assert "environment steps" in browser.evaluate("document.querySelector('figure.wide .tip').innerText")


# ---- a live page --------------------------------------------------------------------------------------------------


def open_live_page(
    browser: Browser, path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[RunDirectory, dashboard.Dashboard]:
    """Opens the live page of a run that is asked for new values each second."""
    monkeypatch.setattr(dashboard, "REFRESH_PERIOD_S", 1)
    monkeypatch.setattr(dashboard, "MAX_PAGE_AGE_S", 0.1)
    directory = make_run(path, lines=20)
    served = dashboard.Dashboard()
    served.serve(directory.path, LineDisplay(Console(file=io.StringIO())))
    browser.open(served.url, width=1280, height=900)
    return directory, served


def test_a_live_page_takes_new_values_without_reloading_and_becomes_the_report(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, served = open_live_page(browser, tmp_path / "run", monkeypatch)
    browser.evaluate("window.opened = true; document.querySelector('figure details').open = true")
    browser.evaluate("shoalReport.state.zoom = [20000, 60000]")
    last = "Math.max(...shoalReport.linesOf('s0-return')[0].x)"
    assert browser.evaluate(last) == 100_000
    write_lines(directory, [line(i, 3) for i in range(30)])
    wait_until(lambda: browser.evaluate(last) == 150_000, "the new values")
    assert browser.evaluate("[opened, document.querySelector('figure details').open]") == [True, True]
    assert browser.evaluate("shoalReport.state.zoom") == [20_000, 60_000]

    evaluate_run(directory)
    write_report([directory.path], directory.path / "report.html")
    served.finish(directory.path / "report.html", lambda: False)
    wait_until(lambda: "42.50" in browser.evaluate("document.querySelector('main').innerText"), "the final report")
    time.sleep(2.5)  # as long as it would take to notice that the server is gone
    assert browser.evaluate("[opened, document.querySelector('#ended') === null]") == [True, True]
    assert browser.evaluate("document.querySelector('.brand').textContent") == "Shoal report"


def test_a_live_page_survives_answers_that_are_no_report(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, served = open_live_page(browser, tmp_path / "run", monkeypatch)
    browser.evaluate("document.querySelector('main h2').setAttribute('class', 'gone')")
    with monkeypatch.context() as failing:
        failing.setattr(dashboard._PageCache, "get", lambda _, **__: 1 / 0)
        wait_until(lambda: browser.evaluate("document.querySelector('#ended').checkVisibility()"), "a notice")
        assert browser.evaluate("document.querySelectorAll('svg.chart').length") > 5, "the charts stay"
    write_lines(directory, [line(i, 3) for i in range(30)])
    wait_until(lambda: not browser.evaluate("document.querySelector('#ended').checkVisibility()"), "no notice")
    assert browser.evaluate("Math.max(...shoalReport.linesOf('s0-return')[0].x)") == 150_000
    assert not browser.evaluate("document.querySelector('main h2').hasAttribute('class')"), "attributes go, too"
    served.stop_serving()


def test_a_live_page_says_where_the_report_is_if_its_server_dies(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "REFRESH_PERIOD_S", 1)
    directory = make_run(tmp_path / "run", lines=20)
    served = dashboard.Dashboard()
    served.serve(directory.path, LineDisplay(Console(file=io.StringIO())))
    browser.open(served.url, width=1280, height=900)
    assert not browser.evaluate("document.querySelector('#ended').checkVisibility()")
    served.stop_serving()
    wait_until(lambda: browser.evaluate("document.querySelector('#ended').checkVisibility()"), "a notice")
    assert str(directory.path / "report.html") in browser.evaluate("document.querySelector('#ended').innerText")
    assert browser.evaluate("document.querySelectorAll('svg.chart').length") > 5, "the charts stay"


def test_the_film_plays_and_the_keyboard_stops_it(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    visible = "[...document.querySelectorAll('.film img')].filter(i => i.checkVisibility()).map(i => i.className)"
    assert browser.evaluate("[...document.querySelectorAll('.film img')].every(i => i.naturalWidth === 360)")
    assert browser.evaluate(visible) == ["moving"]
    browser.evaluate("document.querySelector('.pause').focus()")
    browser.press(" ")
    assert browser.evaluate(visible) == ["still"]
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    browser.evaluate("document.querySelector('.pause').checked = false")
    assert browser.evaluate(visible) == ["still"], "it does not move by itself for those who asked for that"


def test_the_keyboard_comes_first_to_the_report_itself(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    browser.press("Tab")
    assert browser.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().top") >= 0, "it is seen when it is there"
    browser.press("Enter")
    assert browser.evaluate("document.activeElement.id") == "report"


def test_every_picture_has_words_for_those_who_do_not_see_it(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1280, height=900)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    pictures = [name for role, name in named if role in ("image", "img")]
    assert len(pictures) >= 13
    assert all(len(name) > 20 for name in pictures), pictures
    assert any(name.startswith("Line chart of return") for name in pictures)
    assert {"main", "navigation", "banner", "contentinfo"} <= {role for role, _ in named}


def test_on_paper_it_is_black_on_white_and_without_controls(browser: Browser, reports: dict[str, str]) -> None:
    browser.open(reports["one"], width=1000, height=900, dark=True, media="print")
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert (
        browser.evaluate("[...document.querySelectorAll('nav, summary, .pause')].some(e => e.checkVisibility())")
        is False
    )


def test_a_run_is_seen_live_and_ends_with_report_and_film(browser: Browser, commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--episodes", 20, "--run", run, "--dashboard", *SMALL)
    train = commands.start("shoal", "train", "simple_spread", "--time", "10m", *options)
    words = wait_until(lambda: [w for w in log_of(train).split() if w.startswith("http://127.0.0.1:")], "an address")

    def charts() -> int:
        browser.open(words[0], width=390, height=844)
        return int(browser.evaluate("document.querySelectorAll('svg.chart').length"))

    wait_until(lambda: charts() > 5, "charts on the live page")
    assert browser.evaluate("document.querySelector('.now').innerText").count("\n") > 8
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390

    # However long that took, the run trains on: it is stopped, and continued for a little.
    train.send_signal(signal.SIGTERM)
    assert train.wait(PATIENCE_S) == 0, log_of(train)
    steps = int(str(metrics_of(run)[-1]["env_steps"])) + 1_000
    code, _, err = commands.run("shoal", "train", "--resume", "--steps", steps, *options)
    assert code == 0, err
    look(browser, (run / "report.html").as_uri(), "trained", DESK, dark=False)
    text = browser.evaluate("document.querySelector('main').innerText")
    assert "95 % interval" in text
    assert "20 episodes" in text
    assert browser.evaluate("document.querySelector('.film .moving').naturalWidth") == 360
    assert (run / "film.gif").exists()
