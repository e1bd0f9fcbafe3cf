"""A new run normalises outside the particle worlds, unless its user decides; a run made earlier keeps what it did."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.run.directory import RunDirectory, create
from common.run.normalisation import resolve_normalisation
from common.run.open_run import RunOptions, open_run
from common.run.run import RunSpec, from_toml, make_run_spec, parse_assignments, to_toml
from common.worlds import world_spec

NAMES = ("normalise_observations", "normalise_rewards")


def choices(spec: RunSpec) -> list[object]:
    return [getattr(spec.algorithm, name) for name in NAMES]


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("simple_spread", False),
        ("mpe2:simple_spread", False),
        ("pettingzoo:mpe2.simple_spread_v3", False),
        ("pettingzoo:mpe2/simple_spread_v3", False),
        ("pettingzoo:mpe2like.world", True),
        ("pettingzoo:pettingzoo.sisl.multiwalker_v9", True),
        ("pettingzoo:my_env", True),
    ],
)
def test_the_world_decides(scenario: str, expected: bool) -> None:
    assert choices(resolve_normalisation(make_run_spec({"scenario": scenario}))) == [expected, expected]


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("scenario", ["simple_spread", "pettingzoo:my_env"])
def test_the_user_decides_first(scenario: str, value: bool) -> None:
    for name, other in (NAMES, NAMES[::-1]):
        settings = parse_assignments([f"algorithm.{name}={str(value).lower()}"])
        spec = resolve_normalisation(make_run_spec({"scenario": scenario}, settings))
        assert getattr(spec.algorithm, name) is value
        assert getattr(spec.algorithm, other) is (scenario != "simple_spread")


def test_the_choice_is_stored_with_the_run(tmp_path: Path) -> None:
    for settings, expected in (((), False), (("algorithm.normalise_rewards=true",), True)):
        options = RunOptions(set=settings)
        _, run = open_run(str(tmp_path / str(expected)), "simple", options, {}, resume=False, role="train")
        assert choices(run.spec) == [False, expected]
        assert from_toml(to_toml(run), "run.toml").spec == run.spec


def test_a_run_made_before_the_settings_existed_resumes_without(tmp_path: Path) -> None:
    directory, run = create(tmp_path / "run", make_run_spec({"scenario": "simple"}), world_spec("simple"))
    lines = directory.run_file.read_text().splitlines(keepends=True)
    directory.run_file.write_text("".join(line for line in lines if "normalise" not in line))
    _, resumed = open_run(str(directory.path), "", RunOptions(steps=99), {}, resume=True, role="train")
    assert not resumed.spec.algorithm.normalises_observations
    assert not resumed.spec.algorithm.normalises_rewards
    assert RunDirectory(directory.path).run.id == run.id
