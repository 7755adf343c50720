"""Displays of a run: bars and tables on a terminal, one line per event elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

from hyperlax.run.display import Display
from hyperlax.run.plan_words import expected, plan_table, program_words
from hyperlax.storage.wording import counted, duration

if TYPE_CHECKING:  # a display is made before jax is imported
    from rich.console import Console, RenderableType
    from rich.progress import Task

    from hyperlax.agents.base import AbstractAgentHyperparams
    from hyperlax.experiments.experiment import Experiment
    from hyperlax.experiments.samples import Lane, Sample
    from hyperlax.programs.compiled import Compiled
    from hyperlax.programs.plan import Machine, Program

log = logging.getLogger("hyperlax")

TOP = 5
"""Number of best lanes in the table."""
SHOWN_NOTES = 5
"""Number of notes that are shown; the manifest holds all."""
STOPPING = "stopping as soon as the state can be saved; a second Ctrl-C stops at once, without saving"

Silent = Display
"""The former name of `Display`, for displays that were written for it."""


class Lines(Display):
    """A display that writes one plain line per event to the logger `hyperlax`, and so to the log file."""

    def __init__(self):
        self.total = 0
        self.samples: Mapping[int, Sample] = {}
        self.first_divergence = True

    def planned(self, spec: Experiment, programs: Sequence[Program], machine: Machine, resumed: bool) -> None:
        settings = spec.settings
        self.total, self.samples = settings.total_timesteps, spec.records
        count, what = expected(spec)
        log.info(
            "%s on %s: %s x %s = %s, %s steps each, %s protocol",
            spec.label,
            spec.env_name,
            counted(count, what[:-1]),
            counted(settings.seeds, "seed"),
            counted(count * settings.seeds, "lane"),
            f"{settings.total_timesteps:,}",
            settings.protocol,
        )
        for number, program in enumerate(programs):
            log.info("program %d: %s", number + 1, program_words(program, settings.seeds))
        for note in spec.notes[:SHOWN_NOTES]:
            log.info("note: %s", note)
        if len(spec.notes) > SHOWN_NOTES:
            log.info("note: %d more like this, all in the manifest", len(spec.notes) - SHOWN_NOTES)
        if resumed:
            log.info("resumed from the checkpoint")

    def last_step(self, lane: Lane) -> int:
        """The env steps at which the training of the lane ends, by the hyperparameters of its sample."""
        sample = self.samples.get(lane.sample)
        return self.total if sample is None else sample.steps

    def compiling(self, number: int, count: int) -> None:
        log.info("compiling program %d of %d", number + 1, count)

    def compiled(self, number: int, compiled: Compiled) -> None:
        log.info(
            "program %d ready: traced in %.1f s, compiled in %.1f s, %s at once, %.1f MB each",
            number + 1,
            compiled.trace_seconds,
            compiled.compile_seconds,
            counted(compiled.slots, "lane"),
            compiled.bytes_per_lane / 2**20,
        )

    def halved(self, needed_mb: float, limit_mb: float, lanes: int) -> None:
        log.warning(
            "%.0f MB needed, %.0f MB may be used: %s at once instead; results are the same",
            needed_mb,
            limit_mb,
            counted(lanes, "lane"),
        )

    def evaluated(self, lane: Lane, score: float) -> None:
        log.info(
            "lane %d (sample %d, seed %d) step %s of %s: return %.2f",
            lane.lane,
            lane.sample,
            lane.seed,
            f"{lane.env_steps:,}",
            f"{self.last_step(lane):,}",
            score,
        )

    def searched(self, over: int, total: int, best: str) -> None:
        log.info("trial %d of %d%s", over, total, f"; {best}" if best else "")

    def diverged(self, lane: Lane, hyperparams: AbstractAgentHyperparams) -> None:
        from hyperlax.hyperparams import values

        log.warning(
            "lane %d (sample %d, seed %d) diverged at step %s%s",
            lane.lane,
            lane.sample,
            lane.seed,
            lane.diverged_at,
            f" (cause: {lane.cause})" if lane.cause else "",
        )
        if self.first_divergence:
            self.first_divergence = False
            log.warning("first divergence, hyperparameters: %s", values(hyperparams))

    def stopping(self) -> None:
        log.warning(STOPPING)


class Pace:
    """The speed of a task of a progress bar, how long it has run and will run, whenever it is drawn."""

    def __init__(self, task: Task):
        self.task = task

    def __rich__(self) -> str:
        elapsed, left = self.task.elapsed, self.task.time_remaining
        parts = [self.task.fields["speed"], f"{duration(elapsed)} elapsed" if elapsed is not None else ""]
        parts.append(f"about {duration(left)} left" if left is not None else "")
        return ", ".join(part for part in parts if part)


class Live(Lines):
    """A display with a progress bar and the best lanes so far; the plain lines go to the log file."""

    def __init__(self, console: Console):
        super().__init__()
        from rich.live import Live as RichLive
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            console=console,
        )
        self.task = self.bar.add_task("planning", total=None, speed="")
        self.scores: dict[int, tuple[float, Lane]] = {}
        self.counts = ""
        self.search = ""
        self.start: tuple[int, float] | None = None
        self.display = RichLive(console=console, refresh_per_second=4, transient=True)

    def planned(self, spec: Experiment, programs: Sequence[Program], machine: Machine, resumed: bool) -> None:
        super().planned(spec, programs, machine, resumed)
        self.console.print(plan_table(spec, programs))
        for note in spec.notes[:SHOWN_NOTES]:
            self.console.print(f"note: {note}", style="dim", highlight=False, markup=False)
        if len(spec.notes) > SHOWN_NOTES:
            self.console.print(
                f"note: {len(spec.notes) - SHOWN_NOTES} more, all in the manifest", style="dim"
            )
        if resumed:
            self.console.print("resumed from the checkpoint")
        lanes = expected(spec)[0] * spec.settings.seeds
        self.bar.update(self.task, total=lanes * spec.settings.total_timesteps)
        self.display.start()
        self._draw()

    def compiling(self, number: int, count: int) -> None:
        super().compiling(number, count)
        self.bar.update(self.task, description=f"compiling {number + 1}/{count}")
        self._draw()

    def compiled(self, number: int, compiled: Compiled) -> None:
        super().compiled(number, compiled)
        seconds = compiled.trace_seconds + compiled.compile_seconds
        memory = compiled.bytes_per_lane / 2**20
        self.console.print(
            f"program {number + 1} compiled in {seconds:.1f} s: {counted(compiled.slots, 'lane')} at once, "
            f"{memory:.1f} MB each",
            highlight=False,
        )
        self.bar.update(self.task, description=f"program {number + 1}")
        self._draw()

    def update(self, lanes: Sequence[Lane], seconds: float) -> None:
        stopped = ("diverged", "pruned")
        trained = sum(
            1.0 if lane.status in stopped else min(lane.env_steps / self.last_step(lane), 1.0)
            for lane in lanes
        )
        taken = sum(lane.env_steps for lane in lanes)
        if self.start is None:
            self.start = (taken, seconds)
        elapsed = seconds - self.start[1]
        speed = f"{(taken - self.start[0]) / elapsed:,.0f} steps/s" if elapsed > 0.5 else ""
        states = {
            s: sum(lane.status == s for lane in lanes) for s in ("done", "diverged", "pruned", "failed")
        }
        done = states.pop("done")
        others = "".join(f", {n} {s}" for s, n in states.items() if n)
        self.counts = f"{done} of {counted(len(lanes), 'lane')} done{others}"
        self.bar.update(self.task, completed=trained * self.total, speed=speed)
        self._draw()

    def evaluated(self, lane: Lane, score: float) -> None:
        super().evaluated(lane, score)
        self.scores[lane.lane] = (score, lane)

    def searched(self, over: int, total: int, best: str) -> None:
        super().searched(over, total, best)
        self.search = f"trial {over} of {total}" + (f"; {best}" if best else "")

    def diverged(self, lane: Lane, hyperparams: AbstractAgentHyperparams) -> None:
        first = self.first_divergence
        super().diverged(lane, hyperparams)
        if first:
            where = f"lane {lane.lane} (sample {lane.sample}, seed {lane.seed}), step {lane.diverged_at}"
            self.console.print(f"first divergence: {where}; hyperparameters in the log", style="yellow")

    def halved(self, needed_mb: float, limit_mb: float, lanes: int) -> None:
        super().halved(needed_mb, limit_mb, lanes)
        text = f"{needed_mb:.0f} MB needed, {limit_mb:.0f} MB may be used: {counted(lanes, 'lane')} at once"
        self.console.print(text + " instead; results are the same", style="yellow", highlight=False)

    def failed(self, number: int, error: Exception) -> None:
        self.console.print(f"program {number + 1} failed: {error}", style="red", markup=False)

    def stopping(self) -> None:
        super().stopping()
        self.bar.update(self.task, description="stopping")
        self.console.print(STOPPING, style="yellow")

    def close(self) -> None:
        self.display.stop()

    def _draw(self) -> None:
        """Redraw the bar and what is below it."""
        from rich.console import Group

        parts: list[RenderableType] = [self.bar, Pace(self.bar.tasks[0])]
        if self.search:
            parts.append(self.search)
        if self.counts:
            parts.append(self.counts)
        if self.scores:
            parts.append(self._top())
        self.display.update(Group(*parts))

    def _top(self) -> RenderableType:
        """The table of the best lanes by their latest evaluation."""
        from rich.table import Table

        table = Table("sample", "seed", "step", "return", title="best latest evaluations")
        best = sorted(self.scores.values(), key=lambda entry: -entry[0])
        for score, lane in best[:TOP]:
            table.add_row(str(lane.sample), str(lane.seed), f"{lane.env_steps:,}", f"{score:.2f}")
        return table


@contextmanager
def shown(progress: Display | bool | None) -> Iterator[Display]:
    """The display for the argument `progress`: itself, or for True one that fits the terminal or notebook.

    A display that is made here is closed on exit, and logging is restored. Lines go where the calling program
    has configured lines of level INFO to go; where it has not, to standard output. (A root handler alone says
    nothing: every call of `logging.info`, such as mujoco's, installs one for warnings.)
    """
    if progress is not True:
        yield progress or Display()
        return
    from rich.console import Console

    console = Console(highlight=False, markup=False)  # an environment may be called x[speed=2]
    before = (log.level, log.propagate)
    live = console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)
    display = Live(console) if live else Lines()
    added: list[logging.Handler] = []
    if live and not log.hasHandlers():
        added = [logging.NullHandler()]
    elif not (live or log.handlers or (log.hasHandlers() and log.isEnabledFor(logging.INFO))):
        added = [plain_lines(), *([_ToRoot(logging.WARNING)] if log.hasHandlers() else [])]
        log.propagate = False
    for handler in added:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    try:
        yield display
    finally:
        display.close()
        for handler in added:
            log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]


class _ToRoot(logging.Handler):
    """A handler that hands records on to those of the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().callHandlers(record)


class ScreenHandler(logging.StreamHandler[TextIO]):
    """A handler that leaves out what cannot be shown, because the run matters more."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def plain_lines() -> logging.Handler:
    """A handler that prints log lines with the time of day."""
    handler = ScreenHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(message)s", "%H:%M:%S"))
    return handler
