"""The fourth law, "it learns": every probe, with several seeds each, as lanes of one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from hyperlax.agents.base import AbstractAgent, AbstractAgentHyperparams
from hyperlax.agents.off_policy import AbstractOffPolicyHyperparams
from hyperlax.agents.on_policy import AbstractOnPolicyHyperparams
from hyperlax.envs.base import ActionSpace, Discrete
from hyperlax.hyperparams import fields, nearest, values
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.masking import LANES
from hyperlax.learning.evaluation import evaluate
from hyperlax.programs import train
from hyperlax.testing.probes import INTERVAL, SIGNS, Known, policy_probes, value_probes
from hyperlax.testing.samples import describe

Value = Callable[[Any, Float[Array, " obs"]], Float[Array, ""]]

ON_POLICY: dict[str, Any] = {
    "num_envs": 32,
    "rollout_length": 10,
    "epochs": 1,
    "num_minibatches": 8,
    "gamma": 0.5,
    "gae_lambda": 0.9,
    "ent_coef": 0.01,
    "clip_eps": 0.3,
    "max_grad_norm": 10.0,
    "normalize_observations": False,
    "decay_learning_rates": True,
    "standardize_advantages": False,
}
OFF_POLICY: dict[str, Any] = {
    "num_envs": 8,
    "rollout_length": 4,
    "warmup_rollout_length": 20,
    "update_to_data": 0.0,
    "epochs": 4,
    "batch_size": 64,
    "buffer_size": 4000,
    "gamma": 0.5,
    "tau": 0.1,
    "max_grad_norm": 10.0,
    "normalize_observations": False,
    "epsilon_decay": 0.5,
    "decay_learning_rates": False,
    "init_alpha": 0.05,
    "autotune": False,
}
STEP_SIZE = 3e-3
SEEDS = 3
EPISODES = 16
CLOSE = 0.1
"""How far a value may be from the known one."""


def settings_for(base: AbstractAgentHyperparams, given: Mapping[str, Any]) -> dict[str, Any]:
    """What to train on probes with: of the settings above those that `base` has, then `given`."""
    known = {f.path: f for f in fields(base)}
    for path in given:
        if path not in known:
            raise ValueError(f'unknown hyperparameter "{path}"{nearest(path, known)}')
    standard = OFF_POLICY if isinstance(base, AbstractOffPolicyHyperparams) else ON_POLICY
    steps = {p: STEP_SIZE for p, f in known.items() if "." not in p and _is_step_size(p, f.kind)}
    return {**{k: v for k, v in (standard | steps).items() if k in known}, **given}


def _is_step_size(path: str, kind: type) -> bool:
    return kind is float and (path in ("lr", "learning_rate") or path.endswith("_lr"))


def cycles_for(base: AbstractAgentHyperparams) -> int:
    """How many cycles to train on probes where nothing else is said."""
    return 200 if isinstance(base, AbstractOnPolicyHyperparams) else 400


def state_value(agent: Any, obs: Float[Array, " obs"]) -> Float[Array, ""]:
    """What an agent with a `critic` (of states, or of all actions) or `critics` expects from `obs` on."""
    if (critics := getattr(agent, "critics", None)) is not None:
        policy = agent.actor(obs)
        return jnp.min(critics(obs, policy.action(policy.mode())))
    if (critic := getattr(agent, "critic", None)) is not None:
        return jnp.max(critic(obs))
    raise TypeError(
        f"{type(agent).__name__} has neither `critic` nor `critics`: say what it expects from an observation "
        "on with check_agent(..., value=lambda agent, obs: ...), or leave that out with value=None"
    )


def learns(
    hp: AbstractAgentHyperparams, cycles: int, value: Value | None, *, seeds: int = SEEDS, first_seed: int = 5
) -> None:
    """Check that an agent of `hp` learns every probe it can act in, in the median of `seeds` seeds.

    With `value`, and a hyperparameter `gamma`, the agent's own estimates must come within a tenth of the
    known values.
    """
    value = value if "gamma" in values(hp) else None
    discrete = type(hp).supports(SIGNS) is None
    box = type(hp).supports(INTERVAL) is None
    if not (discrete or box):
        raise TypeError(f"{type(hp).__name__} supports neither two discrete actions nor an interval of them")
    for space in (SIGNS,) * discrete + (INTERVAL,) * box:
        probes = policy_probes(space)
        if value is not None and (space == SIGNS or not discrete):
            probes |= value_probes(space)
        _learns(hp, space, probes, cycles, value, seeds, first_seed)


def _learns(
    hp: AbstractAgentHyperparams,
    space: ActionSpace,
    probes: dict[str, Known],
    cycles: int,
    value: Value | None,
    seeds: int,
    first_seed: int,
) -> None:
    agents, returns = trained(hp, probes, cycles, seeds, first_seed)
    estimate: Any = None if value is None else jax.jit(value)
    kind = "discrete" if isinstance(space, Discrete) else "continuous"
    for i, (name, known) in enumerate(probes.items()):
        where = f"it learns, {name} ({kind} actions), seeds {first_seed} to {first_seed + seeds - 1}"
        mine = [jax.tree.map(lambda x, n=n: x[n], agents) for n in range(i * seeds, (i + 1) * seeds)]
        if known.best is not None:
            reached = np.asarray(returns[i * seeds : (i + 1) * seeds]).min(-1)
            assert np.median(reached) >= known.best - known.slack, (
                f"{where}: the best return is {known.best:g}, the worst of {EPISODES} episodes after "
                f"training {_listed(reached)} ({describe(hp)})"
            )
        for obs, expected in known.expected(values(hp)["gamma"]) if estimate else []:
            found = np.asarray([estimate(agent, jnp.asarray([obs], jnp.float32)) for agent in mine])
            assert abs(np.median(found) - expected) <= CLOSE, (
                f"{where}: the value of observation {obs:g} is {expected:.4g}, estimated as {_listed(found)} "
                f"({describe(hp)})"
            )


def _listed(numbers: np.ndarray) -> str:
    return ", ".join(f"{x:.4g}" for x in numbers)


def trained(
    hp: AbstractAgentHyperparams, probes: Mapping[str, Known], cycles: int, seeds: int, first_seed: int
) -> tuple[AbstractAgent, Float[Array, "lanes episodes"]]:
    """Agents after training and their returns with the best action: a lane for each probe and seed."""
    envs = [known.probe for known in probes.values() for _ in range(seeds)]
    env = jax.tree.map(lambda *leaves: jnp.stack(leaves), *envs)
    caps = hp.capacities([hp.sizes()], [1], envs[0])
    budget = cycles * int(hp.num_envs) * int(hp.rollout_length)
    own = jax.tree.map(jnp.asarray, hp)

    def one(env: Any, key: Any) -> tuple[AbstractAgent, Array]:
        state = train.start(own, env, caps, jnp.int32(budget), key=key, init_key=key)
        state = train.segment(state, env, caps, jnp.int32(cycles))
        returns, _ = evaluate(state.agent, env, EPISODES, jnp.bool_(True), key=jr.key(3))
        return state.agent.for_acting(), returns[0]

    low = compiler_options("low", jax.default_backend())
    keys = jnp.asarray([[0, first_seed + i % seeds] for i in range(len(envs))], jnp.uint32)
    run = jax.jit(jax.vmap(one, axis_name=LANES), compiler_options=low)
    return run(env, keys)
