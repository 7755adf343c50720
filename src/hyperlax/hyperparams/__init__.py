"""Hyperparameters as array leaves that carry their search space."""

from __future__ import annotations

from hyperlax.hyperparams.fields import (
    AbstractHyperparams,
    Count,
    Field,
    Flag,
    Meaning,
    Real,
    assign,
    declared,
    default_of,
    fields,
    hp,
    paths,
    stack,
    trainable,
    undeclared,
    values,
)
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Space, Uniform
from hyperlax.registry import nearest

__all__ = [
    "AbstractHyperparams",
    "Choice",
    "Count",
    "Field",
    "Flag",
    "Integers",
    "Joint",
    "LogUniform",
    "Meaning",
    "Real",
    "Space",
    "Uniform",
    "assign",
    "declared",
    "default_of",
    "fields",
    "hp",
    "nearest",
    "paths",
    "stack",
    "trainable",
    "undeclared",
    "values",
]
