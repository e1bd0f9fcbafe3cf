"""The diagnosis of a run: plays its team, inspects its networks, reads its log, and derives warnings from the figures.

policies, critics  <-- newest checkpoint            learner_node/inspection/loaded_networks.py (torch)
rollouts, and rollouts with changed messages        actor_node/evaluation/ablation.py
metrics.jsonl                                       log_figures.py
                          figures --> team_warnings.py, log_warnings.py --> warnings
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from actor_node.evaluation.ablation import Ablation, ablate, batched_world
from actor_node.evaluation.rollouts.batched import TrajectoryRecorder, play_batch
from actor_node.evaluation.rollouts.copies import CopySet
from actor_node.evaluation.rollouts.episodes import Trajectories
from common.errors import ConfigError, WorldError
from common.policy.episodes import EpisodePolicy
from common.policy.file import load_policy
from common.policy.heads import Floats
from common.policy.network import Policy, PolicyLayers, unflatten
from common.run.directory import RunDirectory
from common.run.players import members_of, with_sides
from common.run.run import MLP, Run
from common.spec import difference
from common.worlds import World, is_foreign, make_world
from learner_node.inspection.network_stats import NetworkStats, ValueStats, policy_stats
from learner_node.run_checks.inputs import InputStats, input_remarks, measure_inputs, reward_change_remarks
from shoal.commands.diagnose.log_figures import MIN_LINES, LogFigures, log_figures
from shoal.commands.diagnose.log_warnings import log_warnings
from shoal.commands.diagnose.team_warnings import (
    communication_warnings,
    network_warnings,
    uniform_choice_warnings,
    value_warnings,
)
from shoal.commands.diagnose.warning import DiagnosisWarning, as_warning, merged
from shoal.machine_info import read_machine
from shoal.run_history import read_history

if TYPE_CHECKING:
    from learner_node.inspection.loaded_networks import LoadedNetworks

SEED = 2_000_000
"""Seed of the first episode; differs from that of `shoal evaluate`."""
MAX_MEASURED_STEPS = 100
"""Most steps of an episode whose states are measured."""
MAX_MISSING_FRACTION = 0.01
"""Largest fraction of a discounted return that may be missing when an episode is cut off."""
MAX_EPISODE_STEPS = 5_000
MAX_EXTRA_S = 20.0
"""In an environment of a family (`is_foreign`): longest time for steps beyond the measured ones [s]."""
MIN_COMPARED_STATES = 100
"""In an environment of a family: fewest states with a complete return for which Q and returns are compared."""
_DEFAULT_FOREIGN_COPIES = 8
"""Default number of copies of an environment of a family, which are stepped one by one."""


class _TrainedTeam(NamedTuple):
    """The trained policies and networks of a run."""

    run: Run
    networks: LoadedNetworks | None
    """The networks of the newest checkpoint; None if there is no checkpoint, and so no critics."""
    flat: Floats
    """Parameters of the policies in the flat layout of common/policy/network.py."""


class _Limits(NamedTuple):
    """Limits on playing an environment of a family, whose copies are stepped one by one."""

    copies: int
    max_steps: int
    """Most steps of an episode; 0: all measured steps."""


class Diagnosis(msgspec.Struct, frozen=True):
    """The figures of a run and the warnings that follow from them."""

    scenario: str
    run: str
    updates: int
    episodes: int
    seed: int
    communication: list[Ablation]
    """Ablations of messages; empty if no agent receives messages."""
    values: list[ValueStats]
    networks: list[NetworkStats]
    agents: list[str]
    """Names of the agents in `inputs`."""
    inputs: InputStats
    """Statistics of the network inputs in the episodes."""
    log: LogFigures | None = msgspec.field(name="course")
    """Figures of the training log, called `course` in JSON; None if the log is too short."""
    skipped: dict[str, str]
    """Parts that were skipped, and the reasons."""
    warnings: list[DiagnosisWarning]
    seconds: float


def diagnose(
    directory: RunDirectory, episodes: int, seed: int = SEED, *, copies: int = 0, max_steps: int = 0
) -> Diagnosis:
    """Diagnoses what a run has learned so far; the run may still be training. Writes nothing.

    episodes: number of episodes, at least two. copies: most copies of an environment of a family; 0: as in training,
    at most 8. max_steps: most steps of an episode of such an environment; 0: all measured steps. Raises ConfigError if
    the directory contains no policies.
    """
    started_at = time.monotonic()
    run = directory.run
    skipped: dict[str, str] = {}
    loaded = _load_networks(directory, run)
    if loaded is None:
        stored = load_policy(directory.policy_file)
        flat, updates = stored.flat, stored.updates
    else:
        flat, updates = loaded.policies, loaded.counters.updates
    if is_foreign(run.spec.scenario):
        skipped["communication"] = "an environment of this family does not mark messages in its actions"
    ablations = ablate(run, flat, episodes, seed)
    training_copies = read_machine(directory).get("launch", {}).get("copies") or _DEFAULT_FOREIGN_COPIES
    limits = _Limits(copies or min(int(training_copies), _DEFAULT_FOREIGN_COPIES), max_steps)
    values, networks, inputs = _measure_networks(_TrainedTeam(run, loaded, flat), episodes, seed, limits, skipped)
    figures = _log_figures(directory, run, skipped)
    found = [
        *communication_warnings(ablations, run.spec),
        *value_warnings(values, run.spec, updates),
        *network_warnings(networks, run.spec.exploration),
        *uniform_choice_warnings(networks, figures.returns if figures else None, sides=len(run.joint.sides)),
        *(as_warning("inputs", remark) for remark in input_remarks(inputs, run.joint, run.spec.algorithm)),
        *(as_warning("inputs", remark) for remark in reward_change_remarks(_last_metric(directory, "reward_change"))),
        *log_warnings(figures, run.spec, sides=len(run.joint.sides)),
    ]
    return Diagnosis(
        scenario=run.spec.scenario,
        run=run.id,
        updates=updates,
        episodes=episodes,
        seed=seed,
        communication=ablations,
        values=values,
        networks=networks,
        agents=[agent.name for agent in run.joint.agents],
        inputs=inputs,
        log=figures,
        skipped=skipped,
        warnings=merged(one.without_current_settings(run.spec) for one in found),
        seconds=round(time.monotonic() - started_at, 3),
    )


def horizon(measured: int, gamma: float) -> int | None:
    """Returns the number of steps to play so that the return of each measured step lacks at most 1 %.

    None if that is more than MAX_EPISODE_STEPS.
    """
    if gamma >= 1.0:
        return None
    steps = measured + (math.ceil(math.log(MAX_MISSING_FRACTION) / math.log(gamma)) if gamma > 0.0 else 1)
    return steps if steps <= MAX_EPISODE_STEPS else None


def _load_networks(directory: RunDirectory, run: Run) -> LoadedNetworks | None:
    if not directory.checkpoints.exists():
        return None
    from learner_node.inspection.loaded_networks import load_newest  # noqa: PLC0415  (importing torch takes seconds)

    return load_newest(run, directory.checkpoints)


def _measure_networks(
    team: _TrainedTeam, episodes: int, seed: int, limits: _Limits, skipped: dict[str, str]
) -> tuple[list[ValueStats], list[NetworkStats], InputStats]:
    """Plays episodes with the team and returns statistics of the critics' values, all networks, and their inputs."""
    run, loaded = team.run, team.networks
    world, measured, steps = _make_long_world(run, episodes, seed, limits, skipped)
    try:
        if with_sides(world.spec, run.spec.network.sides) != run.joint:
            raise ConfigError(
                f"The installed {run.spec.scenario} differs from the world that this team was trained in:"
                f" {difference(run.joint, world.spec)}. Install the version it was trained with."
            )
        policy = EpisodePolicy(Policy(run.players, run.spec.network, team.flat))
        patience_s = MAX_EXTRA_S if is_foreign(run.spec.scenario) else math.inf
        recorder = TrajectoryRecorder(measured, patience_s)
        play_batch(world, policy, range(seed, seed + world.copies), max_steps=steps, recorder=recorder)
        played = recorder.trajectories()
        if isinstance(world, CopySet):
            _note_failures(world, skipped)
    finally:
        world.close()
    networks, inputs = _policy_stats(team, played), _input_stats(run, played)
    if loaded is None:
        skipped["values"] = "there is no checkpoint with critics"
        return [], networks, inputs
    if run.spec.network.recurrent:
        skipped["values"] = skipped["critics' layers"] = "critics with network.recurrent are not inspected"
        return [], networks, inputs
    if run.spec.network.critic != MLP:
        skipped["critics' layers"] = f"network.critic = {run.spec.network.critic!r} is not inspected, only its values"
    networks += loaded.critic_activity(played.obs, played.action, played.present, played.state)
    if is_foreign(run.spec.scenario) and "values" not in skipped:
        played = with_complete_returns(played, steps - measured)
        if (count := int((played.present[: len(played.obs)] > 0).sum(axis=(0, 1)).min())) < MIN_COMPARED_STATES:
            skipped["values"] = (
                f"only {count} states were followed by the {steps - measured} steps of the same episode that a return"
                f" with discount {run.spec.algorithm.discount:g} needs"
            )
    if "values" in skipped:
        return [], networks, inputs
    signals = played.reward, played.discount, played.present
    return loaded.values(played.obs, played.action, *signals, state=played.state), networks, inputs


