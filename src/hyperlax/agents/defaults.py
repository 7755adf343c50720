"""Default hyperparameters for new algorithms: those that the shared base classes read.

An algorithm derives from one of these classes, adds its own hyperparameters, and repeats those that need
another default or search space. PPO, DQN and SAC declare all of theirs, in the order of the published search
spaces.
"""

from __future__ import annotations

import equinox as eqx

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
    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc="discount", most=1)
    gae_lambda: Real = hp(0.95, Uniform(0.9, 0.99), doc="decay of generalised advantage estimation", most=1)
    max_grad_norm: Real = hp(0.5, Uniform(0.1, 1.0), doc="global-norm clip of each network's gradient")
    num_envs: Count = hp(16, Choice(8, 16, 32, 64), doc="environments stepped side by side")
    rollout_length: Count = hp(16, Choice(8, 16, 32), doc="steps per environment and cycle")
    epochs: Count = hp(1, doc="passes over the rollout")
    num_minibatches: Count = hp(1, doc="gradient steps per pass")
    standardize_advantages: Flag = hp(True, Choice(True, False), doc="standardise advantages")
    decay_learning_rates: Flag = hp(False, Choice(True, False), doc="decay step sizes linearly to zero")
    normalize_observations: Flag = hp(
        True, Choice(True, False), doc="normalise by running mean and std", fixed_at_start=True
    )
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc="how losses in a minibatch are combined")
    advantage_statistics: Count = hp(
        "batch", labels=("batch", "time_step"), doc="the samples over which advantages are standardised"
    )
    minibatch_remainder: Count = hp(
        "spread", labels=("spread", "drop"), doc="the remainder of dividing the rollout into minibatches"
    )
    time_limit: Count = hp(
        "truncation", labels=("truncation", "termination"), doc="how an episode cut by its time limit counts"
    )
    truncation_bootstrap: Count = hp(
        "final_observation",
        labels=("final_observation", "next_episode"),
        doc="where a truncated step bootstraps from",
    )
    normaliser_order: Count = hp(
        "after_learning",
        labels=("after_learning", "before_acting"),
        doc="when new observations enter the normaliser: after the cycle, or before each step",
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc="whether evaluation normalises observations"
    )
    last_rollout: Count = hp(
        "learned",
        labels=("learned", "unlearned"),
        doc="whether the rollout that spends the budget is learned from, or its gradients count as zero",
    )


class OffPolicyDefaults(AbstractOffPolicyHyperparams):
    """Defaults for an `AbstractOffPolicyAgent`."""

    gamma: Real = hp(0.99, Uniform(0.9, 0.999), doc="discount", most=1)
    tau: Real = hp(
        0.01, LogUniform(1e-3, 1e-1), doc="share of the new weights in each target-network update", most=1
    )
    max_grad_norm: Real = hp(10.0, LogUniform(0.5, 20.0), doc="global-norm clip of each gradient")
    num_envs: Count = hp(8, Choice(4, 8, 16), doc="environments stepped side by side")
    rollout_length: Count = hp(2, Choice(1, 2, 4), doc="steps per environment and cycle")
    warmup_rollout_length: Count = hp(
        32,
        Choice(32, 64, 128),
        doc="steps per environment before learning starts",
        least=0,
        fixed_at_start=True,
    )
    epochs: Count = hp(8, doc="gradient steps per cycle; used if update_to_data is 0")
    update_to_data: Real = hp(0.25, Choice(0.25, 0.5, 1.0), doc="gradient steps per env step; 0: epochs")
    buffer_size: Count = hp(
        50_000, Choice(20_000, 50_000, 100_000), doc="capacity of the replay buffer", fixed_at_start=True
    )
    batch_size: Count = hp(
        64,
        Choice(64, 128, 256),
        doc="transitions per gradient step",
        most=LIMITS["batch_size"].most,
    )
    normalize_observations: Flag = hp(
        True, Choice(True, False), doc="normalise by running mean and std", fixed_at_start=True
    )
    loss_reduction: Count = hp("mean", labels=("mean", "sum"), doc="how losses in a batch are combined")
    time_limit: Count = hp(
        "truncation", labels=("truncation", "termination"), doc="how an episode cut by its time limit counts"
    )
    normaliser_order: Count = hp(
        "after_acting",
        labels=("after_acting", "before_acting"),
        doc="whether an observation enters the normaliser before or after it is acted on",
    )
    evaluation_normalisation: Count = hp(
        "as_trained", labels=("as_trained", "always"), doc="whether evaluation normalises observations"
    )
    warmup_actions: Count = hp("uniform", labels=("uniform", "policy"), doc="actions during the warm-up")
    warmup_budget: Count = hp("counted", labels=("counted", "free"), doc="whether the warm-up spends budget")
    buffer_rounding: Count = hp(
        "none",
        labels=("none", "whole_steps"),
        doc="whether the capacity of the replay buffer is rounded down to a multiple of num_envs",
    )
    last_rollout: Count = hp(
        "learned",
        labels=("learned", "unlearned"),
        doc="whether the rollout that spends the budget is learned from, or its gradients count as zero",
    )
