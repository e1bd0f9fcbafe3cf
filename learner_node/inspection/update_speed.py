"""The speed of the update, compared with a loop over agents, its matrix products alone, and the machine's peak.

All are measured in one process on one thread, in turn. The results are medians, because machines have slow spells.

    peak       the rate of a product of two square float32 matrices
    at_peak_s  the time of the update's arithmetic at that rate
    products   the update's matrix products, in the same shapes and memory, without the work between them
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from common.policy.heads import Floats, box_range
from common.policy.network import unflatten
from common.run.run import AlgorithmSpec, NetworkSpec, Run, RunSpec
from common.spec import AgentsSpec, Box, PlayersSpec, joint_spec
from common.transitions import field_columns, transition_dtype
from learner_node.algorithms.maddpg import Maddpg
from learner_node.engine import Engine
from learner_node.stacked.update import StackedUpdate
from learner_node.update.batches import LossBatch

NETWORK = NetworkSpec(policy_hidden=(64, 64), critic_hidden=(64, 64), share_policies=False, share_critics=False)
ALGORITHM = AlgorithmSpec(name="maddpg")
"""The networks and the algorithm of Lowe et al. 2017, independent of the defaults of a run."""
TWIN_CRITICS = AlgorithmSpec(name="matd3")
"""The algorithm that is measured with the networks of a run's defaults: an update with and one without the policies."""
ROUNDS = 40
PEAK_SIZE = 512
_PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.bmm, torch.ops.aten.addmm, torch.ops.aten.addmm_, torch.ops.aten.baddbmm)


class Speed(NamedTuple):
    """Median times of one batch size [s]."""

    rows: int
    update_s: float
    loop_s: float
    """Time of PerAgentLoop."""
    products_s: float
    """Time of the update's matrix products alone."""
    at_peak_s: float
    """Time of the update's arithmetic at the machine's peak."""


def simple_spread_shapes() -> AgentsSpec:
    """Returns three agents with 18 observations and 5 action numbers each, as in simple_spread."""
    return joint_spec([(f"agent_{i}", "agent", 18, (Box((0.0,) * 5, (1.0,) * 5),)) for i in range(3)])


def run_of(network: NetworkSpec, algorithm: AlgorithmSpec) -> Run:
    """Returns a run whose agents have simple_spread's shapes, with the default settings besides."""
    return Run("bench", RunSpec("simple_spread", network=network, algorithm=algorithm), simple_spread_shapes())


def speeds(sizes: tuple[int, ...] = (256, 1024)) -> Iterator[Speed]:
    """Measures the update of MADDPG on simple_spread's shapes with the paper's networks; leaves torch on one thread."""
    torch.set_num_threads(1)
    agents, network, algorithm = simple_spread_shapes(), NETWORK, ALGORITHM
    for rows in sizes:
        batch = random_batch(agents, rows)
        stacked, loop = (
            StackedUpdate(run_of(network, algorithm), batch.obs_action),
            PerAgentLoop(agents, network, algorithm),
        )
        a, b, out = (torch.randn(PEAK_SIZE, PEAK_SIZE) for _ in range(3))
        rates = algorithm.policy_learning_rate, algorithm.critic_learning_rate
        update = partial(stacked.update, batch, *rates)
        update()
        with Products() as products:
            update()
        update_s, loop_s, products_s, peak_s = _medians(
            update, partial(loop.update, batch), products.replay, partial(torch.mm, a, b, out=out)
        )
        at_peak_s = update_flop(agents, network, rows) / (2 * PEAK_SIZE**3) * peak_s
        yield Speed(rows, update_s, loop_s, products_s, at_peak_s)


class EngineSpeed(NamedTuple):
    """Median times of one batch size under both engines [s]."""

    networks: str
    """`update`: those of Lowe et al. 2017, two layers of 64 for each agent. `defaults`: a run's defaults, by matd3."""
    rows: int
    autograd_s: float
    stacked_s: float


