"""Default hyperparameters for new algorithms: those that the shared base classes read.

An algorithm derives from one of these classes, adds its own hyperparameters, and repeats those that need
another default or search space. PPO, DQN and SAC declare all of theirs, in the order of the published search
spaces.
"""

from __future__ import annotations

import equinox as eqx

from hyperlax.agents import meanings
from hyperlax.agents.off_policy import AbstractOffPolicyHyperparams
from hyperlax.agents.on_policy import AbstractOnPolicyHyperparams
from hyperlax.hyperparams import Choice, Count, Flag, LogUniform, Real, Uniform, hp
from hyperlax.networks.base import AbstractNetworkHyperparams
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.registry.limits import LIMITS


class OnPolicyDefaults(AbstractOnPolicyHyperparams):
    """Defaults for an `AbstractOnPolicyAgent`: one pass over each rollout, as one minibatch."""

    actor: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    critic: AbstractNetworkHyperparams = eqx.field(default_factory=MLPHyperparams)
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc=meanings.DISCOUNT, most=1)
    gae_lambda: Real = hp(0.95, Uniform(0.9, 0.99), doc=meanings.GAE_DECAY, most=1)
    max_grad_norm: Real = hp(0.5, Uniform(0.1, 1.0), doc=meanings.CLIP_GRADIENT)
    num_envs: Count = hp(16, Choice(8, 16, 32, 64), doc=meanings.ENVS)
    rollout_length: Count = hp(16, Choice(8, 16, 32), doc=meanings.ROLLOUT)
    epochs: Count = hp(1, doc=meanings.EPOCHS)
    num_minibatches: Count = hp(1, doc=meanings.MINIBATCHES)
    standardize_advantages: Flag = hp(True, Choice(True, False), doc=meanings.STANDARDIZE)
    decay_learning_rates: Flag = hp(False, Choice(True, False), doc=meanings.DECAY)
    normalize_observations: Flag = hp(True, Choice(True, False), doc=meanings.NORMALIZE, fixed_at_start=True)
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc=meanings.LOSS_REDUCTION)
    advantage_statistics: Count = hp("batch", labels=("batch", "time_step"), doc=meanings.STANDARDIZED_OVER)
    minibatch_remainder: Count = hp("spread", labels=("spread", "drop"), doc=meanings.REMAINDER)
    time_limit: Count = hp("truncation", labels=("truncation", "termination"), doc=meanings.TIME_LIMIT)
    truncation_bootstrap: Count = hp(
        "final_observation", labels=("final_observation", "next_episode"), doc=meanings.BOOTSTRAP
    )
    normaliser_order: Count = hp(
        "after_learning", labels=("after_learning", "before_acting"), doc=meanings.NORMALISER_OF_CYCLES
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc=meanings.EVALUATION_NORMALISES
    )
    last_rollout: Count = hp("learned", labels=("learned", "unlearned"), doc=meanings.LAST_ROLLOUT)


class OffPolicyDefaults(AbstractOffPolicyHyperparams):
    """Defaults for an `AbstractOffPolicyAgent`."""

    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc=meanings.DISCOUNT, most=1)
    tau: Real = hp(0.01, LogUniform(1e-3, 1e-1), doc=meanings.TARGET_UPDATE, most=1)
    max_grad_norm: Real = hp(10.0, LogUniform(0.5, 20.0), doc=meanings.CLIP_GRADIENT)
    num_envs: Count = hp(8, Choice(4, 8, 16), doc=meanings.ENVS)
    rollout_length: Count = hp(2, Choice(1, 2, 4), doc=meanings.ROLLOUT)
    warmup_rollout_length: Count = hp(
        32, Choice(32, 64, 128), doc=meanings.WARMUP, least=0, fixed_at_start=True
    )
    epochs: Count = hp(8, doc=meanings.GRADIENT_STEPS)
    update_to_data: Real = hp(0.25, Choice(0.25, 0.5, 1.0), doc=meanings.UPDATE_TO_DATA)
    buffer_size: Count = hp(50_000, Choice(20_000, 50_000, 100_000), doc=meanings.BUFFER, fixed_at_start=True)
    batch_size: Count = hp(64, Choice(64, 128, 256), doc=meanings.BATCH, most=LIMITS["batch_size"].most)
    normalize_observations: Flag = hp(True, Choice(True, False), doc=meanings.NORMALIZE, fixed_at_start=True)
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc=meanings.LOSS_REDUCTION)
    time_limit: Count = hp("truncation", labels=("truncation", "termination"), doc=meanings.TIME_LIMIT)
    normaliser_order: Count = hp(
        "after_acting", labels=("after_acting", "before_acting"), doc=meanings.NORMALISER_OF_STEPS
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc=meanings.EVALUATION_NORMALISES
    )
    warmup_actions: Count = hp("uniform", labels=("uniform", "policy"), doc=meanings.WARMUP_ACTIONS)
    warmup_budget: Count = hp("counted", labels=("counted", "free"), doc=meanings.WARMUP_BUDGET)
    buffer_rounding: Count = hp("none", labels=("none", "whole_steps"), doc=meanings.BUFFER_ROUNDING)
    last_rollout: Count = hp("learned", labels=("learned", "unlearned"), doc=meanings.LAST_ROLLOUT)
