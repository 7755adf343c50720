"""Writes the reference pages from the code: commands, Python names, environments, tables."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, get_args, get_origin

COLUMNS: dict[str, str] = {
    "lane": "the number of the lane, from 0",
    "sample": "the number of its sample, from 0",
    "seed": "the number of its seed, from 0",
    "status": "queued, running, paused, done, diverged, pruned or failed",
    "env_steps": "env steps trained so far",
    "gradient_steps": "gradient steps so far",
    "circuit_executions": "circuits that a quantum computer would have run in training so far",
    "seconds": "wall time, in seconds",
    "parameters": "how many numbers the lane trains",
    "program": "the program that it belongs to",
    "diverged_at": "the env step at which it diverged, or null",
    "metric": "`return`, `return_std`, `return_q25`, `return_median`, `return_q75`, `length`, "
    "`stochastic_return`, or `train/<name>`",
    "value": "its value",
    "mode": "`deterministic` (the best actions) or `stochastic` (sampled ones)",
    "episode": "the number of the episode in its evaluation",
    "return": "the sum of its rewards",
    "length": "its env steps",
    "phase": "trace, compile, train, evaluate or save",
    "start": "when it began, in seconds since the experiment did",
    "end": "when it ended, in seconds since the experiment began",
    "barrier": "the number of the exchange between lanes",
    "parent": "the lane whose state `lane` went on from",
    "score": "the score of `lane` before the copy; null if it had diverged",
    "parent_score": "the score of the parent",
    "hyperparameter": "which hyperparameter changed with the copy; null if none did",
    "from": "its value before",
    "to": "its value after",
    "cpu_percent": "CPU use, in percent of one core",
    "memory_mb": "memory of the process, in MB",
    "gpu_percent": "GPU use; null without one",
    "gpu_memory_mb": "memory in use on the GPU; null without one",
}
"""What the columns of the tables on disk mean."""

PYTHON: dict[str, tuple[str, ...]] = {
    "Train": ("sweep", "search", "confirm", "prepare", "Recipe", "Settings", "Execution", "Suite"),
    "Spaces": ("Uniform", "LogUniform", "Integers", "Choice", "Joint", "Space"),
    "Results": (
        "read",
        "check",
        "Results",
        "Experiments",
        "load",
        "Policy",
        "export",
        "Interrupted",
        "Superseded",
    ),
    "Extend": (
        "AbstractEnv",
        "AbstractNetwork",
        "AbstractNetworkHyperparams",
        "AbstractStockHyperparams",
        "AbstractAgent",
        "AbstractAgentHyperparams",
        "AbstractSampler",
    ),
}
"""Heading → the public names of the package that stand below it; the others come last."""

MODULES = ("statistics", "plot", "schedules", "testing")
"""Public modules that have a page of their own in the reference."""


def _cell(text: str) -> str:
    """`text` for a cell of a table."""
    escaped = re.sub(r"<([\w-]+)>", r"&lt;\1&gt;", " ".join(text.split()))
    return escaped.replace("|", "\\|")


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    header = list(header)
    return [
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def _kind(hint: Any) -> str:
    """The type of a flag in words: its choices, or `text`, `path`, `integer`, `number`."""
    names = {str: "text", int: "integer", float: "number"}
    parts = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) is list:
        return f"{_kind(parts[0])} …"
    if parts and all(isinstance(part, str) for part in parts):
        return ", ".join(f"`{part}`" for part in parts)
    if parts:
        return _kind(parts[0])
    return names.get(hint, getattr(hint, "__name__", str(hint)).lower())


def commands() -> str:
    """The page of all commands, from the parsers of their flags."""
    from hyperlax.commands.app import app

    lines = ["# Commands", "", _cell(app.help_epilogue or ""), ""]
    return "\n".join([*lines, *_described(app, "", 2)])


def _described(group: Any, prefix: str, level: int) -> list[str]:
    """The sections of the commands of `group`, whose names begin with `prefix`, and of those below them."""
    lines = []
    for name in sorted(n for n in group if not n.startswith("-")):
        command = group[name]
        said = re.split(r"\n\s*Parameters\n\s*-+", str(command.help))[0]
        lines += [f"{'#' * level} {prefix}{name}", "", inspect.cleandoc(said), ""]
        if command.default_command is None:
            lines += _described(command, f"{prefix}{name} ", level + 1)
            continue
        shown = [a for a in command.assemble_argument_collection(parse_docstring=True) if a.names != ("*",)]
        rows = [_flag(argument) for argument in shown if argument.show]
        lines += _table(("flag", "takes", "what it does", "default"), rows) if rows else []
    return lines


def _flag(argument: Any) -> tuple[str, str, str, str]:
    """The row of a flag: its names, what it takes, what it does, its default."""
    names = [name for name in argument.names if not name.startswith("--no-")]
    if argument.index is not None:
        names = [argument.names[0].lstrip("-").upper()]
    words, _, said = (argument.parameter.help or "").partition("[default: ")
    default = argument.field_info.default
    if said:
        default = said.rstrip(" ]")
    elif argument.required:
        default = "required"
    elif default in (None, False, inspect.Parameter.empty):
        default = ""
    elif isinstance(default, tuple | list):
        default = " ".join(map(str, default))
    takes = "" if argument.hint is bool else _kind(argument.hint)
    return " ".join(f"`{name}`" for name in names), takes, _cell(words), _cell(f"{default}")


def python_names() -> str:
    """The page of the package's public names, which mkdocstrings fills from their docstrings."""
    import hyperlax

    placed = {name for names in PYTHON.values() for name in names}
    others = [n for n in hyperlax.__all__ if n not in placed and n not in MODULES and not n.startswith("_")]
    lines = ["# Python", "", "Everything here is an attribute of `hyperlax`.", ""]
    for heading, names in [*PYTHON.items(), ("More", tuple(others))] if others else PYTHON.items():
        lines += [f"## {heading}", ""]
        for name in names:
            found = getattr(hyperlax, name)
            if inspect.ismodule(found):
                lines += _members(f"hyperlax.{name}", 3)
            else:
                lines += _member(name, f"{getattr(found, '__module__', 'hyperlax')}.{name}", 3)
    return "\n".join(lines)


