"""Helpers of the tests: lanes of random sizes, trained alone and together."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from hyperlax.hyperparams import fields, stack
from hyperlax.lanes.masking import LANES
from hyperlax.programs import train
from hyperlax.programs.compiled import compiler_options

LOW_EFFORT = compiler_options("low", "cpu")


def random_sample(hp, rng: np.random.Generator) -> dict:
    """A sample that differs from its neighbours in everything, small enough to train in a blink."""

    def pick(*choices):
        return choices[rng.integers(len(choices))]

    labels = {f.path: f.labels for f in fields(hp)}
    sample = {
        "num_envs": pick(2, 3, 4, 6),
        "rollout_length": pick(3, 4, 5, 8),
        "epochs": pick(1, 2, 3),
        "num_minibatches": pick(1, 2, 3, 5),
        "buffer_size": pick(12, 20, 33),
        "batch_size": pick(3, 4, 7),
        "warmup_rollout_length": pick(0, 2, 4),
        "update_to_data": pick(0.0, 0.1, 0.3),
        "epsilon_decay": pick(0.0, 0.5),
        "use_double_q": pick(True, False),
        "autotune": pick(True, False),
        "normaliser_order": pick(*labels["normaliser_order"]),
        "actor_lr": float(10 ** rng.uniform(-4, -2.5)),
        "critic_lr": float(10 ** rng.uniform(-4, -2.5)),
        "q_lr": float(10 ** rng.uniform(-4, -2.5)),
        "gamma": float(rng.uniform(0.9, 0.99)),
        "standardize_advantages": pick(True, False),
        "decay_learning_rates": pick(True, False),
        "normalize_observations": pick(True, False),
    }
    for net in ("actor", "critic"):
        sample |= {
            f"{net}.width": pick(4, 7, 8),
            f"{net}.depth": pick(1, 2, 3),
            f"{net}.layer_norm": pick(True, False),
            f"{net}.activation": pick("relu", "tanh", "silu", "gelu", "elu"),
            f"{net}.layers": pick(1, 2, 4),
            f"{net}.stacks": pick(1, 2),
            f"{net}.entangler": pick("none", "cz", "cz_ring"),
            f"{net}.squash": pick("none", "tanh", "arctan"),
            f"{net}.reupload": pick(True, False),
            f"{net}.measured": pick(0, 1),
            f"{net}.output_scale": pick(True, False),
            f"{net}.angle_lr_factor": pick(1.0, 3.0),
            f"{net}.bond_dim": pick(1, 2, 3),
            f"{net}.mpo_layers": pick(1, 2),
            f"{net}.shape": "8=2^3",
        }
    return {path: value for path, value in sample.items() if path in labels}


def alone(hp, env, key, cycles: int, total: int = 10_000):
    """One lane, trained in a program of its own sizes without a lane axis."""
    sizes = hp.sizes()
    caps = hp.capacities([sizes], [1], env)
    hp = jax.tree.map(jnp.asarray, hp)

    @partial(jax.jit, compiler_options=LOW_EFFORT)
    def run(hp, key):
        state = train.start(hp, env, caps, jnp.int32(total), key=key, init_key=key)
        return train.segment(state, env, caps, jnp.int32(cycles))

    return run(hp, key)


def together(hps, env, keys, cycles, total: int = 10_000):
    """All lanes in one program; `cycles` may differ."""
    sizes = [hp.sizes() for hp in hps]
    caps = hps[0].capacities(sizes, [1] * len(hps), env)

    @partial(jax.jit, compiler_options=LOW_EFFORT)
    def run(hp, key, cycles):
        def lane(hp, key, cycles):
            state = train.start(hp, env, caps, jnp.int32(total), key=key, init_key=key)
            return train.segment(state, env, caps, cycles)

        return jax.vmap(lane, axis_name=LANES)(hp, key, cycles)

    return run(jax.tree.map(jnp.asarray, stack(hps)), keys, jnp.asarray(cycles, jnp.int32))


def corner(padded, exact):
    """The part of `padded` that `exact` allocates; the rest must be zero."""
    inside = tuple(slice(0, n) for n in exact.shape)
    rest = np.array(padded, copy=True)
    rest[inside] = 0
    return np.asarray(padded)[inside], rest
