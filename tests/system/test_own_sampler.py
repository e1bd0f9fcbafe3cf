"""The sampler of docs/own-algorithm.md, and one that fails, through real processes and in lockstep."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import PATIENCE_S
from tests.docs.pages import blocks

from .conftest import Commands, log_of, metrics_of

pytestmark = pytest.mark.system

SETTINGS = ("--set", "replay.min_size=500", "--set", "exploration.random_steps=200")
SETTINGS += ("--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]")
SMALL = ("--copies", 4, "--no-film", "--json", *SETTINGS)
RECENT = ("--set", "replay.sampler=my_samplers:Recent")


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """Writes the module of the page into the directory of the commands."""
    blocks_of_page = [block.text for block in blocks("docs/own-algorithm.md") if block.language == "python"]
    (text,) = [text for text in blocks_of_page if text.startswith("# my_samplers.py")]
    file = tmp_path / "my_samplers.py"
    file.write_text(text, "utf-8")
    return file


def test_the_sampler_of_the_page_draws_half_of_a_batch_from_the_newest_tenth(module: Path) -> None:
    names: dict[str, type] = {}
    exec(module.read_text("utf-8"), names)  # noqa: S102  (it is the page's)
    ages = names["Recent"]().sample(np.random.default_rng(1), 10_000, 20_000)
    assert len(module.read_text("utf-8").split("class Recent")[1].splitlines()) <= 10
    # Of 20,000 ages half, and a tenth of the rest, are below 1,000; the standard deviation is 30.
    assert abs((ages < 1_000).sum() - 11_000) < 150
    assert (ages.min(), ages.max() < 10_000) == (0, True)


@pytest.mark.usefixtures("module")
def test_a_run_trains_and_resumes_with_a_sampler_of_the_users_own(commands: Commands, tmp_path: Path) -> None:
    run = tmp_path / "run"
    more = ("--actors", 1, "--redis", "none", "--run", run, *SMALL)
    code, out, err = commands.run("shoal", "train", "simple_spread", *more, *RECENT, "--steps", 2000, "--episodes", 4)
    assert code == 0, err
    assert json.loads(out)["episodes"] == 4
    assert tomllib.loads((run / "run.toml").read_text())["spec"]["replay"]["sampler"] == "my_samplers:Recent"
    updates = metrics_of(run)[-1]["updates"]
    assert isinstance(updates, int)
    assert updates > 0
    code, _, err = commands.run("shoal", "train", "--resume", *more, "--steps", 3000, "--episodes", 0)
    assert code == 0, err
    assert int(str(metrics_of(run)[-1]["updates"])) > updates


@pytest.mark.usefixtures("module")
def test_lockstep_runs_repeat_and_the_sampler_changes_what_is_learnt(commands: Commands, tmp_path: Path) -> None:
    hashes = []
    for number, sampler in enumerate((RECENT, RECENT, ())):
        options = ("--lockstep", "--actors", 1, "--steps", 1500, "--episodes", 0, "--run", tmp_path / str(number))
        code, out, err = commands.run("shoal", "train", "simple_spread", *options, *SMALL, *sampler)
        assert code == 0, err
        hashes.append(json.loads(out)["weights_hash"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_sampler_that_cannot_be_used_is_refused_before_anything_starts(commands: Commands, tmp_path: Path) -> None:
    options = ("--set", "replay.sampler=my_samplerz:Recent", "--run", tmp_path / "run")
    code, _, err = commands.run("shoal", "train", "simple_spread", *SMALL, *options)
    assert code == 2
    assert "replay.sampler = 'my_samplerz:Recent': cannot import my_samplerz" in err
    assert not (tmp_path / "run").exists()


def test_a_fault_of_the_sampler_ends_the_run_with_its_reason(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "my_samplers.py").write_text(
        "class Late:\n"
        "    def sample(self, rng, size, count):\n"
        "        return rng.integers(0, size, count) + (size if 1 < size < 100_000 else 0)\n"
    )
    options = ("--actors", 1, "--redis", "none", "--steps", 3000, "--episodes", 0, "--run", tmp_path / "run")
    code, _, err = commands.run(
        "shoal", "train", "simple_spread", *options, *SMALL, "--set", "replay.sampler=my_samplers:Late"
    )
    assert code == 1, err
    assert "replay.sampler = 'my_samplers:Late': sample(rng, size=" in err
    assert "An age is 0 for the newest record" in err


def by_hand(commands: Commands, directory: Path, *, servers: int) -> tuple[subprocess.Popen[bytes], ...]:
    """Starts replay servers, a learner that names the sampler, and an actor a server; returns the learner first."""
    weights, port = f"ipc://{directory / 'weights'}", ("--metrics-port", 0)
    urls = [f"ipc://{directory / f'replay-{number}'}" for number in range(servers)]
    for url in urls:
        commands.start("replay", "--bind", url, "--redis", "none", *port)
    options = ("--scenario", "simple_spread", "--run", directory / "run", "--steps", 4_000, *SETTINGS, *RECENT)
    links = [word for url in urls for word in ("--replay", url)]
    learner = commands.start("learner", *links, "--bind", weights, *port, *options)
    actors = [commands.start("actor", "--replay", url, "--weights", weights, *port, "--n", 1) for url in urls]
    return learner, *actors


@pytest.mark.usefixtures("module")
def test_every_one_of_several_replay_servers_has_the_sampler(commands: Commands, tmp_path: Path) -> None:
    learner, *_ = by_hand(commands, tmp_path, servers=2)
    assert learner.wait(PATIENCE_S) == 0, log_of(learner)
    assert int(str(metrics_of(tmp_path / "run")[-1]["updates"])) > 0


def test_a_replay_server_without_the_module_refuses_the_learner(commands: Commands, tmp_path: Path) -> None:
    learner, *_ = by_hand(commands, tmp_path, servers=1)
    assert learner.wait(PATIENCE_S) == 3, log_of(learner)
    assert "cannot import my_samplers: No module named 'my_samplers'" in log_of(learner)
