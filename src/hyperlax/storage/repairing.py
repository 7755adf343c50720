"""The command that continues an experiment whose folder is damaged, as it has to be typed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperlax.storage import calling, commits

BENCHMARK = "benchmark.json"
"""The file that records the state of every cell of a benchmark, in the folder above theirs."""
CLAIMS = ".claims"
"""The subfolder with the claims of the processes that run a benchmark."""
_RESUMED, _MENDED = commits.MEND.split()
_REPLACED = ("--output-root", "--resume-from")
"""Flags with a value that says where the experiment is, which the new command says itself."""


def repairing(folder: Path, manifest: Mapping[str, Any], problems: Sequence[str]) -> str:
    """The command that does what the `problems` of an experiment say, or "" if none of them names flags.

    It is the one that the manifest records, which may leave out the folders of files (`…/samples.csv`), and
    runs where it is asked for, as files that it names may be relative to that folder.
    """
    flags = [f for f in (_RESUMED, _MENDED) if any(f in problem for problem in problems)]
    if not flags:
        return ""
    said = manifest.get("command")
    command = [str(word) for word in said] if isinstance(said, list) else []
    command = command if all(word.isprintable() for word in command) else []
    if command[:1] != ["hyperlax"]:
        more = ", retrain_damaged=True" if _MENDED in flags else ""
        program = f", {shlex.join(command)}," if command else ""
        how = f"hyperlax.Execution(folder={str(folder)!r}, resume=True{more})"
        return f"give the program that made it{program} execution={how}"
    root = _root(folder, manifest, command)
    mended = [flag for flag in flags if flag == _MENDED]
    return calling.here(*_without_place(command[1:]), "--resume-from", root.absolute(), *mended)


def _root(folder: Path, manifest: Mapping[str, Any], command: Sequence[str]) -> Path:
    """The folder that the command has to be told: that of the sweep, or of the benchmark, if it was one."""
    if manifest.get("confirms"):
        folder = folder.parent
    if "run-benchmark" in command:
        return next((place for place in folder.resolve().parents if (place / BENCHMARK).exists()), folder)
    return folder


def _without_place(command: Sequence[str]) -> Iterator[str]:
    """The words of a command without those that say where its experiment is, and whether it goes on."""
    words = iter(command)
    for word in words:
        if word in _REPLACED:
            next(words, None)
        elif word.partition("=")[0] not in (_RESUMED, _MENDED, *_REPLACED):
            yield word
