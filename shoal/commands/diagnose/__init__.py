"""What ails a run: its team is played, its networks are looked at, its log is read; figures, and warnings in words.

policies, critics  <-- newest checkpoint            learner_node/inspection/loaded_networks.py (torch)
messages tampered with, long episodes               actor_node/evaluation/ablation.py
metrics.jsonl                                       run_figures.py
                          figures --> verdicts.py, run_verdicts.py --> warnings
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from actor_node.evaluation.ablation import Ablation, ablate, batched_world
from actor_node.evaluation.batched_rollouts import TrajectoryRecorder, play_batch
from actor_node.evaluation.copy_rollouts import CopySet
from actor_node.evaluation.episodes import Trajectories
from common.errors import ConfigError, WorldError
from common.policy.file import load_policy
from common.policy.heads import Floats
from common.policy.network import Policy, unflatten
from common.run.directory import RunDirectory
from common.run.players import members_of, with_sides
from common.run.run import Run
from common.spec import difference
from common.worlds import FOREIGN, World, make_world
from learner_node.inputs import InputFigures, measure, on_change, on_inputs
from learner_node.inspection.network_stats import NetworkFigures, ValueFigures, policy_figures
from shoal.commands.diagnose.log_figures import FEWEST_LINES, RunFigures, run_figures
from shoal.commands.diagnose.log_warnings import log_warnings
from shoal.commands.diagnose.team_warnings import communication_warnings, network_warnings, value_warnings
from shoal.commands.diagnose.warning import DiagnosisWarning, merged, warned
from shoal.commands.report.history import read_history
from shoal.commands.report.machine_info import read_machine

if TYPE_CHECKING:
    from learner_node.inspection.loaded_networks import LoadedNetworks

SEED = 2_000_000
"""Of the first episode: not those of `shoal evaluate`."""
MOST_WATCHED = 100
"""Steps of an episode whose states are looked at."""
REST = 0.01
"""What may be left of a discounted return when an episode is cut off."""
LONGEST = 5_000
PATIENCE_S = 20.0
"""For playing a world that is stepped copy by copy beyond the steps that are looked at."""
FEWEST_COMPARED = 100
"""States of such a world with a whole return behind them, below which values are not compared."""
_FOREIGN_COPIES = 8
"""Of a world that is stepped copy by copy."""


class _TrainedTeam(NamedTuple):
    """What has been learnt."""

    run: Run
    loaded: LoadedNetworks | None
    """None where there is no checkpoint: then there are no critics to look at."""
    flat: Floats
    """The policies, in the flat layout of common/policy/network.py."""


class _Limits(NamedTuple):
    """What an environment that is not batched is asked for, at most."""

    copies: int
    max_steps: int
    """0 = as many as are looked at."""


class Diagnosis(msgspec.Struct, frozen=True):
    """A run's figures and what they warn of."""

    scenario: str
    run: str
    updates: int
    episodes: int
    seed: int
    communication: list[Ablation]
    """Empty where nobody hears anybody."""
    values: list[ValueFigures]
    networks: list[NetworkFigures]
    agents: list[str]
    """Whose `inputs` are."""
    inputs: InputFigures
    """What the networks are fed with, on what was played."""
    course: RunFigures | None
    skipped: dict[str, str]
    """What could not be looked at, and why."""
    warnings: list[DiagnosisWarning]
    seconds: float


