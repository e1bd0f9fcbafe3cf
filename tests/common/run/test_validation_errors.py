from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta

from common.run.validation_errors import MAX_SHOWN_CHARACTERS, explain, shorten, suggest


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    kind: Literal["steam", "diesel"] = "steam"
    power: Annotated[float, Meta(gt=0)] = 1.0
    gears: Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(max_length=3)] = (1, 2, 3)
    spare: Annotated[int, Meta(ge=0)] | None = None
    crew: tuple[tuple[str, ...], ...] = ()
    oil_left: int = 0
    turbo: Literal["auto"] | bool = "auto"
    speed: float | Literal["auto"] = "auto"
    sail: Literal["square", "lateen"] | None = None


class Ship(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    engine: Engine = Engine()
    cargo: dict[str, int] = {}


def error_of(**settings):
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(settings, Ship)
    return explain(error.value, settings, Ship)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": 5}, "name = 5: expected `str`, got `int`."),
        ({}, "Object missing required field `name`."),
        ({"name": "a", "engine": {"power": 0}}, "engine.power = 0: expected `float` > 0.0."),
        ({"name": "a", "engine": {"power": "x"}}, "engine.power = 'x': expected `float`, got `str`."),
        ({"name": "a", "engine": {"kind": "sail"}}, "engine.kind = 'sail': not one of 'steam', 'diesel'."),
        (
            {"name": "a", "engine": {"kind": "deisel"}},
            "engine.kind = 'deisel': not one of 'steam', 'diesel'; did you mean diesel?",
        ),
        ({"name": "a", "engine": {"turbo": "maybe"}}, "engine.turbo = 'maybe': not one of 'auto', true, false."),
        ({"name": "a", "engine": {"speed": "fast"}}, "engine.speed = 'fast': not one of a number, 'auto'."),
        ({"name": "a", "engine": {"speed": [1]}}, "engine.speed = [1]: not one of a number, 'auto'."),
        (
            {"name": "a", "engine": {"sail": "latin"}},
            "engine.sail = 'latin': not one of 'square', 'lateen', none; did you mean lateen?",
        ),
        ({"name": "a", "engine": {"sail": 3}}, "engine.sail = 3: not one of 'square', 'lateen', none."),
        ({"name": "a", "engine": {"spare": "x"}}, "engine.spare = 'x': not one of a number, none."),
        ({"name": "a", "engine": {"kind": 3}}, "engine.kind = 3: not one of 'steam', 'diesel'."),
        ({"name": "a", "engine": {"gears": [1, 2, "x"]}}, "engine.gears[2] = 'x': expected `int`, got `str`."),
        ({"name": "a", "engine": {"gears": [1, 0]}}, "engine.gears[1] = 0: expected `int` >= 1."),
        (
            {"name": "a", "engine": {"gears": [1, 2, 3, 4]}},
            "engine.gears = [1, 2, 3, 4]: expected `array` of length <= 3.",
        ),
        ({"name": "a", "engine": {"spare": -1}}, "engine.spare = -1: expected `int` >= 0."),
        ({"name": "a", "cargo": {"tea": 1, "rum": "much"}}, "cargo.rum = 'much': expected `int`, got `str`."),
        ({"name": "a", "cargo": 3}, "cargo = 3: a section of settings, not one value."),
        (
            {"name": "a", "engine": 3},
            (
                "engine = 3: a section of settings, not one value; it contains kind, power, gears, spare, crew, "
                "oil_left, turbo, speed, sail."
            ),
        ),
        ({"name": "a", "engine": {"powr": 1}}, "engine.powr is not a setting; did you mean engine.power?"),
        ({"name": "a", "egine": {}}, "egine is not a setting; did you mean engine?"),
        ({"name": "a", "zzz": {}}, "zzz is not a setting; known: name, engine, cargo."),
        ({"name": "a", "power": 3}, "power is not a setting; did you mean engine.power?"),
        ({"name": "a", "powwer": 3}, "powwer is not a setting; did you mean engine.power?"),
        ({"name": "a", "engine": {"left": 1}}, "engine.left is not a setting; did you mean engine.oil_left?"),
        ({"name": "a", "engine": {"gears": 2}}, "engine.gears = 2: expected `array`, got `int`; write [2, 2, 2]."),
        (
            {"name": "a", "engine": {"crew": "ann"}},
            "engine.crew = 'ann': expected `array`, got `str`; write [[\"ann\"]].",
        ),
        (
            {"name": "a", "engine": {"gears": "x"}},
            "engine.gears = 'x': expected `array`, got `str`; write a list in brackets.",
        ),
        (
            {"name": "a", "engine": {"kind": "x - at `$.name`"}},
            "engine.kind = 'x - at `$.name`': not one of 'steam', 'diesel'.",
        ),
    ],
    ids=str,
)
def test_an_error_names_setting_value_and_way_out(settings, expected):
    assert error_of(**settings) == expected


def test_close_names_come_before_all_names():
    assert suggest("batsh", ["batch", "size"]) == "did you mean batch?"
    assert suggest("zzz", ["batch", "size"]) == "known: batch, size"


@pytest.mark.parametrize(
    "settings", [{"x" * 10_000: 1}, {"engine": {"x" * 10_000: 1}}, {"name": ["x" * 10_000]}], ids=range(3)
)
def test_long_names_and_values_are_shortened(settings):
    assert len(error_of(**{"name": "a", **settings})) < 2 * MAX_SHOWN_CHARACTERS + 100


def test_a_text_is_shortened_to_its_beginning():
    assert shorten("a" * MAX_SHOWN_CHARACTERS) == "a" * MAX_SHOWN_CHARACTERS
    assert shorten("ab" * MAX_SHOWN_CHARACTERS) == "ab" * (MAX_SHOWN_CHARACTERS // 2 - 2) + "a..."
