"""The policy of a player as an ONNX graph from observation to action, without exploration. Pure.

    obs [batch, obs_dim] -> Gemm, Relu, ... -> Gemm -> logits -> a head for each segment -> Concat -> action
                        `--> Gemm (action masks only) -> Add    `-> logits (only on request)

The second Gemm lowers the logits of forbidden choices (common/policy/masks.py). The heads equal those of
common/policy/heads.py. The operators are of set 18, which ONNX runtimes support since 2023.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.policy.heads import MIN_NORM, THRUST_SIZE, Floats, Segment, segments
from common.policy.masks import FORBIDDEN
from common.policy.network import Layer
from common.spec import PlayerSpec, PlayersSpec

OPSET, IR_VERSION = 18, 8

# h = logits @ _TO_FORCE is (right - left, up - down); action = f @ _FROM_FORCE + _AT_REST applies the force f.
_TO_FORCE = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
_FROM_FORCE = _TO_FORCE.T / 2
_AT_REST = np.array([0, 0.5, 0.5, 0.5, 0.5], np.float32)


def make_model(
    player: PlayerSpec, layers: Sequence[Layer], head: str, metadata: Mapping[str, str], *, logits: bool = False
) -> onnx.ModelProto:
    """Returns the model of one player's policy with `metadata` as properties; raises ConfigError as `segments` does.

    logits: whether the input of the head is a second output.
    """
    graph = _Graph()
    x = "obs"
    for i, layer in enumerate(layers):
        x = graph.add("Gemm", x, graph.constant(layer.weight), graph.constant(layer.bias))
        if i < len(layers) - 1:
            x = graph.add("Relu", x)
    x = _lower_forbidden(graph, x, player)
    alone = PlayersSpec((msgspec.structs.replace(player, obs_start=0, action_start=0),))
    parts = [_head(graph, x, segment) for segment in segments(alone, head)]
    graph.nodes.append(helper.make_node("Concat", parts, ["action"], axis=1))
    outputs = ["action"]
    if logits:
        graph.nodes.append(helper.make_node("Identity", [x], ["logits"]))
        outputs.append("logits")
    made = helper.make_graph(
        graph.nodes,
        player.name,
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, ["batch", player.obs_dim])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", player.action_dim]) for name in outputs],
        graph.constants,
    )
    model = helper.make_model(made, producer_name="shoal", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """A graph under construction: nodes and constants with generated names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns the name of the output."""
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """Adds a constant and returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def columns(self, x: str, start: int, stop: int) -> str:
        """Adds a slice of columns of `x` [batch, n] and returns its name."""
        first, end, axis = (self.constant(np.array([number], np.int64)) for number in (start, stop, 1))
        return self.add("Slice", x, first, end, axis)


def _lower_forbidden(graph: _Graph, logits: str, player: PlayerSpec) -> str:
    """Adds `(mask - 1) * FORBIDDEN` to the logits, as a linear map of the observation; returns their name."""
    columns = player.local_mask_columns
    if not columns:
        return logits
    weight = np.zeros((player.obs_dim, player.action_dim), np.float32)
    bias = np.zeros(player.action_dim, np.float32)
    for obs_column, action_column in columns:
        weight[obs_column, action_column] = FORBIDDEN
        bias[action_column] = -FORBIDDEN
    return graph.add("Add", logits, graph.add("Gemm", "obs", graph.constant(weight), graph.constant(bias)))


def _head(graph: _Graph, logits: str, segment: Segment) -> str:
    """Adds the nodes of one segment of the head and returns the name of its action columns."""
    start, size = segment.columns.start, segment.shape[1]
    parts = [graph.columns(logits, start + i * size, start + (i + 1) * size) for i in range(segment.shape[0])]
    if segment.kind in ("box", "force"):
        middle, half = segment.range()
        made = [_scaled(graph, segment.kind, x, middle[i], half[i]) for i, x in enumerate(parts)]
    else:
        made = [_unscaled(graph, segment.kind, x, size) for x in parts]
    return graph.add("Concat", *made, axis=1) if len(made) > 1 else made[0]


def _scaled(graph: _Graph, kind: str, x: str, middle: Floats, half: Floats) -> str:
    unit = graph.add("Tanh", x) if kind == "box" else _bounded_force(graph, x)
    return graph.add("Add", graph.add("Mul", unit, graph.constant(half)), graph.constant(middle))


def _unscaled(graph: _Graph, kind: str, x: str, size: int) -> str:
    if kind == "choice":
        best = graph.add("ArgMax", x, axis=1, keepdims=0)
        values = graph.constant(np.array([0, 1], np.float32))
        return graph.add("OneHot", best, graph.constant(np.array(size, np.int64)), values, axis=1)
    if kind == "soft":
        return graph.add("Softmax", x, axis=1)
    if kind != "thrust" or size != THRUST_SIZE:
        raise ValueError(f"no graph for the head {kind} of {size} numbers")
    force = _bounded_force(graph, graph.add("MatMul", x, graph.constant(_TO_FORCE)))
    pushes = graph.add("MatMul", force, graph.constant(_FROM_FORCE))
    return graph.add("Add", pushes, graph.constant(_AT_REST))


def _bounded_force(graph: _Graph, h: str) -> str:
    axis = graph.constant(np.array([1], np.int64))
    norm = graph.add("ReduceL2", h, axis, keepdims=1)
    norm = graph.add("Max", norm, graph.constant(np.array(MIN_NORM, np.float32)))
    return graph.add("Mul", h, graph.add("Div", graph.add("Tanh", norm), norm))
