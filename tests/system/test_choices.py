"""Every choice that a run's settings offer trains through real processes: `shoal train` once for each row.

What is right in one process may still fail between processes: actors compare each weights frame with the run, chunks
carry what the replay server sizes its ring by. So each row asserts what only real processes show: updates happened,
and actors took weights that were learned and acted with them.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest

from common.run.players import ALGORITHMS, parse_algorithms
from common.run.presets import PRESETS
from common.run.run import RunSpec
from common.wire.messages import Status
from tests.conftest import PATIENCE_S, wait_until

from .choices import ROWS
from .conftest import Commands, family, log_of, status_at

SECTIONS = [name for name, kind in get_type_hints(RunSpec).items() if hasattr(kind, "__struct_fields__")]
UPDATES = 20


def settings() -> Iterator[tuple[str, str, Any]]:
    """Yields section, name and type of each setting of a run."""
    for section in SECTIONS:
        for name, kind in get_type_hints(get_type_hints(RunSpec)[section]).items():
            yield section, name, kind


@pytest.mark.parametrize(("section", "name", "kind"), [pytest.param(*one, id=".".join(one[:2])) for one in settings()])
def test_every_setting_is_chosen_in_some_row(section: str, name: str, kind: Any) -> None:
    """A choice without a row fails here: add it to a row of tests/system/choices.py, or write a new row."""
    chosen = {str(getattr(getattr(row.spec, section), name)) for row in ROWS.values()}
    if get_origin(kind) is Literal and (section, name) != ("algorithm", "variant"):
        assert chosen == set(get_args(kind))
    else:
        assert len(chosen) > 1, f"all rows have {section}.{name} = {chosen}"


def test_every_preset_and_every_algorithm_alone_and_by_side_is_chosen() -> None:
    assert {row.preset for row in ROWS.values()} == set(PRESETS)
    chosen = [
        parse_algorithms(row.spec.algorithm.name) for row in ROWS.values() if not row.spec.algorithm.is_user_class
    ]
    assert {one[""] for one in chosen if "" in one} == set(ALGORITHMS)
    assert any(len(set(one.values())) > 1 for one in chosen)
    discrete = [row for row in ROWS.values() if not row.spec.world.get("continuous_actions", True)]
    assert 0 < len(discrete) < len(ROWS)


@pytest.mark.system
@pytest.mark.parametrize("name", ROWS)
def test_it_trains(commands: Commands, tmp_path: Path, name: str) -> None:
    row, run = ROWS[name], tmp_path / "run"
    options = ("--preset", row.preset, "--run", run, "--actors", row.actors, "--copies", 8)
    choices = [word for assignment in row.assignments for word in ("--set", assignment)]
    ending = ("--redis", "none", "--episodes", 0, "--no-film")
    train = commands.start("shoal", "train", row.scenario, *options, *choices, *ending)

    def learned() -> Status | None:
        assert train.poll() is None, log_of(train)
        status = status_at(f"ipc://{run.resolve() / 'sockets' / 'replay'}")
        if status is None or status.learner is None or status.learner.updates < UPDATES:
            return None
        acting = len(status.actors) == row.actors and all(
            actor.weights_version > 1 and actor.env_steps for actor in status.actors
        )
        return status if acting else None

    status = wait_until(learned, "updates, and actors with weights that were learned")
    assert math.isfinite(status.policy_lag)
    assert status.run is not None
    assert status.run.spec == msgspec.structs.replace(row.spec, budget=status.run.spec.budget)
    assert all(not actor.weights_refused for actor in status.actors)
    assert status.learner is not None
    assert math.isfinite(status.learner.critic_loss)
    assert not status.rejected
    train.send_signal(signal.SIGTERM)
    assert train.wait(PATIENCE_S) == 0, log_of(train)
    assert family(train) == []
