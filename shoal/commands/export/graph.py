"""The policy of a player as an ONNX graph from observation to action, without exploration. Pure.

    obs [batch, obs_dim] -> hidden layers -> Gemm -> logits -> a head for each segment -> Concat -> action
                        `--> Gemm (action masks only) -> Add    `-> logits (only on request)

A hidden layer is Gemm, LayerNormalization (with `network.policy_layer_norm`), and its activation. With
`network.recurrent` the last one is a gated recurrent unit, from the second input `memory` [batch, units] to the output
`next_memory` [batch, units]: zero at the start of an episode, then the output of the step before. Its operators are
written out, because the operator GRU is for whole sequences.

The Gemm of action masks lowers the logits of forbidden choices (common/policy/masks.py). The heads equal those of
common/policy/heads.py. The operators are of set 18, which ONNX runtimes support since 2023.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common.policy.activations import EPSILON, GELU_CUBE, GELU_SLOPE
from common.policy.heads import MIN_NORM, THRUST_SIZE, Floats, Segment, segments
from common.policy.masks import FORBIDDEN
from common.policy.network import GruLayer, Layer, PolicyLayers
from common.run.run import Activation
from common.spec import PlayerSpec, PlayersSpec

OPSET, IR_VERSION = 18, 8

# h = logits @ _TO_FORCE is (right - left, up - down); action = f @ _FROM_FORCE + _AT_REST applies the force f.
_TO_FORCE = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
_FROM_FORCE = _TO_FORCE.T / 2
_AT_REST = np.array([0, 0.5, 0.5, 0.5, 0.5], np.float32)

_OPERATORS: Mapping[Activation, str] = {"relu": "Relu", "leaky_relu": "LeakyRelu", "tanh": "Tanh", "elu": "Elu"}
"""Activations that are an operator with its default attributes."""


def make_model(
    player: PlayerSpec, layers: PolicyLayers, head: str, metadata: Mapping[str, str], *, logits: bool = False
) -> onnx.ModelProto:
    """Returns the model of one player's policy with `metadata` as properties; raises ConfigError as `segments` does.

    logits: whether the input of the head is a second output.
    """
    graph = _Graph()
    x = "obs"
    for layer in layers.hidden:
        x = _layer(graph, x, layer)
    memory: list[tuple[str, int]] = []
    if layers.gru is not None:
        x = _gru(graph, x, layers.gru)
        memory = [("next_memory", layers.gru.units)]
        graph.nodes.append(helper.make_node("Identity", [x], ["next_memory"]))
    x = _layer(graph, x, layers.last)
    x = _lower_forbidden(graph, x, player)
    alone = PlayersSpec((msgspec.structs.replace(player, obs_start=0, action_start=0),))
    parts = [_head(graph, x, segment) for segment in segments(alone, head)]
    graph.nodes.append(helper.make_node("Concat", parts, ["action"], axis=1))
    outputs = [("action", player.action_dim)]
    if logits:
        graph.nodes.append(helper.make_node("Identity", [x], ["logits"]))
        outputs.append(("logits", player.action_dim))
    made = helper.make_graph(
        graph.nodes,
        player.name,
        [_rows("obs", player.obs_dim), *(_rows("memory", units) for _, units in memory)],
        [_rows(*one) for one in (*outputs, *memory)],
        graph.constants,
    )
    model = helper.make_model(made, producer_name="shoal", opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model


def _rows(name: str, size: int) -> onnx.ValueInfoProto:
    """Returns an input or output `[batch, size]`."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])


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


def _layer(graph: _Graph, x: str, layer: Layer) -> str:
    """Adds the nodes of one layer and returns the name of its outputs."""
    x = graph.add("Gemm", x, graph.constant(layer.weight), graph.constant(layer.bias))
    if layer.norm is not None:
        gain, bias = map(graph.constant, layer.norm)
        x = graph.add("LayerNormalization", x, gain, bias, axis=-1, epsilon=EPSILON)
    return x if layer.activation is None else _activated(graph, x, layer.activation)


def _gru(graph: _Graph, x: str, gru: GruLayer) -> str:
    """Adds a gated recurrent unit, as `GruLayer.forward` computes it; returns the name of the new memory."""
    units = gru.units
    new = graph.add("Gemm", x, graph.constant(gru.weight), graph.constant(gru.bias))
    old = graph.add("Gemm", "memory", graph.constant(gru.recurrent_weight), graph.constant(gru.recurrent_bias))
    sums = [graph.columns(one, 0, 2 * units) for one in (new, old)]
    gates = graph.add("Sigmoid", graph.add("Add", *sums))
    reset, update = graph.columns(gates, 0, units), graph.columns(gates, units, 2 * units)
    of_input, of_memory = (graph.columns(one, 2 * units, 3 * units) for one in (new, old))
    candidate = graph.add("Tanh", graph.add("Add", of_input, graph.add("Mul", reset, of_memory)))
    return graph.add("Add", candidate, graph.add("Mul", update, graph.add("Sub", "memory", candidate)))


def _activated(graph: _Graph, x: str, activation: Activation) -> str:
    """Adds an activation; GELU and SiLU have no operator in set 18."""
    if activation == "silu":
        return graph.add("Mul", x, graph.add("Sigmoid", x))
    if activation == "gelu":
        slope = _affine(graph, graph.add("Mul", x, x), GELU_SLOPE * GELU_CUBE, GELU_SLOPE)
        gate = graph.add("Tanh", graph.add("Mul", x, slope))
        return graph.add("Mul", x, _affine(graph, gate, 0.5, 0.5))
    return graph.add(_OPERATORS[activation], x)


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
    return _affine(graph, unit, half, middle)


def _affine(graph: _Graph, x: str, factor: Floats | float, offset: Floats | float) -> str:
    """Adds `x * factor + offset` and returns its name."""
    scaled = graph.add("Mul", x, graph.constant(np.asarray(factor, np.float32)))
    return graph.add("Add", scaled, graph.constant(np.asarray(offset, np.float32)))


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
