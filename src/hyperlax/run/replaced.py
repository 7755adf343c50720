"""Bookkeeping for lanes that continue from the state of another lane."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hyperlax.envs.base import AbstractEnv
from hyperlax.experiments.samples import Lane
from hyperlax.programs.train import TrainState


@dataclass
class Replaced:
    """The hyperparameters that a lane took over (host arrays), and its counts at that moment."""

    tree: Any
    env_steps: int
    gradient_steps: int
    circuit_executions: int

    @classmethod
    def now(cls, lane: Lane, state: TrainState) -> Replaced:
        """The record of `lane` just before it continues from `state`."""
        return cls(state.agent.hp, int(state.env_steps), lane.gradient_steps, lane.circuit_executions)

    def executed(self, lane: Lane, env: AbstractEnv) -> int:
        """Count the circuit executions of the lane so far."""
        per_step, per_gradient = self.tree.executions(env)
        steps, gradients = lane.env_steps - self.env_steps, lane.gradient_steps - self.gradient_steps
        return self.circuit_executions + round(per_step * steps + per_gradient * gradients)

    def counts(self) -> list[int]:
        """The JSON-ready part: all but the hyperparameters, which are part of the state of the lane."""
        return [self.env_steps, self.gradient_steps, self.circuit_executions]
