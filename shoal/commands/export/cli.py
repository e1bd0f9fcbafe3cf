"""The command `shoal export`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from common.errors import ConfigError
from common.files import file_names, write_atomically
from common.history import built_in_spaces, history_of
from common.policy.file import PolicyFile, load_policy
from common.policy.network import memory_units, unflatten
from common.process import command
from common.process.monitoring.metrics import software_version
from common.run.players import members_of
from common.run.run import Run
from common.run.spaces import AgentSpaces, side_by_side
from common.spec import AgentSpec, Categorical, PlayerSpec
from common.worlds import is_batched, is_foreign
from shoal.run_paths import run_directory

INDEX_FILE = "team.json"


class ExportedPolicy(msgspec.Struct, frozen=True):
    """The ONNX file of one player, as listed in `team.json`."""

    file: str
    player: str
    agents: tuple[str, ...]
    """Agents whose concatenated observations are the input and whose actions are the output; usually one."""
    side: str
    obs_dim: int
    action_dim: int
    parts: tuple[Any, ...]
    """Parts of the action, in order."""
    spaces: tuple[AgentSpaces, ...]
    """Environment spaces of each agent, as columns of the input and output; empty if the run does not record them."""
    mask: tuple[tuple[int, int], ...] = ()
    """Each number of the action masks: its column of the input, 1 (allowed) or 0 (forbidden), and the column of the
    output that it forbids; empty without masks."""
    history: int = 0
    """Number of last observations and actions of each agent in the input, after its current observation."""
    memory_dim: int = 0
    """Length of the input `memory` and of the output `next_memory` of a recurrent policy; 0 without."""
    sampled_choices: bool = False
    """Whether choices were drawn from the softmax of the logits in training; the output `action` has the most probable
    choice."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Output directory.  [default: RUN/onnx]"
)
@click.option(
    "--logits",
    is_flag=True,
    help="Add the output `logits`, from whose softmax Discrete actions can be drawn.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the list of files as JSON.")
def export(run: Path, output: Path | None, logits: bool, as_json: bool) -> None:
    """Write the policies of RUN as ONNX files, one for each agent.

    The input of a file is the agent's observation, the output its action; a recurrent policy also takes and returns
    its memory. Running the files does not need Shoal.
    Writing them needs the package onnx: pip install 'shoal[export]'

    \b
    Example:  shoal export runs/spread -o onnx
    """  # noqa: D301  (click keeps the lines after a real backspace as they are)
    directory = run_directory(run)
    directory.run  # noqa: B018  (raises if there is no run: another error than a run without policies)
    target = output or run / "onnx"
    written = write_team(load_policy(directory.policy_file), target, logits=logits)
    if as_json:
        command.result(msgspec.json.encode(written))
        return
    if any(not one.spaces for one in written):
        click.echo(
            f"{run} was made by an older version and does not record its environment's spaces, so {INDEX_FILE} lacks"
            " shapes, types and first choices. Continue the run with --resume to add them.",
            err=True,
        )
    for one in written:
        agents = f", for {', '.join(one.agents)} together" if len(one.agents) > 1 else ""
        memory = f", and a memory of {one.memory_dim} numbers" if one.memory_dim else ""
        command.result(f"{target / one.file}: {one.obs_dim} inputs, {one.action_dim} outputs{memory}{agents}")
    if any(one.memory_dim for one in written):
        click.echo(
            "The policies are recurrent: pass zeros as the input `memory` in the first step of an episode, then the "
            "output `next_memory` of the step before.",
            err=True,
        )


def write_team(policy: PolicyFile, directory: Path, *, logits: bool = False) -> list[ExportedPolicy]:
    """Writes one model for each player, and `team.json`; raises ConfigError without onnx or if it cannot write.

    logits: whether the models have the second output `logits`.
    """
    try:
        from shoal.commands.export.graph import make_model  # noqa: PLC0415  (onnx is an optional dependency)
    except ImportError as e:
        raise ConfigError(f"shoal export needs the package onnx ({e}). Install it: pip install 'shoal[export]'") from e
    run, written = policy.run, []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        layers = unflatten(policy.flat, run.players, run.spec.network)
        players = run.players.agents
        files = file_names([player.name for player in players], ".onnx")
        for player, player_layers, file in zip(players, layers, files, strict=True):
            one = _describe(policy, player, file)
            metadata = _metadata(policy, one)
            model = make_model(player, player_layers, run.spec.network.head, metadata, logits=logits)
            write_atomically(directory / one.file, model.SerializeToString())
            written.append(one)
        write_atomically(directory / INDEX_FILE, msgspec.json.format(msgspec.json.encode(written)) + b"\n")
    except OSError as e:
        raise ConfigError(f"-o {directory} cannot be written: {e.strerror}.") from e
    return written


def _describe(policy: PolicyFile, player: PlayerSpec, file: str) -> ExportedPolicy:
    agents = [policy.run.joint.agents[i] for i in members_of(policy.run.joint, player)]
    return ExportedPolicy(
        file=file,
        player=player.name,
        agents=tuple(agent.name for agent in agents),
        side=player.team,
        obs_dim=player.obs_dim,
        action_dim=player.action_dim,
        parts=player.parts,
        spaces=side_by_side(_spaces(policy.run, agents)),
        mask=player.local_mask_columns,
        history=history_of(policy.run.spec.world),
        memory_dim=memory_units(policy.run.spec.network),
        sampled_choices=policy.run.samples_choices and any(isinstance(part, Categorical) for part in player.parts),
    )


def _spaces(run: Run, agents: Sequence[AgentSpec]) -> list[AgentSpaces]:
    """Returns the spaces of some agents; empty for separate environments whose run does not record them."""
    known = {spaces.agent: spaces for spaces in run.spaces}
    if not known and (is_batched(run.spec.scenario) or not is_foreign(run.spec.scenario)):
        known = {one.agent: one for one in built_in_spaces(run.joint, history_of(run.spec.world))}
    return [known[agent.name] for agent in agents if agent.name in known]


def _metadata(policy: PolicyFile, one: ExportedPolicy) -> dict[str, str]:
    run = policy.run
    return {
        "player": one.player,
        "agents": ",".join(one.agents),
        "side": one.side,
        "obs_dim": str(one.obs_dim),
        "action_dim": str(one.action_dim),
        "parts": msgspec.json.encode(one.parts).decode(),
        "spaces": msgspec.json.encode(one.spaces).decode(),
        "mask": msgspec.json.encode(one.mask).decode(),
        "history": str(one.history),
        "memory_dim": str(one.memory_dim),
        "sampled_choices": str(one.sampled_choices).lower(),
        "head": run.spec.network.head,
        "scenario": run.spec.scenario,
        "world": msgspec.json.encode(run.spec.world).decode(),
        "run": run.id,
        "updates": str(policy.updates),
        "weights_hash": policy.digest,
        "shoal": software_version(),
    }
