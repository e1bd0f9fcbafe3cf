"""Everything that defines a run: world, networks, algorithm, exploration, replay, budget; validated and hashed.

A `RunSpec` is what a user sets and what `run.toml` holds. A `Run` adds what the world then says of itself (its
`AgentsSpec`) and an identity; it is what the learner brings to the replay server and actors receive from it.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import msgspec
import tomli_w
from msgspec import Meta

from common.errors import ConfigError
from common.run.option_values import plain_options, read_value, spell_none
from common.run.players import parse_algorithms, players
from common.run.spaces import AgentSpaces
from common.run.validation_errors import explain
from common.spec import AgentsSpec, PlayersSpec

# Upper bounds keep out infinity and what no word of the wire holds; nothing sensible comes near them.
_LARGEST_FLOAT = 1e12
_LARGEST_INT = 2**53
# A divisor so small that a quotient overflows is as good as 0.
LEAST_POSITIVE = 1 / _LARGEST_FLOAT
Positive = Annotated[float, Meta(ge=LEAST_POSITIVE, le=_LARGEST_FLOAT)]
NonNegative = Annotated[float, Meta(ge=0, le=_LARGEST_FLOAT)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=_LARGEST_INT)]
CountOrZero = Annotated[int, Meta(ge=0, le=_LARGEST_INT)]
Hidden = Annotated[tuple[Annotated[int, Meta(ge=1, le=65_536)], ...], Meta(min_length=1, max_length=8)]
UNLIMITED_ROWS = 2**62
SideName = Annotated[str, Meta(min_length=1, max_length=100)]
AgentNames = Annotated[tuple[Annotated[str, Meta(max_length=1_000)], ...], Meta(min_length=1, max_length=10_000)]


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of the networks, ReLU layers between input and head, and who shares them."""

    policy_hidden: Hidden = (128, 128)
    """Units of each hidden layer, policies."""
    critic_hidden: Hidden = (128, 128)
    """The same for critics."""
    share_policies: bool = True
    """Whether neighbouring agents of one role (agent_0, agent_1, ...) are one policy."""
    share_critics: bool = True
    """The same for critics; a shared critic sees its own agent first, then the others in turn."""
    tell_apart: bool = False
    """Whether networks that are shared know which agent they are: as if its number, one-hot, were an input."""
    sides: dict[SideName, AgentNames] = {}
    """Agents of each side, in place of the sides that the world names; agents left out keep theirs."""
    share: Annotated[tuple[AgentNames, ...], Meta(max_length=10_000)] = ()
    """Groups of agents that share networks, in place of roles; agents left out have networks of their own."""
    head: Literal["box", "soft", "force"] = "box"
    """Box parts of actions: bounded by tanh, a soft choice (Gumbel-softmax), or a 2-D force of bounded norm."""


class AlgorithmSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the one update. Defaults are the preset `fast`; their reasons stand in docs/algorithms.md."""

    name: Annotated[str, Meta(max_length=1_000)] = "matd3"
    """maddpg, matd3, iddpg or joint for all; or by side, as in adversary=maddpg,agent=iddpg."""
    discount: Fraction = 0.9
    """What a reward one step later is worth (gamma)."""
    target_rate: PositiveFraction = 0.01
    """Fraction of the way targets move to their networks each update (tau)."""
    policy_learning_rate: Positive = 2e-3
    """Adam's, for policies, at the start."""
    critic_learning_rate: Positive = 2e-3
    """The same for critics."""
    final_learning_rate_share: Fraction = 0.05
    """Learning rates fall over the budget to this share of their start."""
    learning_rate_decay: Literal["linear", "cosine"] = "linear"
    """How they fall: evenly, or late."""
    side_learning_rates: dict[str, Positive] = {}
    """What the learning rates of a side's networks are multiplied by; 1 for sides not named."""
    policy_every: CountOrZero = 0
    """Policies (and all targets) move each so many updates; 0 = 2 where a side learns by matd3, else 1."""
    smoothing: NonNegative = 0.2
    """matd3: standard deviation of the noise on target actions, in units of half the action's range."""
    smoothing_clip: NonNegative = 0.5
    """matd3: the most that noise may be, in the same units."""
    critic_loss: Literal["squared", "huber"] = "squared"
    """Of a TD error; huber is linear beyond 1."""
    gradient_clip: NonNegative = 0.5
    """Largest gradient norm of one network; 0 = no clipping."""
    action_regularisation: NonNegative = 1e-3
    """Weight of mean(logits^2) in the policy loss."""
    policy_weight_decay: NonNegative = 0.0
    """Fraction of a policy's weight that is added to its gradient."""
    critic_weight_decay: NonNegative = 0.0
    """The same for critics."""
    reward_scale: Positive = 1.0
    """What rewards are multiplied by before critics learn them: never shifted, which would change the task."""
    team_spirit: Fraction = 0.0
    """Fraction of the team's mean reward in each agent's: 0 = its own only, 1 = the team's only."""
    final_team_spirit: Fraction | None = None
    """What it moves to, linearly over the budget; none = stays."""
    teammates: Literal["buffer", "current"] = "buffer"
    """Other agents' actions in an agent's policy loss: as stored, or by their current policies."""
    gumbel: Literal["straight_through", "soft"] = "straight_through"
    """Categorical parts in the policy loss: one-hot with the soft sample's gradient, or the soft sample itself."""
    gumbel_temperature: Positive = 1.0
    """Of that soft sample: smaller is nearer to a choice."""


class ExplorationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How actors depart from their policies. The learner keeps the schedule; the scale travels with the weights."""

    kind: Literal["gaussian", "ornstein_uhlenbeck"] = "gaussian"
    """Noise on Box parts."""
    choices: Literal["gumbel", "epsilon"] = "gumbel"
    """Categorical parts: drawn from the policy's softmax; or its best, and with probability scale any."""
    scale: NonNegative = 0.3
    """Standard deviation at the start, in units of half the action's range."""
    final_scale: NonNegative = 0.05
    """The least it falls to."""
    decay: Literal["linear", "exponential"] = "linear"
    """How the scale falls to final_scale: over decay_share of the budget, or by decay_rate each environment step."""
    decay_share: Fraction = 1.0
    """Where decay is linear: the share of the budget it takes."""
    decay_rate: PositiveFraction = 0.99999
    """Where it is exponential: what the scale is multiplied by each environment step, over all copies."""
    ladder: PositiveFraction = 1.0
    """Scale of a node's last worker in units of its first's, workers between in geometric steps; 1 = all alike."""
    theta: PositiveFraction = 0.15
    """Ornstein-Uhlenbeck: share of the way back to zero each step."""
    random_steps: CountOrZero = 5_000
    """First environment steps, acted uniformly at random."""


class ReplaySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of the replay and the ratio between learning from it and filling it, all in joint transitions."""

    capacity: Annotated[int, Meta(ge=1, le=2**31)] = 100_000
    """Newest transitions that are kept, for each replay server."""
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Transitions an update learns from."""
    samples_per_insert: Positive = 4.0
    """How often a transition is learnt from, on average: the ratio of learning to acting."""
    min_size: Count = 5_000
    """Transitions there must be before the first update."""
    error_buffer: NonNegative = 0.0
    """Half width of the band around the ratio, in samples; 0 = chosen from batch, chunk and ratio."""
    limit: Literal["strict", "insert_only", "off"] = "strict"
    """Who waits to hold the ratio: both sides, only the actors, or nobody."""
    n_step: Annotated[int, Meta(ge=1, le=100)] = 1
    """Environment steps a sampled transition spans, fewer where its episode ends before."""
    priority_exponent: Fraction = 0.0
    """How far sampling follows priorities (alpha): 0 = uniform, 1 = in proportion to the TD error."""
    importance_exponent: Fraction = 0.4
    """How far the loss makes up for that (beta); rises to 1 over the budget."""

    def largest_chunk(self, batch: int) -> int:
        """Returns the most rows of a chunk that can take turns with batches of `batch` forever."""
        if self.limit == "off" or not self.error_buffer:
            return UNLIMITED_ROWS
        return math.floor(min(self.error_buffer, 2 * self.error_buffer - batch) / self.samples_per_insert)


class BudgetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a run is done: after so many environment steps or so much time, whichever is given."""

    steps: CountOrZero = 0
    """Environment steps (joint, over all copies); 0 = no limit."""
    seconds: NonNegative = 0.0
    """Time from the first transition on, over all starts of a resumed run [s]; 0 = no limit."""
    milestone_steps: CountOrZero = 0
    """What is learnt is kept for good each so many environment steps, at the start and at the end; 0 = never."""


class EpisodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long an episode may be, whatever its world says."""

    max_steps: CountOrZero = 0
    """Steps after which an episode is cut off as truncated, in training and evaluation; 0 = as the world ends it."""


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a run that a user sets."""

    scenario: Annotated[str, Meta(min_length=1, max_length=200)]
    """The world: a name of `shoal scenarios`, or pettingzoo:package.module."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    """Of networks, sampling and worlds."""
    world: dict[str, Any] = {}
    """Options of the scenario, checked by the world itself: numbers, texts, true, false, none, lists and tables."""
    network: NetworkSpec = NetworkSpec()
    algorithm: AlgorithmSpec = AlgorithmSpec()
    exploration: ExplorationSpec = ExplorationSpec()
    replay: ReplaySpec = ReplaySpec()
    budget: BudgetSpec = BudgetSpec()
    episode: EpisodeSpec = EpisodeSpec()

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other, and options of a world that are not plain data."""
        msgspec.structs.force_setattr(self, "world", plain_options(self.world))
        parse_algorithms(self.algorithm.name)
        if self.replay.min_size > self.replay.capacity:
            raise ValueError(
                f"replay.min_size {self.replay.min_size} is more than replay.capacity {self.replay.capacity} holds"
            )


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run with its identity and what its world says of itself."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
    spec: RunSpec
    joint: AgentsSpec
    spaces: tuple[AgentSpaces, ...] = ()
    """Each agent's own spaces, for whoever takes its policy elsewhere; empty for built-in worlds. Not in data_hash."""

    @property
    def without_spaces(self) -> Run:
        """The run as it travels: nobody needs the spaces on the other side, and they could outgrow a message."""
        return msgspec.structs.replace(self, spaces=())

    @property
    def players(self) -> PlayersSpec:
        """Who acts and learns: the agents, those of sides that learn as one merged; ConfigError for an unknown side."""
        return players(self.joint, self.spec.algorithm.name)

    @property
    def data_hash(self) -> str:
        """Names the shape and meaning of this run's transitions: 16 hex digits over world and AgentsSpec."""
        return _digest([self.spec.scenario, self.spec.world, msgspec.to_builtins(self.joint)])


def make_run_spec(*layers: Mapping[str, Any]) -> RunSpec:
    """Merges layers of settings, later ones winning key by key, and validates the whole.

    Raises ConfigError that names the setting, its value and what is allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if both_tables else value
    return _convert(merged)


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Reads `section.key=value` texts (see `option_values.read_value`) into a layer of settings."""
    layer: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or (len(keys) > 2 and keys[0] != "world"):
            raise ConfigError(f"--set {assignment}: write section.key=value, as in --set replay.batch=512")
        table = layer
        for depth, key in enumerate(keys[:-1], 1):
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                name = ".".join(keys[:depth])
                raise ConfigError(f"--set {assignment}: {name} was set to {table!r} before, which has no parts")
        table[keys[-1]] = read_value(text.strip(), assignment, typed=keys[0] != "world")
    return layer


def to_toml(run: Run) -> str:
    """Writes a run as the text of `run.toml`."""
    table = msgspec.to_builtins(run)
    table["spec"]["world"] = spell_none(table["spec"]["world"])
    return tomli_w.dumps(_without_none(table))


def from_toml(text: str, origin: str) -> Run:
    """Reads what `to_toml` wrote; `origin` names the file in errors (ConfigError)."""
    try:
        return msgspec.convert(tomllib.loads(text), Run)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise ConfigError(f"{origin} is not a run written by this version of Shoal: {e}") from e


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is none, for which TOML has no word."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in table.items()
        if value is not None
    }


def _convert(settings: dict[str, Any]) -> RunSpec:
    try:
        return msgspec.convert(settings, RunSpec)
    except msgspec.ValidationError as e:
        raise ConfigError(explain(e, settings, RunSpec)) from e


def _digest(value: object) -> str:
    return hashlib.blake2b(msgspec.json.encode(value, order="sorted"), digest_size=8).hexdigest()
