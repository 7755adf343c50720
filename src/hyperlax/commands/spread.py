"""Flags that spread an experiment or a benchmark over processes, and their implementation."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from hyperlax import leaving
from hyperlax.commands.flags import Names, Running
from hyperlax.registry import escaped
from hyperlax.storage import calling
from hyperlax.storage.wording import counted

if TYPE_CHECKING:
    from hyperlax.cluster.sweep import Sweep

SLURM_CHECKPOINT_SECONDS = 120.0
"""Seconds between checkpoints of the many tasks of a cluster, which share a file system."""
LEFT = 3
"""The exit code when work is left that could not be sent yet."""
Count = Annotated[int | None, Parameter(validator=Number(gte=1))]


@Parameter(name="*")
@dataclass
class OnSlurm:
    """Flags for the resources that a task requests from Slurm."""

    time: str | None = None
    "Time limit of a task in the notation of sbatch: 8:00:00. Longer work continues in the next task."
    partition: str | None = None
    "Partition to send tasks to. [default: the cluster's]"
    account: str | None = None
    "Account that pays. [default: the cluster's]"
    gpus_per_task: Count = None
    "GPUs of a task. [default: none, it trains on its cores]"
    cpus_per_task: Count = None
    "Cores of a task. [default: the cluster's]"
    mem: str | None = None
    "Memory of a task: 32G. [default: the cluster's]"
    constraint: str | None = None
    "Features that the nodes must have, such as the kind of GPU; all tasks need equal devices."
    array_parallelism: Count = None
    "How many tasks may run at once."
    container: str | None = None
    "An Apptainer image to run in."
    bind: Names = None
    "Folders to bind in the container, as SOURCE:TARGET."
    setup: str | None = None
    "A line of shell that comes before a task, such as 'module load apptainer'."
    sbatch_arg: Names = None
    "Further options of sbatch, such as --sbatch-arg=--qos=low."

    def given(self) -> dict[str, Any]:
        """The flags that were given, JSON-ready."""
        asked = {f.name: getattr(self, f.name) for f in dataclasses.fields(OnSlurm)}
        return {name: value for name, value in asked.items() if value not in (None, [])}


@Parameter(name="*")
@dataclass
class Spread(OnSlurm):
    """Flags of commands whose work many processes can share."""

    executor: Literal["local", "slurm"] = "local"
    "local: on this machine, see --tasks; slurm: as an array of jobs, for which --time is needed."
    tasks: Count = None
    "Processes on this machine, which share its GPUs or its cores. [default: all in one process]"
    units: Count = None
    "Number of units to cut every experiment into. [default: units of an hour, or enough for --tasks]"

    def asked(self, folder: Path) -> bool:
        """Whether processes are to share the work, or already do; raises `ValueError` for a contradiction.

        If they are to run on this machine, this process leaves them the memory of its GPUs.
        """
        if self.executor == "local" and (given := self.given()):
            raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for --executor slurm")
        if self.executor == "slurm" and self.tasks is not None:
            raise ValueError(
                "--tasks is for --executor local; with slurm, --array-parallelism limits the tasks"
            )
        if self.executor == "slurm" and self.time is None:
            raise ValueError("--executor slurm needs --time, the limit of a task: --time 8:00:00")
        planned = (folder / "sweep.json").exists()
        if self.units is not None and not (planned or self.executor == "slurm" or self.tasks):
            raise ValueError("--units is for --tasks, or --executor slurm")
        if self.executor == "local" and (planned or self.tasks is not None):
            from hyperlax.cluster import sharing  # before JAX starts

            sharing.take_little()
        return planned or self.executor == "slurm" or self.tasks is not None

    def options(self) -> dict[str, Any] | None:
        """The resources that tasks request from Slurm, JSON-ready; None for this machine."""
        if self.executor == "local":
            return None
        from hyperlax.cluster.slurm import Options
        from hyperlax.cluster.submitting import described

        given: dict[str, Any] = self.given()
        lists = {name: tuple(given.get(name, ())) for name in ("bind", "sbatch_arg")}
        return described(Options(**{**given, **lists}))

    def plan(self, running: Running) -> dict[str, Any]:
        """Arguments of `cluster.planning` that describe how units are run."""
        often = running.checkpoint_seconds
        if self.executor == "slurm" and often == Running.checkpoint_seconds:
            often = SLURM_CHECKPOINT_SECONDS
        return {
            "platform": self.platform(),
            "execution": {
                "save_policies": running.save_policies,
                "checkpoint_seconds": often,
                "lanes_at_once": running.hparam_batch_size,
                "any_device": running.any_device,
                "metric": running.metric,
            },
            "group_by_sizes": running.group_by_structural_hparams,
            "wanted": self.units,
            "tasks": self.tasks if self.executor == "local" else None,
            "slurm": self.options(),
            "command": ["hyperlax", *sys.argv[1:]],
        }

    def platform(self) -> str:
        """The platform that tasks train on: the GPUs they request, or the one of this process."""
        if self.executor == "slurm":
            return "gpu" if self.gpus_per_task else "cpu"
        import jax

        return "cpu" if jax.local_devices()[0].platform == "cpu" else "gpu"


def spread_out(
    spread: Spread,
    folder: Path,
    resume: bool,
    dry_run: bool,
    asked: Callable[[], dict[str, Any]],
    plan: Callable[[], Sweep],
    retrain_damaged: bool = False,
) -> int | None:
    """Plan a sweep, or continue the one in `folder`, and let processes train its units.

    Returns the exit code of the command; None if all is trained and merged, so that the command can continue
    as if a single process had done it. `asked` holds the arguments that determine the plan.
    """
    from hyperlax.cluster import planning, sweep, trust
    from hyperlax.storage.store import holds

    found = sweep.read(folder)
    if found is not None:
        if not resume and not dry_run:
            raise ValueError(f"{folder} holds a planned sweep already; continue it with --resume")
        found = planning.continued(found, asked())
        trust.check(found)
    elif holds(folder) or any(p for p in folder.glob("*/*/*/manifest.json")):
        raise ValueError(
            f"{folder} was begun by a single process; continue it without --tasks and --executor slurm"
        )
    else:
        found = plan()
        if not dry_run:
            found.write()
            trust.remember(found)
    if dry_run:
        return _show(found)
    if found.slurm is not None:
        return send(found, changes=spread.given(), retrain_damaged=retrain_damaged)
    return work_here(found, spread.tasks, retrain_damaged)


def _show(found: Sweep) -> int:
    """Print what would be run, on one screen, and the script."""
    from hyperlax.cluster import submitting

    print("\n".join(summary(found)))
    if found.slurm is not None:
        print(f"\n{submitting.dry_run(found)}", end="")
    return 0


def summary(found: Sweep) -> list[str]:
    """A few lines about the size of a sweep."""
    hours = [unit.seconds / 3600 for unit in found.units]
    lanes = sum(unit.lanes for unit in found.units)
    lines = [
        f"{counted(len(found.cells), 'experiment')}, {counted(len(found.units), 'unit')}, "
        f"{counted(lanes, 'lane')}, "
        f"{sum(unit.env_steps for unit in found.units):,} env steps",
        f"at least {_hours(sum(hours))} of one {found.platform}, {_hours(max(hours))} for the longest unit "
        "(planned, not measured)",
    ]
    if found.slurm is not None:
        each = [counted(found.slurm["gpus_per_task"], "GPU")] if "gpus_per_task" in found.slurm else []
        each += [counted(found.slurm["cpus_per_task"], "core")] if "cpus_per_task" in found.slurm else []
        each += [f"memory {found.slurm['mem']}"] if "mem" in found.slurm else []
        at_once = found.slurm.get("array_parallelism")
        lines.append(
            f"tasks of {found.slurm['time']}"
            + (f" with {', '.join(each)}" if each else "")
            + (f", at most {at_once} at once" if at_once else "")
        )
    return lines


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{max(1, round(hours * 60))} min"


def send(
    found: Sweep,
    retry_failed: bool = False,
    changes: Mapping[str, Any] | None = None,
    retrain_damaged: bool = False,
) -> int:
    """Send missing units to Slurm, and print how many; the exit code says whether some are left.

    `changes` are options of Slurm that differ from those that the sweep was planned with.
    """
    from hyperlax.cluster import submitting

    sent = submitting.submit(found, retry_failed, changes, retrain_damaged)
    print("\n".join(summary(found)))
    for job, names in sent.jobs.items():
        print(f"job {job}: {counted(len(names), 'unit')}")
    root = found.root.absolute()
    leaving.from_now_on(None)
    if sent.left:
        left = f"{counted(sent.left, 'unit')} {'is' if sent.left == 1 else 'are'} left"
        print(f"{left}, the queue takes no more: {sent.why}")
        print(f"next, when some have ended: {calling.line('submit', root)}")
        return LEFT
    if not sent.jobs:
        print("nothing to send: every unit is trained, in the queue, or has failed")
    print(f"next: {calling.line('status', root, '--watch')}")
    return 0


def work_here(found: Sweep, tasks: int | None, retrain_damaged: bool = False) -> int | None:
    """Train on this machine what is not trained yet, and merge; return None if all is, else an exit code."""
    from hyperlax.cluster import local, mending, merging, records

    leaving.from_now_on(leaving.RESUMABLE)
    if retrain_damaged:
        mending.ask(found, found.units)
    left = [u for u in found.units if not records.is_done(found, u)]
    tried = [u for u in left if records.failure(found, u) is None]
    gpus = _gpus(found)
    over = len(found.units) - len(left)

    def told(name: str, code: int) -> None:
        nonlocal over
        over += code == 0
        print(
            f"{name} {'trained' if code == 0 else f'ended with {code}'}: {over} of {len(found.units)}",
            flush=True,
        )

    count = min(tasks or local.suitable_tasks(gpus), max(1, len(tried)))
    workers = local.Workers(found.root, count, gpus, told)
    stopped = workers.run([unit.name for unit in tried]) if tried else None
    merging.merge_all(found)
    if stopped is not None:
        leaving.answered()
        print(f"stopped; {leaving.RESUMABLE}", file=sys.stderr)
        return leaving.exit_code(stopped)
    if all(merging.is_merged(found, number) for number in range(len(found.cells))):
        return None
    failed = [u.name for u in found.units if not records.is_done(found, u)]
    for unit in found.units:
        if (why := records.failure(found, unit)) is not None:
            print(escaped(f"{unit.name} failed: {why}"), file=sys.stderr)
    look = calling.line("status", found.root.absolute())
    some = f"{failed[0]} is" if len(failed) == 1 else f"{counted(len(failed), 'unit')} are"
    first = "" if len(failed) == 1 else f", {failed[0]} first"
    print(f"{some} not trained{first}; next: {look}", file=sys.stderr)
    return 1


def _gpus(found: Sweep) -> int:
    """The number of GPUs of this machine, for a sweep that trains on GPUs."""
    if found.platform == "cpu":
        return 0
    import jax

    return len(jax.local_devices())
