"""Training one unit, continuing where another process stopped."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from hyperlax import leaving
from hyperlax.cluster import records
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.experiments.experiment import Experiment
from hyperlax.programs.plan import Program
from hyperlax.run.advice import first_line
from hyperlax.run.display import Display
from hyperlax.run.signals import Interrupted
from hyperlax.storage import store
from hyperlax.storage.claims import Superseded
from hyperlax.storage.patience import FULL
from hyperlax.storage.results import Results
from hyperlax.storage.shareable import shareable
from hyperlax.studies.suites import MODES

log = logging.getLogger("hyperlax")

FAILED = 1
"""The exit code of a unit that has failed."""


class Worker:
    """Trains units of a sweep one after another; what they share is built and compiled once.

    `show` makes the display of a unit, given the folder for its log.
    """

    def __init__(self, sweep: Sweep, show: Callable[[Path], Display]):
        self.sweep, self.show = sweep, show
        self._built: tuple[int, Experiment] | None = None

    def run(self, name: str) -> int:
        """Train the unit called `name`; returns an exit code: 0 if it is done, `FAILED` if it has failed.

        Raises `Interrupted` after a signal, with the state saved, `Superseded` if another process has taken
        over, `ValueError` if this process must not train it, and `OSError` for a disk that cannot be used.
        """
        sweep, unit = self.sweep, self.sweep.unit(name)
        if records.is_done(sweep, unit):
            return 0
        if (reason := records.failure(sweep, unit)) is not None:
            log.error("%s has failed before: %s; hyperlax submit --retry-failed tries it again", name, reason)
            return FAILED
        sweep.check_device()
        if records.stuck(sweep, unit, os.environ.get("SLURM_JOB_ID")):
            why = (
                "no progress within the time limit, several times in a row: raise it with "
                "hyperlax submit --retry-failed --time"
            )
            records.note_failed(sweep, unit, why)
            log.error("%s: %s", name, why)
            return FAILED
        spec = self._spec(unit)
        leaving.from_now_on(leaving.RESUMABLE)
        shown = self.show(sweep.records(unit))
        try:
            results = self._train(unit, spec, shown)
        except (Interrupted, Superseded, ValueError):
            raise
        except OSError as error:
            if error.errno in FULL:
                raise
            return self._failed(unit, error)
        except Exception as error:  # a user's environment may raise anything
            return self._failed(unit, error)
        finally:
            shown.close()
        records.note_done(sweep, unit, _about(results))
        return 0

    def _failed(self, unit: Unit, error: Exception) -> int:
        """Record that the unit has failed; raise `Superseded` if another process has trained it meanwhile.

        When that one has merged the units, their folders are gone, also for those who still write to them.
        """
        if records.is_done(self.sweep, unit):
            raise Superseded(
                f"another process has trained {unit.name} to its end; nothing is lost"
            ) from error
        log.exception("%s failed", unit.name)
        records.note_failed(self.sweep, unit, shareable(f"{type(error).__name__}: {first_line(str(error))}"))
        return FAILED

    def _spec(self, unit: Unit) -> Experiment:
        """The experiment that the unit trains: its cell, or a part of it."""
        if (records.mending(self.sweep, unit) or {}).get("merged"):
            return self.sweep.spec(unit.cell, merged=True)
        if unit.worker is not None:
            return _joining(self.sweep.spec(unit.cell), unit)  # built anew: a search keeps its state
        if self._built is None or self._built[0] != unit.cell:
            self._built = unit.cell, self.sweep.spec(unit.cell)
        spec = self._built[1]
        return spec if unit.samples is None else spec.part(unit.samples)

    def _train(self, unit: Unit, spec: Experiment, shown: Display) -> Results:
        sweep, cell = self.sweep, self.sweep.cells[unit.cell]
        folder, mends = records.folder(sweep, unit), records.mending(sweep, unit)
        fresh = not store.holds(folder)
        resume = not fresh or unit.worker is not None  # a search joins the study
        how = sweep.how(
            folder=folder, resume=resume, sequential=cell.sequential, retrain_damaged=mends is not None
        )
        merged = mends is not None and mends.get("merged")
        plan = cell.plan() if merged else _programs(cell.plan(), unit)
        (folder / store.REPORT).unlink(missing_ok=True)  # it tells of what was there before
        try:
            return MODES[cell.mode].run(spec, how, shown, None, plan)
        except ValueError as error:
            if fresh and store.holds(folder) and "another process" in str(error):
                raise Superseded(f"another process has just begun {unit.name}; nothing is lost") from error
            raise


def _joining(spec: Experiment, unit: Unit) -> Experiment:
    """The experiment of a search with the trials of this unit alone, numbered as in the study.

    Trials of other units stay theirs, even if those units are silent for long.
    """
    from hyperlax.searches import OptunaSearch

    schedule = cast(OptunaSearch, spec.schedule)
    schedule.owner, schedule.takes_over = unit.name, False
    return dataclasses.replace(spec, shared=True)


def _programs(programs: list[Program], unit: Unit) -> list[Program]:
    """The plan of the cell, with the samples of the unit alone."""
    if unit.samples is None:
        return programs
    chosen = set(unit.samples)
    return [dataclasses.replace(p, samples=tuple(s for s in p.samples if s in chosen)) for p in programs]


def _about(results: Results) -> dict[str, Any]:
    """The contents of `done.json` for a unit that is trained."""
    lanes = results.lanes
    return {
        "lanes": lanes.height,
        "failed_lanes": int((lanes["status"] == "failed").sum()),
        "env_steps": int(lanes["env_steps"].sum()),
        "seconds": results.manifest["timings"]["wall_seconds"],
    }
