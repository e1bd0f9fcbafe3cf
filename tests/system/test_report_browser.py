"""The report in a real browser: at the sizes of a phone and a desk, in light and dark; live while a run trains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actor_node.rendering.film import render
from common.policy.file import PolicyFile, save_policy
from shoal.commands.report import FILM_FILE, write_report
from shoal.machine_info import record_machine
from tests.common.examples import random_weights
from tests.shoal.commands.report_runs import evaluate_run, make_run

from .browser import Browser, find_browser
from .conftest import Commands, log_of, until
from .test_train import SMALL

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

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
def test_the_great_chart_is_drawn_for_the_screen(
    browser: Browser, reports: dict[str, str], size: Size, shown: str
) -> None:
    browser.open(reports["one"], width=size[0], height=size[1])
    script = "[...document.querySelectorAll('figure.wide svg.chart')].map(s => [s.classList[1], s.checkVisibility()])"
    assert dict(browser.evaluate(script)) == {"wide": shown == "wide", "narrow": shown == "narrow"}


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
    options = ("--time", "12s", "--episodes", 20, "--run", run, "--dashboard", *SMALL)
    train = commands.start("shoal", "train", "simple_spread", *options)
    words = until(lambda: [w for w in log_of(train).split() if w.startswith("http://127.0.0.1:")], 60, "an address")

    def charts() -> int:
        browser.open(words[0], width=390, height=844)
        return int(browser.evaluate("document.querySelectorAll('svg.chart').length"))

    until(lambda: charts() > 5, 90, "charts on the live page")
    assert browser.evaluate("document.querySelector('.now').innerText").count("\n") > 8
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390

    assert train.wait(150) == 0, log_of(train)
    look(browser, (run / "report.html").as_uri(), "trained", DESK, dark=False)
    text = browser.evaluate("document.querySelector('main').innerText")
    assert "95 % interval" in text
    assert "20 episodes" in text
    assert browser.evaluate("document.querySelector('.film .moving').naturalWidth") == 360
    assert (run / "film.gif").exists()
