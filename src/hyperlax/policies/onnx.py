"""Policies as models of ONNX, written without its package.

The file is a protocol buffer; the numbers of its fields are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hyperlax.networks.layer_norm import LAYER_NORM_EPS
from hyperlax.policies.plain import PlainPolicy, about

OPSET, IR_VERSION = 17, 8
"""The version of the operators, of 2022, and of the format that goes with it."""
FLOAT, INT64 = 1, 7
"""Types of elements."""


def model(policy: PlainPolicy, header: Mapping[str, Any]) -> bytes:
    """A model from `obs`, float32 of shape [batch, obs], to `action`.

    Discrete actions are int64 of shape [batch], others float32 of shape [batch, act].
    """
    graph = _Graph()
    x = graph.add("Sub", "obs", graph.constant("obs_mean", policy.mean[None]))
    x = graph.add("Div", x, graph.constant("obs_std", policy.std[None]))
    for i, layer in enumerate(policy.layers):
        x = graph.dense(f"layer{i}", x, layer.weight, layer.bias)
        if layer.scale is not None and layer.shift is not None:
            scale = graph.constant(f"layer{i}.scale", layer.scale)
            shift = graph.constant(f"layer{i}.shift", layer.shift)
            x = graph.add("LayerNormalization", x, scale, shift, axis=-1, epsilon=LAYER_NORM_EPS)
        x = graph.activation(layer.activation, x)
    if policy.low is None or policy.high is None:
        outputs = graph.dense("head", x, policy.head.weight, policy.head.bias)
        graph.add("ArgMax", outputs, axis=1, keepdims=0, name="action")
        output = _tensor_info("action", INT64, ["batch"])
    else:
        size, half = policy.low.size, (policy.high - policy.low) / 2
        x = graph.add("Tanh", graph.dense("head", x, policy.head.weight[:size], policy.head.bias[:size]))
        x = graph.add("Mul", x, graph.constant("half_range", half[None]))
        graph.add("Add", x, graph.constant("centre", (policy.low + half)[None]), name="action")
        output = _tensor_info("action", FLOAT, ["batch", size])
    inputs = _tensor_info("obs", FLOAT, ["batch", policy.mean.size])
    body = b"".join(_message(1, node) for node in graph.nodes) + _text(2, "policy")
    body += b"".join(_message(5, tensor) for tensor in graph.constants)
    body += _message(11, inputs) + _message(12, output)
    told = _text(1, "about") + _text(2, json.dumps(about(policy, header)))
    return (
        _integer(1, IR_VERSION)
        + _text(2, "hyperlax")
        + _message(7, body)
        + _message(8, _integer(2, OPSET))
        + _message(14, told)
    )


class _Graph:
    """Operations that follow one another, and the constants they use."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.constants: list[bytes] = []

    def add(self, kind: str, *inputs: str, name: str = "", **attributes: int | float) -> str:
        """Add an operation on the results or constants called `inputs`; return the name of its result."""
        result = name or f"{kind.lower()}{len(self.nodes)}"
        node = b"".join(_text(1, given) for given in inputs) + _text(2, result) + _text(4, kind)
        node += b"".join(_message(5, _attribute(key, value)) for key, value in attributes.items())
        self.nodes.append(node)
        return result

    def constant(self, name: str, value: np.ndarray) -> str:
        """Add an array of float32; return its name."""
        dims = b"".join(_integer(1, n) for n in value.shape)
        raw = np.ascontiguousarray(value, "<f4").tobytes()
        self.constants.append(dims + _integer(2, FLOAT) + _text(8, name) + _message(9, raw))
        return name

    def dense(self, name: str, x: str, weight: np.ndarray, bias: np.ndarray) -> str:
        """Add `x` times the transposed `weight`, plus `bias`."""
        w, b = self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)
        return self.add("Gemm", x, w, b, transB=1)

    def number(self, value: float) -> str:
        """Add a single number."""
        return self.constant(f"number{len(self.constants)}", np.full((1, 1), value))

    def activation(self, name: str, x: str) -> str:
        """Add the activation that is called so in `networks.mlp.ACTIVATIONS`; `none` adds nothing."""
        if name == "none":
            return x
        if name == "silu":
            return self.add("Mul", x, self.add("Sigmoid", x))
        if name == "gelu":  # by tanh, as in jax: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
            cubed = self.add("Mul", self.add("Mul", x, x), self.add("Mul", x, self.number(0.044715)))
            inner = self.add("Mul", self.add("Add", x, cubed), self.number(float(np.sqrt(2 / np.pi))))
            factor = self.add("Add", self.add("Tanh", inner), self.number(1.0))
            return self.add("Mul", self.add("Mul", x, self.number(0.5)), factor)
        return self.add({"relu": "Relu", "tanh": "Tanh", "elu": "Elu"}[name], x)


def _attribute(name: str, value: int | float) -> bytes:
    if isinstance(value, float):
        return _text(1, name) + _key(2, 5) + struct.pack("<f", value) + _integer(20, 1)
    return _text(1, name) + _integer(3, value) + _integer(20, 2)


def _tensor_info(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    """The name, type and shape of an input or output; a text stands for a length that may be any."""
    dims = [_text(2, n) if isinstance(n, str) else _integer(1, n) for n in shape]
    shaped = _integer(1, kind) + _message(2, b"".join(_message(1, dim) for dim in dims))
    return _text(1, name) + _message(2, _message(1, shaped))


def _key(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; negative numbers as 64 bits."""
    value %= 2**64
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _integer(field: int, value: int) -> bytes:
    return _key(field, 0) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _key(field, 2) + _varint(len(content)) + content


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())
