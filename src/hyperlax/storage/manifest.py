"""The types of the entries of a manifest, which are checked whenever one is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Kind = Any
"""A type, several of them, `[kind]` for a list, or a mapping from names (`*`: any other) to kinds."""

_NUMBER = (int, float)
_WORDS: Kind = {"*": str}
_KINDS: Kind = {
    "name": str,
    "recipe": str,
    "algorithm": str,
    "network": str,
    "env": str,
    "protocol": str,
    "seed": int,
    "metric": str,
    "created": str,
    "complete": bool,
    "command": [str],
    "notes": [str],
    "resumed": [str],
    "settings": {
        **dict.fromkeys(("total_timesteps", "evaluations", "eval_episodes", "seeds", "seed"), int),
        **dict.fromkeys(("protocol", "evaluation", "evaluation_keys", "last_cycle", "initial_weights"), str),
        "eval_at_start": bool,
    },
    "identity": {"schedule": {}},
    "space": {"*": {}},
    "defaults": {},
    "inputs": {},
    "versions": {},
    "machine": {},
    "files": {},
    "grown": {},
    "plan": [{"caps": {}, "samples": [int], "program": int, "lanes": int, "useful_share": _NUMBER}],
    "shapes": [_WORDS],
    "timings": {
        "wall_seconds": _NUMBER,
        "compile_seconds": _NUMBER,
        "errors": _WORDS,
        "causes": _WORDS,
        "programs": [{}],
    },
    "units": [{}],
    "search": {
        "owner": str,
        "sampler": str,
        "pruner": str,
        "study_name": str,
        "n_trials": int,
        "objectives": [str],
        "directions": [str],
        "storage": (str, type(None)),
    },
    "reference": ({"random": _NUMBER, "solved": _NUMBER}, type(None)),
    "confirms": ({"best": int, "samples": [int], "seed": int}, type(None)),
    "git_commit": (str, type(None)),
}
"""The entries that may be there; an entry of another name may be anything."""


def misfit(record: Mapping[str, Any], kinds: Kind = _KINDS) -> str | None:
    """Say which entry is not what it has to be, to follow the name of the file; None if all of them are.

    `kinds` are by default those of a manifest.
    """
    where = _misfit(record, kinds, "")
    return None if where is None else f'is damaged: its entry "{where}" is of a wrong kind'


def _misfit(value: Any, kind: Kind, where: str) -> str | None:
    """The place of the first entry of the wrong kind at or below `where`, or None."""
    if isinstance(kind, tuple):
        found = [_misfit(value, one, where) for one in kind]
        return None if None in found else max((f for f in found if f is not None), key=len)
    if isinstance(kind, type):
        fits = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        return None if fits else where
    if not isinstance(value, list if isinstance(kind, list) else Mapping):
        return where
    if isinstance(kind, list):
        entries = [(str(i), entry, kind[0]) for i, entry in enumerate(value)]
    else:
        known = {name: kind.get(name, kind.get("*")) for name in value}
        entries = [(name, value[name], k) for name, k in known.items() if k is not None]
    found = (_misfit(entry, k, f"{where}.{name}".lstrip(".")) for name, entry, k in entries)
    return next((place for place in found if place is not None), None)
