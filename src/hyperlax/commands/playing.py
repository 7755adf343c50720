"""Commands that use trained policies."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from hyperlax.commands.flags import Place, limited, new_file
from hyperlax.commands.launch import start_jax

File = Annotated[
    Place, Parameter(help="A policy, or the folder of an experiment, whose best policy is used.")
]


def play(
    file: File,
    /,
    *,
    env_config: str | None = None,
    algorithm: str | None = None,
    network: str | None = None,
    episodes: Annotated[int, limited("eval_episodes")] = 10,
    seed: Annotated[int, limited("seed")] = 0,
    evaluation: Literal["deterministic", "sampled"] = "deterministic",
    gymnasium: str | None = None,
    output_file: Place | None = None,
) -> int:
    """Let a trained policy play some episodes: print the returns, and draw the first episode.

    Parameters
    ----------
    env_config
        Environment to play in. [default: the one it was trained in]
    algorithm
        The policy's algorithm, if that is your own: file.py:Name.
    network
        The policy's network, if that is your own: file.py:Name.
    episodes
        How many episodes.
    seed
        Seeds everything random in the episodes.
    evaluation
        The best actions, or sampled ones.
    gymnasium
        Play in this environment of gymnasium instead, such as CartPole-v1.
    output_file
        Also write the first episode as an animation (.gif), as a sheet of pictures (.png) or, for brax, as a
        page with its viewer (.html); or the observations, actions and rewards of all episodes (.npz).
    """
    from hyperlax.policies.showing import PICTURED, SUFFIXES

    new_file("--output-file", output_file, *SUFFIXES)
    if gymnasium is not None and (env_config is not None or output_file is not None):
        other = "--env-config" if env_config is not None else "--output-file"
        raise ValueError(f"--gymnasium plays in another framework; {other} has no meaning there")
    start_jax("auto")
    policy = _loaded(file, env_config, algorithm, network)
    for line in policy.words():
        print(line)
    if gymnasium is not None:
        played = policy.to_gymnasium(gymnasium).evaluate(episodes, seed=seed, evaluation=evaluation)
    else:
        states = output_file is not None and output_file.suffix in PICTURED
        played = policy.rollout(episodes=episodes, seed=seed, evaluation=evaluation, states=states)
    for line in played.words():
        print(line)
    if output_file is not None:
        played.save(output_file)
        print(f"written to {output_file}")
    return 0


def export_policy(
    file: File,
    /,
    *,
    output_file: Place,
    env_config: str | None = None,
    algorithm: str | None = None,
    network: str | None = None,
) -> int:
    """Export a policy for programs without hyperlax: as an ONNX model, or as plain NumPy arrays.

    Parameters
    ----------
    output_file
        A new file: .onnx or .npz.
    env_config
        The policy's environment, if that is your own: file.py:Name.
    algorithm
        The policy's algorithm, if that is your own: file.py:Name.
    network
        The policy's network, if that is your own: file.py:Name.
    """
    new_file("--output-file", output_file, ".npz", ".onnx")
    start_jax("auto")
    _loaded(file, env_config, algorithm, network).export(output_file)
    print(f"written to {output_file}")
    return 0


def _loaded(file: Any, env: str | None, algorithm: str | None, network: str | None) -> Any:
    """The policy in a file, or the best one in a folder."""
    from hyperlax import policies

    return policies.load(file, env=env, algorithm=algorithm, network=network)
