"""`shoal check`: what it finds in environments with one fault each, through its real child process."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console

import shoal
from common.errors import ConfigError
from common.process import command
from common.process.exit import INTERRUPTED
from common.run.run import make_run_spec
from shoal.commands.check import check as checking
from shoal.commands.check.check import WorldCheck, check_world
from shoal.commands.check.cli import check
from shoal.commands.check.findings import Finding
from shoal.commands.check.text import print_check

WORLD = "pettingzoo:tests.shoal.commands.check.checked_env"


def checked(seconds: float = 0.4, **options: Any) -> WorldCheck:
    """Checks the environment with options."""
    return check_world(make_run_spec({"scenario": WORLD, "world": options}), seconds=seconds)


def topics(found: WorldCheck, level: str) -> set[str]:
    """Returns the topics of the findings of one level."""
    return {finding.topic for finding in found.findings if finding.level == level}


def test_a_sound_environment_has_its_figures_and_no_error() -> None:
    found = checked()
    assert found.ok
    assert found.agents is not None
    assert [agent.name for agent in found.agents.agents] == ["red_0", "blue_0"]
    random = found.plays["random"]
    assert set(random.lengths) == {10}
    assert random.terminated == 0
    assert sum(random.returns) / len(random.returns) == pytest.approx(20 / 3, rel=0.3)
    assert set(found.plays["lowest"].returns) == {0.0}
    assert set(found.plays["highest"].returns) == {20.0}, "every agent chooses the last action"
    assert found.plays["highest"].common_reward
    first, second, constant = random.observations[0]
    assert first.mean == pytest.approx(0.0, abs=0.3)
    assert first.std == pytest.approx(1.0, rel=0.3)
    assert (second.low, second.high) == pytest.approx((0.1, 1.0))
    assert (constant.low, constant.high) == (4.0, 4.0)
    assert [test.problem for test in found.contract] == ["", ""]
    assert "returns" in topics(found, "note"), "constant actions beat random ones"
    assert found.suggestions == ()
    assert found.preset == "particle", "its episodes have ten steps"
    assert "up to 10 steps" in found.preset_reason
    assert "normalised observations and rewards" in found.preset_settings


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("constructor", "no licence"),
        ("step", "the motor is gone"),
        ("exit", "ended its process with exit code 7"),
    ],
)
def test_a_fault_is_an_error_with_the_users_words(fault: str, text: str) -> None:
    found = checked(fault=fault)
    assert not found.ok
    assert text in found.fault
    assert topics(found, "error") == {"fault"}


@pytest.mark.slow
def test_a_step_that_hangs_is_named_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "TIMEOUT_S", 2.0)
    found = checked(seconds=0.5, fault="hang")
    assert "a second of random actions: did not finish within" in found.fault
    assert found.agents is not None, "what was measured before is kept"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "topic", "level"),
    [
        ({"fault": "unseeded"}, "contract", "warning"),
        ({"fault": "leak"}, "memory", "warning"),
        ({"fault": "prints"}, "prints", "note"),
        ({"scale": 1e4}, "observations", "note"),
        ({"length": 0}, "episodes", "warning"),
    ],
)
def test_what_it_warns_of(options: dict[str, Any], topic: str, level: str) -> None:
    found = checked(**options)
    assert found.ok
    assert topic in topics(found, level), found.findings


@pytest.mark.slow
def test_endless_episodes_have_a_suggested_limit() -> None:
    settings = checked(length=0).settings
    assert list(settings) == ["episode.max_steps"]
    assert settings["episode.max_steps"] >= 100


@pytest.mark.slow
def test_a_built_in_world_is_checked_with_many_copies() -> None:
    found = shoal.check("simple_tag", seconds=0.4, progress=False)
    assert found.ok
    assert found.rate is not None
    assert found.rate.copies > 1
    assert set(found.plays) == {"random", "zero", "lowest", "highest"}
    shown = io.StringIO()
    spec, options = make_run_spec({"scenario": "simple_tag"}), ("--set", "world.landmarks=[1, 2]")
    print_check(found, spec, Console(file=shown, width=1_000), options)
    assert "Next: shoal train simple_tag --set 'world.landmarks=[1, 2]'" in shown.getvalue()
    assert re.search(r"^random +-?[\d.]+ ", shown.getvalue(), re.MULTILINE)
    assert "agent_0" in shown.getvalue()
    assert shown.getvalue().isascii()  # numbers can be copied into other programs
    assert found.agents is not None
    assert found.agents.sides == ("adversary", "agent")


@pytest.mark.parametrize(
    ("world", "settings", "text"),
    [
        ("pettingzoo:no_such_module", {}, "cannot import no_such_module"),
        ("simple_spred", {}, "did you mean simple_spread"),
        ("simple_spread", {"M": 3}, r"M is not a setting; did you mean world\.M\?"),
        ("simple_spread", {"replay.batch": 3}, r"does not use settings of \[replay\]"),
        ("simple_spread", {"world.M": 3}, "M"),
    ],
)
def test_what_cannot_be_checked_says_so(world: str, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        shoal.check(world, settings=settings, seconds=0.2, progress=False)


@pytest.mark.slow
def test_the_command_prints_json_and_its_exit_code_tells_of_errors() -> None:
    line = [sys.executable, "-m", "shoal", "check", WORLD, "--seconds", "0.3", "--json", "--set"]
    sound = subprocess.run([*line, "world.length=5"], capture_output=True, check=False)
    assert sound.returncode == 0, sound.stderr
    figures = json.loads(sound.stdout)
    assert figures["plays"]["random"]["lengths"][0] == 5
    broken = subprocess.run([*line, "world.fault=step"], capture_output=True, check=False)
    assert broken.returncode == 1
    assert "the motor is gone" in json.loads(broken.stdout)["fault"]


def test_advice_stands_on_its_own_line_after_lines_of_the_users_code() -> None:
    fault = "step 1: RuntimeError: no\n  env.py:3 in step\n    raise RuntimeError('no')"
    found = WorldCheck(
        world=WORLD,
        ok=False,
        seconds=0.1,
        agents=None,
        made_s=0.0,
        contract=(),
        plays={},
        preset="",
        preset_reason="",
        preset_settings="",
        rate=None,
        findings=(
            Finding("error", "fault", fault, "Fix the environment, then check it again."),
            Finding("note", "prints", "it printed", "Remove the prints."),
        ),
        suggestions=(),
        fault=fault,
    )
    shown = io.StringIO()
    print_check(found, make_run_spec({"scenario": WORLD}), Console(file=shown, width=1_000))
    assert f"{fault}\nFix the environment, then check it again.\n" in shown.getvalue()
    assert "note (prints): it printed. Remove the prints.\n" in shown.getvalue()


def test_ctrl_c_says_that_the_check_stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> WorldCheck:
        raise KeyboardInterrupt

    monkeypatch.setattr("shoal.commands.check.cli.check_world", interrupt)
    assert command.run(check, "check", [WORLD]) == INTERRUPTED
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.slow
def test_the_command_shows_what_to_do_next() -> None:
    line = [sys.executable, "-m", "shoal", "check", WORLD, "--seconds", "0.3", "--set", "world.length=0"]
    shown = subprocess.run(line, capture_output=True, check=False, text=True)
    assert shown.returncode == 0, shown.stderr
    assert f"Next: shoal train {WORLD} --set world.length=0 --max-episode-steps" in shown.stdout
    assert "checking: random actions" in shown.stderr


@pytest.mark.slow
def test_action_masks_are_respected_and_named() -> None:
    """The environment raises an exception for each forbidden action."""
    for where in ("observation", "info"):
        spec = make_run_spec({"scenario": "pettingzoo:tests.common.worlds.masked_channels", "world": {"where": where}})
        found = check_world(spec, seconds=0.4)
        assert found.ok
        (finding,) = [finding for finding in found.findings if finding.topic == "action masks"]
        assert finding.seen == "player_0, player_1: action masks, which all choices respect"
        assert "observations" not in topics(found, "note")
