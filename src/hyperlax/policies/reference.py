"""Acting with an exported policy, in plain NumPy: this file needs nothing else and may be copied.

policy = load("policy.npz")
action = act(policy, obs)
"""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

LAYER_NORM_EPS = 1e-6


def load(path: str | Path) -> dict[str, Any]:
    """The arrays of a policy by name, and `about`: what its file says of it, as a dictionary.

    Raises `ValueError`, which names the file, if it is not that of an exported policy, or describes arrays
    that are larger than itself.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _check(archive, entry)
        with np.load(path, allow_pickle=False) as file:
            policy: dict[str, Any] = dict(file)
        policy["about"] = json.loads(str(policy["about"]))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not an exported policy, or damaged ({error}); export it again") from None
    return policy


def _check(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Raise `ValueError` unless an array is as large as its entry in the file, which is not compressed."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename} is compressed or encrypted")
    with archive.open(entry) as array:
        version = np.lib.format.read_magic(array)
        headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = headers[version](array)
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} is larger than the file")


def act(policy: dict[str, Any], obs: np.ndarray) -> np.ndarray:
    """The best action for observations of shape [..., obs]: integers, or of shape [..., act]."""
    found = outputs(policy, obs)
    if policy["about"]["actions"] == "discrete":
        return found.argmax(-1)
    low, high = policy["low"], policy["high"]
    return low + (high - low) / 2 * (1 + np.tanh(found[..., : len(low)]))


def outputs(policy: dict[str, Any], obs: np.ndarray) -> np.ndarray:
    """The outputs of the network, from which the action is read, of shape [..., outputs]."""
    x = (np.asarray(obs, np.float32) - policy["obs_mean"]) / policy["obs_std"]
    for i, activation in enumerate(policy["about"]["activations"]):
        x = x @ policy[f"layer{i}.weight"].T + policy[f"layer{i}.bias"]
        if f"layer{i}.scale" in policy:
            centred = x - x.mean(-1, keepdims=True)
            variance = (centred**2).mean(-1, keepdims=True)
            x = centred / np.sqrt(variance + LAYER_NORM_EPS)
            x = x * policy[f"layer{i}.scale"] + policy[f"layer{i}.shift"]
        x = ACTIVATIONS[activation](x)
    return x @ policy["head.weight"].T + policy["head.bias"]


def _gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(np.float32(2 / np.pi)) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "silu": lambda x: x * (0.5 * (1 + np.tanh(x / 2))),
    "gelu": _gelu,
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
}
