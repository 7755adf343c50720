"""The published benchmark's search spaces: 64 scrambled Sobol points of each, seed 42.

The order of the values in a `Choice` is part of the design: it decides which value a point is mapped to.
"""

from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams.spaces import Choice, Joint, LogUniform, Uniform


def _mlp(network: str, *activations: str) -> dict[str, object]:
    layers = Joint((f"{network}.width", f"{network}.depth"), (32, 2), (64, 2), (128, 2))
    return {
        f"{network}.layers": layers,
        f"{network}.layer_norm": Choice(True, False),
        f"{network}.activation": Choice(*activations or ("tanh", "relu", "silu")),
    }


def _tmlp(network: str, *layers: int) -> dict[str, object]:
    return {
        f"{network}.bond_dim": Choice(4, 8, 16),
        f"{network}.activation": Choice("silu", "relu", "tanh"),
        f"{network}.mpo_layers": Choice(*layers),
        f"{network}.shape": Choice("32=2^5", "64=2^6", "128=2^7"),
    }


def _drpqc(network: str) -> dict[str, object]:
    return {f"{network}.layers": Choice(5, 10, 15), f"{network}.stacks": Choice(1, 2, 3)}


PPO = {
    "actor_lr": LogUniform(1e-5, 1e-3),
    "critic_lr": LogUniform(1e-5, 1e-3),
    "gamma": Uniform(0.9, 0.99),
    "gae_lambda": Uniform(0.9, 0.99),
    "clip_eps": Uniform(0.01, 0.5),
    "ent_coef": LogUniform(1e-5, 1e-1),
    "vf_coef": Uniform(0.5, 1.0),
    "max_grad_norm": Uniform(0.1, 1.0),
    "rollout_length": Choice(1, 2, 4, 8),
    "epochs": Choice(1, 2, 4),
    "num_minibatches": Choice(128, 256, 512),
    "num_envs": Choice(1024, 2048, 4096),
    "standardize_advantages": Choice(True, False),
    "decay_learning_rates": Choice(True, False),
    "normalize_observations": Choice(True),
    "clip_value": True,
}

OFF_POLICY = {
    "tau": Uniform(0.001, 0.1),
    "max_grad_norm": Uniform(0.1, 1.0),
    "num_envs": Choice(1024, 2048, 4096),
    "rollout_length": Choice(1, 2, 4, 8),
    "warmup_rollout_length": Choice(8, 16, 32),
    "epochs": Choice(1, 2, 4),
    "update_to_data": 0.0,
    "buffer_size": Choice(30_000, 100_000),
    "batch_size": Choice(128, 256, 512),
    "normalize_observations": Choice(True),
}

DQN = {
    **OFF_POLICY,
    "use_double_q": Choice(True),
    "critic_lr": LogUniform(1e-5, 1e-3),
    "gamma": Uniform(0.9, 0.99),
    "training_epsilon": Uniform(0.01, 0.2),
    "epsilon_decay": 0.0,
    "huber_loss_parameter": Uniform(0.0, 1.0),
    "decay_learning_rates": Choice(True, False),
}

SAC = {
    **OFF_POLICY,
    "autotune": Choice(True),
    "actor_lr": LogUniform(1e-5, 1e-3),
    "q_lr": LogUniform(1e-5, 1e-3),
    "alpha_lr": LogUniform(1e-5, 1e-3),
    "gamma": Uniform(0.9, 0.999),
    "target_entropy_scale": Uniform(0.5, 1.0),
    "init_alpha": LogUniform(0.1, 10.0),
    "decay_learning_rates": False,
}

QUICK = {"update_to_data": 0.0}
"""A quick run of DQN or SAC, too, takes as many gradient steps in a cycle as `epochs` says."""

RECIPES = {
    "ppo_mlp": Recipe("ppo", "mlp", {**_mlp("actor"), **_mlp("critic"), **PPO}),
    "dqn_mlp": Recipe("dqn", "mlp", {**_mlp("critic", "relu", "tanh", "silu"), **DQN}, quick=QUICK),
    "sac_mlp": Recipe("sac", "mlp", {**_mlp("actor"), **_mlp("critic"), **SAC}, quick=QUICK),
    "ppo_tmlp": Recipe("ppo", "tmlp", {**_tmlp("actor", 2, 3), **_tmlp("critic", 2, 3), **PPO}),
    "dqn_tmlp": Recipe("dqn", "tmlp", {**_tmlp("critic", 2), **DQN}, quick=QUICK),
    "sac_tmlp": Recipe(
        "sac", "tmlp", {**_tmlp("actor", 1, 2, 3), **_tmlp("critic", 1, 2, 3), **SAC}, quick=QUICK
    ),
    "ppo_drpqc": Recipe("ppo", "drpqc", {**_drpqc("actor"), **_drpqc("critic"), **PPO}),
    "dqn_drpqc": Recipe("dqn", "drpqc", {**_drpqc("critic"), **DQN}, quick=QUICK),
    "sac_drpqc": Recipe("sac", "drpqc", {**_drpqc("actor"), **_drpqc("critic"), **SAC}, quick=QUICK),
}