def with_complete_returns(played: Trajectories, tail: int) -> Trajectories:
    """Returns the rollouts without the measured states whose return is cut off: their agents are marked absent.

    A return is complete if `tail` steps of the same episode follow, or if the episode terminated for all agents.
    """
    acted = played.present.max(axis=-1) > 0
    measured, (steps, episodes) = len(played.obs), acted.shape
    # The last step in which an agent acts is the last of the episode; an episode has at least one such step, its first.
    ends = steps - np.argmax(acted[::-1], axis=0)
    # The discount of a record is 0 where an agent terminated; it is not the setting `algorithm.discount`.
    terminated = played.discount[ends - 1, np.arange(episodes)].max(axis=-1) == 0.0
    complete = (np.arange(measured)[:, None] + tail < ends) | terminated
    present = played.present.copy()
    present[:measured] *= complete[..., None]
    return played._replace(present=present)


def _input_stats(run: Run, played: Trajectories) -> InputStats:
    rows = played.obs.reshape(-1, run.joint.obs_dim)
    reward, present = (field.reshape(-1, len(run.joint.agents)) for field in (played.reward, played.present))
    return measure_inputs(run.joint, rows, reward, present)


def _note_failures(world: CopySet, skipped: dict[str, str]) -> None:
    """Adds failed episodes to `skipped`; raises WorldError if all episodes failed."""
    if world.note:
        skipped["copies"] = world.note
    if not world.failures:
        return
    first = next(iter(world.failures.values()))
    if len(world.failures) == world.copies:
        raise WorldError(f"Every episode failed: {first}")
    skipped["episodes"] = f"{len(world.failures)} of {world.copies} failed: {first}"


