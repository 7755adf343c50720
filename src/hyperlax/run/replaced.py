"""A lane that goes on from another's state: what it is since then, and what it had done before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperlax.envs.base import AbstractEnv
from hyperlax.experiments.samples import Lane
from hyperlax.programs.train import TrainState


@dataclass
class Replaced:
    """The hyperparameters of such a lane (host arrays), and its counts when it was given them."""

    tree: Any
    env_steps: int
    gradient_steps: int
    circuit_executions: int

    @classmethod
    def now(cls, lane: Lane, state: TrainState) -> Replaced:
        """`lane`, about to go on from `state`."""
        return cls(state.agent.hp, int(state.env_steps), lane.gradient_steps, lane.circuit_executions)

    def executed(self, lane: Lane, env: AbstractEnv) -> int:
        """Circuit executions of the lane so far."""
        per_step, per_gradient = self.tree.executions(env)
        steps, gradients = lane.env_steps - self.env_steps, lane.gradient_steps - self.gradient_steps
        return self.circuit_executions + round(per_step * steps + per_gradient * gradients)

    def counts(self) -> list[int]:
        """JSON-ready: all but the tree, which is part of the lane's state."""
        return [self.env_steps, self.gradient_steps, self.circuit_executions]