def module(name: str) -> Callable[[], str]:
    """What writes the page of the public module `hyperlax.<name>`."""
    return lambda: "\n".join([f"# hyperlax.{name}", "", *_members(f"hyperlax.{name}", 2)])


def _members(name: str, level: int) -> list[str]:
    found = importlib.import_module(name)
    lines = [*inspect.cleandoc(found.__doc__ or "").splitlines(), ""]
    for member in found.__all__:
        value = getattr(found, member)
        if inspect.isfunction(value) or inspect.isclass(value):
            lines += _member(member, f"{value.__module__}.{value.__qualname__}", level)
    return lines


def _member(name: str, place: str, level: int) -> list[str]:
    """What mkdocstrings makes the description of the object at `place` from, under the heading `name`."""
    return [f"::: {place}", "    options:", f"      heading: {name}", f"      heading_level: {level}", ""]


def environments() -> str:
    """The page of all environments that have a short name, with what agents see and do in them."""
    from hyperlax import envs

    rows = []
    for name in sorted(n for n in envs.names() if n.partition(".")[0] in envs.FRAMEWORKS):
        env = envs.load(name)
        random, solved = envs.REFERENCE_SCORES.get(name, ("", ""))
        rows.append(
            (
                f"`{name}`",
                f"{env.obs_size}",
                _actions(env.action_space),
                f"{env.max_episode_steps:,}",
                f"{random:g}" if random != "" else "",
                f"{solved:g}" if solved != "" else "",
            )
        )
    header = ("environment", "observations", "actions", "time limit", "random policy", "solved")
    return "\n".join(
        [
            "# Environments",
            "",
            "Every environment of gymnax with vector observations works, by its own id as well "
            "(`gymnax.CartPole-v1`), and brax with `--set env.backend=…`. Your own are named "
            "`file.py:Name` ([Names](names.md)). The last two columns are the return of a uniformly "
            "random policy and the return at which the task counts as solved, where they are known: "
            "scores relative to them are comparable across environments.",
            "",
            *_table(header, rows),
        ]
    )


def _actions(space: Any) -> str:
    """The action space in words, with its bounds if they are the same in all dimensions."""
    if not hasattr(space, "low"):
        return f"{space.n} choices"
    count = f"{len(space.low)} number{'s' * (len(space.low) > 1)}"
    if len(set(space.low)) == len(set(space.high)) == 1:
        return f"{count}, {space.low[0]:g} to {space.high[0]:g}"
    return count


def tables() -> str:
    """The page of the tables on disk: their columns, types and meanings."""
    from hyperlax.storage.results import SCHEMAS

    lines = [
        "# Tables",
        "",
        "The tables of an experiment are Parquet files in its folder ([Files on disk](files.md)), and "
        "attributes of what `hyperlax.read` and `hyperlax.sweep` return. `samples.parquet` has the column "
        "`sample` and one for every hyperparameter, by its dotted path.",
        "",
    ]
    for name, schema in SCHEMAS.items():
        rows = [(f"`{column}`", f"{kind}", COLUMNS[column]) for column, kind in schema.items()]
        lines += [f"## {name}.parquet", "", *_table(("column", "type", "meaning"), rows)]
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands,
    "reference/python.md": python_names,
    **{f"reference/{name}.md": module(name) for name in MODULES},
    "reference/environments.md": environments,
    "reference/tables.md": tables,
}
"""Page below docs/ → what writes its Markdown."""
