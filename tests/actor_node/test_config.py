import msgspec
import pytest

from actor_node.cli import actor
from actor_node.config import ActorConfig
from common.process import command


@pytest.mark.parametrize(
    ("copies", "rows", "steps"), [(32, 256, 8), (1, 256, 256), (256, 256, 1), (1000, 256, 1), (100, 256, 3), (7, 1, 1)]
)
def test_a_chunk_is_whole_steps_of_all_copies(copies, rows, steps):
    assert ActorConfig(copies=copies, chunk_rows=rows).chunk_steps == steps


def test_the_defaults_are_within_their_own_bounds():
    assert msgspec.convert(msgspec.to_builtins(ActorConfig()), ActorConfig) == ActorConfig()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n", "0"], "actor: --n = 0: expected `int` >= 1"),
        (["--n", "5000"], "actor: --n = 5000: expected `int` <= 4096"),
        (["--copies", "0"], "actor: --copies = 0: expected `int` >= 1"),
        (["--chunk-rows", "many"], "'many' is not a valid integer"),
        (["--name", "x" * 101], "expected `str` of length <= 100"),
        (["--drain", "soon"], "'soon' is not a duration"),
        (["--metrics-port", "70000"], "actor: --metrics-port = 70000: expected `int` <= 65535"),
        (["--nn", "3"], "--nn"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_users_mistake_is_one_line_and_code_2(capsys, arguments, message):
    assert command.run(actor, "actor", arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_the_help_names_every_option_but_the_hidden_one(capsys):
    assert command.run(actor, "actor", ["--help"]) == 0
    text = capsys.readouterr().out
    for field in ActorConfig.__struct_fields__:
        assert (f"--{field.replace('_', '-')} " in text) is (field != "parent")
