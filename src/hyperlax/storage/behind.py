"""Commits whose checkpoint is still being written, by a thread of its own, while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperlax.storage.aside import Aside
from hyperlax.storage.checkpoint import gather, gathered, headed, structure
from hyperlax.storage.commits import Commit
from hyperlax.storage.files import write_atomically

LARGE = 2**25
"""Bytes of states from which on a run does not wait until they are written."""


@dataclass(frozen=True)
class Unsettled:
    """A commit that does not count yet.

    - `rows`: table → how many of the rows that wait to be written belong to the commit.
    - `present`: the files that were in the folder when it was begun (`commits.own_files`).
    - `written`: done when its checkpoint is on disk.
    - `late`: whether it was not when the commit had been begun, so that much may have happened meanwhile.
    """

    commit: Commit
    rows: Mapping[str, int]
    present: Mapping[Path, int]
    written: Future[Path]
    late: bool


def write_states(path: Path, states: Any, header: Mapping[str, Any], behind: bool) -> Future[Path]:
    """Write a checkpoint as `checkpoint.pack` makes it; `behind` the back of the caller if it is large.

    What it holds is what `states` and `header` are now. Arrays that were set aside are waited for where it is
    written.
    """
    header = json.loads(json.dumps(header))
    body, kind = gathered(states, which=lambda leaf: not isinstance(leaf, Aside)), structure(states)

    def write() -> Path:
        gather(body, states, which=lambda leaf: isinstance(leaf, Aside))
        return write_atomically(path, headed(body, kind, header))

    if behind and len(body) >= LARGE:
        thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        begun = thread.submit(write)
        thread.shutdown(wait=False)
        return begun
    written: Future[Path] = Future()
    written.set_result(write())
    return written
