"""Folders of experiments made by hand: one lane, one row per commit, no training."""

from __future__ import annotations

import itertools
import os

import numpy as np
import polars as pl

from hyperlax.storage import store
from hyperlax.storage.results import SCHEMAS
from hyperlax.storage.store import Store, read

SAMPLES = pl.DataFrame({"sample": [0], "gamma": [0.9]})
MANIFEST = {"name": "ppo_mlp"}


def lanes(step) -> pl.DataFrame:
    row = {"lane": 0, "sample": 0, "seed": 0, "status": "running", "env_steps": step}
    return pl.DataFrame([row], schema=SCHEMAS["lanes"])


def point(step, lane=0):
    return {"lane": lane, "sample": 0, "seed": 0, "env_steps": step, "metric": "return", "value": float(step)}


def phase(step):
    return {"phase": "train", "program": 0, "start": float(step), "end": step + 1.0}


def new(folder) -> Store:
    keeper = Store(folder)
    keeper.begin(MANIFEST, SAMPLES)
    return keeper


def commit(keeper, step, policies=(), grown=()) -> None:
    keeper.put("lanes", lanes(step))
    header = {"lanes": [{"lane": 0, "env_steps": step}]}
    keeper.commit([np.arange(step)], header, policies, grown)


def write(keeper, *steps):
    """Commit a row per step in two of the growing tables."""
    keeper.append("curves", [point(s) for s in steps])
    keeper.append("timeline", [phase(s) for s in steps])
    commit(keeper, steps[-1])


def continued(folder) -> Store:
    keeper = Store(folder)
    keeper.take()
    keeper.restore()
    return keeper


def steps(folder):
    results = read(folder)
    assert results.timeline["start"].to_list() == results.curves["env_steps"].to_list()
    return results.curves["env_steps"].to_list()


def names(folder) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def trained(folder, last: int = 4, write=write) -> None:
    """Bring an experiment to its end from wherever it was left, one row per commit; `write` makes these."""
    if store.recovered_manifest(folder) is None:
        assert store.nothing_begun(folder)
        keeper = new(folder)
    else:
        keeper = continued(folder)
        keeper.write_samples(SAMPLES)
    done = 0 if keeper.last is None else len(keeper.last.table("curves"))
    for step in range(done + 1, last + 1):
        write(keeper, step)
    if keeper.last is None or keeper.last.place[0] == 0:
        commit(keeper, last)
    keeper.complete(dict(MANIFEST))


class Killed(BaseException):
    """Raised in place of a kill of the process."""


def killed(monkeypatch, operations: int, run) -> bool:
    """Call `run` and kill it after so many file operations that others can see; whether that came to pass."""
    left = itertools.count(operations, -1)

    def until_killed(original):
        def operation(*args, **kwargs):
            if next(left) <= 0:
                raise Killed
            return original(*args, **kwargs)

        return operation

    with monkeypatch.context() as patched:
        for name in ("replace", "link", "unlink", "rmdir", "mkdir"):
            patched.setattr(os, name, until_killed(getattr(os, name)))
        try:
            run()
        except Killed:
            return True
    return False
