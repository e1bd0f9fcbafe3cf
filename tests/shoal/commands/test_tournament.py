"""Tests of `shoal tournament`: matrices, heat maps and output."""

import json
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from actor_node.evaluation.evaluate import Estimate
from common.process import command
from shoal.cli import shoal
from shoal.commands.tournament.heat_map import draw_heat_map
from shoal.commands.tournament.matrices import matrix, short_names
from tests.actor_node.teams import make_team

_SVG = "{http://www.w3.org/2000/svg}"


def figures(*means: float) -> list[Estimate]:
    return [Estimate(mean, (mean - 1, mean + 1)) for mean in means]


def test_cells_are_coloured_from_the_smallest_to_the_largest_and_are_readable():
    found = matrix("x", ["a", "b"], ["c", "d"], figures(-5, 0, 5, 15))
    cells = [cell for line in found.cells for cell in line]
    assert [cell.figure.mean for cell in cells] == [-5, 0, 5, 15]
    assert (cells[0].fill, cells[-1].fill) == ("#f3f7fb", "#0b4f94")
    for cell in cells:
        assert contrast(cell.fill, cell.ink) >= 4.5
    (same,) = matrix("x", ["a"], ["c"], figures(3)).cells[0]
    assert contrast(same.fill, same.ink) >= 4.5


@pytest.mark.parametrize("share", [i / 20 for i in range(21)])
def test_every_shade_is_readable(share):
    cell = matrix("x", ["a"], ["b", "c", "d"], figures(0, share, 1)).cells[0][1]
    assert contrast(cell.fill, cell.ink) >= 4.5


def contrast(one: str, other: str) -> float:
    """Returns the contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_short_names_drop_shared_parents_and_stay_different():
    assert short_names(["runs/x/a", "runs/x/b", "random"]) == {"runs/x/a": "a", "runs/x/b": "b", "random": "random"}
    assert list(short_names(["runs/a/seed-1", "runs/b/seed-1"]).values()) == ["a/seed-1", "b/seed-1"]
    assert list(short_names(["runs/tag", "frozen"]).values()) == ["tag", "frozen"]
    assert list(short_names(["runs", "runs/a"]).values()) == ["runs", "a"]
    assert list(short_names(["a/b", "a/b/c"]).values()) == ["b", "b/c"]


def test_a_heat_map_is_svg_with_every_cell_inside_and_every_name_escaped():
    names = ["runs/<b>&'\"", "a name that is longer than any column could be wide", "random"]
    found = matrix("touches & more", names, names, figures(*range(9)))
    root = ET.fromstring(draw_heat_map([found, found], "adversary"))  # noqa: S314  (our own)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    cells = [rect for rect in root.iter(f"{_SVG}rect") if rect.get("x")]
    assert len(cells) == 18
    for rect in cells:
        x, y, wide, high = (float(rect.get(name, "nan")) for name in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + wide <= width
        assert y + high <= height
    texts = [text.text for text in root.iter(f"{_SVG}text")]
    assert texts.count("<b>&'\"") == 4
    assert texts.count("8.00") == 2
    assert "touches & more" in texts


@pytest.mark.slow
def test_the_command_prints_matrices_and_writes_json_and_a_heat_map(tmp_path):
    teams = [str(make_team(tmp_path / name, "simple_push", i).path) for i, name in enumerate("ab")]
    options = [*teams, "--opponents", "random", "--episodes", "4", "--fast"]
    heat_map = tmp_path / "heat.svg"
    result = CliRunner().invoke(shoal, ["tournament", *options, "--svg", str(heat_map)], standalone_mode=False)
    assert "simple_push: rows play adversary; 4 episodes per pairing" in result.stdout
    for part in ("return of adversary", "return of agent", "agent_success", "mean return against random", "as agent"):
        assert part in result.stdout
    assert ET.parse(heat_map).getroot().tag == f"{_SVG}svg"  # noqa: S314  (our own)
    found = json.loads(CliRunner().invoke(shoal, ["tournament", *options, "--json"], standalone_mode=False).stdout)
    assert [standing["name"] for standing in found["standings"]] == [*teams, "random"]
    assert len(found["pairings"]) == 9
    assert found["judged_by"] == ["random"]
    low, high = found["pairings"][0]["returns"]["agent"]["ci95"]
    assert low <= found["pairings"][0]["returns"]["agent"]["mean"] <= high


def test_a_mistake_costs_one_line_and_exit_code_2(tmp_path, capsys):
    team = str(make_team(tmp_path / "a", "simple_push").path)
    cases = {
        "neither a run's directory nor one of": [team, "nobody"],
        "named twice": [team, team],
        "no run is named": ["random"],
        "--svg": [team, "random", "--episodes", "1", "--fast", "--svg", str(tmp_path / "no" / "heat.svg")],
        "one side only": [str(make_team(tmp_path / "b", "simple_spread").path), "--fast"],
    }
    for message, arguments in cases.items():
        assert command.run(shoal, "shoal", ["tournament", *arguments]) == 2
        output = capsys.readouterr().err
        assert message in output
        assert "Traceback" not in output