def engine_speeds(sizes: tuple[int, ...] = (256, 1024)) -> Iterator[EngineSpeed]:
    """Measures both engines on simple_spread's shapes; leaves torch on one thread.

    Under matd3 every second update includes the policies, so two updates are measured together.
    """
    torch.set_num_threads(1)
    agents = simple_spread_shapes()
    variants = {"update": (NETWORK, ALGORITHM, (True,)), "defaults": (NetworkSpec(), TWIN_CRITICS, (False, True))}
    for name, (network, algorithm, moves_policies) in variants.items():
        for rows in sizes:
            batch = random_batch(agents, rows)
            works = [
                partial(_updates, engine(run_of(network, algorithm), batch.obs_action), batch, moves_policies)
                for engine in (Maddpg, StackedUpdate)
            ]
            autograd_s, stacked_s = (seconds / len(moves_policies) for seconds in _medians(*works))
            yield EngineSpeed(name, rows, autograd_s, stacked_s)


def _updates(engine: Engine, batch: LossBatch, moves_policies: tuple[bool, ...]) -> None:
    for update_policies in moves_policies:
        engine.update(
            batch, ALGORITHM.policy_learning_rate, ALGORITHM.critic_learning_rate, update_policies=update_policies
        )


def seconds_by_threads(counts: tuple[int, ...], rows: int = 256) -> list[float]:
    """Returns the median seconds of an update by matd3 of the default networks for each number of threads.

    Every second update includes the policies, so two updates are measured together. Leaves torch on one thread.
    """
    batch = random_batch(simple_spread_shapes(), rows)
    learner = StackedUpdate(run_of(NetworkSpec(), TWIN_CRITICS), batch.obs_action)

    def two_updates(threads: int) -> None:
        torch.set_num_threads(threads)
        _updates(learner, batch, (False, True))

    measured = _medians(*(partial(two_updates, count) for count in counts))
    torch.set_num_threads(1)
    return [seconds / 2 for seconds in measured]


def update_flop(agents: AgentsSpec, network: NetworkSpec, rows: int) -> int:
    """Returns the multiplications and additions of the matrix products that one update of MADDPG needs.

    Policies and critics need a forward pass for the targets, and forward and backward passes for training. The policy
    loss needs the critics again: forward with the new action of their own player, and backward to that action only.
    """
    policy = critic = through_policy = through_critic = action_only = 0
    for agent in agents.agents:
        *inner, last = pairwise((agent.obs_dim, *network.policy_hidden, agent.action_dim))
        policy += sum(i * o for i, o in (*inner, last))
        through_policy += sum(i * o for i, o in (*inner[1:], last))
        *inner, last = pairwise((agents.obs_dim + agents.action_dim, *network.critic_hidden, 1))
        critic += sum(i * o for i, o in (*inner, last))
        through_critic += sum(i * o for i, o in (*inner[1:], last))
        action_only += agent.action_dim * network.critic_hidden[0]
    training = 2 * policy + through_policy + 2 * critic + through_critic
    return 2 * rows * (policy + critic + training + critic + through_critic + 2 * action_only)