def diagnose(
    directory: RunDirectory, episodes: int, seed: int = SEED, *, copies: int = 0, max_steps: int = 0
) -> Diagnosis:
    """Looks at what a run has learnt so far; it may still be training. Nothing is written.

    episodes: at least two. copies: of an environment that is not batched, at most; 0 = no more than in training.
    max_steps: of an episode of such an environment, at most; 0 = as many as are looked at.
    ConfigError when the directory holds no policies.
    """
    began_at = time.monotonic()
    run = directory.run
    skipped: dict[str, str] = {}
    loaded = _load_networks(directory, run)
    if loaded is None:
        stored = load_policy(directory.policy_file)
        flat, updates = stored.flat, stored.updates
    else:
        flat, updates = loaded.policies, loaded.counters.updates
    if run.spec.scenario.startswith(FOREIGN):
        skipped["communication"] = "a pettingzoo world does not say what of an action is a message"
    ablations = ablate(run, flat, episodes, seed)
    trained_with = read_machine(directory).get("launch", {}).get("copies") or _FOREIGN_COPIES
    limits = _Limits(copies or min(int(trained_with), _FOREIGN_COPIES), max_steps)
    values, networks, inputs = _measure_networks(_TrainedTeam(run, loaded, flat), episodes, seed, limits, skipped)
    course = _log_figures(directory, run, skipped)
    found = [
        *communication_warnings(ablations, run.spec),
        *value_warnings(values, run.spec, updates),
        *network_warnings(networks, run.spec.exploration),
        *(warned("inputs", remark) for remark in on_inputs(inputs, run.joint, run.spec.algorithm.reward_scale)),
        *(warned("inputs", remark) for remark in on_change(_newest(directory, "reward_change"))),
        *log_warnings(course, run.spec, sides=len(run.joint.teams)),
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
        course=course,
        skipped=skipped,
        warnings=merged(one.fitting(run.spec) for one in found),
        seconds=round(time.monotonic() - began_at, 3),
    )


def horizon(watched: int, gamma: float) -> int | None:
    """Returns how many steps leave at most 1 % of the discounted return of any watched one; None beyond LONGEST."""
    if gamma >= 1.0:
        return None
    steps = watched + (math.ceil(math.log(REST) / math.log(gamma)) if gamma > 0.0 else 1)
    return steps if steps <= LONGEST else None


def _load_networks(directory: RunDirectory, run: Run) -> LoadedNetworks | None:
    if not directory.checkpoints.exists():
        return None
    from learner_node.inspection.loaded_networks import load_newest  # noqa: PLC0415  (torch takes seconds to import)

    return load_newest(run, directory.checkpoints)


def _measure_networks(
    team: _TrainedTeam, episodes: int, seed: int, limits: _Limits, skipped: dict[str, str]
) -> tuple[list[ValueFigures], list[NetworkFigures], InputFigures]:
    """Returns the figures of critics' values, of all networks and of their inputs on what the team plays."""
    run, loaded = team.run, team.loaded
    world, watched, steps = _long_world(run, episodes, seed, limits, skipped)
    try:
        if with_sides(world.spec, run.spec.network.sides) != run.joint:
            raise ConfigError(
                f"the installed {run.spec.scenario} is not the world this team was trained in:"
                f" {difference(run.joint, world.spec)}"
            )
        policy = Policy(run.players, run.spec.network, team.flat)
        patience_s = PATIENCE_S if run.spec.scenario.startswith(FOREIGN) else math.inf
        recorder = TrajectoryRecorder(watched, patience_s)
        play_batch(world, policy, range(seed, seed + world.copies), max_steps=steps, recorder=recorder)
        played = recorder.trajectories()
        if isinstance(world, CopySet):
            _note_failures(world, skipped)
    finally:
        world.close()
    networks, inputs = _policies(team, played), _inputs(run, played)
    if loaded is None:
        skipped["values"] = "there is no checkpoint with critics"
        return [], networks, inputs
    networks += loaded.critic_activity(played.obs, played.action, played.present)
    if run.spec.scenario.startswith(FOREIGN) and "values" not in skipped:
        played = with_whole_returns(played, steps - watched)
        if (count := int((played.present[: len(played.obs)] > 0).sum(axis=(0, 1)).min())) < FEWEST_COMPARED:
            skipped["values"] = (
                f"only {count} states had the {steps - watched} steps after them in the same episode that a return of"
                f" discount {run.spec.algorithm.discount:g} takes"
            )
    return [] if "values" in skipped else loaded.values(*played), networks, inputs


