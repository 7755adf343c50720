"""Descriptions of a plan for users: the numbers of samples and lanes, and the programs that train them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperlax.storage.wording import counted

if TYPE_CHECKING:  # a display is made before jax is imported
    from rich.console import RenderableType

    from hyperlax.experiments.experiment import Experiment
    from hyperlax.programs.plan import Program


def expected(spec: Experiment) -> tuple[int, str]:
    """The number of samples that there are or will be, and what to call them: samples or trials."""
    coming = spec.schedule.expected
    return (coming, "trials") if coming else (len(spec.records), "samples")


def program_words(program: Program, seeds: int) -> str:
    """Describe one program of a plan in one line."""
    lanes = len(program.samples) * seeds
    many = counted(lanes, "lane") if lanes else "lanes as needed"
    return (
        f"{many}, up to {program.caps['num_envs']} envs, rollout "
        f"{program.caps['rollout_length']}, minibatch {program.caps['minibatch']}, "
        f"{_networks(program.caps)}; "
        f"predicted useful work {program.useful_share:.0%}"
    )


def _networks(caps: Mapping[str, Any]) -> str:
    """Describe the capacities of the networks; networks of equal sizes are listed together."""
    from hyperlax.lanes.sizes import nested

    found: dict[str, list[str]] = {}
    for net in dict.fromkeys(name.partition(".")[0] for name in caps if "." in name):
        net_caps = nested(caps, net)
        sizes = " ".join(
            f"{k} {v}" for k, v in net_caps.items() if isinstance(v, int | str) and not isinstance(v, bool)
        )
        found.setdefault(sizes, []).append(net)
    return "; ".join(f"{', '.join(nets)}: {sizes}" for sizes, nets in found.items())


def plan_table(spec: Experiment, programs: Sequence[Program]) -> RenderableType:
    """The plan as a table for the terminal, one row per program."""
    from rich.console import Group

    from hyperlax.run.fitting import Fitting

    settings = spec.settings
    count, what = expected(spec)
    title = (
        f"{spec.label} on {spec.env_name}: {counted(count, what[:-1])} × "
        f"{counted(settings.seeds, 'seed')} = {counted(count * settings.seeds, 'lane')}, "
        f"{settings.total_timesteps:,} steps each, "
        f"{settings.protocol} protocol"
    )
    rows = []
    for number, program in enumerate(programs):
        caps = program.caps
        sizes = (caps["num_envs"], caps["rollout_length"], caps["minibatch"])
        rows.append(
            [
                str(number + 1),
                str(len(program.samples) * settings.seeds) if program.samples else "as asked",
                *(str(s) if len(program.samples) == 1 else f"≤ {s}" for s in sizes),
                _networks(caps),
                f"{program.useful_share:.0%}",
            ]
        )
    names = ("program", "lanes", "envs", "rollout", "minibatch", "networks", "useful work")
    return Group(
        title, Fitting(names, rows, ("networks", "minibatch", "rollout", "useful work"), ("networks",))
    )
