"""An agent that acts at random and learns nothing, to measure the cost of an environment by itself."""

from __future__ import annotations

from typing import Any, final

import jax.numpy as jnp

from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import ActionSpace
from hyperlax.hyperparams import AbstractHyperparams


@final
class RandomAgent(AbstractAgent):
    """An agent that draws its actions uniformly."""

    hp: AbstractHyperparams
    action_space: ActionSpace
    optimiser: tuple[()] = ()

    def __init__(self, space: ActionSpace):
        self.hp = AbstractHyperparams()
        self.action_space = space

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ()

    def act(self, obs: Any, *, key: Any, explore: Any) -> tuple[Any, Any]:
        return self.action_space.uniform(key=key), ()

    def observe(self, obs: Any, valid: Any) -> RandomAgent:
        return self

    def learn(self, trajectory: Any, progress: Any, *, key: Any) -> tuple[RandomAgent, dict[str, Any]]:
        return self, {}

    def gradient_steps(self) -> Any:
        return jnp.int32(0)

    def for_evaluation(self) -> RandomAgent:
        return self
