"""A tiny environment and a scripted agent, simple enough for a plain Python loop beside the real thing."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from hyperlax.agents.base import AbstractAgent
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete, Timestep
from hyperlax.hyperparams import AbstractHyperparams, Count, hp


class Walk(AbstractEnv):
    """Counts its steps. An episode draws its own length and ends there, or is cut at `max_episode_steps`."""

    obs_size: int = 3
    action_space: ActionSpace = eqx.field(default_factory=lambda: Discrete(3))
    max_episode_steps: int = 4

    def reset(self, *, key: Any) -> tuple[Any, jax.Array]:
        state = {"time": jnp.int32(0), "length": jr.randint(key, (), 2, 8), "place": jr.uniform(key)}
        return state, self.seen(state)

    def step(self, state: Any, action: jax.Array, *, key: Any) -> tuple[Any, Timestep]:
        place = state["place"] + action.astype(jnp.float32) + 0.1 * jr.normal(key)
        after = {"time": state["time"] + 1, "length": state["length"], "place": place}
        terminated = after["time"] >= after["length"]
        truncated = (after["time"] >= self.max_episode_steps) & ~terminated
        return after, Timestep(self.seen(after), 2 * place, terminated, truncated)

    def seen(self, state: Any) -> jax.Array:
        return jnp.stack(
            [state["time"].astype(jnp.float32), state["length"].astype(jnp.float32), state["place"]]
        )


class Endless(AbstractEnv):
    """Never ends."""

    obs_size: int = 1
    action_space: ActionSpace = eqx.field(default_factory=lambda: Discrete(3))
    max_episode_steps: int = 2**30

    def reset(self, *, key: Any) -> tuple[Any, jax.Array]:
        return jnp.zeros(1), jnp.zeros(1)

    def step(self, state: Any, action: jax.Array, *, key: Any) -> tuple[Any, Timestep]:
        return state, Timestep(state, jnp.float32(0), jnp.bool_(False), jnp.bool_(False))


class ScriptedHyperparams(AbstractHyperparams):
    most: Count = hp(2, doc="the action when not exploring")


class Scripted(AbstractAgent):
    """Acts at random, or always the same; notes what it saw, and counts the observations shown to it."""

    @property
    def metric_names(self) -> tuple[str, ...]:
        return ()

    hp: ScriptedHyperparams
    optimiser: None
    shown: jax.Array
    evaluating: jax.Array

    def __init__(self):
        self.hp = ScriptedHyperparams()
        self.optimiser = None
        self.shown = jnp.zeros(())
        self.evaluating = jnp.bool_(False)

    def act(self, obs: jax.Array, *, key: Any, explore: jax.Array) -> tuple[jax.Array, Any]:
        drawn = jr.randint(key, (), 0, 3)
        action = jnp.where(explore, (drawn + obs[0].astype(jnp.int32)) % 3, self.hp.most)
        return action, {"sum": jnp.sum(obs) + self.shown, "action": action}

    def observe(self, obs: jax.Array, valid: jax.Array) -> Scripted:
        return eqx.tree_at(lambda a: a.shown, self, self.shown + jnp.sum(jnp.where(valid, obs[:, 2], 0)))

    def learn(self, trajectory: Any, progress: jax.Array, *, key: Any) -> tuple[Scripted, dict]:
        return self, {}

    def gradient_steps(self) -> jax.Array:
        return jnp.int32(0)

    def for_evaluation(self) -> Scripted:
        return eqx.tree_at(lambda a: a.evaluating, self, jnp.bool_(True))
