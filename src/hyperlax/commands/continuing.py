"""Continuing a run without typing its flags again: flags left out have the values it was begun with."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperlax.commands import screen
from hyperlax.registry import location, short_name
from hyperlax.storage import calling
from hyperlax.storage.places import PLAN, as_typed

_BENCHMARK = "run-benchmark"
TRAINING = ("sweep-hp-samples", "run-single-hp", "optuna-hp-search", _BENCHMARK)
"""Commands that continue what they began."""
RECIPE, ENV = "algo-and-network-config", "env-config"
_WHAT = (
    RECIPE,
    ENV,
    "run-length-modifier",
    "total-timesteps",
    "seed",
    "seeds",
    "protocol",
    "metric",
    "eval-at-start",
    "set",
    "range",
    "ablate",
    "search-only",
    "num-samples",
    "sampling-method",
    "experiment-type",
    "omit-ab",
    "load-hyperparams",
    "scheduler",
    "save-policies",
    "confirm",
    "confirm-seeds",
    "n-trials",
    "study-name",
    "sampler",
    "pruner",
    "objective-names",
    "objective-directions",
    "optuna-study-batch-size",
    "base-config",
    "benchmark-name",
    "algos",
    "envs",
    "sweep-modes",
    "num-samples-per-run",
    "group-by-structural-hparams",
    "hparam-batch-size",
    "sequential",
)
"""Flags that say what is trained, the only ones taken from a file; never any text for a shell."""
_NAMES = (RECIPE, ENV, "scheduler", "sampling-method", "base-config", "algos", "envs")
"""Flags whose values may name code."""
_BY_PATH = ("set", "range", "ablate")
"""Flags that are repeated, once for each hyperparameter."""

_PLACES = {"output-root", "resume-from"}
"""Flags that say where a run is."""
_CHANGES = {"algos", "envs", "sweep-modes", "num-samples-per-run", "sampling-method", "run-length-modifier"}
"""Flags that replace parts of a suite, so that a benchmark is no longer called as it is."""
_FALSE = ("false", "f", "no", "n", "0")
"""Texts that stand for false behind a flag."""

Given = list[tuple[str, list[str]]]
"""Flags in order: the name without dashes, and all words with which it was typed."""


def completed(tokens: Sequence[str]) -> list[str]:
    """Complete a command line with the recorded flags of the run that it continues.

    Flags that are not typed are taken from the manifest of the run, and printed on standard error. Raises
    `ValueError` if it is not clear which run is meant, and if a recorded flag names code, a database, or a
    file whose folder is not recorded: the manifest may come from a stranger, so that only what the user types
    is run or connected to.
    """
    typed = _flags(tokens[1:])
    if not _resumes(typed) or tokens[0] not in TRAINING or "--help" in tokens:
        return list(tokens)
    found = _meant(tokens[0], dict(typed))
    command = _begun_with(found)
    if found is None or command[:1] != ["hyperlax"] or command[1:2] == [] or command[1] not in TRAINING:
        return list(tokens)
    if (other := command[1]) != tokens[0]:
        if _BENCHMARK in (other, tokens[0]):  # its cells are experiments as others are
            return list(tokens)
        how = calling.line(other, "--resume-from", found.absolute())
        raise ValueError(f"{found} was begun with {other}; continue it with that: {how}")
    told = {_key(name, words) for name, words in typed}
    stored = [(name, words) for name, words in _flags(command[2:]) if name in _WHAT]
    left_out = [words for name, words in stored if _key(name, words) not in told]
    for name, words in stored:
        if words in left_out and name in _NAMES and (code := _code(words)) is not None:
            raise ValueError(
                f"{found} was begun with {shlex.join(words)}, and {code} is code, which only runs if it is "
                f"typed: add {words[0].partition('=')[0]}"
            )
    if "storage" not in dict(typed) and "storage" in dict(_flags(command[2:])):
        raise ValueError(
            f"{found} was begun with --storage, and only a database that is typed is connected to: "
            "add --storage"
        )
    for words in left_out:
        if hidden := [word for word in words if "…/" in word]:
            raise ValueError(
                f"{found} was begun with {shlex.join(words)}, and where {hidden[0].partition('…/')[2]} is "
                f"was not recorded: add {words[0].partition('=')[0]} in full"
            )
    added = [word for words in left_out for word in words]
    if added:
        print(screen.visible(f"as it was begun: {shlex.join(added)}"), file=sys.stderr)
    if tokens[0] != _BENCHMARK and not any(name == "resume-from" for name, _ in typed):
        added += ["--resume-from", _as_word(found)]
    elif tokens[0] == _BENCHMARK and not _PLACES & dict(typed).keys():
        from hyperlax.commands.benchmarking import ROOT

        added += ["--resume-from", str(_benchmark(found, ROOT))]
    return [tokens[0], *added, *tokens[1:]]


def _resumes(typed: Given) -> bool:
    """Whether flags continue a run: a folder to continue does, and otherwise the last --resume decides."""
    said = [words[0] for name, words in typed if name == "resume"]
    if not said or any(name == "resume-from" for name, _ in typed):
        return any(name == "resume-from" for name, _ in typed)
    flag, _, value = said[-1].replace("_", "-").partition("=")
    return flag.startswith("--no-") == (value.lower() in _FALSE)


def _code(words: Sequence[str]) -> str | None:
    """The first value of a flag that names code in a file or module, rather than something registered."""
    first = words[0].partition("=")[2]
    for value in [first, *words[1:]]:
        if any(location(part) is not None or set(part) & set("/\\:") for part in value.split("+")):
            return value
    return None


def _begun_with(folder: Path | None) -> list[str]:
    """The command with which the experiment or benchmark in a folder was begun; empty if none is recorded."""
    from hyperlax.storage import store
    from hyperlax.storage.repairing import BENCHMARK

    if folder is None:
        return []
    plan = _record(folder / PLAN, {"cells": [{"manifest": {}}]})
    planned = [cell.get("manifest", {}) for cell in plan.get("cells", ())[:1]]
    for about in (_record(folder / BENCHMARK, {}), *planned, store.recovered_manifest(folder) or {}):
        if isinstance(said := about.get("command"), list):
            return [str(word) for word in said]
    return []


def _record(file: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """What a file says; nothing if it is not there or damaged, which the command that reads it then says."""
    from hyperlax.storage.integrity import Damaged, read_json
    from hyperlax.storage.manifest import misfit

    try:
        content = read_json(file)
    except (FileNotFoundError, Damaged):
        return {}
    return {} if misfit(content, kinds) else content


def _planned(root: Path) -> list[Path]:
    """The folders at or below `root` of what many processes train."""
    return sorted(file.parent for file in root.rglob(PLAN))


def _meant(command: str, typed: Mapping[str, list[str]]) -> Path | None:
    """The folder of what to continue, which may be a benchmark or a cell of one; None if there is none."""
    from hyperlax.storage import store

    root = _value(typed, "resume-from") or _value(typed, "output-root") or str(Path("results") / command)
    folder = as_typed(root)
    if not folder.is_dir():
        return None
    if store.holds(folder) or (folder / PLAN).exists():
        return folder
    return _cell(folder, typed) if command == _BENCHMARK else _only(folder, typed)


def _cell(root: Path, typed: Mapping[str, list[str]]) -> Path | None:
    """The benchmark at or below `root` that is meant, or its first cell if only that tells the command.

    None if there is none.

    Raises `ValueError` if several can be meant.
    """
    from hyperlax.commands.benchmarking import named
    from hyperlax.storage.repairing import BENCHMARK

    cells: dict[Path, Path] = {}
    for cell in _below(root):
        cells.setdefault(_benchmark(cell, root), cell)
    for place in [*sorted(record.parent for record in root.rglob(BENCHMARK)), *_planned(root)]:
        command = _begun_with(place)
        if command[1:2] == [_BENCHMARK] or (place not in cells and (place / BENCHMARK).exists()):
            cells[place] = place  # its cells may have begun when it was continued, or not at all
    fitting, base, name = list(cells), _value(typed, "base-config"), _value(typed, "benchmark-name")
    if root in cells:
        return cells[root]
    if not typed.keys() & _PLACES and (base or name):
        fitting = [root / named(base or "", name, bool(typed.keys() & _CHANGES))]
        if base and not name and fitting[0] not in cells:
            fitting = [folder for folder, cell in cells.items() if _suite(cell) == short_name(base)]
    if len(fitting) > 1:
        raise ValueError(_several(root, fitting, fitting[0]))
    return cells.get(fitting[0]) if fitting else None


def _benchmark(cell: Path, root: Path) -> Path:
    """The folder, at or below `root`, of the benchmark that a cell belongs to, also if its record is lost."""
    from hyperlax.storage.repairing import BENCHMARK

    above = [place for place in (cell, *cell.parents) if place.is_relative_to(root)]
    return next((p for p in above if (p / BENCHMARK).exists() or (p / PLAN).exists()), above[:4][-1])


def _suite(cell: Path | None) -> str | None:
    """The short name of the suite that the benchmark of a cell was begun with; None if it is not recorded."""
    from hyperlax.commands.benchmarking import SUITE

    command = _begun_with(cell)
    return short_name(_value(dict(_flags(command[2:])), "base-config") or SUITE) if command else None


def _several(root: Path, folders: Sequence[Path], first: Path) -> str:
    """The message that several of `folders` below `root` can be meant, of which `first` is one."""
    return (
        f"{root} holds {', '.join(str(f.relative_to(root)) for f in folders[:5])}"
        + (f" and {len(folders) - 5} more" if len(folders) > 5 else "")
        + f"; continue one of them with --resume-from {_as_word(first)}"
    )


def _as_word(path: Path) -> str:
    """`path` as a word that no command line takes for a flag."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _only(root: Path, typed: Mapping[str, list[str]]) -> Path | None:
    """The only experiment below `root` that can be meant; raises `ValueError` if there are several."""
    from hyperlax.commands.flags import Common
    from hyperlax.storage import store
    from hyperlax.storage.files import experiment_path

    recipe, env = _value(typed, RECIPE), _value(typed, ENV)
    usual = Common()
    meant = root / experiment_path(recipe or usual.algo_and_network_config, env or usual.env_config)
    if store.holds(meant) or (meant / PLAN).exists():
        return meant
    every = sorted({*_below(root), *_planned(root)})
    fitting = [
        folder
        for folder in every
        if (recipe is None or folder.parent.name == experiment_path(recipe, ENV).parts[0])
        and (env is None or folder.name == experiment_path(RECIPE, env).name)
    ]
    if not every or (recipe is not None and env is not None):
        return None
    if len(fitting) != 1:
        raise ValueError(_several(root, every, (fitting or every)[0]))
    return fitting[0]


def _below(root: Path) -> list[Path]:
    """The experiments below a folder."""
    from hyperlax.storage import store

    try:
        return store.find(root)
    except ValueError:
        return []


def _flags(words: Sequence[str]) -> Given:
    """The flags of a command line, each with the words that follow it."""
    found: Given = []
    for word in words:
        if word.startswith("--"):
            name = word[2:].partition("=")[0].replace("_", "-").removeprefix("no-")
            found.append((name, [word]))
        elif found:
            found[-1][1].append(word)
    return found


def _value(typed: Mapping[str, list[str]], name: str) -> str | None:
    """The value of a flag; None if it was not typed."""
    words = typed.get(name)
    if words is None:
        return None
    _, equals, joined = words[0].partition("=")
    return joined if equals else (words[1] if len(words) > 1 else None)


def _key(name: str, words: Sequence[str]) -> tuple[str, str]:
    """A key for what a flag decides: its name and, for repeatable flags, the hyperparameter."""
    if name not in _BY_PATH:
        return name, ""
    value = _value({name: list(words)}, name) or ""
    return name, value.partition("=")[0].strip()