def with_whole_returns(played: Trajectories, tail: int) -> Trajectories:
    """Returns what was played, with agents absent from the watched states whose return is cut off.

    A return is whole where `tail` steps follow in the same episode, or the episode ended truly, for all its agents.
    """
    acted = played.present.max(axis=-1) > 0
    watched, (steps, episodes) = len(played.obs), acted.shape
    # An agent acts in an episode's first step, so the last step in which one does is the episode's last.
    ends = steps - np.argmax(acted[::-1], axis=0)
    ended_truly = played.discount[ends - 1, np.arange(episodes)].max(axis=-1) == 0.0
    whole = (np.arange(watched)[:, None] + tail < ends) | ended_truly
    present = played.present.copy()
    present[:watched] *= whole[..., None]
    return played._replace(present=present)


def _inputs(run: Run, played: Trajectories) -> InputFigures:
    rows = played.obs.reshape(-1, run.joint.obs_dim)
    reward, present = (field.reshape(-1, len(run.joint.agents)) for field in (played.reward, played.present))
    return measure(run.joint, rows, reward, present)


def _note_failures(world: CopySet, skipped: dict[str, str]) -> None:
    """Notes the episodes that the environment failed in; WorldError where those are all."""
    if world.note:
        skipped["copies"] = world.note
    if not world.failures:
        return
    first = next(iter(world.failures.values()))
    if len(world.failures) == world.copies:
        raise WorldError(f"every episode failed: {first}")
    skipped["episodes"] = f"{len(world.failures)} of {world.copies} failed: {first}"


def _long_world(run: Run, episodes: int, seed: int, limits: _Limits, skipped: dict[str, str]) -> tuple[World, int, int]:
    """Returns the world to play in, how many steps are looked at, and how many are played."""
    if run.spec.scenario.startswith(FOREIGN):
        steps = horizon(MOST_WATCHED, run.spec.algorithm.discount)
        if steps is None:
            skipped["values"] = _too_far(run)
        make = partial(make_world, run.spec.scenario, 1, seed=seed, options=run.spec.world, restart_ended=False)
        bound = limits.max_steps or LONGEST
        return (
            CopySet(make, min(episodes, limits.copies)),
            min(MOST_WATCHED, bound),
            min(steps or MOST_WATCHED, bound),
        )
    episode = int(run.spec.world.get("max_cycles", 25))
    watched = min(episode, MOST_WATCHED)
    steps = horizon(watched, run.spec.algorithm.discount)
    if steps is None:
        skipped["values"] = _too_far(run)
    return batched_world(run, episodes, seed, max_cycles=max(steps or episode, episode)), watched, steps or watched


def _too_far(run: Run) -> str:
    return f"with algorithm.discount = {run.spec.algorithm.discount:g} a return needs more than {LONGEST:,} steps"


def _policies(team: _TrainedTeam, played: Trajectories) -> list[NetworkFigures]:
    """Returns the figures of each player's policy, on the steps in which it was there."""
    run, network = team.run, team.run.spec.network
    present = played.present[: len(played.obs)] > 0
    found = []
    for player, layers in zip(run.players.agents, unflatten(team.flat, run.players, network), strict=True):
        there = present[..., members_of(run.joint, player)].any(axis=-1)
        found.append(policy_figures(player, network.head, layers, played.obs[there][:, player.obs_slice]))
    return found


def _newest(directory: RunDirectory, name: str) -> float | None:
    """Returns a figure of the log's last line, however short the log is."""
    lines = read_history(directory.metrics_file).lines
    value = lines[-1].get(name) if lines else None
    return float(value) if isinstance(value, int | float) else None


def _log_figures(directory: RunDirectory, run: Run, skipped: dict[str, str]) -> RunFigures | None:
    figures = run_figures(read_history(directory.metrics_file), run)
    if figures is None:
        skipped["course"] = f"the log has fewer than {FEWEST_LINES} lines"
    elif read_machine(directory).get("launch", {}).get("lockstep"):
        # In lockstep playing and learning take turns: the learner waits by design.
        figures = msgspec.structs.replace(figures, learner_waited=None)
    return figures
