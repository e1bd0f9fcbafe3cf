"""Commands that Shoal prints can be pasted into a shell, whatever the paths in them contain."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConfigError
from common.process.shell_command import shell_command
from common.run.directory import RunDirectory
from deploy.local.launcher import replay_url
from shoal.commands.export_results.results import _final
from shoal.commands.report.reading import next_steps
from shoal.commands.report.run_record import read_record
from tests.shoal.commands.report_runs import make_run

ROOT = Path(__file__).parents[3]
PRODUCT = ("shoal", "deploy", "actor_node", "learner_node", "replay_server", "common")
VALUE_IN_A_COMMAND = re.compile(r"\bshoal (?!bench)[a-z]+( --[-a-z]+)* \{.*")
"""The text of an f-string in which a value follows a text such as `shoal evaluate`."""


def test_words_with_special_characters_are_quoted() -> None:
    assert shell_command("shoal", "evaluate", Path("runs/spread")) == "shoal evaluate runs/spread"
    assert shell_command("shoal", "evaluate", Path("my runs/spread")) == "shoal evaluate 'my runs/spread'"
    assert (
        shell_command("shoal", "sweep", "--seeds", 5, "--set", "a=[1, 2]") == "shoal sweep --seeds 5 --set 'a=[1, 2]'"
    )


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), min_size=1))
def test_a_shell_reads_the_words_that_were_given(words: list[str]) -> None:
    assert shlex.split(shell_command(*words)) == words


def test_commands_name_the_directory_that_they_were_made_for(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "it's my run")
    commands = [step.command for step in next_steps(read_record(directory.path))]
    assert [shlex.split(command)[-1] for command in commands[:2]] == [str(directory.path)] * 2

    with pytest.raises(ConfigError) as refused:
        replay_url(RunDirectory(directory.path))
    assert shell_command("shoal", "train", "--resume", "--run", directory.path) in str(refused.value)
    with pytest.raises(ConfigError) as refused:
        _final(RunDirectory(directory.path))
    assert shell_command("shoal", "evaluate", directory.path) in str(refused.value)


def test_no_command_is_put_together_without_quotes() -> None:
    assert [
        f"{path.relative_to(ROOT)}: {found[0]}"
        for folder in PRODUCT
        for path in (ROOT / folder).rglob("*.py")
        for found in VALUE_IN_A_COMMAND.finditer(path.read_text("utf-8"))
    ] == []
