import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec
import pytest
from msgspec import Meta

from common.errors import ConfigError, PeerError, ShoalError
from common.process import command
from common.process.durations import Seconds


class Settings(msgspec.Struct, frozen=True):
    """A command's config with a field of every kind."""

    count: Annotated[int, Meta(ge=0, le=100, description="How many.")] = 1
    rate: Annotated[float, Meta(gt=0)] = 0.5
    some_name: Annotated[str, Meta(max_length=10)] = "anne"
    fast: bool = False
    color: Literal["red", "blue"] = "red"
    wait: Annotated[Seconds, Meta(description="How long.")] = 5.0
    place: tuple[str, ...] = ("here",)
    limit: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="At most.")] = None
    secret: Annotated[int, Meta(extra={"hidden": True})] = 0


got = []


@click.command()
@command.options(Settings)
def plain(**values):
    """Does nothing but remember its settings."""
    got.append(command.build(Settings, values))


class Run(msgspec.Struct, frozen=True):
    set: tuple[str, ...] = ()


@click.command()
@command.options(Settings, Run)
@click.pass_context
def takes_sections(context, **values):
    got.append(command.build(Run, values))
    got.append(command.run_settings(context))


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    got.clear()
    for name in [name for name in os.environ if name.startswith("SHOAL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path):
    def write(text):
        path = tmp_path / "shoal.toml"
        path.write_text(text, "utf-8")
        return str(path)

    return write


def settings(*arguments):
    assert command.run(plain, "plain", list(arguments)) == 0
    return got.pop()


def error_line(capsys, *arguments, of=plain):
    """Returns the one line on stderr of a command that ends with code 2."""
    assert command.run(of, "plain", list(arguments)) == 2
    out, err = capsys.readouterr()
    assert not got
    assert out == ""
    assert err.startswith("plain: ")
    assert err.count("\n") == 1, f"not one line: {err}"
    return err.removeprefix("plain: ").rstrip("\n")


# ---- which value wins ---------------------------------------------------------------------------------------------

# field: default; then as a TOML value, an environment variable and arguments, each with what it means.
KINDS = {
    "count": (1, ("2", 2), ("3", 3), (["--count", "4"], 4)),
    "rate": (0.5, ("2", 2.0), ("3.5", 3.5), (["--rate", "4"], 4.0)),
    "some_name": ("anne", ('"b"', "b"), ("c", "c"), (["--some-name", "d"], "d")),
    "fast": (False, ("true", True), ("false", False), (["--fast"], True)),
    "color": ("red", ('"blue"', "blue"), ("red", "red"), (["--color", "blue"], "blue")),
    "wait": (5.0, ('"1m"', 60.0), ("2m", 120.0), (["--wait", "3m"], 180.0)),
    "place": (
        ("here",),
        ('["a", "b"]', ("a", "b")),
        ("c d", ("c", "d")),
        (["--place", "e", "--place", "f"], ("e", "f")),
    ),
    "limit": (None, ("2", 2), ("3", 3), (["--limit", "4"], 4)),
}


def test_every_kind_of_field_is_covered():
    assert set(KINDS) | {"secret"} == set(Settings.__struct_fields__)


@pytest.mark.parametrize("field", KINDS)
def test_command_line_over_environment_over_file_over_default(field, toml, monkeypatch):
    default, (file_text, in_file), (variable, in_environment), (arguments, on_command_line) = KINDS[field]
    assert getattr(settings(), field) == default
    config = ["--config", toml(f"{field} = {file_text}")]
    assert getattr(settings(*config), field) == in_file
    monkeypatch.setenv(f"SHOAL_{field.upper()}", variable)
    assert getattr(settings(*config), field) == in_environment
    assert getattr(settings(), field) == in_environment
    assert getattr(settings(*config, *arguments), field) == on_command_line
    assert getattr(settings(*arguments, *config), field) == on_command_line, "the order of options does not matter"


def test_the_file_may_be_named_by_the_environment(toml, monkeypatch):
    monkeypatch.setenv("SHOAL_CONFIG", toml("count = 7"))
    assert settings().count == 7


def test_a_length_of_time_in_the_file_may_be_a_number(toml):
    assert settings("--config", toml("wait = 90")).wait == 90.0
    assert settings("--config", toml("wait = 0.5")).wait == 0.5


def test_texts_in_the_file_are_utf_8(toml):
    assert settings("--config", toml('some_name = "höhle"')).some_name == "höhle"


def test_what_the_struct_says_is_what_the_help_says(capsys):
    assert command.run(plain, "plain", ["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in ("--count INTEGER How many. [default: 1]", "--color [red|blue]", "--wait DURATION How long.", "--fast"):
        assert part in text
    assert "--config FILE" in text
    assert "--secret" not in text


def test_hidden_options_work():
    assert settings("--secret", "3").secret == 3


# ---- errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "-1"], "--count = -1: expected `int` >= 0"),
        (["--count", "101"], "--count = 101: expected `int` <= 100"),
        (["--count", "x"], "'x' is not a valid integer"),
        (["--count", "1.5"], "'1.5' is not a valid integer"),
        (["--rate", "0"], "--rate = 0.0: expected `float` > 0.0"),
        (["--rate", "nan"], "--rate = nan"),
        (["--some-name", "much too long"], "--some-name = 'much too long': expected `str` of length <= 10"),
        (["--color", "green"], "'green' is not one of 'red', 'blue'"),
        (["--wait", "soon"], "'soon' is not a duration. Write 300, 90s, 5m or 1h30m"),
        (["--wait", "-5"], "--wait = -5.0: expected `float` >= 0.0"),
        (["--wait", "nan"], "--wait = nan"),
        (["--limit", "0"], "--limit = 0: expected `int` >= 1"),
        (["--fast", "yes"], "unexpected extra argument"),
        (["--colour", "red"], "--colour"),
        (["--count"], "requires an argument"),
        (["--config", "/nowhere.toml"], "'/nowhere.toml' does not exist"),
    ],
    ids=" ".join,
)
def test_an_error_on_the_command_line_is_one_line_with_the_value(capsys, arguments, message):
    assert message in error_line(capsys, *arguments)


def test_an_error_in_the_environment_is_one_line_with_the_value(capsys, monkeypatch):
    monkeypatch.setenv("SHOAL_COUNT", "many")
    assert "'many' is not a valid integer" in error_line(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cuont = 3", "cuont is not an option of plain; did you mean count?"),
        ("some-name = 'a'", "some-name is not an option of plain; did you mean some_name"),
        ("zzz = 3", "zzz is not an option of plain; known: color, count, fast,"),
        ("config = 'a.toml'", "config is not an option of plain"),
        ("count = 2.5", "count = 2.5: expected a whole number"),
        ("count = true", "count = True: expected a whole number"),
        ("count = '3'", "count = '3': expected a whole number"),
        ("rate = 'x'", "rate = 'x': expected a number"),
        ("some_name = 3", "some_name = 3: expected text in quotes"),
        ("fast = 'yes'", "fast = 'yes': expected true or false"),
        ("fast = 1", "fast = 1: expected true or false"),
        ("color = 3", "color = 3: expected text in quotes"),
        ("color = 'green'", "'green' is not one of 'red', 'blue'"),
        ("wait = true", 'wait = True: expected seconds, or a text as in "5m"'),
        ("place = 'here'", "place = 'here': expected a list"),
        ("place = ['here', 3]", "place = 3: expected text in quotes"),
        ("count = -1", "--count = -1: expected `int` >= 0"),
        ("count = ", "Invalid value"),
        ("[replay]\nbatch = 3", "[replay]: plain has no sections, only options"),
    ],
    ids=repr,
)
def test_an_error_in_the_file_is_one_line_with_the_value(capsys, toml, text, message):
    assert message in error_line(capsys, "--config", toml(text))


def test_a_file_that_is_no_text_is_named(capsys, tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\0")
    assert error_line(capsys, "--config", str(path)).startswith(f"--config {path} cannot be read: ")


def test_sections_go_where_the_runs_settings_are_taken(toml):
    config = toml("count = 3\nset = ['a.b=1']\n[replay]\nbatch = 3\n[world]\nN = 5\n")
    assert command.run(takes_sections, "takes", ["--config", config]) == 0
    assert got == [Run(set=("a.b=1",)), {"replay": {"batch": 3}, "world": {"N": 5}}]
    got.clear()
    assert command.run(takes_sections, "takes", []) == 0
    assert got == [Run(), {}]


# ---- exit codes ---------------------------------------------------------------------------------------------------


def ends(error):
    @click.command()
    def failing():
        raise error

    return failing


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ShoalError("it broke"), 1, "it: it broke\n"),
        (ConfigError("--n 0: too few"), 2, "it: --n 0: too few\n"),
        (PeerError("nobody there"), 3, "it: nobody there\n"),
        (KeyboardInterrupt(), 130, ""),
        (click.Abort(), 130, ""),
        (click.UsageError("wrong"), 2, "it: wrong (see it --help)\n"),
        (click.ClickException("failed"), 1, "it: failed (see it --help)\n"),
        (click.exceptions.Exit(7), 7, ""),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_end_with_their_exit_code_and_one_line(capsys, error, code, line):
    assert command.run(ends(error), "it", []) == code
    assert capsys.readouterr().err.lstrip("\n") == line


def test_anything_else_is_a_defect_and_shows_itself():
    with pytest.raises(ZeroDivisionError):
        command.run(ends(ZeroDivisionError()), "it", [])


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (130, 130), ("text", 0)])
def test_a_command_may_return_its_exit_code(returned, code):
    @click.command()
    def returning():
        return returned

    assert command.run(returning, "it", []) == code


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 130", 130),
        ("raise errors.PeerError('nobody')", 3),
        ("raise KeyboardInterrupt", 130),
        ("os.kill(os.getpid(), signal.SIGINT); time.sleep(5)", 130),
        ("return None", 0),
    ],
)
def test_the_exit_code_is_the_processs(body, code):
    script = (
        "import click, os, signal, time; from common import errors; from common.process import command\n"
        # A suite that runs in a shell's background hands its children a SIGINT that is ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"@click.command()\ndef it():\n    {body}\n"
        "command.main(it, 'it')"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_a_reader_that_closes_the_output_early_prints_no_traceback(tmp_path: Path) -> None:
    line = f"{sys.executable} -m shoal scenarios --json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3]
    )
    assert (done.stdout, done.stderr) == ("[", "")
