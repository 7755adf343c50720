"""Names from other libraries, and what they are called here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

MOST_SHOWN = 4
"""The largest number of names that are suggested at once."""

SPELLINGS: dict[str, tuple[str, ...]] = {
    # hyperparameters, as in CleanRL, Stable-Baselines3, rejax, Stoix and the papers
    "learning_rate": ("lr",),
    "step_size": ("lr",),
    "alpha": ("init_alpha", "alpha_lr"),
    "discount": ("gamma",),
    "discount_factor": ("gamma",),
    "lambda": ("gae_lambda",),
    "lam": ("gae_lambda",),
    "gae": ("gae_lambda",),
    "clip": ("clip_eps",),
    "clip_coef": ("clip_eps",),
    "clip_range": ("clip_eps",),
    "clip_ratio": ("clip_eps",),
    "entropy": ("ent_coef",),
    "entropy_coef": ("ent_coef",),
    "value_coef": ("vf_coef",),
    "value_loss_coef": ("vf_coef",),
    "n_envs": ("num_envs",),
    "n_steps": ("rollout_length",),
    "num_steps": ("rollout_length",),
    "unroll_length": ("rollout_length",),
    "rollout": ("rollout_length",),
    "n_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "update_epochs": ("epochs",),
    "n_minibatches": ("num_minibatches",),
    "minibatch_size": ("batch_size", "num_minibatches"),
    "replay_size": ("buffer_size",),
    "memory_size": ("buffer_size",),
    "learning_starts": ("warmup_rollout_length",),
    "fill_buffer": ("warmup_rollout_length",),
    "polyak": ("tau",),
    "grad_clip": ("max_grad_norm",),
    "clip_grad": ("max_grad_norm",),
    "hidden": ("width",),
    "hidden_size": ("width",),
    "hidden_sizes": ("width", "depth"),
    "hidden_units": ("width",),
    "units": ("width",),
    "n_layers": ("depth", "layers"),
    "num_layers": ("depth", "layers"),
    "ln": ("layer_norm",),
    "eps": ("training_epsilon", "epsilon_start"),
    "epsilon": ("training_epsilon", "epsilon_start"),
    "exploration_fraction": ("epsilon_decay",),
    "train_freq": ("update_to_data",),
    "utd": ("update_to_data",),
    "replay_ratio": ("update_to_data",),
    "ddqn": ("use_double_q",),
    "norm_obs": ("normalize_observations",),
    "normalise_observations": ("normalize_observations",),
    "standardise_advantages": ("standardize_advantages",),
    "normalize_advantage": ("standardize_advantages",),
    "anneal_lr": ("decay_learning_rates",),
    # settings and flags
    "env_id": ("env_config",),
    "environment": ("env_config",),
    "recipe": ("algo_and_network_config", "algos"),
    "algorithm": ("algo_and_network_config", "algos"),
    "agent": ("algo_and_network_config", "algos"),
    "config": ("algo_and_network_config", "env_config"),
    "out": ("output_root", "output_file"),
    "output": ("output_root", "output_file"),
    "output_dir": ("output_root",),
    "save_dir": ("output_root",),
    "folder": ("output_root", "results_dir"),
    "results": ("results_dir_to_plot", "results_dir", "output_root"),
    "num_seeds": ("seeds",),
    "n_seeds": ("seeds",),
    "n_samples": ("num_samples",),
    "samples": ("num_samples", "load_hyperparams"),
    "trials": ("n_trials",),
    "steps": ("total_timesteps",),
    "timesteps": ("total_timesteps",),
    "total_steps": ("total_timesteps",),
    "num_timesteps": ("total_timesteps",),
    "run_length": ("run_length_modifier",),
    "continue": ("resume",),
}
"""What is typed → the last words of what it is called here; `actor_lr` and `critic_lr` end in `lr`."""


def alike(name: str, known: Iterable[str]) -> list[str]:
    """The names that somebody who types `name` may mean, closest first, `MOST_SHOWN` at most.

    They are those that differ from it in capitals, hyphens and the like, else those that end in it, those of
    which it is a part, those for which `SPELLINGS` has it, those of which it is the beginning, or else the
    one that becomes `name` by a few slips of the keyboard.
    """
    known = list(dict.fromkeys(known))
    plain = re.sub(r"-v\d+$", "", name.strip())
    for fits in (_same, _last, _part, _spelled, _begun):
        if found := [other for other in known if fits(plain, other)]:
            return found if len(found) <= MOST_SHOWN else _similar(plain, found)[:1]
    return [other for other in _similar(plain, known) if _mistyped(plain.lower(), other.lower())][:1]


def _similar(name: str, known: list[str]) -> list[str]:
    """The names with similar letters, capitals apart, the most similar first."""
    lower = {other.lower(): other for other in reversed(known)}
    close = difflib.get_close_matches(name.lower(), lower, n=MOST_SHOWN, cutoff=0.5)
    return [lower[found] for found in close]


def _mistyped(name: str, other: str) -> bool:
    """Whether `other` becomes `name` by a slip in every four letters, or one in a name of fewer.

    A slip is a letter that is missing, too many or wrong, or two neighbours in exchanged order.
    """
    rows = [[*range(len(other) + 1)]]
    for i, letter in enumerate(name, 1):
        row = [i]
        for j, meant in enumerate(other, 1):
            slips = [rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != meant)]
            if i > 1 and j > 1 and (letter, name[i - 2]) == (other[j - 2], meant):
                slips.append(rows[-2][j - 2] + 1)
            row.append(min(slips))
        rows.append(row)
    return rows[-1][-1] <= max(1, max(len(name), len(other)) // 4)


def _same(name: str, other: str) -> bool:
    """Whether they have the same letters and digits, `name` maybe without what is before the last dot."""
    return _letters(name) in (_letters(other), _letters(other.rpartition(".")[2])) and bool(_letters(name))


def _last(name: str, other: str) -> bool:
    """Whether `other` ends in the words of `name`."""
    wanted = _words(name)
    return bool(wanted) and _words(other)[-len(wanted) :] == wanted


def _begun(name: str, other: str) -> bool:
    """Whether `other` ends in the words of `name`, of which the last, of three letters or more, is begun."""
    wanted, there = _words(name), _words(other)
    if not wanted or len(wanted[-1]) < 3 or len(there) < len(wanted):
        return False
    return there[-len(wanted) : -1] == wanted[:-1] and there[-1].startswith(wanted[-1])


def _part(name: str, other: str) -> bool:
    """Whether the words of `name` are, in this order, among those of `other`."""
    wanted, there = _words(name), _words(other)
    places = range(len(there) - len(wanted) + 1)
    return bool(wanted) and any(there[place : place + len(wanted)] == wanted for place in places)


def _spelled(name: str, other: str) -> bool:
    """Whether `SPELLINGS` has `name` for `other`, which is in the same network if `name` is in one."""
    network, _, last = name.rpartition(".")
    if network and not other.startswith(f"{network}."):
        return False
    typed = _letters(last)
    meant = next((ends for spelling, ends in SPELLINGS.items() if _letters(spelling) == typed), ())
    there = _words(other)
    return any(there[-len(_words(end)) :] == _words(end) for end in meant)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", name.lower())
