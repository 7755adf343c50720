"""The memory that this process may use: that of the machine, or of its container if it has less."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

_CONTROLLERS = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Kind of control group → its files with the limit and the use; the entry of `memory.stat` for cache."""


class Bound(NamedTuple):
    """A limit of memory in bytes, and how much of it is left."""

    total: int
    left: int


def host_memory(proc: Path = Path("/proc/self"), root: Path = Path("/")) -> Bound:
    """The memory of this process in bytes, and how much of it is free.

    The least counts of the machine's memory, of the limits of its control groups (versions 1 and 2, all
    levels of the hierarchy) and of `ulimit -v`. `proc` and `root` are where to look for control groups.
    """
    machine = psutil.virtual_memory()
    bounds = [Bound(machine.total, machine.available), *_groups(proc, root), *_address_space()]
    return Bound(min(b.total for b in bounds), max(0, min(b.left for b in bounds)))


def _groups(proc: Path, root: Path) -> Iterator[Bound]:
    """The limits of every control group that this process is in, and of those above them."""
    for kind, mount, path in _mounts(proc):
        limit, usage, cache = _CONTROLLERS[kind]
        base = root / mount.lstrip("/")
        folder = base / path.lstrip("/")
        folder = folder if folder.is_dir() else base  # inside of a container the path may be that of the host
        while True:
            total = _number(folder / limit)
            if total is not None:
                used = _number(folder / usage) or 0
                yield Bound(total, total - used + _entry(folder / "memory.stat", cache))
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent


def _mounts(proc: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, mount point and path in it, of every control group of this process that may limit memory."""
    paths = {}
    for line in _lines(proc / "cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "" or "memory" in controllers.split(","):
            paths["cgroup" if controllers else "cgroup2"] = path
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split() or [""] * 2
        if kind in paths and (kind == "cgroup2" or "memory" in options.split(",")):
            place, mount = before.split()[3:5]
            path = paths[kind]
            inside = path.removeprefix(place) if place != "/" and path.startswith(place) else path
            yield kind, mount, inside


def _address_space() -> Iterator[Bound]:
    """The limit of `ulimit -v`, if there is one."""
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        yield Bound(limit, limit - psutil.Process().memory_info().vms)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none, or `max`."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdecimal() else None


def _entry(path: Path, name: str) -> int:
    """The number after `name` in a file of such lines; 0 if there is none."""
    found = [words for words in map(str.split, _lines(path)) if words[:1] == [name] and len(words) == 2]
    return int(found[0][1]) if found and found[0][1].isdecimal() else 0
