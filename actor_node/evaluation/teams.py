"""Who is evaluated and who plays in a tournament: runs, teams shipped with Shoal, and what no training has made.

| name        | plays                                                                      |
|-------------|----------------------------------------------------------------------------|
| a directory | the policies of that run (or of one of its milestones)                     |
| `frozen`    | the team shipped for the scenario (actor_node/opponents/)                  |
| `untrained` | networks of 64-64 as they are before training, drawn from the first episode's seed |
| `random`    | every action uniformly at random                                           |

All of them choose joint actions; a pairing takes from each the actions of its own side only. An agent's action depends
on nothing but its own observation (under `joint`, its side's), so that this is the same as each playing its part alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from actor_node.evaluation.batched_rollouts import Actor
from actor_node.evaluation.task import EvalGame, changed_world_options, short_name
from actor_node.opponents import frozen_team
from common.errors import ConfigError
from common.policy.file import PolicyFile, load_policy
from common.policy.heads import Floats, GreedyHeads
from common.policy.network import Policy, layer_shapes
from common.run.directory import RunDirectory
from common.run.players import players
from common.run.run import NetworkSpec
from common.spec import AgentsSpec, Box, Categorical, PlayersSpec

FROZEN, UNTRAINED, RANDOM = "frozen", "untrained", "random"
BASELINES = (FROZEN, UNTRAINED, RANDOM)
"""Names that stand for a team where no run is named."""
_SMALL = NetworkSpec(policy_hidden=(64, 64))


Numbers = npt.NDArray[Any]


class Team(NamedTuple):
    """One team."""

    name: str
    algorithm: str
    """What it learnt by; empty where nothing was learnt."""
    updates: int
    weights_hash: str
    team: Callable[[], Actor]
    """Makes who acts, anew for each pairing: no pairing depends on those before it. Can be pickled."""
    drawn: Callable[[], Actor] | None = None
    """The same team as it was trained: Categorical parts drawn from the policy's softmax. None without such parts."""


class DrawnPolicy:
    """A policy whose Categorical parts are drawn from its softmax, without further noise."""

    def __init__(self, players: PlayersSpec, network: NetworkSpec, flat: Floats, seed: int) -> None:
        self._policy = Policy(players, network, flat)
        self._heads = GreedyHeads(players, network.head)
        self._choices = [segment for segment in self._heads.segments if segment.kind == "choice"]
        self._chance = UniformActions(seed)

    def begin(self, row: int, seed: int) -> None:
        """Starts the generator of one row: an episode's draws follow from its seed."""
        self._chance.begin(row, seed)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        logits = self._policy.logits(obs)
        for segment in self._choices:
            own = logits[:, segment.columns]
            # The largest of logits with Gumbel noise is a draw from their softmax.
            own += self._chance.draw(len(logits), partial(_gumbel, own.shape[1]))
        return self._heads(logits)


def _gumbel(size: int, rng: np.random.Generator, rows: int) -> Numbers:
    return rng.gumbel(size=(rows, size))


class UniformActions:
    """Random numbers row by row: of one generator, or, once an episode began in a row, of that row's own."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._shared = np.random.default_rng(seed)
        self._rows: dict[int, np.random.Generator] = {}

    def begin(self, row: int, seed: int) -> None:
        """Gives a row a generator that follows from the team's seed and the episode's."""
        self._rows[row] = np.random.default_rng([self._seed, seed])

    def draw(self, rows: int, of: Callable[[np.random.Generator, int], Numbers]) -> Numbers:
        """Returns `of(generator, rows)`, row by row where rows have their own; of the others it is zeros."""
        if not self._rows:
            return of(self._shared, rows)
        drawn = {row: of(rng, 1)[0] for row, rng in self._rows.items()}
        found = np.zeros((rows, *np.shape(next(iter(drawn.values())))))
        for row, values in drawn.items():
            found[row] = values
        return found


class RandomTeam:
    """Actor uniformly at random within each part's bounds."""

    def __init__(self, joint: AgentsSpec, seed: int) -> None:
        self._joint = joint
        self._chance = UniformActions(seed)

    def begin(self, row: int, seed: int) -> None:
        """Starts the generator of one row: an episode's draws follow from its seed."""
        self._chance.begin(row, seed)

    def act(self, obs: Floats) -> Floats:
        """Returns joint actions `[copies, sum action]`."""
        drawn = [self._part(part, len(obs)) for agent in self._joint.agents for part in agent.parts]
        return np.concatenate(drawn, axis=1, dtype=np.float32)

    def _part(self, part: Any, copies: int) -> Floats:
        if isinstance(part, Box):
            low, high, size = part.low, part.high, part.size
            return self._chance.draw(copies, lambda rng, rows: rng.uniform(low, high, (rows, size))).astype(np.float32)
        choices = self._chance.draw(copies, lambda rng, rows: rng.integers(part.n, size=rows)).astype(np.intp)
        return np.eye(part.n, dtype=np.float32)[choices]


