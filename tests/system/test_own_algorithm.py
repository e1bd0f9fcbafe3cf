"""The critic and the algorithm of docs/own-algorithm.md, and some that fail, through real processes and in lockstep."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from safetensors import safe_open

from common.policy.file import load_policy
from tests.conftest import PATIENCE_S
from tests.docs.pages import blocks

from .conftest import Commands, log_of, metrics_of

pytestmark = pytest.mark.system

SETTINGS = ("--set", "replay.min_size=500", "--set", "exploration.random_steps=200")
SETTINGS += ("--set", "network.policy_hidden=[8]", "--set", "network.critic_hidden=[8]", "--set", "replay.batch=64")
SMALL = ("--copies", 4, "--no-film", "--json", *SETTINGS)
CRITIC = ("--set", "network.critic=my_nets:SetCritic")
ALGORITHM = ("--algorithm", "my_algorithms:Hysteretic")
FORMS = {"critic": CRITIC, "algorithm": ALGORITHM, "both": (*CRITIC, *ALGORITHM, "--set", "algorithm.variant=matd3")}


@pytest.fixture(autouse=True)
def modules(tmp_path: Path) -> None:
    """Writes the modules of the page into the directory of the commands."""
    for block in blocks("docs/own-algorithm.md"):
        for name in ("my_nets.py", "my_algorithms.py"):
            if block.language == "python" and block.text.startswith(f"# {name}"):
                (tmp_path / name).write_text(block.text, "utf-8")


def test_the_critic_of_the_page_has_twenty_lines(tmp_path: Path) -> None:
    lines = (tmp_path / "my_nets.py").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 20
    assert len((tmp_path / "my_algorithms.py").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("form", ["critic", "algorithm"])
def test_a_run_trains_is_diagnosed_and_resumes(commands: Commands, tmp_path: Path, form: str) -> None:
    run = tmp_path / "run"
    more = ("--actors", 1, "--redis", "none", "--run", run, *SMALL)
    code, out, err = commands.run(
        "shoal", "train", "simple_spread", *more, *FORMS[form], "--steps", 2000, "--episodes", 4
    )
    assert code == 0, err
    assert json.loads(out)["episodes"] == 4
    assert "engine: autograd (stacked does not cover" in err
    spec = tomllib.loads((run / "run.toml").read_text())["spec"]
    stored = load_policy(run / "policy.safetensors").run.spec
    if form == "critic":
        assert spec["network"]["critic"] == stored.network.critic == "my_nets:SetCritic"
    else:
        assert spec["algorithm"]["name"] == stored.algorithm.name == "my_algorithms:Hysteretic"
    updates = int(str(metrics_of(run)[-1]["updates"]))
    assert updates > 0
    code, out, err = commands.run("shoal", "diagnose", run, "--episodes", 10, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [one["player"] for one in found["values"]] == ["agent_0", "agent_1", "agent_2"]
    assert ("critics' layers" in found["skipped"]) == (form == "critic")
    code, out, err = commands.run("shoal", "report", run)
    assert code == 0, err
    code, _, err = commands.run("shoal", "train", "--resume", *more, "--steps", 3000, "--episodes", 0)
    assert code == 0, err
    assert int(str(metrics_of(run)[-1]["updates"])) > updates
    for name in ("my_nets.py", "my_algorithms.py"):
        (tmp_path / name).unlink()
    code, _, err = commands.run("shoal", "train", "--resume", *more, "--steps", 4000, "--episodes", 0)
    assert code == 2, err
    assert "No module named 'my_" in err
    assert "Traceback" not in err


def test_lockstep_runs_repeat_and_the_classes_change_what_is_learnt(commands: Commands, tmp_path: Path) -> None:
    hashes = {}
    for name, chosen in {"none": (), "both": FORMS["both"], "again": FORMS["both"]}.items():
        run = tmp_path / name
        options = ("--lockstep", "--actors", 1, "--steps", 1000, "--episodes", 0, "--run", run)
        code, out, err = commands.run("shoal", "train", "simple_spread", *options, *SMALL, *chosen)
        assert code == 0, err
        hashes[name] = json.loads(out)["weights_hash"]
    assert hashes["both"] == hashes["again"] != hashes["none"]
    (checkpoint,) = (tmp_path / "both" / "checkpoints").glob("updates-*.safetensors")
    with safe_open(checkpoint, "np") as file:
        parameters = file.get_tensor("critics/online")
    # matd3: two critics with 23 numbers of each agent: encode 24 * 8, value 17 * 8 + 9.
    assert parameters.shape == (2 * (24 * 8 + 17 * 8 + 9),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--set", "network.critic=my_netz:SetCritic"), "network.critic = 'my_netz:SetCritic': cannot import my_netz"),
        (("--algorithm", "my_algorithms:Hystretic"), "has no Hystretic; did you mean Hysteretic?"),
        (("--set", "network.critic=broken:Late"), "forward(x) for x of shape [8, 69]: ValueError: not today"),
        ((*CRITIC, "--set", "algorithm.engine=stacked"), "does not cover network.critic=my_nets:SetCritic"),
    ],
)
@pytest.mark.parametrize("command", ["train", "learner"])
def test_what_cannot_be_used_is_refused_before_anything_is_written(
    commands: Commands, tmp_path: Path, options: tuple[str, ...], said: str, command: str
) -> None:
    (tmp_path / "broken.py").write_text(
        "from torch import nn\n"
        "class Late(nn.Module):\n"
        "    def __init__(self, inputs, widths):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(inputs.size, 1)\n"
        "    def forward(self, x):\n"
        "        raise ValueError('not today')\n"
    )
    if command == "train":
        words: tuple[object, ...] = ("shoal", "train", "simple_spread", *SMALL)
    else:
        words = ("learner", "--scenario", "simple_spread", "--metrics-port", 0, "--bind", f"ipc://{tmp_path / 'w'}")
        words = (*words, "--replay", f"ipc://{tmp_path / 'r'}", *SETTINGS)
    code, _, err = commands.run(*words, *options, "--run", tmp_path / "run")
    assert code == 2, err
    assert said in err
    assert not (tmp_path / "run").exists()


def test_a_fault_in_training_ends_the_run_with_its_reason(commands: Commands, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "from learner_node.algorithms.maddpg import Maddpg\n"
        "class Late(Maddpg):\n"
        "    updates = 0\n"
        "    def critic_loss(self, td_error, batch, row_weights):\n"
        "        self.updates += 1\n"
        "        if self.updates > 10:\n"
        "            raise ValueError('ten are enough')\n"
        "        return super().critic_loss(td_error, batch, row_weights)\n"
    )
    options = ("--actors", 1, "--redis", "none", "--steps", 3000, "--episodes", 0, "--run", tmp_path / "run")
    code, _, err = commands.run("shoal", "train", "simple_spread", *options, *SMALL, "--algorithm", "late:Late")
    assert code == 1, err
    assert "algorithm.name = 'late:Late': an update: ValueError: ten are enough" in err
    assert "late.py:7 in critic_loss" in err
    assert "Traceback" not in err


def test_processes_that_are_started_by_hand_find_the_module(commands: Commands, tmp_path: Path) -> None:
    weights, replay, port = f"ipc://{tmp_path / 'weights'}", f"ipc://{tmp_path / 'replay'}", ("--metrics-port", 0)
    commands.start("replay", "--bind", replay, "--redis", "none", *port)
    options = ("--scenario", "simple_spread", "--run", tmp_path / "run", "--steps", 2_000, *SETTINGS, *FORMS["both"])
    learner = commands.start("learner", "--replay", replay, "--bind", weights, *port, *options)
    commands.start("actor", "--replay", replay, "--weights", weights, *port, "--n", 1)
    assert learner.wait(PATIENCE_S) == 0, log_of(learner)
    assert int(str(metrics_of(tmp_path / "run")[-1]["updates"])) > 0
