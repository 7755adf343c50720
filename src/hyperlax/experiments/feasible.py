"""Whether an experiment can fit into memory and end, predicted from its sizes before anything is made.

Both predictions are lower bounds, arithmetic on the host that traces and allocates nothing: what they refuse
cannot be, while something that they let pass may still turn out too large when it is compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax

from hyperlax.agents.base import AbstractAgentHyperparams, Holding
from hyperlax.agents.costs import cycle_operations, cycle_work, unshared
from hyperlax.envs.base import AbstractEnv
from hyperlax.experiments.memory import device_memory
from hyperlax.experiments.settings import Settings
from hyperlax.lanes.sizes import Sizes
from hyperlax.programs.budget import cycle_steps
from hyperlax.programs.plan import Machine
from hyperlax.registry.limits import LARGEST_LEAF, refuse_lanes
from hyperlax.storage.memory import Bound, host_memory

YEAR = 365.25 * 86_400
LONGEST = 10 * YEAR
"""Predicted seconds from which an experiment is refused."""
WORTH_SAYING = 86_400.0
"""Predicted seconds from which the prediction is added to the notes of an experiment."""
LONG_EPISODE = 1_000_000
"""Steps of an episode from which the cost of an evaluation is predicted, as if every episode took as many."""
LONGEST_EVALUATION = 600.0
"""Predicted seconds from which such an evaluation is refused."""
SHORTEST_STEP = 1e-6
"""Seconds that a step takes at least, however many are taken side by side."""
ROW_BYTES = 48
"""Bytes of one episode in the table of episodes."""


class Room(NamedTuple):
    """Where lanes train: the memory of a device and of the host in bytes, and the speed of the machine."""

    device: int
    host: Bound
    shared: bool
    machine: Machine

    @staticmethod
    def here() -> Room:
        """The memory and the devices of this machine; on a CPU, device and host share their memory."""
        devices = jax.local_devices()
        platform = devices[0].platform
        return Room(device_memory(), host_memory(), platform == "cpu", Machine.of(platform, len(devices)))


def refusal(tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings, room: Room) -> str | None:
    """Say why a lane with the hyperparameters `tree` cannot be trained, with numbers; None if it can."""
    if answer := tree.refusal(env, room.device):
        return answer
    return (
        _uncountable(tree, settings)
        or _too_large(tree, env, settings, room)
        or _too_short(tree.sizes(), settings)
        or _never_ending(tree, env, settings, room.machine)
        or _endless(lane_seconds(tree, env, settings, room.machine), "one lane")
    )


def check_lanes(seconds: Sequence[float], samples: int, settings: Settings, machine: Machine) -> str | None:
    """Check the number of lanes and the time of all; `seconds` are those of one lane of each sample known.

    `samples` is the number of samples in the end, at least as many as are known. Returns a note about the
    time if it is long, otherwise None. Raises `ValueError` if there are too many lanes or they take years.
    """
    refuse_lanes(samples, settings.seeds)
    if not seconds:
        return None
    total = samples * settings.seeds * sum(seconds) / len(seconds) / machine.devices
    if why := _endless(total, f"{samples * settings.seeds:,} lanes"):
        raise ValueError(why)
    if total < WORTH_SAYING:
        return None
    return f"training is predicted to take about {duration(total)} on this machine"


def lane_seconds(
    tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings, machine: Machine
) -> float:
    """Predict for how many seconds one device trains and evaluates one lane, at least."""
    sizes = tree.sizes()
    arithmetic = tree.arithmetic(sizes, env)
    if machine.accelerator:
        work = cycle_operations(sizes, arithmetic)
    else:
        work = cycle_work(sizes, unshared(sizes, sizes), arithmetic)[0]
    cycles = settings.last_step(cycle_steps(sizes)) // cycle_steps(sizes)
    return (cycles * work + settings.evaluations * settings.eval_episodes * arithmetic.step) / machine.rate


def holding(tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings) -> dict[str, Holding]:
    """What a lane holds in memory, at least, by name."""
    found = tree.holds(env)
    numbers = env.obs_size + 4
    episodes = 2 * settings.eval_episodes
    evaluated = episodes * (numbers + max(_per_input(tree, env)))
    return {**found, "evaluation": Holding(4 * evaluated, "eval_episodes", False)}


def _per_input(tree: AbstractAgentHyperparams, env: AbstractEnv) -> list[int]:
    return [use.hp.held(use.inputs, use.hp.sizes()) for use in tree.networks(env).values()]


def _too_large(
    tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings, room: Room
) -> str | None:
    """Compare what a lane holds with the memory of the device, and its checkpoint with that of the host."""
    parts = holding(tree, env, settings)
    kept = sum(part.bytes for part in parts.values() if part.kept)
    passing = max(part.bytes for part in parts.values() if not part.kept)
    saved = kept if room.shared else 0
    if kept + passing + saved <= room.device and kept <= room.host.total:
        return None
    ordered = sorted(parts, key=lambda name: parts[name].bytes, reverse=True)
    worth_saying = (kept + passing) / 100
    words = ", ".join(
        f"{name} {gigabytes(parts[name].bytes)}" for name in ordered if parts[name].bytes > worth_saying
    )
    more = f", and a checkpoint {gigabytes(kept)}" if saved else ""
    return (
        f"one lane needs at least {gigabytes(kept + passing + saved)} of memory ({words}{more}), and there "
        f"are {gigabytes(min(room.device, room.host.total))}: lower {parts[ordered[0]].lower}"
    )


def _uncountable(tree: AbstractAgentHyperparams, settings: Settings) -> str | None:
    """Say which count of a lane would leave the 32 bits that it has on a device."""
    sizes = tree.sizes()
    cycles = max(1, settings.last_step(cycle_steps(sizes)) // cycle_steps(sizes))
    collected = cycles * cycle_steps(sizes) + tree.collected_first()
    if collected > LARGEST_LEAF:
        return (
            f"{sizes['num_envs']:,} envs × rollouts of {sizes['rollout_length']:,} steps end after "
            f"{collected:,} env steps, and at most {LARGEST_LEAF:,} can be counted: lower num_envs or "
            "rollout_length, or train fewer steps"
        )
    if (warm_up := tree.warmup_steps()) > LARGEST_LEAF:
        return (
            f"the warm-up has {warm_up:,} env steps, and at most {LARGEST_LEAF:,} can be counted: lower "
            "warmup_rollout_length or num_envs"
        )
    steps = cycles * sizes["gradient_steps"]
    if steps > LARGEST_LEAF:
        return (
            f"{cycles:,} cycles × {sizes['gradient_steps']:,} gradient steps are {steps:,}, and at most "
            f"{LARGEST_LEAF:,} can be counted: lower epochs, or what else decides how many there are"
        )
    return None


def _too_short(sizes: Sizes, settings: Settings) -> str | None:
    """Say that the run ends before the first cycle of a lane of `sizes`; None if it does not."""
    cycle, total = cycle_steps(sizes), settings.total_timesteps
    if settings.last_step(cycle):
        return None
    return (
        f"its cycle of {sizes['num_envs']:,} envs × rollouts of {sizes['rollout_length']:,} steps is "
        f"{cycle:,} env steps, more than the {total:,} of the run: raise --total-timesteps to {cycle}, or "
        "lower num_envs or rollout_length"
    )


def _never_ending(
    tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings, machine: Machine
) -> str | None:
    """Say that an evaluation may take far too long, as episodes may have so many steps; None if not."""
    limit, episodes = env.max_episode_steps, 2 * settings.eval_episodes
    if limit <= LONG_EPISODE or not episodes:
        return None
    step = tree.arithmetic(tree.sizes(), env).step
    seconds = limit * max(episodes * step / machine.rate, SHORTEST_STEP)
    if seconds <= LONGEST_EVALUATION:
        return None
    return (
        f"an evaluation plays {episodes} whole episodes, which may have {limit:,} steps each "
        f"(max_episode_steps of {type(env).__name__}): about {seconds / 3600:,.1f} hours, in which nothing "
        "stops it; declare the number of steps after which an episode is truncated, such as 1,000"
    )


def _endless(seconds: float, what: str) -> str | None:
    """Say that something takes longer than `LONGEST`; None if it does not."""
    if seconds <= LONGEST:
        return None
    return (
        f"{what} would train for about {duration(seconds)} on this machine: lower its sizes, or the number "
        "of steps, samples or seeds"
    )


def gigabytes(count: float | int) -> str:
    """`count` bytes in words."""
    for unit, size in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30)):
        if count >= size:
            return f"{count / size:,.3g} {unit}" if count < 1000 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 2**20:,.3g} MiB"


def duration(seconds: float) -> str:
    """`seconds` in words, as days or years."""
    if seconds < 2 * YEAR:
        return f"{seconds / 86_400:,.0f} days"
    return f"{seconds / YEAR:,.0f} years"
