"""The help of `shoal`: commands and options under headings, `shoal scenarios`, and hints when a run is ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from common.process import command
from common.worlds import scenarios
from common.worlds.families import FAMILIES
from shoal.cli import SECTIONS, shoal
from shoal.commands.train.cli import OPTION_GROUPS, train
from tests.conftest import PATIENCE_S
from tests.shoal.test_import import ROOT


def shown(*line: str) -> str:
    done = CliRunner().invoke(shoal, [*line, "--help"], terminal_width=80, env={"COLUMNS": "80"})
    assert done.exit_code == 0, done.output
    return done.output


def test_commands_stand_under_headings_and_nothing_is_cut() -> None:
    text = shown()
    at = [text.index(f"\n{heading}:\n") for heading in SECTIONS]
    assert at == sorted(at)
    assert next(iter(next(iter(SECTIONS.values())))) == "train"
    commands = {name: entry for entries in SECTIONS.values() for name, entry in entries.items()}
    width = max(map(len, commands))
    for name, entry in commands.items():
        assert f"  {name:<{width}}  {entry.help}\n" in text
    assert "..." not in text.partition("Train:")[2]


def test_every_command_is_imported_under_its_own_name() -> None:
    context = click.Context(shoal)
    for name in shoal.list_commands(context):
        found = shoal.get_command(context, name)
        assert found is not None
        assert found.name == name
    assert shoal.get_command(context, "trian") is None


def test_the_group_alone_imports_no_command() -> None:
    code = (
        "import sys; from shoal.cli import shoal\n"
        "shoal.main(['--help'], standalone_mode=False)\n"
        "print([name for name in sys.modules if name.startswith('shoal.commands.')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_options_of_train_stand_in_groups_each_once() -> None:
    text = shown("train")
    named = [name for names in OPTION_GROUPS.values() for name in names]
    assert sorted(named) == sorted(param.name for param in train.params if isinstance(param, click.Option))
    for name in named:
        assert text.count(f"\n  --{name.replace('_', '-')} ") == 1, name
    lines = text.partition("Usual options:\n")[2].splitlines()
    assert lines[0].startswith("  --time ")
    assert any(line.startswith("  --run ") for line in lines[:4])


def test_scenarios_shows_families_and_their_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*line: str) -> tuple[int, str, str]:
        code = command.run(shoal, "shoal", ["scenarios", *line])
        return code, *capsys.readouterr()

    overview = printed()[1]
    for family in FAMILIES:
        assert f"\n{family.example} " in overview
        assert not family.package or family.installed_version() or family.install in overview
    code, out, _ = printed("pettingzoo")
    assert (code, out.splitlines()[0]) == (0, f"pettingzoo: {FAMILIES[0].meaning}")
    assert "\n    pettingzoo:sisl/pursuit-v5\n" in out
    assert {"name": "gymnasium:Pendulum-v1"} in json.loads(printed("gymnasium:", "--json")[1])
    listed = json.loads(printed("gymnasium", "--json")[1])
    assert not [row for row in listed if row["name"].startswith("gymnasium:GymV2")]
    out = printed("gymnasium")[1]
    for module, install, name in (
        ("Box2D", "pip install 'gymnasium[box2d]'", "gymnasium:LunarLander-v3"),
        ("jax", "pip install 'gymnasium[jax]'", "gymnasium:phys2d/CartPole-v1"),
        ("mujoco", "pip install 'gymnasium[mujoco]'", "gymnasium:Ant-v5"),
    ):
        (row,) = [row for row in listed if row["name"] == name]
        if find_spec(module) is None:
            assert row["install"] == install
            assert f"\n        {name}\n" in "\n" + out.partition(f"\n    not installed; {install} adds:\n")[2]
        else:
            assert row == {"name": name}
            assert f"\n    {name}\n" in out
    code, out, _ = printed("gymnasium:Pendulum-v1")
    assert (code, out.splitlines()[0]) == (0, "gymnasium:Pendulum-v1")
    assert "agent_0            side agent      observes   3, acts Box(1)" in out
    assert "options: render_mode=None, g=10.0, max_episode_steps=200" in out
    (shown,) = json.loads(printed("gymnasium:Pendulum-v1", "--json")[1])
    assert (shown["name"], shown["teams"], shown["options"][-1]) == (
        "gymnasium:Pendulum-v1",
        ["agent"],
        "max_episode_steps=200",
    )
    code, _, err = printed("gymnasium:Pendulum-v0")
    assert code == 2
    assert "did you mean Pendulum-v1" in err
    code, _, err = printed("pendulum:x")
    assert code == 2
    assert "`shoal scenarios` lists the families" in err


def test_scenarios_are_one_line_each_or_one_of_them_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*line: str) -> tuple[int, str, str]:
        code = command.run(shoal, "shoal", ["scenarios", *line])
        return code, *capsys.readouterr()

    names = [row.name for row in scenarios()]
    code, out, _ = printed()
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1 : 1 + len(names)]] == names
    code, out, _ = printed("simple_tag")
    assert code == 0
    assert "adversary_0        side adversary  observes  16, acts Box(5)" in out
    assert "simple_spread" not in out
    assert [row["name"] for row in json.loads(printed("--json")[1])] == names
    assert [row["name"] for row in json.loads(printed("simple_tag", "--json")[1])] == ["simple_tag"]
    code, _, err = printed("simple_tga")
    assert code == 2
    assert err.startswith("shoal: there is no scenario 'simple_tga'; did you mean simple_tag,")
    assert len(err.splitlines()) == 1


@pytest.mark.system
def test_a_run_whose_terminal_is_gone_ends_and_says_how_to_resume(tmp_path: Path, eventually: Any) -> None:
    run = tmp_path / "run"
    line = ["train", "simple", "--run", str(run), "--steps", "1000000000", "--actors", "1", "--redis", "none"]
    process = subprocess.Popen(
        [sys.executable, "-m", "shoal", *line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may ignore hangups, as `nohup` does, and the command would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509
    )
    with process:
        eventually((run / "logs" / "actor.log").exists, "its processes")
        process.send_signal(signal.SIGHUP)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out) == (129, "")
    assert f"stopped; resume with: shoal train --resume --actors 1 --copies 32 --run {run}" in err
    assert "Traceback" not in err