def random_records(agents: AgentsSpec, rows: int) -> Tensor:
    """Returns records of random numbers `[rows, numbers]`; every agent acts in every row."""
    dtype = transition_dtype(agents)
    columns, records = field_columns(dtype), torch.randn(rows, dtype.itemsize // 4)
    records[:, columns["discount"].start : columns["present"].stop] = 1.0
    return records


def random_batch(agents: AgentsSpec, rows: int) -> LossBatch:
    """Returns a batch of random numbers as views of records; every agent acts in every row."""
    columns, records = field_columns(transition_dtype(agents)), random_records(agents, rows)
    next_obs, reward, discount, present = (
        records[:, columns[name]] for name in ("next_obs", "reward", "discount", "present")
    )
    next_state = records[:, columns["next_state"]] if "next_state" in columns else None
    obs_action = records[:, : columns["next_obs"].start]
    return LossBatch(obs_action, next_obs, reward, discount, present, complete=True, next_state=next_state)


class Products(TorchDispatchMode):
    """A context that records matrix products, to compute them again alone and in the same memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = partial(func, *args, **(kwargs or {}))
        if func.overloadpacket in _PRODUCTS:
            self.calls.append(call)
        return call()

    @torch.inference_mode()
    def replay(self) -> None:
        """Computes the recorded products again, in their order."""
        for call in self.calls:
            call()


class PerAgentLoop:
    """MADDPG as it is usually written: one module, one optimiser and one backward pass for each agent."""

    def __init__(self, agents: AgentsSpec, network: NetworkSpec, algorithm: AlgorithmSpec) -> None:
        self._agents, self._algorithm = agents, algorithm
        inputs = agents.obs_dim + agents.action_dim
        self.policies = [_mlp(a.obs_dim, *network.policy_hidden, a.action_dim) for a in agents.agents]
        self.critics = [_mlp(inputs, *network.critic_hidden, 1) for _ in agents.agents]
        self._targets = copy.deepcopy((self.policies, self.critics))
        self._policy_adams = [
            torch.optim.Adam(net.parameters(), algorithm.policy_learning_rate) for net in self.policies
        ]
        self._critic_adams = [
            torch.optim.Adam(net.parameters(), algorithm.critic_learning_rate) for net in self.critics
        ]

    def update(self, batch: LossBatch) -> None:
        """Updates agent after agent, then all targets."""
        obs, action = torch.split(batch.obs_action, [self._agents.obs_dim, self._agents.action_dim], dim=1)
        with torch.no_grad():
            next_obs = [batch.next_obs[:, agent.obs_slice] for agent in self._agents.agents]
            next_actions = [
                torch.sigmoid(2 * net(agent_obs)) for net, agent_obs in zip(self._targets[0], next_obs, strict=True)
            ]
            next_joint = torch.cat([batch.next_obs, *next_actions], 1)
        for i, agent in enumerate(self._agents.agents):
            with torch.no_grad():
                value = self._targets[1][i](next_joint)[:, 0]
                target = batch.reward[:, i] + self._algorithm.discount * batch.discount[:, i] * value
            loss = nn.functional.mse_loss(self.critics[i](batch.obs_action)[:, 0], target)
            self._descend(self.critics[i], self._critic_adams[i], loss)
            logits = self.policies[i](obs[:, agent.obs_slice])
            actions = action.clone()
            actions[:, agent.action_slice] = torch.sigmoid(2 * logits)
            loss = -self.critics[i](torch.cat([obs, actions], 1)).mean()
            loss = loss + self._algorithm.action_regularisation * logits.square().mean()
            self._descend(self.policies[i], self._policy_adams[i], loss)
        for net, target_net in zip(self.policies + self.critics, self._targets[0] + self._targets[1], strict=True):
            for new, old in zip(net.parameters(), target_net.parameters(), strict=True):
                old.data.lerp_(new.data, self._algorithm.target_rate)

    def _descend(self, network: nn.Module, adam: torch.optim.Adam, loss: Tensor) -> None:
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), self._algorithm.gradient_clip)
        adam.step()


def policy_in_torch(players: PlayersSpec, network: NetworkSpec, flat: Floats) -> Callable[[Floats], Floats]:
    """Returns `common.policy.network.Policy.act` with these weights in torch: a module for each agent, box heads.

    The function takes joint observations `[copies, sum obs]` and returns joint actions `[copies, sum action]`. Leaves
    torch on one thread.
    """
    torch.set_num_threads(1)
    modules = []
    for agent, layers in zip(players.agents, unflatten(flat, players, network), strict=True):
        module = _mlp(agent.obs_dim, *network.policy_hidden, agent.action_dim)
        linear = [layer for layer in module if isinstance(layer, nn.Linear)]
        for layer, loaded in zip(linear, (*layers.hidden, layers.last), strict=True):
            layer.weight.data, layer.bias.data = torch.tensor(loaded.weight.T), torch.tensor(loaded.bias)
        modules.append(module)
    boxes = [part for agent in players.agents for part in agent.parts if isinstance(part, Box)]
    middle, half = (torch.from_numpy(np.concatenate(side)) for side in zip(*map(box_range, boxes), strict=True))

    def act(obs: Floats) -> Floats:
        with torch.inference_mode():
            seen = torch.from_numpy(obs)
            logits = [module(seen[:, a.obs_slice]) for module, a in zip(modules, players.agents, strict=True)]
            actions: Floats = torch.addcmul(middle, torch.tanh(torch.cat(logits, 1)), half).numpy()
            return actions

    return act


def _mlp(*sizes: int) -> nn.Sequential:
    layers = [layer for inputs, outputs in pairwise(sizes) for layer in (nn.Linear(inputs, outputs), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _medians(*works: Callable[[], object]) -> list[float]:
    """Returns the median seconds of each work; works alternate, and each measured call follows an unmeasured one."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(ROUNDS):
        for work, measured in zip(works, seconds, strict=True):
            work()
            started_at = time.perf_counter()
            work()
            measured.append(time.perf_counter() - started_at)
    return [statistics.median(measured[ROUNDS // 10 :]) for measured in seconds]
