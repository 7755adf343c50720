"""Variants of the benchmarked recipes, each of which changes a few entries of their search spaces."""

from hyperlax.experiments.recipes import Recipe, resolve
from hyperlax.hyperparams.spaces import Choice, Integers, LogUniform, Uniform


def _benchmarked(name: str) -> Recipe:
    return resolve(f"benchmarked.01_static_qmc_sampling_S64.{name}")


BENCHMARKED_PPO, BENCHMARKED_DQN, BENCHMARKED_SAC = (
    _benchmarked(f"{name}_mlp") for name in ("ppo", "dqn", "sac")
)


def _fixed(
    width: int, activation: str = "relu", networks: tuple[str, ...] = ("actor", "critic"), depth: int = 2
) -> dict[str, object]:
    """Fix one MLP architecture for all `networks`."""
    net = {"width": width, "depth": depth, "layer_norm": False, "activation": activation}
    return {f"{network}.{k}": v for network in networks for k, v in net.items()}


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

LOWER_NUM_ENVS_REPLAY = {
    "num_envs": Choice(64, 128, 256),
    "rollout_length": Choice(4, 8, 16),
    "batch_size": Choice(32, 64, 128),
}

HOMO = {"num_envs": 128, "rollout_length": 4, "epochs": 1, "num_minibatches": 8}
"""Fixed values for every size, so that lanes differ only in continuous hyperparameters and switches."""

HOMO_REPLAY = {
    "num_envs": 128,
    "rollout_length": 4,
    "epochs": 1,
    "batch_size": 64,
    "buffer_size": 100_000,
    "warmup_rollout_length": 16,
}


def _mlp_space(network: str) -> dict[str, object]:
    """A search space in which depth and width vary independently and over a wider range."""
    return {
        f"{network}.width": Choice(64, 128, 256),
        f"{network}.depth": Integers(1, 4),
        f"{network}.layer_norm": Choice(True, False),
        f"{network}.activation": Choice("relu", "tanh", "silu"),
    }


PPO_VEC_MLP = BENCHMARKED_PPO.with_space({**_mlp_space("actor"), **_mlp_space("critic")})


def _variant(recipe: Recipe, **changes: object) -> Recipe:
    """A copy of `recipe`, with its settings replaced by `changes` if there are any."""
    return Recipe(
        recipe.algorithm,
        recipe.network,
        dict(recipe.space),
        dict(changes) or dict(recipe.settings),
        dict(recipe.quick),
    )


DQN_DRPQC_PRIORS = _benchmarked("dqn_drpqc").with_space(
    {
        "critic_lr": LogUniform(3e-5, 5e-4),
        "tau": LogUniform(1e-3, 2e-2),
        "gamma": Choice(0.97, 0.98, 0.99),
        "max_grad_norm": Choice(0.3, 0.5, 1.0),
        "training_epsilon": Uniform(0.08, 0.15),
        "huber_loss_parameter": Choice(0.0, 0.5, 1.0, 2.0),
        "num_envs": Choice(512, 1024, 2048, 4096),
        "rollout_length": Choice(4, 8, 16, 32),
        "epochs": Choice(1, 2, 4, 8),
        "buffer_size": Choice(100_000, 500_000, 1_000_000),
        "batch_size": Choice(64, 128, 256, 512),
    }
)

LARGER_SHAPES = ("64=2^6", "128=2^7", "256=2^8", "512=2^9", "64=4^3", "256=4^4", "64=8^2", "512=8^3")


def _shape_space(network: str) -> dict[str, object]:
    """A search space of hidden units together with their factorisation."""
    return {f"{network}.shape": Choice(*LARGER_SHAPES)}


RUNTIME = {"rollout_length": 2, "epochs": 1, "num_minibatches": 256, "num_envs": 1024}
RUNTIME_SIZES = {
    "rollout_length": Choice(1, 2),
    "epochs": Choice(1, 2),
    "num_minibatches": Choice(64, 128, 256),
    "num_envs": Choice(256, 512, 1024),
}
LOWER_RUNTIME = {"num_envs": 32, "num_minibatches": 8}
LOWER_RUNTIME_SIZES = {"num_envs": Choice(16, 32, 64), "num_minibatches": Choice(4, 8, 16)}


def _circuit_space(layers: object, stacks: object) -> dict[str, object]:
    """Values or spaces for the numbers of layers and stacks of the circuits of both networks."""
    return {
        f"{network}.{k}": v
        for network in ("actor", "critic")
        for k, v in {"layers": layers, "stacks": stacks}.items()
    }


RUNTIME_NETWORKS = {
    "mlp": (BENCHMARKED_PPO.with_space(_fixed(128)), PPO_VEC_MLP),
    "drpqc": (
        _benchmarked("ppo_drpqc").with_space(_circuit_space(10, 4)),
        _benchmarked("ppo_drpqc").with_space(_circuit_space(Choice(5, 10, 15), Choice(1, 2, 3))),
    ),
}
"""Network → recipe with one architecture for all lanes, and recipe in which lanes differ in architecture."""


