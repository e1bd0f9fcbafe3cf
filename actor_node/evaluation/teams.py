"""The teams that are evaluated and play in tournaments: runs, teams shipped with Shoal, and baselines.

| name        | team                                                                       |
|-------------|----------------------------------------------------------------------------|
| a directory | the policies of that run (or of one of its milestones)                     |
| `frozen`    | the team shipped for the scenario (actor_node/opponents/)                  |
| `scripted`  | the controller written for the scenario (scripted.py)                      |
| `untrained` | policies of 64-64 before training, drawn from the first episode's seed     |
| `random`    | every action uniformly at random                                           |

Each team chooses joint actions; a pairing uses the actions of one side only. An agent's action depends only on its own
observation (for the algorithm `joint`, on its side's), so the actions of the other sides have no effect on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.rollouts.episodes import Actor
from actor_node.evaluation.scripted import scripted_team
from actor_node.evaluation.task import changed_world_options, short_name
from actor_node.opponents import frozen_team
from common.errors import ConfigError
from common.policy.episodes import EpisodePolicy
from common.policy.file import PolicyFile, load_policy
from common.policy.heads import Floats, segments
from common.policy.masks import ActionMasks, allowed
from common.policy.network import Policy, layer_shapes
from common.run.directory import RunDirectory
from common.run.players import players
from common.run.run import NetworkSpec, Run
from common.spec import AgentsSpec, Box, Categorical, Part, PlayersSpec

FROZEN, SCRIPTED, UNTRAINED, RANDOM = "frozen", "scripted", "untrained", "random"
BASELINES = (FROZEN, SCRIPTED, UNTRAINED, RANDOM)
"""Names of teams that are not runs."""
_UNTRAINED_NETWORK = NetworkSpec(policy_hidden=(64, 64))

Numbers = npt.NDArray[Any]


class Team(NamedTuple):
    """A team with its name, and how to make its actor.

    Example:
        run, team = load_run_team(RunDirectory(Path("runs/spread")))
        actions = team.make_actor().act(obs)
    """

    name: str
    algorithm: str
    """Algorithm that trained the team; empty for a baseline."""
    updates: int
    weights_hash: str
    make_actor: Callable[[], Actor]
    """Makes a new actor for each pairing, so that no pairing depends on those before it. Can be pickled."""
    make_sampled_actor: Callable[[], Actor] | None = None
    """Makes an actor that draws its actions from the policies (`SampledPolicy`); None if they have nothing to draw."""


class SampledPolicy:
    """A policy that draws choices and soft vectors by Gumbel noise, and Box parts of stochastic players.

    There is no further noise.
    """

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats, seed: int) -> None:
        self._policy = Policy(players, network, flat)
        self._episodes = EpisodePolicy(self._policy, self._sample)
        self._rng = RowGenerators(seed)

    def start_episode(self, row: int, seed: int) -> None:
        """Seeds the generator of one row: the episode's seed determines its random numbers."""
        self._rng.start_episode(row, seed)

    def start_episodes(self) -> None:
        """Starts new episodes in all copies."""
        self._episodes.start_episodes()

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        return self._episodes.act(obs)

    def _sample(self, obs: Floats, memory: Floats) -> Floats:
        return self._policy.sample(
            obs,
            gumbel=lambda size: self._rng.draw(len(obs), lambda rng, rows: rng.gumbel(size=(rows, size))),
            normal=lambda size: self._rng.draw(len(obs), lambda rng, rows: rng.standard_normal((rows, size))),
            memory=memory,
        )


class RowGenerators:
    """Random numbers for the rows of a batch: from one generator, or, after `start_episode`, one generator a row."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._shared = np.random.default_rng(seed)
        self._rows: dict[int, np.random.Generator] = {}

    def start_episode(self, row: int, seed: int) -> None:
        """Gives a row its own generator, seeded by the team's seed and the episode's."""
        self._rows[row] = np.random.default_rng([self._seed, seed])

    def draw(self, rows: int, sample: Callable[[np.random.Generator, int], Numbers]) -> Numbers:
        """Returns `sample(generator, rows)`; after `start_episode`, one sample a started row and zeros elsewhere."""
        if not self._rows:
            return sample(self._shared, rows)
        drawn = {row: sample(rng, 1)[0] for row, rng in self._rows.items()}
        found = np.zeros((rows, *np.shape(next(iter(drawn.values())))))
        for row, values in drawn.items():
            found[row] = values
        return found


class RandomTeam:
    """Actions uniformly at random within each part's bounds, among the choices that action masks allow."""

    def __init__(self, agents: AgentsSpec, seed: int) -> None:
        self._agents = agents
        self._masks = ActionMasks(agents.mask_columns)
        self._rng = RowGenerators(seed)

    def start_episode(self, row: int, seed: int) -> None:
        """Seeds the generator of one row: the episode's seed determines its random numbers."""
        self._rng.start_episode(row, seed)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        actions = np.zeros((len(obs), self._agents.action_dim), np.float32)
        logits = self._masks.lower(actions.copy(), obs)
        start = 0
        for agent in self._agents.agents:
            for part in agent.parts:
                columns = slice(start, start + part.size)
                start = columns.stop
                choices = allowed(logits[:, columns]) if agent.masked else None
                actions[:, columns] = self._part(part, choices, len(obs))
        return actions

    def _part(self, part: Part, allowed_choices: npt.NDArray[np.bool_] | None, copies: int) -> Floats:
        if isinstance(part, Box):
            low, high, size = part.low, part.high, part.size
            return self._rng.draw(copies, lambda rng, rows: rng.uniform(low, high, (rows, size))).astype(np.float32)
        if allowed_choices is None:
            choices = self._rng.draw(copies, lambda rng, rows: rng.integers(part.n, size=rows)).astype(np.intp)
        else:
            scores = self._rng.draw(copies, lambda rng, rows: rng.random((rows, part.n)))
            choices = np.where(allowed_choices, scores, -1.0).argmax(axis=1)
        return np.eye(part.n, dtype=np.float32)[choices]


