"""The results of a search: the table of its trials, the best of them, and recipes to train these again."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import polars as pl

from hyperlax.experiments.recipes import Recipe
from hyperlax.hyperparams import assign, values
from hyperlax.hyperparams.spaces import Space, resolved
from hyperlax.programs.budget import within_reach
from hyperlax.report.evaluations import common_end
from hyperlax.searches.objectives import Objective
from hyperlax.statistics import HEADLINES, undominated
from hyperlax.storage.files import write_atomically
from hyperlax.storage.results import TRIAL_COLUMNS

ENDED = ("done", "diverged", "failed", "refused", "undefined", "pruned")
"""The states of finished trials that count towards the total."""

FILES = ("best_recipe.py", "best_params.json", "pareto_front.json")
"""The files that `write` can write."""


def trials_table(
    study: optuna.Study,
    space: Mapping[str, Space],
    objectives: Sequence[Objective],
    about: Mapping[str, Any] | None = None,
) -> pl.DataFrame:
    """The table of all trials of the study, trained by any process, one row each.

    Trials end at different steps because they train whole cycles, and each has been told its score at its own
    end. With `about`, what the experiment is (`Objective.score`), those that were trained to the end have
    their scores at equal steps, as in reports.

    - `trial`: its number.
    - `state`: one of `ENDED`, running, waiting, or given up.
    - one column per objective: its value; the worst score if the trial has none of its own, the last reported
      one if it was pruned, and null while there is none, or none at equal steps.
    - one column per searched hyperparameter: its value.
    - `start`, `end`, `seconds`: beginning and end in seconds since the first trial began, and the difference.
    - `process`: the process that trained it, numbered in order of appearance.
    """
    trials = study.get_trials(deepcopy=False)
    began = min((t.datetime_start for t in trials if t.datetime_start), default=datetime.datetime.min)
    equal = {} if about is None else _at_equal_steps(trials, objectives, about)
    owners = list(dict.fromkeys(t.user_attrs.get("owner", "") for t in trials))
    rows = []
    for t in trials:
        known = t.params.keys() >= space.keys()
        start, end = (_seconds(began, at) for at in (t.datetime_start, t.datetime_complete))
        rows.append(
            {
                "trial": t.number,
                "state": _state(t),
                **{
                    o.name: equal.get(t.number, t.values or [None] * len(objectives))[i]
                    for i, o in enumerate(objectives)
                },
                **(resolved(space, t.params) if known else {}),
                "start": start,
                "end": end,
                "seconds": None if start is None or end is None else end - start,
                "process": owners.index(t.user_attrs.get("owner", "")),
            }
        )
    return _frame(rows, space, objectives)


def _at_equal_steps(
    trials: Sequence[Any], objectives: Sequence[Objective], about: Mapping[str, Any]
) -> dict[int, list[float | None]]:
    """The scores at equal steps of the trials that were trained to the end; nothing if all end there."""
    curves = {t.number: t.user_attrs["curves"] for t in trials if "curves" in t.user_attrs}
    end = common_end([int(lane[-1][0]) for lanes in curves.values() for lane in lanes if lane])
    if end is None:
        return {}
    found = {}
    for number, lanes in curves.items():
        cut = [[(int(at), value) for at, value in lane if within_reach(int(at), end)] for lane in lanes]
        scores = [objective.score(cut, about) for objective in objectives]
        found[number] = [score if score == score else None for score in scores]
    return found


def best(table: pl.DataFrame, objectives: Sequence[Objective]) -> list[int]:
    """The number of the best trial, or those of the Pareto front if there are several objectives.

    Only trials that were trained to the end count. The front is sorted by the first objective, best first; of
    equal trials, earlier ones come first.
    """
    done = table.filter(table["state"] == "done").drop_nulls([o.name for o in objectives]).sort("trial")
    if done.is_empty():
        return []
    scores = np.stack([o.sign * done[o.name].to_numpy() for o in objectives], axis=1)
    order = np.argsort(-scores[:, 0], kind="stable")
    kept = order[:1] if len(objectives) == 1 else order[undominated(scores)[order]]
    return done["trial"][kept].to_list()


def best_words(table: pl.DataFrame, objectives: Sequence[Objective]) -> str:
    """Describe the best trials so far in a few words; empty while no trial is done."""
    front = best(table, objectives)
    if not front:
        return ""
    row = table.row(by_predicate=pl.col("trial") == front[0], named=True)
    scores = ", ".join(f"{o.name} {row[o.name]:.4g}" for o in objectives)
    if len(objectives) > 1:
        return f"{len(front)} on the Pareto front, e.g. trial {front[0]}: {scores}"
    return f"best trial {front[0]}: {scores}"


def chosen_words(table: pl.DataFrame, number: int, objectives: Sequence[Objective]) -> str:
    """Describe the hyperparameters of the trial with this number."""
    row = table.row(by_predicate=pl.col("trial") == number, named=True)
    left_out = (*TRIAL_COLUMNS, *(o.name for o in objectives))
    return ", ".join(
        f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items() if k not in left_out
    )


def write(
    folder: Path,
    table: pl.DataFrame,
    objectives: Sequence[Objective],
    recipe: Recipe,
    base: Any,
) -> Path | None:
    """Write `best_recipe.py`, and `best_params.json` or, for several objectives, `pareto_front.json`.

    Returns the path of the recipe. While no trial is done, writes nothing and returns None.
    """
    front = best(table, objectives)
    if not front:
        return None
    rows = [table.row(by_predicate=pl.col("trial") == number, named=True) for number in front]
    left_out = (*TRIAL_COLUMNS, *(o.name for o in objectives))
    found = [
        {
            "trial": row["trial"],
            "values": {o.name: row[o.name] for o in objectives},
            "params": {k: v for k, v in row.items() if k not in left_out},
            "definitions": {
                o.name: HEADLINES[o.metric].definition for o in objectives if o.metric in HEADLINES
            },
        }
        for row in rows
    ]
    several = len(objectives) > 1
    about = found if several else found[0]
    name = "pareto_front.json" if several else "best_params.json"
    write_atomically(folder / name, json.dumps(about, indent=1) + "\n")
    named = {f"trial_{entry['trial']}" if several else "best": entry for entry in found}
    return write_atomically(folder / "best_recipe.py", recipe_text(recipe, base, named))


def recipe_text(recipe: Recipe, base: Any, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The text of a recipe file with one recipe per trial of `found` (with `trial`, `values`, `params`).

    A recipe searches nothing. It fixes every hyperparameter that differs from the default of its algorithm
    and network, and those that the run length `quick` would change.
    """
    plain = Recipe(recipe.algorithm, recipe.network)
    defaults, changed = values(plain.hyperparams()), plain.quick_recipe().space
    lines = [f'"""The best of a search of {recipe.name}: train it with run-single-hp."""', ""]
    lines += ["from hyperlax import Recipe", ""]
    entries = []
    for name, entry in found.items():
        chosen = values(assign(base, entry["params"]))
        scores = ", ".join(f"{k} {v:.6g}" for k, v in entry["values"].items())
        variable = name.upper()
        lines += ["", f"# trial {entry['trial']}: {scores}", f"{variable} = {{"]
        lines += [
            f"    {_literal(k)}: {_literal(v)},"
            for k, v in chosen.items()
            if v != defaults[k] or k in changed
        ]
        lines.append("}")
        settings = f", settings={dict(recipe.settings)!r}" if recipe.settings else ""
        pair = f"{_literal(recipe.algorithm)}, {_literal(recipe.network)}"
        entries.append(
            f'    "{name}": Recipe({pair}, space={variable}{settings}, quick={variable}, only=True),'
        )
    return "\n".join([*lines, "", "RECIPES = {", *entries, "}"]) + "\n"