def _make_long_world(
    run: Run, episodes: int, seed: int, limits: _Limits, skipped: dict[str, str]
) -> tuple[World, int, int]:
    """Makes the world with episodes long enough for complete returns.

    Returns the world, the number of measured steps, and the number of steps to play.
    """
    if is_foreign(run.spec.scenario):
        steps = horizon(MAX_MEASURED_STEPS, run.spec.algorithm.discount)
        if steps is None:
            skipped["values"] = _horizon_too_long(run)
        make = partial(
            make_world,
            run.spec.scenario,
            1,
            seed=seed,
            options=run.spec.world,
            restart_ended=False,
            state_dim=run.joint.state_dim,
        )
        bound = limits.max_steps or MAX_EPISODE_STEPS
        return (
            CopySet(make, min(episodes, limits.copies)),
            min(MAX_MEASURED_STEPS, bound),
            min(steps or MAX_MEASURED_STEPS, bound),
        )
    episode_steps = int(run.spec.world.get("max_cycles", 25))
    measured = min(episode_steps, MAX_MEASURED_STEPS)
    steps = horizon(measured, run.spec.algorithm.discount)
    if steps is None:
        skipped["values"] = _horizon_too_long(run)
    return batched_world(run, episodes, seed, max_cycles=max(steps or 0, episode_steps)), measured, steps or measured


def _horizon_too_long(run: Run) -> str:
    discount = run.spec.algorithm.discount
    return f"with algorithm.discount = {discount:g} a return needs more than {MAX_EPISODE_STEPS:,} steps"


def _policy_stats(team: _TrainedTeam, played: Trajectories) -> list[NetworkStats]:
    """Returns the figures of each player's policy, on the steps in which its agents are present."""
    run, network = team.run, team.run.spec.network
    present = played.present[: len(played.obs)] > 0
    found = []
    for player, layers in zip(run.players.agents, unflatten(team.flat, run.players, network), strict=True):
        is_present = present[..., members_of(run.joint, player)].any(axis=-1)
        obs = played.obs[..., player.obs_slice]
        hidden = _hidden_outputs(layers, obs, np.asarray(is_present))
        found.append(policy_stats(player, network.head, layers, hidden, obs[is_present]))
    return found


def _hidden_outputs(layers: PolicyLayers, obs: Floats, is_present: npt.NDArray[np.bool_]) -> list[Floats]:
    """Returns the outputs of each hidden layer `[n, units]` in the steps in which a player is present.

    obs: the player's observations `[T, episodes, obs]`. is_present: `[T, episodes]`.
    """
    if layers.gru is None:
        return layers.hidden_outputs(obs[is_present])
    memory = np.zeros((obs.shape[1], layers.gru.units), np.float32)
    by_step = [layers.hidden_outputs(rows, memory) for rows in obs]
    return [np.stack(outputs)[is_present] for outputs in zip(*by_step, strict=True)]


def _last_metric(directory: RunDirectory, name: str) -> float | None:
    """Returns a metric of the last log line; None if it is missing."""
    lines = read_history(directory.metrics_file).lines
    value = lines[-1].get(name) if lines else None
    return float(value) if isinstance(value, int | float) else None


def _log_figures(directory: RunDirectory, run: Run, skipped: dict[str, str]) -> LogFigures | None:
    figures = log_figures(read_history(directory.metrics_file), run)
    if figures is None:
        skipped["course"] = f"the log has fewer than {MIN_LINES} lines"
    elif read_machine(directory).get("launch", {}).get("lockstep"):
        # In lockstep, acting and learning alternate, so the learner waits by design.
        figures = msgspec.structs.replace(figures, learner_waited=None)
    return figures
