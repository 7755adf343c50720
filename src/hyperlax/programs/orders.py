"""What a program is told about the lanes that it is to start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.hyperparams import stack


@dataclass
class Orders:
    """The lanes that a program is to start; arrays have a leading axis of slots.

    A slot that is `fresh` starts a new lane with its `hp`, `key`, `init_key` and `total_steps`.
    """

    hp: Any
    key: np.ndarray
    init_key: np.ndarray
    total_steps: np.ndarray
    fresh: np.ndarray

    def arrays(self) -> tuple[Any, ...]:
        """Copies of the arrays; a program may still read them after the call that starts it has returned."""
        arrays = (self.hp, self.key, self.init_key, self.total_steps, self.fresh)
        return jax.tree.map(np.array, arrays)


def blank_orders(hp: AbstractAgentHyperparams, slots: int) -> Orders:
    """Orders for `slots` slots that start no lane."""
    return Orders(
        hp=stack([hp] * slots),
        key=np.zeros((slots, 2), np.uint32),
        init_key=np.zeros((slots, 2), np.uint32),
        total_steps=np.ones(slots, np.int32),
        fresh=np.zeros(slots, bool),
    )
