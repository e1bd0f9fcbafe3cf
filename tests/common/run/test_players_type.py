"""Agents where players are due, or the other way round, are refused before anything runs: by mypy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RIGHT = {
    "weight_count": "weight_count(run.players, run.spec.network)",
    "layer_shapes": "layer_shapes(run.players.agents[0], run.spec.network)",
    "unflatten": "unflatten(flat, run.players, run.spec.network)",
    "Policy": "Policy(run.players, run.spec.network, flat)",
    "transition_dtype": "transition_dtype(run.joint)",
    "members_of": "members_of(run.joint, run.players.agents[0])",
    "players": "players(run.joint, 'joint')",
    "Run": "Run('id', run.spec, run.joint)",
    "GreedyHeads, agents": "GreedyHeads(run.joint)",
    "GreedyHeads, players": "GreedyHeads(run.players)",
}
WRONG = {
    "weight_count": "weight_count(run.joint, run.spec.network)",
    "layer_shapes": "layer_shapes(run.joint.agents[0], run.spec.network)",
    "unflatten": "unflatten(flat, run.joint, run.spec.network)",
    "Policy": "Policy(run.joint, run.spec.network, flat)",
    "transition_dtype": "transition_dtype(run.players)",
    "members_of": "members_of(run.players, run.players.agents[0])",
    "members_of, one": "members_of(run.joint, run.joint.agents[0])",
    "players": "players(run.players, 'joint')",
    "Run": "Run('id', run.spec, run.players)",
}
HEAD = """\
from common.policy.heads import Floats, GreedyHeads
from common.run.players import members_of, players
from common.policy.network import Policy, layer_shapes, unflatten, weight_count
from common.run.run import Run
from common.transitions import transition_dtype
run: Run
flat: Floats
"""


@pytest.mark.slow
def test_agents_instead_of_players_do_not_pass_the_type_check(tmp_path: Path) -> None:
    program = tmp_path / "mixed_up.py"
    program.write_text(HEAD + "\n".join([*RIGHT.values(), *WRONG.values()]) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", "--no-error-summary"]
    found = subprocess.run([*command, program], cwd=ROOT, capture_output=True, text=True, check=False)
    first = 1 + len(HEAD.splitlines()) + len(RIGHT)
    refused = {int(number) for number in re.findall(r"mixed_up\.py:(\d+): error: ", found.stdout)}
    assert refused == set(range(first, first + len(WRONG))), found.stdout + found.stderr
