"""Everything that defines a run: world, networks, algorithm, exploration, replay and budget; validated and hashed.

A `RunSpec` contains the settings of a user. A `Run` adds an identity and the agents of the world (`AgentsSpec`).
`run.toml` stores it; the learner sends it to the replay server, and actors receive it from there.
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
from common.run.players import ALGORITHMS, Algorithm, parse_algorithms, players
from common.run.spaces import AgentSpaces
from common.run.validation_errors import explain, shorten
from common.spec import AgentsSpec, Categorical, PlayersSpec

# Upper bounds exclude infinity and numbers that do not fit the wire; sensible values are far below them.
_MAX_FLOAT = 1e12
_MAX_INT = 2**53
# Dividing _MAX_FLOAT by a smaller setting would give a number beyond what the wire and float32 can carry.
MIN_POSITIVE = 1 / _MAX_FLOAT
Positive = Annotated[float, Meta(ge=MIN_POSITIVE, le=_MAX_FLOAT)]
NonNegative = Annotated[float, Meta(ge=0, le=_MAX_FLOAT)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
PositiveFraction = Annotated[float, Meta(gt=0, le=1)]
Count = Annotated[int, Meta(ge=1, le=_MAX_INT)]
CountOrZero = Annotated[int, Meta(ge=0, le=_MAX_INT)]
Hidden = Annotated[tuple[Annotated[int, Meta(ge=1, le=65_536)], ...], Meta(min_length=1, max_length=8)]
Activation = Literal["relu", "leaky_relu", "tanh", "elu", "gelu", "silu"]
Initialisation = Literal["uniform", "xavier"]
UNIFORM = "uniform"
"""The value of `replay.sampler` that is not the import path of a user's class."""
MLP = "mlp"
"""The value of `network.critic` for multilayer perceptrons."""
SET_CRITICS = "set", "attention"
"""The values of `network.critic` for critics that encode each agent; every other value is a class of the user's."""
UNLIMITED_ROWS = 2**62
"""A number of rows that no chunk reaches."""
AUTO_UPDATES_PER_STEP = (0.1, 1.0)
"""Bounds of `replay.samples_per_insert = auto` [updates per environment step], those of published continuous control:
HARL's MATD3 and HATD3 (Zhong et al. 2024) do one update in ten steps, TD3 and SAC one a step (Fujimoto et al. 2018,
Haarnoja et al. 2018). At 0.1 and a batch of 256 a transition is sampled 26 times on average before it is overwritten,
so none is overwritten unseen. With fewer updates, actors on the learner's machine would take its processors for
transitions that it hardly learns from."""
SideName = Annotated[str, Meta(min_length=1, max_length=100)]
AgentNames = Annotated[tuple[Annotated[str, Meta(max_length=1_000)], ...], Meta(min_length=1, max_length=10_000)]


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes and layers of the networks, and which agents share a network."""

    policy_hidden: Hidden = (128, 128)
    """Widths of the hidden layers of each policy [units], first layer first."""
    critic_hidden: Hidden = (128, 128)
    """Widths of the hidden layers of each critic [units], first layer first."""
    critic: Annotated[str, Meta(max_length=1_000)] = MLP
    """The networks of critics: mlp; set or attention, which encode each agent and combine the encodings of the others
    by their mean (Zaheer et al. 2017) or by attention (Iqbal and Sha 2019); or a torch module of your own, as in
    my_module:MyCritic, which the learner imports (docs/own-algorithm.md)."""
    activation: Activation = "relu"
    """Activation after each hidden layer of policies and critics; gelu in its tanh form (Hendrycks and Gimpel 2016)."""
    policy_layer_norm: bool = False
    """Normalise each hidden layer of a policy before its activation, with a learnt gain and bias for each unit (layer
    normalisation; Ba et al. 2016)."""
    critic_layer_norm: bool = False
    """Normalise each hidden layer of a critic before its activation, with a learnt gain and bias for each unit (Ba et
    al. 2016)."""
    critic_weight_norm: bool = False
    """Learn length and direction of the weights of each hidden unit of a critic separately (weight normalisation;
    Salimans and Kingma 2016)."""
    initialisation: Initialisation = "uniform"
    """How the first parameters of policies and of mlp critics are drawn: uniform, weights and biases within
    1 / sqrt(inputs) of zero, as torch does; or xavier, weights within sqrt(6 / (inputs + outputs)) (Glorot and Bengio
    2010) and biases of zero."""
    recurrent: Literal["gru"] | None = None
    """Memory of policies and critics within an episode: none, or gru, where a gated recurrent unit is the last hidden
    layer of each (Cho et al. 2014). The learner then trains on sequences (replay.sequence_steps)."""
    share_policies: bool = True
    """Let neighbouring agents of one role (agent_0, agent_1, ...) share one policy."""
    share_critics: bool = True
    """Let neighbouring agents of one role share critics; a shared critic sees its own agent first, then the others."""
    tell_apart: bool = False
    """Give each agent of a shared network its own first biases, which equals a one-hot agent number as an input."""
    sides: dict[SideName, AgentNames] = {}
    """Agents of each side, instead of the sides that the world names; agents not listed stay on their side."""
    share: Annotated[tuple[AgentNames, ...], Meta(max_length=10_000)] = ()
    """Groups of agents that share networks, instead of roles; agents not listed have separate networks."""
    head: Literal["box", "soft", "force"] = "box"
    """How Box parts of actions are made: bounded by tanh, a soft choice (Gumbel-softmax), or a 2-D force."""

    @property
    def critic_norms(self) -> int:
        """Number of parameters of a critic's normalisations for each hidden unit."""
        return 2 * self.critic_layer_norm + self.critic_weight_norm

    @property
    def is_user_critic(self) -> bool:
        """Whether critics are modules of a user's class, named by its import path."""
        return self.critic not in (MLP, *SET_CRITICS)


class AlgorithmSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of the update. The defaults are the preset `particle`; docs/algorithms.md gives their reasons."""

    name: Annotated[str, Meta(max_length=1_000)] = "maddpg"
    """Algorithm of all agents: maddpg, matd3, iddpg, joint, masac, isac, hatd3, hasac, facmac or m3ddpg; one a side,
    as in adversary=maddpg,agent=iddpg; or a class of your own, as in my_module:MyMaddpg, which the learner imports
    (docs/own-algorithm.md)."""
    variant: Algorithm = "maddpg"
    """What an algorithm of your own builds on, ignored by the others: the policies and critics, target noise and policy
    delay of maddpg, matd3, iddpg, joint, masac, isac, hatd3, hasac, facmac or m3ddpg."""
    discount: Fraction = 0.9
    """Discount factor of rewards per environment step (gamma)."""
    target_rate: PositiveFraction = 0.01
    """Rate of the soft update of target networks, per policy update (tau; Lillicrap et al. 2016)."""
    policy_learning_rate: Positive = 2e-3
    """Initial learning rate of Adam for policies (Kingma and Ba 2015)."""
    critic_learning_rate: Positive = 2e-3
    """Initial learning rate of Adam for critics (Kingma and Ba 2015)."""
    final_learning_rate_share: Fraction = 0.05
    """Final learning rates as a fraction of the initial ones, reached at the end of the budget; 1 keeps them
    constant."""
    learning_rate_decay: Literal["linear", "cosine"] = "linear"
    """How the learning rates fall over the budget: linearly, or along a cosine."""
    side_learning_rates: dict[str, Positive] = {}
    """Factors on the learning rates of a side's networks and temperatures, as in {adversary = 0.5}; 1 for sides not
    listed."""
    policy_every: CountOrZero = 0
    """Policy delay: update policies and targets once per this number of critic updates [updates]; 0 chooses 2 if a side
    learns by matd3 or hatd3 (Fujimoto et al. 2018), else 1."""
    smoothing: NonNegative = 0.2
    """Standard deviation of the noise on target actions [half the action's range], matd3 and hatd3 only (Fujimoto
    et al. 2018); 0 adds none."""
    smoothing_clip: NonNegative = 0.5
    """Bound of the noise on target actions [half the action's range], matd3 and hatd3 only (Fujimoto et al. 2018); 0
    adds none."""
    perturbation: NonNegative = 1e-3
    """Length of the step of each opponent's action against an agent's critic [half the action's range], m3ddpg only (Li
    et al. 2019); 0 makes none."""
    teammate_perturbation: NonNegative = 1e-5
    """Length of the step of each teammate's action against an agent's critic [half the action's range], m3ddpg only (Li
    et al. 2019); 0 makes none."""
    critic_loss: Literal["squared", "huber", "hl_gauss"] = "squared"
    """Loss of critics: squared TD errors; huber, which is linear beyond an error of 1; or hl_gauss, which learns a
    distribution over bins by cross-entropy (Farebrother et al. 2024)."""
    gradient_clip: NonNegative = 0.5
    """Maximum gradient norm of each network; 0 disables clipping."""
    gradient_clip_by: Literal["network", "tensor"] = "network"
    """What gradient_clip bounds: the gradient of each network, or of each weight matrix and bias vector separately, as
    in openai/maddpg."""
    action_regularisation: NonNegative = 1e-3
    """Weight of mean(logits^2) in the policy loss, as in openai/maddpg; 0 disables it."""
    policy_weight_decay: NonNegative = 0.0
    """Weight decay of policies: this multiple of the weights is added to the gradient, or subtracted from the weights
    (decoupled_weight_decay); 0 disables it."""
    critic_weight_decay: NonNegative = 0.0
    """Weight decay of critics: this multiple of the weights is added to the gradient, or subtracted from the weights
    (decoupled_weight_decay); 0 disables it."""
    decoupled_weight_decay: bool = False
    """Subtract the weight decays times the learning rate from the weights instead of adding them to the gradient
    (AdamW; Loshchilov and Hutter 2019)."""
    reward_scale: Positive = 1.0
    """Factor on rewards before critics learn them. Rewards are never shifted, because that would change the task."""
    team_spirit: Fraction = 0.0
    """Weight of the side's mean reward in each agent's reward (OpenAI Five, 2018): 0 = only the agent's reward,
    1 = only the side's mean."""
    final_team_spirit: Fraction | None = None
    """Final value of team_spirit, reached linearly at the end of the budget; none keeps it constant."""
    teammates: Literal["buffer", "current"] = "buffer"
    """The actions of all other agents, opponents included, in an agent's policy loss: as stored (Lowe et al. 2017), or
    by their current policies (Peng et al. 2021)."""
    gumbel: Literal["straight_through", "soft"] = "straight_through"
    """Categorical parts in the policy loss: one-hot with the gradient of the soft sample, or the soft sample itself
    (Jang et al. 2017)."""
    gumbel_temperature: Positive = 1.0
    """Temperature of the soft sample; smaller values are closer to one-hot."""
    target_actions: Literal["greedy", "sampled"] = "greedy"
    """Choices and soft vectors of the target policies in TD targets: without exploration, or drawn with Gumbel noise as
    actors draw them, as in openai/maddpg. It has no effect in a run with masac, isac or hasac, which draw their own."""
    normalise_observations: Literal["auto"] | bool = "auto"
    """Normalise each number of an observation by its running mean and standard deviation; auto does so outside the
    particle worlds."""
    normalise_rewards: Literal["auto"] | bool = "auto"
    """Divide rewards by a running estimate of the size of returns, before reward_scale; auto does so outside the
    particle worlds, and for critic_loss = hl_gauss in all worlds."""
    entropy_target: Literal["auto"] | Annotated[float, Meta(ge=-1e6, le=1e6)] = "auto"
    """Entropy of a policy that its temperature is learnt towards, masac, isac and hasac only [nats]; auto takes -1
    for each Box number (Haarnoja et al. 2018) and 0.3 log n for each choice among n."""
    initial_temperature: Positive = 0.1
    """Weight of the entropy at the start (alpha), masac, isac and hasac only [reward / nat]; it is learnt from there
    (Haarnoja et al. 2018)."""
    critic_sees: Literal["observations", "state", "both"] = "observations"
    """Input of critics beside the joint action: the joint observation, the environment's global state, or both."""
    team_critic: bool = False
    """Give each side one critic (two under matd3) that learns the side's mean reward, instead of one an agent: all
    policies of a side learn from one pass with the current actions of all its agents (Peng et al. 2021). hatd3,
    hasac and facmac always do."""
    engine: Literal["auto", "autograd", "stacked"] = "auto"
    """What computes the updates: autograd, gradients written by hand (stacked, faster for small networks), or the
    better of both for the other settings. Both learn the same, and a resumed run may change it."""

    @property
    def is_user_class(self) -> bool:
        """Whether the algorithm is a user's class, named by its import path."""
        return ":" in self.name

    @property
    def variants(self) -> str:
        """The algorithm of the family that each side's networks follow: `name`, or `variant` for a user's class."""
        return self.variant if self.is_user_class else self.name

    def side_learning_rate(self, side: str) -> float:
        """Returns the factor on the learning rates of a side's networks."""
        return self.side_learning_rates.get(side, 1.0)

    @property
    def normalises_observations(self) -> bool:
        """Whether observations are normalised; `auto` counts as no, as in runs made before the setting existed."""
        return self.normalise_observations is True

    @property
    def normalises_rewards(self) -> bool:
        """Whether rewards are normalised; `auto` counts as no, as in runs made before the setting existed."""
        return self.normalise_rewards is True


class ExplorationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How actors explore. The learner computes the schedule and sends the current scale with the weights."""

    kind: Literal["gaussian", "ornstein_uhlenbeck"] = "gaussian"
    """Noise on Box parts of actions: new at every step, or correlated in time (Lillicrap et al. 2016)."""
    choices: Literal["gumbel", "epsilon"] = "gumbel"
    """Exploration of Categorical parts: draw from the policy's softmax, or act greedily except with probability
    `scale`."""
    scale: NonNegative = 0.3
    """Initial standard deviation of the noise [half the action's range]; 0 adds no noise."""
    final_scale: NonNegative = 0.05
    """Final standard deviation of the noise [half the action's range]; 0 ends without noise."""
    decay: Literal["linear", "exponential"] = "linear"
    """How the scale falls to final_scale: linearly over decay_share of the budget, or by decay_rate each
    environment step."""
    decay_share: Fraction = 1.0
    """Fraction of the budget over which a linear decay falls; 0 starts at final_scale."""
    decay_rate: PositiveFraction = 0.99999
    """Factor of an exponential decay per environment step, counted over all copies."""
    ladder: PositiveFraction = 1.0
    """Scale of a node's last copy of the world as a fraction of its first one's, in geometric steps between; 1 = all
    equal."""
    theta: PositiveFraction = 0.15
    """Fraction by which Ornstein-Uhlenbeck noise returns to zero each step (Lillicrap et al. 2016)."""
    random_steps: CountOrZero = 5_000
    """Length of the warm-up with uniformly random actions [environment steps]; 0 starts with the policies."""
    decay_steps: CountOrZero = 0
    """Length of a linear decay, whatever the budget is [environment steps]; 0 = decay_share of the budget."""


class ReplaySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Size of the replay, and the ratio of samples to inserts, counted in joint transitions of all agents."""

    capacity: Annotated[int, Meta(ge=1, le=2**31)] = 100_000
    """Capacity of each replay server [transitions]; new transitions overwrite the oldest."""
    batch: Annotated[int, Meta(ge=1, le=65_536)] = 256
    """Batch size of an update [transitions]."""
    samples_per_insert: Positive | Literal["auto"] = 4.0
    """Average number of times that a transition is sampled [samples per transition] (Reverb; Cassirer et al. 2021);
    auto updates as often as the learner can, between one update per ten environment steps and one per step."""
    min_size: Count = 5_000
    """Size of the replay at which updates start [transitions]."""
    error_buffer: NonNegative = 0.0
    """Half width of the rate limiter's band around samples_per_insert [samples]; 0 chooses it from batch, chunk and
    ratio."""
    limit: Literal["strict", "insert_only", "off"] = "strict"
    """Which side the rate limiter blocks: actors and learner, only actors, or neither."""
    n_step: Annotated[int, Meta(ge=1, le=100)] = 3
    """Length of the n-step return of a sampled transition [environment steps], shorter at an episode's end (Sutton
    1988)."""
    sampler: Annotated[str, Meta(max_length=1_000)] = UNIFORM
    """How the transitions of a batch are drawn: uniform (by priority if priority_exponent is set), or your own class,
    as in my_module:MySampler, which every replay server imports (docs/own-algorithm.md)."""
    priority_exponent: Fraction = 0.0
    """Priority exponent alpha of prioritised replay (Schaul et al. 2016): 0 = uniform, 1 = proportional to the TD
    error."""
    importance_exponent: Fraction = 0.4
    """Initial importance-sampling exponent beta (Schaul et al. 2016), 0 = no correction; rises to 1 over the budget."""
    sequence_steps: Annotated[int, Meta(ge=1, le=1_000)] = 16
    """Length of the sequences that recurrent policies learn from [environment steps]; batch must be a multiple of it.
    Ignored without network.recurrent."""
    burn_in: Annotated[int, Meta(ge=0, le=1_000)] = 16
    """Steps before each sequence that only compute the memory of recurrent policies, which starts at zero there
    [environment steps] (Kapturowski et al. 2019); 0 = none. Ignored without network.recurrent."""

    @property
    def is_auto(self) -> bool:
        """Whether the ratio of samples to inserts is free between two bounds."""
        return self.samples_per_insert == "auto"

    @property
    def min_ratio(self) -> float:
        """Samples per insert below which actors wait for the learner."""
        least = AUTO_UPDATES_PER_STEP[0] * self.batch
        return least if self.samples_per_insert == "auto" else self.samples_per_insert

    @property
    def max_ratio(self) -> float:
        """Samples per insert above which the learner waits for actors."""
        most = AUTO_UPDATES_PER_STEP[1] * self.batch
        return most if self.samples_per_insert == "auto" else self.samples_per_insert

    def max_chunk_rows(self, batch: int) -> int:
        """Returns the largest chunk [transitions] that the rate limiter can always admit with such batches."""
        if self.limit == "off" or not self.error_buffer:
            return UNLIMITED_ROWS
        return math.floor(min(self.error_buffer, 2 * self.error_buffer - batch) / self.min_ratio)


class BudgetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a run ends: at the first limit that it reaches."""

    steps: CountOrZero = 0
    """Limit of environment steps over all copies [environment steps]; 0 = no limit."""
    seconds: NonNegative = 0.0
    """Limit of the time since the first transition, summed over all starts of a resumed run [s]; 0 = no limit."""
    milestone_steps: CountOrZero = 0
    """Make a permanent copy of policies and learner (milestone) each time that this number of steps has passed, and at
    start and end [environment steps]; 0 = none."""


class EpisodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit on the length of episodes that applies to every world."""

    max_steps: CountOrZero = 0
    """Maximum length of an episode before it is truncated, in training and evaluation [environment steps]; 0 = no
    limit."""
    stagger_steps: CountOrZero = 0
    """Length over which the ends of the copies' first episodes are spread in training, so that episodes do not end
    together [environment steps]; 0 lets them start together."""


class EvaluationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Evaluations without exploration while a run trains; they do not change what is learnt."""

    times: Annotated[int, Meta(ge=0, le=100_000)] = 20
    """Number of evaluations, evenly over the budget and one more before the first update; 0 turns them off."""
    episodes: Annotated[int, Meta(ge=1, le=1_000_000)] | Literal["auto"] = "auto"
    """Number of episodes of an evaluation; auto plays 500 in a world of Shoal's own, and elsewhere as many as fit
    into the time, from 1 to 20."""
    share_of_time: PositiveFraction = 0.05
    """Maximum share of the training time that evaluations take [fraction]; those that would exceed it are left out. 1
    leaves none out."""


class LoggingSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of what a run records."""

    tensorboard: Literal["named", "numbered"] = "named"
    """Curves in TensorBoard: named as in metrics.jsonl and by agent, over environment steps (critic_loss/agent_0), or
    numbered, over updates (agent0/losses, agent0/mean_episode_rewards; docs/seed.md)."""


class RunSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All settings of a run."""

    scenario: Annotated[str, Meta(min_length=1, max_length=200)]
    """Name of the world: one of `shoal scenarios`, or FAMILY:NAME, as in pettingzoo:sisl/pursuit-v5."""
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    """Seed of networks, sampling and worlds."""
    start_from: Annotated[str, Meta(max_length=4_000)] = ""
    """Directory of a run whose newest policies and critics are the first ones of this run, at the learner; empty draws
    them from the seed. Its world may have another number of agents of a role."""
    world: dict[str, Any] = {}
    """Options of the scenario, which the world checks: numbers, texts, true, false, none, lists and tables.

    `world.history`, of every world: the number of last observations and actions that each agent observes too.
    """
    network: NetworkSpec = NetworkSpec()
    algorithm: AlgorithmSpec = AlgorithmSpec()
    exploration: ExplorationSpec = ExplorationSpec()
    replay: ReplaySpec = ReplaySpec()
    budget: BudgetSpec = BudgetSpec()
    episode: EpisodeSpec = EpisodeSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    logging: LoggingSpec = LoggingSpec()

    def __post_init__(self) -> None:
        """Raises ValueError for settings that contradict each other, and world options that are not plain data."""
        msgspec.structs.force_setattr(self, "world", plain_options(self.world))
        _check_algorithm(self.algorithm)
        if self.network.is_user_critic:
            _check_import_path("network.critic", self.network.critic, "mlp, set or attention", "my_module:MyCritic")
            if self.algorithm.critic_loss == "hl_gauss":
                raise ValueError(
                    "algorithm.critic_loss = 'hl_gauss': critics of your own return one value, not a distribution;"
                    " choose squared or huber, or set network.critic to mlp, set or attention"
                )
        _check_sampler(self.replay)
        if self.network.recurrent:
            _check_sequences(self.replay, self.algorithm, self.network)
        if self.replay.min_size > self.replay.capacity:
            raise ValueError(
                f"replay.min_size = {self.replay.min_size}: more than replay.capacity = {self.replay.capacity}"
            )

    @property
    def batch_rows(self) -> int:
        """Number of records that carry a batch: `replay.batch`, and of recurrent policies the burn-in besides."""
        replay = self.replay
        if not self.network.recurrent:
            return replay.batch
        return replay.batch // replay.sequence_steps * (replay.burn_in + replay.sequence_steps)


def _check_algorithm(algorithm: AlgorithmSpec) -> None:
    """Raises ValueError if `algorithm.name` names neither algorithms of the family nor one class of the user's."""
    if not algorithm.is_user_class:
        parse_algorithms(algorithm.name)
    elif "=" in algorithm.name:
        raise ValueError(
            f"algorithm.name = {shorten(repr(algorithm.name))}: a class of your own learns for all sides; write its"
            " import path alone, as in my_module:MyMaddpg"
        )
    else:
        _check_import_path("algorithm.name", algorithm.name, " or ".join(ALGORITHMS), "my_module:MyMaddpg")


def _check_import_path(setting: str, path: str, otherwise: str, example: str) -> None:
    """Raises ValueError if `path` is not the import path of a class; otherwise, example: what a user can write."""
    module, _, name = path.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError(
            f"{setting} = {shorten(repr(path))}: write {otherwise}, or {example}, a module and a class in it"
        )


def _check_sampler(replay: ReplaySpec) -> None:
    """Raises ValueError if `replay.sampler` is neither "uniform" nor an import path, or excludes another setting."""
    if replay.sampler == UNIFORM:
        return
    _check_import_path("replay.sampler", replay.sampler, UNIFORM, "my_module:MySampler")
    if replay.priority_exponent:
        raise ValueError(
            f"replay.priority_exponent = {replay.priority_exponent:g}: only the sampler {UNIFORM} uses priorities, not"
            f" {shorten(replay.sampler)}; set one of both"
        )


def _check_sequences(replay: ReplaySpec, algorithm: AlgorithmSpec, network: NetworkSpec) -> None:
    """Raises ValueError for settings that exclude sequences, which recurrent policies learn from."""
    steps = replay.sequence_steps
    if replay.batch % steps:
        multiple = max(1, round(replay.batch / steps)) * steps
        raise ValueError(
            f"replay.batch = {replay.batch}: recurrent policies learn from sequences of replay.sequence_steps = {steps}"
            f" steps, so the batch must be a multiple of {steps}; set replay.batch={multiple}"
        )
    if replay.priority_exponent:
        raise ValueError(
            f"replay.priority_exponent = {replay.priority_exponent:g}: the sequences of recurrent policies are drawn"
            " uniformly; set replay.priority_exponent=0, or network.recurrent=none"
        )
    if replay.sampler != UNIFORM:
        raise ValueError(
            f"replay.sampler = {shorten(replay.sampler)}: the sequences of recurrent policies are drawn uniformly; set"
            f" replay.sampler={UNIFORM}, or network.recurrent=none"
        )
    if algorithm.is_user_class:
        raise ValueError(
            f"algorithm.name = {shorten(repr(algorithm.name))}: a class of your own cannot learn recurrent policies;"
            " name an algorithm of Shoal, or set network.recurrent=none"
        )
    if network.critic != MLP:
        raise ValueError(
            f"network.critic = {shorten(repr(network.critic))}: recurrent policies need MLPs as critics, which are"
            f" recurrent too; set network.critic={MLP}, or network.recurrent=none"
        )


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A run: its settings with its identity and the agents of its world."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}\Z")]
    spec: RunSpec
    joint: AgentsSpec
    spaces: tuple[AgentSpaces, ...] = ()
    """The environment's spaces of each agent, for use of a policy outside Shoal; empty for built-in worlds."""

    @property
    def without_spaces(self) -> Run:
        """The run as messages carry it: the receiver does not need the spaces, and they could exceed a message."""
        return msgspec.structs.replace(self, spaces=())

    @property
    def players(self) -> PlayersSpec:
        """The players: the agents, where a side that learns as one is one player; ConfigError for an unknown side."""
        return players(self.joint, self.spec.algorithm.variants)

    @property
    def samples_choices(self) -> bool:
        """Whether actors draw Categorical parts from the policy's softmax; False for agents without such parts."""
        has_choices = any(isinstance(part, Categorical) for agent in self.joint.agents for part in agent.parts)
        return has_choices and self.spec.exploration.choices == "gumbel"

    @property
    def data_hash(self) -> str:
        """Hash of the world's name, the world's options and the agents, 16 hex digits.

        Runs with equal hashes have transitions of equal size and meaning; servers refuse others.
        """
        return _digest([self.spec.scenario, self.spec.world, msgspec.to_builtins(self.joint)])