def _runtime_scaling() -> dict[str, Recipe]:
    """Recipes to time sweeps whose lanes are equal, or differ in sizes, in architecture, or in both."""
    recipes = {}
    for network, (same, differing) in RUNTIME_NETWORKS.items():
        for name, recipe, sizes, lower in (
            (f"1_ppo_{network}_homo_best_case", same, RUNTIME, LOWER_RUNTIME),
            (f"2_ppo_{network}_hetero_algo_hps", same, RUNTIME_SIZES, LOWER_RUNTIME_SIZES),
            (f"3_ppo_{network}_hetero_network_hps", differing, RUNTIME, LOWER_RUNTIME),
            (
                f"4_ppo_{network}_hetero_algo_and_network_hps",
                differing,
                RUNTIME_SIZES,
                LOWER_RUNTIME_SIZES,
            ),
        ):
            full = f"runtime_scaling_{name}"
            small = recipe.with_space({**sizes, **lower})
            recipes[full] = _variant(recipe.with_space(sizes))
            recipes[f"{full}_lower_num_envs"] = _variant(small, seeds=4, evaluations=20, eval_episodes=8)
            recipes[f"{full}_lower_num_envs_no_eval"] = _variant(
                small, seeds=4, evaluations=0, eval_episodes=8
            )
    return recipes


RECIPES = {
    "ppo_vec_mlp": _variant(PPO_VEC_MLP),
    "ppo_vec_mlp_lower_num_envs": _variant(
        PPO_VEC_MLP.with_space(
            {
                "rollout_length": Choice(16, 32, 64),
                "num_minibatches": Choice(64, 128, 256),
                "num_envs": Choice(32, 64, 128),
            }
        )
    ),
    "ppo_mlp_no_network_search": _variant(PPO_NO_NETWORK_SEARCH),
    "ppo_mlp_no_network_search_lower_num_envs": _variant(
        PPO_NO_NETWORK_SEARCH.with_space({**_fixed(64), **LOWER_NUM_ENVS})
    ),
    "ppo_mlp_homo_S1024": _variant(
        BENCHMARKED_PPO.with_space(
            {**_fixed(128), **HOMO, "actor_lr": LogUniform(1e-5, 1e-2), "critic_lr": LogUniform(1e-5, 1e-2)}
        ),
        evaluations=50,
        eval_episodes=128,
    ),
    "dqn_mlp_no_network_search": _variant(BENCHMARKED_DQN.with_space(_fixed(128, networks=("critic",)))),
    "sac_mlp_no_network_search": _variant(BENCHMARKED_SAC.with_space(_fixed(128))),
    "dqn_mlp_no_network_search_lower_num_envs": _variant(
        BENCHMARKED_DQN.with_space(
            {
                **_fixed(64, networks=("critic",)),
                **LOWER_NUM_ENVS_REPLAY,
                "huber_loss_parameter": Uniform(0.0, 0.01),
                "decay_learning_rates": False,
            }
        )
    ),
    "sac_mlp_no_network_search_lower_num_envs": _variant(
        BENCHMARKED_SAC.with_space({**_fixed(64), **LOWER_NUM_ENVS_REPLAY, "gamma": Uniform(0.9, 0.99)})
    ),
    "dqn_mlp_homo_S1024": _variant(
        BENCHMARKED_DQN.with_space({**_fixed(128, networks=("critic",)), **HOMO_REPLAY}),
        evaluations=50,
        eval_episodes=128,
    ),
    "sac_mlp_homo_S1024": _variant(
        BENCHMARKED_SAC.with_space(
            {
                **_fixed(128),
                **HOMO_REPLAY,
                **dict.fromkeys(("actor_lr", "q_lr", "alpha_lr"), LogUniform(1e-5, 1e-2)),
            }
        ),
        evaluations=50,
        eval_episodes=128,
    ),
    "sac_mlp_close_to_stoix": _variant(
        BENCHMARKED_SAC.with_space(
            {
                **_fixed(256, "silu", depth=4),
                **dict.fromkeys(("actor_lr", "q_lr", "alpha_lr"), LogUniform(3e-4, 4e-4)),
                "gamma": Uniform(0.99, 0.999),
                "tau": Uniform(0.005, 0.006),
                "max_grad_norm": Uniform(0.5, 0.6),
                "target_entropy_scale": Uniform(1.0, 1.1),
                "init_alpha": LogUniform(0.1, 0.2),
                "num_envs": 1024,
                "rollout_length": 1,
                "warmup_rollout_length": 16,
                "buffer_size": 25_000,
                "batch_size": 256,
            }
        )
    ),
    "dqn_vec_mlp": _variant(BENCHMARKED_DQN.with_space(_mlp_space("critic"))),
    "sac_vec_mlp": _variant(BENCHMARKED_SAC.with_space({**_mlp_space("actor"), **_mlp_space("critic")})),
    "dqn_drpqc_priors": _variant(DQN_DRPQC_PRIORS),
    "ppo_tmlp_larger_arch": _variant(
        _benchmarked("ppo_tmlp").with_space({**_shape_space("actor"), **_shape_space("critic")}),
        total_timesteps=5_000_000,
    ),
    **_runtime_scaling(),
}
