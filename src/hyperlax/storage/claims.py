"""Claims, which decide who writes to a folder without locks, clocks or a server: the highest claim wins.

A claim is a file `claim-<attempt>.json` that only one process can create. A process that wants to write makes
the next one. Before every write that matters it looks for a higher claim, and exits if there is one. So a
process that was cut off, or is believed dead, never writes beside the one that has taken over.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from hyperlax.storage.integrity import Damaged, create_json, read_json, write_json

_CLAIM = re.compile(r"claim-(\d+)\.json")


class Superseded(Exception):
    """Raised by a process that finds that another one has continued its work, which therefore is not lost."""


class Claim:
    """The right to write to a folder as its attempt number `attempt`.

    `folder` is the one that holds the claims, `what` the one that they are about.
    """

    def __init__(self, folder: Path, what: Path, used: int = 0):
        """Make the next claim; attempts up to number `used` are known to have taken place."""
        self.folder, self.what = folder, what
        self.about = {"token": uuid.uuid4().hex, **_process()}
        self.attempt = max([used, *(n for n, _ in claims(folder))])
        made = False
        while not made:
            self.attempt += 1
            made = create_json(self.path, {"attempt": self.attempt, **self.about})

    @property
    def path(self) -> Path:
        """The file of this claim."""
        return claim_path(self.folder, self.attempt)

    def superseded(self) -> str | None:
        """Say which process has taken over, if one has, perhaps finished, and removed the claims; or None."""
        higher = [path for n, path in claims(self.folder) if n > self.attempt]
        own = _read(self.path)
        if not higher and (own or self.about)["token"] == self.about["token"] and self.path.exists():
            return None
        other = _read(max(higher, key=_number)) if higher else None
        return _words(other) if other else "another process"

    def check(self) -> None:
        """Raise `Superseded` if another process has taken over."""
        if (who := self.superseded()) is not None:
            raise Superseded(
                f"{who} has taken over {self.what}; this process stops and nothing is lost, "
                "the other one goes on from what was saved"
            )

    def note(self, **progress: Any) -> None:
        """Add what has been achieved to the file of the claim."""
        self.about |= progress
        write_json(self.path, {"attempt": self.attempt, **self.about})

    def remove(self, own: bool) -> None:
        """Remove the claims below this one, and this one if `own`."""
        for number, path in claims(self.folder):
            if number < self.attempt or (own and number == self.attempt):
                path.unlink(missing_ok=True)
        if own:
            with suppress(OSError):  # it holds something else
                self.folder.rmdir()


def claims(folder: Path) -> Iterator[tuple[int, Path]]:
    """The number and the file of every claim in `folder`, in no particular order."""
    for name in os.listdir(folder) if folder.is_dir() else ():
        if found := _CLAIM.fullmatch(name):
            yield int(found.group(1)), folder / name


def claim_path(folder: Path, attempt: int) -> Path:
    """The file of the claim with this number."""
    return folder / f"claim-{attempt:06d}.json"


def noted(folder: Path) -> dict[int, dict[str, Any]]:
    """Attempt → the contents of its claim, for the claims that can be read."""
    found = {number: _read(path) for number, path in claims(folder)}
    return {number: content for number, content in found.items() if content is not None}


def alive(claim: Mapping[str, Any]) -> bool:
    """Whether the process of a claim is one of this machine that still runs."""
    here = _process()
    if claim.get("host") != here["host"] or claim.get("boot") != here["boot"]:
        return False
    try:
        os.kill(int(claim["pid"]), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return True


def _read(path: Path) -> dict[str, Any] | None:
    """The contents of a claim; None if it is not there, or not readable: its name says what matters."""
    try:
        return read_json(path)
    except (FileNotFoundError, Damaged):
        return None


def _number(path: Path) -> int:
    found = _CLAIM.fullmatch(path.name)
    return int(found.group(1)) if found else 0


def _process() -> dict[str, Any]:
    """What identifies this process to people: host, number, boot, job and start."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "boot": boot.read_text("utf-8").strip() if boot.exists() else None,
        "job": os.environ.get("SLURM_JOB_ID"),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _words(claim: dict[str, Any]) -> str:
    job = f" (job {claim['job']})" if claim.get("job") else ""
    return f"process {claim.get('pid')} on {claim.get('host')}{job}"
