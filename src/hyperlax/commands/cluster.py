"""Commands for sweeps trained by many processes: their state, submission, merging and cancellation."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from hyperlax import leaving
from hyperlax.commands.flags import Place
from hyperlax.commands.launch import display, end_logging, start_jax
from hyperlax.commands.spread import OnSlurm
from hyperlax.registry import escaped
from hyperlax.storage import calling
from hyperlax.storage.wording import counted

unit = App(
    name="unit",
    help="Train single units of a sweep: what every task of a cluster does.",
    help_format="plaintext",
)

WATCH_SECONDS = 10.0


def status(
    folder: Place,
    *,
    watch: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
    units: bool = False,
    every: Annotated[float, Parameter(validator=Number(gt=0))] = WATCH_SECONDS,
) -> int:
    """Show what is done, running, waiting, lost and failed, and what to type next.

    A unit is lost if the process that began it has ended without finishing it. The exit code is 0 if all is
    trained, 1 if something has failed, and 3 if there is work left.

    Parameters
    ----------
    folder
        The folder of a sweep, search or benchmark, planned in units or not, or any folder that contains some.
    watch
        Keep looking until all is trained or has failed.
    json_
        Print JSON, for programs.
    units
        List every unit instead of every experiment, for a sweep that was planned in units.
    every
        Seconds between two looks with --watch.
    """
    from hyperlax.cluster import sweep

    if sweep.read(folder) is None and not units:
        from hyperlax.commands import states

        return states.show(folder, watch, json_, every)
    from rich.console import Console

    from hyperlax.cluster import state
    from hyperlax.commands.tables import states_table

    found, console, seen = sweep.needed(folder), Console(highlight=False, markup=False), None
    leaving.from_now_on(None if not watch else "nothing was changed")
    while True:
        seen = state.look(found, seen)
        if json_:
            print(json.dumps(_plain(seen)), flush=True)
        else:
            console.print(states_table(_unit_rows(seen) if units else seen.rows()))
            for note in seen.notes():
                console.print(escaped(note), soft_wrap=True)
            for entry in [u for u in seen.units if u.why]:
                console.print(escaped(f"{entry.unit.name} failed: {entry.why}"), soft_wrap=True)
            if not seen.asked:
                console.print("squeue does not answer: what is in the queue is unknown, and shown as lost")
            console.print(escaped(f"next: {seen.next_command()}"), soft_wrap=True)
        if not watch or seen.count("done") + seen.count("failed") == len(seen.units):
            return seen.exit_code
        time.sleep(every)


def submit(
    folder: Place,
    *,
    retry_failed: bool = False,
    retrain_damaged: bool = False,
    trust: bool = False,
    asked: OnSlurm = OnSlurm(),  # noqa: B008
) -> int:
    """Send to Slurm all units that are not trained, not in the queue and have not failed; safe to repeat.

    --time and other options of Slurm given here replace those of the plan for the units sent now. The exit
    code is 3 if the queue has no room for all of them: run the command again when some have ended.

    Parameters
    ----------
    folder
        The folder of a sweep that was planned with --executor slurm.
    retry_failed
        Also send units that have failed.
    retrain_damaged
        Also send units with damaged files, which retrain what was in them, bit for bit.
    trust
        Send a sweep that somebody else has planned, with the code and the shell commands that it names.
    """
    from hyperlax.cluster import sweep
    from hyperlax.cluster import trust as trusting
    from hyperlax.commands.spread import send

    found = sweep.needed(folder)
    trusting.check(found, trust)
    return send(found, retry_failed, asked.given(), retrain_damaged)


def cancel(folder: Place) -> int:
    """Remove all tasks of a sweep from the queue; saved work stays, and submit sends them again.

    Parameters
    ----------
    folder
        The folder of a sweep that was planned with --executor slurm.
    """
    from hyperlax.cluster import slurm, submitting, sweep

    found = sweep.needed(folder)
    submitting.options(found)
    if (tasks := slurm.queue()) is None:
        raise slurm.Refused(f"{slurm.SILENT}, so nobody knows which jobs in the queue are this sweep's")
    jobs, others = submitting.jobs(found, tasks)
    for job, script in others.items():
        print(
            f"job {job} is left alone: it runs {escaped(script)}, which is not of this sweep; scancel {job} "
            "cancels it all the same",
            file=sys.stderr,
        )
    slurm.cancel(jobs)
    sent = f"cancelled {counted(len(jobs), 'job')}; next: {calling.line('submit', folder.absolute())}"
    print(sent if jobs else "nothing is in the queue")
    return 0


def merge(folder: Place, *, trust: bool = False) -> int:
    """Merge the units of every experiment that is trained into its folder, and write its report.

    The tables and the policies are bit for bit those that a single process would have written.

    Parameters
    ----------
    folder
        The folder of a sweep: where sweep.json is.
    trust
        Merge a search that somebody else has planned, with the code that it names.
    """
    from hyperlax.cluster import merging, sweep
    from hyperlax.cluster import trust as trusting
    from hyperlax.report import write_comparison
    from hyperlax.storage import store

    found = sweep.needed(folder)
    if trust or merging.builds(found):
        trusting.check(found, trust)
    leaving.from_now_on("what is merged so far is whole; for the rest enter the command again")
    merging.merge_all(found, _report)
    whole = [n for n in range(len(found.cells)) if merging.is_merged(found, n)]
    for n in whole:  # an earlier command was killed before its report, or a single unit needed no merging
        at = folder / found.cells[n].path
        if not (at / store.REPORT).exists():
            _report(at)
    if len(whole) > 1:
        results = [store.read(folder / found.cells[n].path) for n in whole]
        print(f"comparison: {write_comparison(results, folder / 'comparison.html')}")
    leaving.from_now_on(None)
    print(f"{len(whole)} of {len(found.cells)} experiments are merged")
    return 0 if len(whole) == len(found.cells) else 3


def _report(folder: Path) -> None:
    """Write the report of a merged experiment, and print its path."""
    from hyperlax.report import write_report
    from hyperlax.storage import store

    print(write_report(store.read(folder), folder / store.REPORT))


@unit.command
def run(
    folder: Place,
    *names: str,
    from_stdin: bool = False,
    retry_failed: bool = False,
    retrain_damaged: bool = False,
    trust: bool = False,
) -> int:
    """Train units one after another, each from where it stopped; the exit code is 1 if one has failed.

    Exit codes 75 and 130 mean that a signal stopped it with its state saved, 76 that another process has
    taken over.

    Parameters
    ----------
    folder
        The folder of a sweep: where sweep.json is.
    names
        The units. [default: all that are not trained]
    from_stdin
        Read the names from standard input, and answer each on standard output with its exit code.
    retry_failed
        Also try failed units again.
    retrain_damaged
        Also retrain, bit for bit, what was in damaged files of units that were trained.
    trust
        Train a sweep that somebody else has planned, with the code that it names.
    """
    from hyperlax.cluster import sweep
    from hyperlax.cluster import trust as trusting

    found = sweep.needed(folder)
    trusting.check(found, trust)
    answers = _answers() if from_stdin else None
    start_jax(found.platform)
    from hyperlax.cluster import mending, records
    from hyperlax.cluster.work import Worker
    from hyperlax.commands.ending import stopped
    from hyperlax.run.signals import Interrupted

    chosen = [found.unit(name) for name in names] if answers is None else []
    if retry_failed:
        records.forgive(found, chosen or found.units)
    if retrain_damaged:
        mending.ask(found, chosen or found.units)
    waiting = names or tuple(u.name for u in found.units if not records.is_done(found, u))
    worker = Worker(found, lambda at: display(at, "INFO" if answers is None else "ERROR", True))
    worst = 0
    try:
        for name in waiting if answers is None else map(str.strip, sys.stdin):
            where = records.folder(found, found.unit(name))
            code = worker.run(name)
            if code == 0 and where != found.folder(found.unit(name)):  # it has mended what was merged
                _report(where)
            worst = max(worst, code)
            if answers is not None:
                os.write(answers, f"{name} {code}\n".encode())
    except Interrupted as why:
        return stopped(why)
    finally:
        end_logging()
    leaving.from_now_on(None)
    return worst


def _answers() -> int:
    """A descriptor of standard output for answers only; all other output goes to standard error."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own


def _unit_rows(seen: Any) -> list[dict[str, Any]]:
    """The rows of the table of units, one each."""
    return [
        {
            "unit": u.unit.name,
            "cell": seen.sweep.cells[u.unit.cell].path,
            "state": u.state,
            "lanes": u.unit.lanes,
            "env steps": f"{u.env_steps:,} of {u.unit.env_steps:,}",
            "by": u.by,
        }
        for u in seen.units
    ]


def _plain(seen: Any) -> dict[str, Any]:
    """The state of a sweep as JSON-ready values."""
    return {
        "folder": str(Path(seen.sweep.root)),
        "cells": seen.rows(),
        "units": [
            {
                "unit": u.unit.name,
                "state": u.state,
                "env_steps": u.env_steps,
                "of": u.unit.env_steps,
                "by": u.by,
                "why": u.why,
            }
            for u in seen.units
        ],
        "notes": seen.notes(),
        "queue_known": seen.asked,
        "next": seen.next_command(),
        "exit_code": seen.exit_code,
    }