def make_run_spec(*layers: Mapping[str, Any]) -> RunSpec:
    """Merges layers of settings, where later layers override earlier ones key by key, and validates the result.

    Raises ConfigError that names the setting, its value and what is allowed.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            both_tables = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
            merged[key] = {**merged[key], **value} if both_tables else value
    return _convert(merged)


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Parses `section.key=value` texts into a layer of settings; ConfigError for a malformed text or value."""
    layer: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys) or (len(keys) > 2 and keys[0] != "world"):
            raise ConfigError(f"--set {shorten(assignment)}: write section.key=value, as in --set replay.batch=512.")
        table = layer
        for depth, key in enumerate(keys[:-1], 1):
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                name = shorten(".".join(keys[:depth]))
                raise ConfigError(
                    f"--set {shorten(assignment)}: an earlier --set gave {name} the value {shorten(repr(table))}, which"
                    " is not a table. Remove one of the two."
                )
        table[keys[-1]] = read_value(text.strip(), assignment, typed=keys[0] != "world")
    return layer


def to_toml(run: Run) -> str:
    """Returns a run as the text of `run.toml`."""
    table = msgspec.to_builtins(run)
    table["spec"]["world"] = spell_none(table["spec"]["world"])
    return tomli_w.dumps(_without_none(table))


def from_toml(text: str, origin: str) -> Run:
    """Parses the text of `run.toml`; ConfigError if it is malformed. origin: the file's name in error messages."""
    try:
        return msgspec.convert(tomllib.loads(text), Run)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as e:
        raise ConfigError(
            f"{origin} is not a run written by this version of Shoal: {e}. Use the version that wrote it, or start a"
            " new --run."
        ) from e


def _without_none(table: dict[str, Any]) -> dict[str, Any]:
    """Omits keys without a value, because TOML has no none."""
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
