"""Named variants: each a small override of the algorithm's own spaces or of the benchmarked ones."""

from hyperlax.recipes import Recipe, resolve
from hyperlax.spaces import Choice, Integers, LogUniform

BENCHMARKED_PPO = resolve("benchmarked.01_static_qmc_sampling_S64.ppo_mlp")


def _fixed(width: int, activation: str = "relu") -> dict[str, object]:
    """One architecture for actor and critic."""
    net = {"width": width, "depth": 2, "layer_norm": False, "activation": activation}
    return {f"{network}.{k}": v for network in ("actor", "critic") for k, v in net.items()}


QUICK_PPO = {
    "actor.width": 16,
    "actor.depth": 2,
    "critic.width": 16,
    "critic.depth": 2,
    "num_envs": Choice(4, 8),
    "rollout_length": Choice(8, 16),
    "epochs": Choice(1, 2),
    "num_minibatches": Choice(2, 4),
}

PPO_NO_NETWORK_SEARCH = BENCHMARKED_PPO.with_space(
    {
        **_fixed(128),
        "actor_lr": LogUniform(1e-5, 1e-2),
        "critic_lr": LogUniform(1e-5, 1e-2),
        "ent_coef": LogUniform(1e-5, 1e-2),
        "rollout_length": Choice(2, 4, 8, 16),
        "epochs": Choice(1, 2, 3, 4, 5, 6, 7, 8, 9),
        "num_minibatches": Choice(16, 32, 64, 128, 256),
        "num_envs": Choice(1024, 2048, 4096, 8192),
        "normalize_observations": Choice(True, False),
    }
)

LOWER_NUM_ENVS = {
    "num_envs": Choice(64, 128, 256),
    "rollout_length": Choice(4, 8, 16),
    "epochs": Choice(1, 5, 10),
    "num_minibatches": Choice(4, 8, 16),
    "standardize_advantages": True,
    "decay_learning_rates": False,
    "ent_coef": LogUniform(1e-5, 1e-2),
}

HOMO = {"num_envs": 128, "rollout_length": 4, "epochs": 1, "num_minibatches": 8}
"""Every size fixed: lanes differ in continuous values alone."""


def _searched(network: str) -> dict[str, object]:
    """Depth and width searched apart, over a wider range."""
    return {
        f"{network}.width": Choice(64, 128, 256),
        f"{network}.depth": Integers(1, 4),
        f"{network}.layer_norm": Choice(True, False),
        f"{network}.activation": Choice("relu", "tanh", "silu"),
    }


PPO_VEC_MLP = BENCHMARKED_PPO.with_space({**_searched("actor"), **_searched("critic")})


def _named(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe(
        recipe.algorithm,
        recipe.network,
        dict(recipe.space),
        dict(changes) or dict(recipe.settings),
        QUICK_PPO,
    )


RUNTIME = {"rollout_length": 2, "epochs": 1, "num_minibatches": 256, "num_envs": 1024}
RUNTIME_SIZES = {
    "rollout_length": Choice(1, 2),
    "epochs": Choice(1, 2),
    "num_minibatches": Choice(64, 128, 256),
    "num_envs": Choice(256, 512, 1024),
}

RECIPES = {
    "ppo_vec_mlp": _named(PPO_VEC_MLP),
    "ppo_vec_mlp_lower_num_envs": _named(
        PPO_VEC_MLP.with_space(
            {
                "rollout_length": Choice(16, 32, 64),
                "num_minibatches": Choice(64, 128, 256),
                "num_envs": Choice(32, 64, 128),
            }
        )
    ),
    "ppo_mlp_no_network_search": _named(PPO_NO_NETWORK_SEARCH),
    "ppo_mlp_no_network_search_lower_num_envs": _named(
        PPO_NO_NETWORK_SEARCH.with_space({**_fixed(64), **LOWER_NUM_ENVS})
    ),
    "ppo_mlp_homo_S1024": _named(
        BENCHMARKED_PPO.with_space(
            {**_fixed(128), **HOMO, "actor_lr": LogUniform(1e-5, 1e-2), "critic_lr": LogUniform(1e-5, 1e-2)}
        ),
        evaluations=50,
        eval_episodes=128,
    ),
    "runtime_scaling_1_ppo_mlp_homo_best_case": _named(
        BENCHMARKED_PPO.with_space({**_fixed(128), **RUNTIME})
    ),
    "runtime_scaling_2_ppo_mlp_hetero_algo_hps": _named(
        BENCHMARKED_PPO.with_space({**_fixed(128), **RUNTIME_SIZES})
    ),
    "runtime_scaling_3_ppo_mlp_hetero_network_hps": _named(PPO_VEC_MLP.with_space(RUNTIME)),
    "runtime_scaling_4_ppo_mlp_hetero_algo_and_network_hps": _named(PPO_VEC_MLP.with_space(RUNTIME_SIZES)),
}
