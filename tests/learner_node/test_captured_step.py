"""An update keeps the rules of CUDA graphs, as far as a CPU can tell.

A replayed graph computes with memory, not with values: it reads static memory and its own results. An update that makes
a tensor of Python numbers (`x[:, [0, 2]]` does), reads a result on the CPU (`.item()`, `if tensor:`), or reads memory
that was not there before, cannot be captured or computes with old numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.run.run import Run, make_run_spec
from learner_node.engine import make_engine
from tests.learner_node.teams import TEAMS, as_batch, as_fields, random_records

pytestmark = pytest.mark.slow
READS = (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.is_nonzero)


class Operations(TorchDispatchMode):
    """Notes the memory that operations read and make, and what a graph cannot do on the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[str, Tensor]] = []
        """Operations with the memory that they read, which stays alive so that no address is used twice."""
        self.made: list[Tensor] = []
        self.on_cpu: list[str] = []

    def __torch_dispatch__(
        self, func: OpOverload, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # A single number is an argument of its kernel; several are a tensor that is copied to the device.
        is_made_of_numbers = func.overloadpacket == torch.ops.aten.lift_fresh and read[0].dim() > 0
        if func.overloadpacket in READS or is_made_of_numbers:
            self.on_cpu.append(str(func))
        self.read += [(str(func), tensor) for tensor in read]
        results = func(*args, **(kwargs or {}))
        self.made += [leaf for leaf in tree_leaves(results) if isinstance(leaf, Tensor)]
        return results


def violations(work: Callable[[], object]) -> list[str]:
    """Returns what a second run of some work does that no CUDA graph can."""
    with Operations() as first:
        work()
    with Operations() as second:
        work()
    known = {_memory(tensor) for _, tensor in first.read} | {_memory(tensor) for tensor in second.made}
    unknown = [name for name, tensor in second.read if tensor.numel() and _memory(tensor) not in known]
    return second.on_cpu + unknown


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def test_the_rules_find_what_a_graph_cannot_do() -> None:
    x = torch.arange(6.0).view(2, 3)
    assert violations(lambda: x[:, [0, 2]].amax(1)) == ["aten.lift_fresh.default"]
    assert violations(lambda: x + torch.tensor([1.0, 2.0, 3.0])) == ["aten.lift_fresh.default"]
    assert violations(lambda: float(x.sum())) == ["aten._local_scalar_dense.default"]
    fresh = iter([x.clone(), x.clone()])
    assert violations(lambda: next(fresh).sum()) == ["aten.sum.default"]
    assert violations(lambda: x.index_select(1, torch.zeros_like(x[0], dtype=torch.int64)).amax(1)) == []


BOTH = ("stacked", "autograd")
CASES: dict[str, tuple[str, dict[str, object], dict[str, object], tuple[str, ...]]] = {
    "maddpg": ("spread", {"name": "maddpg"}, {}, BOTH),
    "joint": ("spread", {"name": "joint"}, {}, BOTH),
    "forces": ("spread", {"name": "matd3"}, {"head": "force"}, BOTH),
    "one choice": ("discrete", {"name": "matd3"}, {}, BOTH),
    "masks": ("masked", {"name": "a=joint,b=matd3"}, {}, BOTH),
    "several parts": ("mixed", {"name": "a=matd3,b=iddpg"}, {}, BOTH),
    "sides differ": ("tag", {"name": "adversary=joint,agent=iddpg"}, {}, BOTH),
    "team critic": ("tag", {"name": "matd3", "team_critic": True}, {}, ("autograd",)),
    "masac": ("mixed", {"name": "masac"}, {}, ("autograd",)),
    "hatd3": ("tag", {"name": "hatd3"}, {}, ("autograd",)),
    "facmac": ("mixed", {"name": "a=facmac,b=maddpg"}, {}, ("autograd",)),
    "hasac": ("mixed", {"name": "a=hasac,b=hatd3"}, {}, ("autograd",)),
    "m3ddpg": ("tag", {"name": "m3ddpg", "team_critic": True}, {}, ("autograd",)),
    "m3ddpg, distributions": ("mixed", {"name": "a=m3ddpg,b=masac", "critic_loss": "hl_gauss"}, {}, ("autograd",)),
    "set critic": ("tag", {"name": "matd3"}, {"critic": "set", "share_critics": False}, ("autograd",)),
    "attention critic": ("mixed", {"name": "a=joint,b=matd3"}, {"critic": "attention"}, ("autograd",)),
    "distributions": ("tag", {"name": "matd3", "critic_loss": "hl_gauss"}, {}, ("autograd",)),
    "weight norm": ("tag", {"name": "matd3"}, {"critic_weight_norm": True}, ("autograd",)),
    "layer norm": (
        "tag",
        {"name": "maddpg"},
        {"activation": "gelu", "policy_layer_norm": True, "critic_layer_norm": True},
        ("autograd",),
    ),
}


@pytest.mark.parametrize("is_rare", [False, True], ids=["plain", "normalised, weighted, with absences"])
@pytest.mark.parametrize(("case", "engine"), [(name, engine) for name, case in CASES.items() for engine in case[3]])
def test_an_update_can_be_captured(case: str, engine: str, is_rare: bool) -> None:
    team, algorithm, network, _ = CASES[case]
    rare: dict[str, object] = {"normalise_observations": True, "normalise_rewards": True, "team_spirit": 0.5}
    settings = {
        "network": {"policy_hidden": (8, 6), "critic_hidden": (7, 5), **network},
        "algorithm": {**algorithm, "engine": engine, **(rare if is_rare else {})},
    }
    run = Run("r", make_run_spec({"scenario": "simple_spread"}, settings), TEAMS[team])
    trained = make_engine(run, torch.zeros(()))
    records = random_records(run.joint, 16, seed=0, absences=is_rare)
    importance = torch.rand(16) if is_rare else None
    batch = replace(as_batch(as_fields(records, torch.float32)), complete=not is_rare, importance=importance)
    for update_policies in (True, False):
        assert violations(lambda: trained.step(trained.normalise(batch), update_policies=update_policies)) == []  # noqa: B023