def _literal(value: Any) -> str:
    """The Python source of a value; floats are written with as few digits as float32 needs."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # in Python a pair of escaped surrogates is two letters
    return repr(float(str(np.float32(value)))) if isinstance(value, float) else repr(value)


def _state(trial: Any) -> str:
    """The state of a trial, as in `trials_table`."""
    name = trial.state.name.lower()
    if name == "fail":
        return "given up"
    return trial.user_attrs.get("status", "done") if name == "complete" else name


def _seconds(began: datetime.datetime, at: datetime.datetime | None) -> float | None:
    return None if at is None else (at - began).total_seconds()


def _frame(
    rows: list[dict[str, Any]], space: Mapping[str, Space], objectives: Sequence[Objective]
) -> pl.DataFrame:
    """A table of `rows` with stable columns; a hyperparameter with values of several types becomes text."""
    paths = list(dict.fromkeys(k for row in rows for k in row if k not in TRIAL_COLUMNS))
    columns: dict[str, pl.Series] = {}
    numbers = [o.name for o in objectives]
    for name in ("trial", "state", *numbers, *(p for p in paths if p not in numbers), *TRIAL_COLUMNS[2:]):
        entries = [row.get(name) for row in rows]
        kinds = {type(e) for e in entries if e is not None}
        if name in numbers or name in ("start", "end", "seconds") or kinds == {int, float}:
            columns[name] = pl.Series(name, entries, dtype=pl.Float64, strict=False)
        elif len(kinds) > 1:
            columns[name] = pl.Series(name, [None if e is None else str(e) for e in entries], pl.String)
        else:
            columns[name] = pl.Series(name, entries)
    return pl.DataFrame(columns)