def load_teams(names: Sequence[str], seed: int) -> tuple[EvalGame, list[Team]]:
    """Returns the game the named runs know, and all who are named; ConfigError where they cannot play together.

    names: directories and stand-ins; at least one directory, which says what is played.
    """
    stored = {name: _stored(name) for name in names if name not in BASELINES}
    if not stored:
        raise ConfigError(
            f"{' and '.join(names)}: name a run too, which says what is played; one in a directory of such a name is "
            f"./{names[0]}"
        )
    if twice := [name for name in dict.fromkeys(names) if list(names).count(name) > 1]:
        raise ConfigError(f"{twice[0]} is named twice")
    first, *rest = stored
    game = EvalGame(stored[first].run.spec, stored[first].run.joint)
    for name in rest:
        _refuse_another_game(name, stored[name], first, game)
    if FROZEN in names:
        stored[FROZEN] = frozen_team(short_name(game.spec.scenario))
        _refuse_another_game(f"the {FROZEN} team", stored[FROZEN], first, game)
    return game, [_trained(name, stored[name]) if name in stored else _untrained(name, game, seed) for name in names]


def load_run_team(directory: RunDirectory) -> tuple[EvalGame, Team]:
    """Returns a run's game and its team; ConfigError where it has no policies."""
    stored = _policies(directory)
    return EvalGame(stored.run.spec, stored.run.joint), _trained(run_name(directory), stored)


def run_name(directory: RunDirectory) -> str:
    """Returns the directory as a name that is no stand-in's: `./random` of a run in `random`."""
    path = str(directory.path)
    return f"./{path}" if path in BASELINES else path


def _stored(name: str) -> PolicyFile:
    directory = RunDirectory(Path(name))
    if not directory.path.exists():
        raise ConfigError(f"{name} is neither a run's directory nor one of {', '.join(BASELINES)}")
    return _policies(directory)


def _policies(directory: RunDirectory) -> PolicyFile:
    directory.run  # noqa: B018  (a directory that holds no run is told apart from one without policies)
    return load_policy(directory.policy_file)


def _refuse_another_game(name: str, stored: PolicyFile, first: str, game: EvalGame) -> None:
    """Raises ConfigError for a team of another scenario, other options or other agents."""
    spec = stored.run.spec
    if short_name(spec.scenario) != short_name(game.spec.scenario):
        raise ConfigError(f"{name} plays {spec.scenario} and {first} {game.spec.scenario}; name runs of one scenario")
    theirs, ours = changed_world_options(spec), changed_world_options(game.spec)
    if theirs != ours or stored.run.joint != game.joint:
        raise ConfigError(
            f"{name} was trained with the world's options {theirs or 'at their defaults'} and {first} with "
            f"{ours or 'them at their defaults'}; name runs of one and the same world"
        )


def _trained(name: str, stored: PolicyFile) -> Team:
    run = stored.run
    players, network = run.players, run.spec.network
    team = Policy(players, network, stored.flat)
    drawn = None
    if any(isinstance(part, Categorical) for agent in run.joint.agents for part in agent.parts):
        drawn = partial(DrawnPolicy, players, network, stored.flat, run.spec.seed)
    return Team(name, run.spec.algorithm.name, stored.updates, stored.digest, partial(_same, team), drawn)


def _untrained(name: str, game: EvalGame, seed: int) -> Team:
    if name == RANDOM:
        return Team(name, "", 0, "", partial(RandomTeam, game.joint, seed))
    team = players(game.joint, "maddpg")
    policy = Policy(team, _SMALL, _fresh_weights(team, seed))
    return Team(name, "", 0, "", partial(_same, policy))


def random_team(game: EvalGame, seed: int) -> Team:
    """Returns who acts uniformly at random in a game."""
    return _untrained(RANDOM, game, seed)


def _same(team: Actor) -> Actor:
    return team


def _fresh_weights(team: PlayersSpec, seed: int) -> Floats:
    """Draws weights as the learner begins with: uniform within 1 / sqrt(inputs), layer by layer."""
    rng = np.random.default_rng(seed)
    layers = [shape for player in team.agents for shape in layer_shapes(player, _SMALL)]
    pieces = [rng.uniform(-1.0, 1.0, (inputs + 1) * outputs) / np.sqrt(inputs) for inputs, outputs in layers]
    return np.concatenate(pieces, dtype=np.float32)
