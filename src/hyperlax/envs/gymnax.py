"""Adapter for gymnax environments with vector observations."""

from __future__ import annotations

from typing import Any, final

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from hyperlax.envs.base import AbstractEnv, ActionSpace, Box, Discrete, Timestep, standard_promotion
from hyperlax.envs.gymnax_scenes import SCENES
from hyperlax.envs.scenes import Scene
from hyperlax.hyperparams import nearest

SHORT_NAMES = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "pendulum": "Pendulum-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
    "reacher": "Reacher-misc",
    "swimmer": "Swimmer-misc",
    "point_robot": "PointRobot-misc",
    "gaussian_bandit": "GaussianBandit-misc",
    "bernoulli_bandit": "BernoulliBandit-misc",
    "meta_maze": "MetaMaze-misc",
    "four_rooms": "FourRooms-misc",
    "discounting_chain": "DiscountingChain-bsuite",
    "memory_chain": "MemoryChain-bsuite",
    "umbrella_chain": "UmbrellaChain-bsuite",
}
"""Short name → gymnax id of the environments with vector observations; an id is accepted as a name, too."""


@final
class GymnaxEnv(AbstractEnv):
    """A gymnax environment with its default parameters.

    The time limit is computed here rather than by gymnax: `truncated` is true exactly when the episode has
    reached `max_episode_steps` without terminating.

    Raises `ValueError` for an unknown name and for an environment whose observations are not vectors.
    """

    obs_size: int = eqx.field(static=True)
    action_space: ActionSpace
    max_episode_steps: int = eqx.field(static=True)
    gymnax_id: str = eqx.field(static=True)
    _env: Any = eqx.field(static=True)

    def __init__(self, name: str):
        import gymnax

        known = {**{v: v for v in gymnax.registered_envs}, **SHORT_NAMES}
        if name not in known:
            full = [f"gymnax.{n}" for n in (*SHORT_NAMES, *SHORT_NAMES.values())]
            raise ValueError(
                f'unknown environment "gymnax.{name}"{nearest(f"gymnax.{name}", full)}\n'
                f"known: {', '.join(sorted('gymnax.' + n for n in SHORT_NAMES))}, also by their gymnax ids; "
                "`hyperlax list` shows them"
            )
        self.gymnax_id = known[name]
        if self.gymnax_id == "MNISTBandit-bsuite":  # making it would download the images
            raise ValueError(f"gymnax.{name} observes images; only vectors are supported")
        with standard_promotion():
            env, params = gymnax.make(self.gymnax_id)
            shape = env.observation_space(params).shape
        if len(shape) != 1:
            raise ValueError(f"gymnax.{name} observes an array of shape {shape}; only vectors are supported")
        self._env = env
        self.obs_size = int(shape[0])
        self.action_space = _action_space(env.action_space(params))
        self.max_episode_steps = int(params.max_steps_in_episode)

    def reset(self, *, key: PRNGKeyArray) -> tuple[Any, Float[Array, " obs"]]:
        with standard_promotion():
            obs, state = self._env.reset_env(key, self._env.default_params)
        return _strong(state), jnp.asarray(obs, jnp.float32)

    def scene(self, state: Any) -> Scene | None:
        drawn = SCENES.get(self.gymnax_id)
        return None if drawn is None else drawn(state)

    def step(self, state: Any, action: Array, *, key: PRNGKeyArray) -> tuple[Any, Timestep]:
        params = self._env.default_params
        with standard_promotion():
            obs, after, reward, terminated, _ = self._env.step_env(key, state, action, params)
        terminated = jnp.asarray(terminated, bool)
        truncated = (after.time >= self.max_episode_steps) & ~terminated
        after = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype).reshape(old.shape), after, state)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return after, Timestep(jnp.asarray(obs, jnp.float32), reward, terminated.reshape(()), truncated)


def _action_space(space: Any) -> ActionSpace:
    if not hasattr(space, "low"):
        return Discrete(int(space.n))
    size = int(np.prod(space.shape))
    low, high = (np.broadcast_to(np.asarray(b, np.float32), (size,)) for b in (space.low, space.high))
    return Box(tuple(map(float, low)), tuple(map(float, high)))


def _strong(state: Any) -> Any:
    """Convert Python scalars and weakly typed leaves to arrays of fixed dtype, which a loop can carry."""
    strong = lambda x, dtype: jnp.asarray(x, dtype) + jnp.zeros((), dtype)  # noqa: E731
    return jax.tree.map(lambda x: strong(x, jnp.result_type(x)), state)