def load_teams(names: Sequence[str], seed: int) -> tuple[Run, list[Team]]:
    """Returns the run whose world the named teams play in, and the teams; ConfigError if they cannot play together.

    names: run directories and baselines; the first directory determines the run. seed: of the baselines.
    """
    stored = {name: _load_named(name) for name in names if name not in BASELINES}
    if not stored:
        raise ConfigError(
            f"{' and '.join(names)}: no run is named, so the world is unknown. Add a run's directory; if a directory "
            f"has the name of a baseline, write ./{names[0]}."
        )
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise ConfigError(f"{twice[0]} is named twice. Name each team once.")
    first, *rest = stored
    run = stored[first].run
    for name in rest:
        _check_same_world(name, stored[name], first, run)
    return run, [
        trained_team(name, stored[name]) if name in stored else baseline_team(name, run, seed) for name in names
    ]


def load_run_team(directory: RunDirectory) -> tuple[Run, Team]:
    """Returns the run of a directory and its team; ConfigError if the directory has no policies."""
    stored = _policies(directory)
    return stored.run, trained_team(run_name(directory), stored)


def run_name(directory: RunDirectory) -> str:
    """Returns the directory as a team's name: `./random`, not `random`, for a run in the directory `random`."""
    path = str(directory.path)
    return f"./{path}" if path in BASELINES else path


def random_team(run: Run, seed: int) -> Team:
    """Returns the baseline that acts uniformly at random in a run's world."""
    return Team(RANDOM, "", 0, "", partial(RandomTeam, run.joint, seed))


def baseline_team(name: str, run: Run, seed: int) -> Team:
    """Returns a baseline in a run's world; ConfigError if the world has none of this name.

    seed: of random actions and of the networks of the untrained team.
    """
    if name == RANDOM:
        return random_team(run, seed)
    if name == SCRIPTED:
        return Team(SCRIPTED, "", 0, "", partial(_return_actor, scripted_team(run)))
    if name == FROZEN:
        frozen = frozen_team(short_name(run.spec.scenario))
        _check_same_world(f"the {FROZEN} team", frozen, "the run", run)
        return trained_team(FROZEN, frozen)
    untrained = players(run.joint, "maddpg")
    policy = Policy(untrained, _UNTRAINED_NETWORK, _initial_weights(untrained, seed))
    return Team(UNTRAINED, "", 0, "", partial(_return_actor, policy))


def _load_named(name: str) -> PolicyFile:
    directory = RunDirectory(Path(name))
    if not directory.path.exists():
        raise ConfigError(f"{name} is neither a run's directory nor one of {', '.join(BASELINES)}.")
    return _policies(directory)


def _policies(directory: RunDirectory) -> PolicyFile:
    directory.run  # noqa: B018  (its error distinguishes a directory without a run from one without policies)
    return load_policy(directory.policy_file)


def _check_same_world(name: str, stored: PolicyFile, first: str, run: Run) -> None:
    """Raises ConfigError for a team of another scenario, other options or other agents."""
    spec = stored.run.spec
    if short_name(spec.scenario) != short_name(run.spec.scenario):
        raise ConfigError(
            f"{name} plays {spec.scenario}, but {first} plays {run.spec.scenario}. Name runs of one scenario."
        )
    theirs, ours = changed_world_options(spec), changed_world_options(run.spec)
    if theirs != ours or stored.run.joint.without_state != run.joint.without_state:
        raise ConfigError(
            f"{name} was trained with the world's options {theirs or 'at their defaults'}, but {first} with "
            f"{ours or 'the options at their defaults'}. Name runs of the same world."
        )


def trained_team(name: str, stored: PolicyFile) -> Team:
    """Returns the team that plays the policies of a file."""
    run = stored.run
    players, network = run.players, run.spec.network
    policy = Policy(players, network, stored.flat)
    make_sampled = None
    has_choices = any(isinstance(part, Categorical) for agent in run.joint.agents for part in agent.parts)
    is_soft = any(segment.kind == "soft" for segment in segments(players, network.head))
    if has_choices or is_soft or players.gaussian_columns:
        make_sampled = partial(SampledPolicy, players, network, stored.flat, run.spec.seed)
    return Team(
        name, run.spec.algorithm.name, stored.updates, stored.digest, partial(EpisodePolicy, policy), make_sampled
    )


def _return_actor(actor: Actor) -> Actor:
    return actor


def _initial_weights(players: PlayersSpec, seed: int) -> Floats:
    """Draws weights like the learner's initial ones: uniform within 1 / sqrt(inputs), layer by layer."""
    rng = np.random.default_rng(seed)
    layers = [shape for player in players.agents for shape in layer_shapes(player, _UNTRAINED_NETWORK)]
    pieces = [rng.uniform(-1.0, 1.0, (inputs + 1) * outputs) / np.sqrt(inputs) for inputs, outputs in layers]
    return np.concatenate(pieces, dtype=np.float32)
