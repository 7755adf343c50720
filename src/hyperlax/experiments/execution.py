"""How an experiment is run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Execution:
    """How an experiment is run: none of it changes what the lanes learn.

    - `folder`: where to store the experiment; nothing is written without one. A folder that holds another
      experiment is refused; one that holds this experiment is continued with `resume`.
    - `lanes_at_once`: the most lanes in training at a time (default: what the machine has use for).
    - `lanes_per_device`: lanes mapped together on a device (default: one on a CPU, where a batch gains
      nothing; as many as fit elsewhere).
    - `sequential`: one lane at a time, in the same programs: the same numbers, for comparison.
    - `group_by_sizes`: a program for every distinct set of sizes, instead of as few as pay.
    - `save_policies`: `best` (five), `all` or `none`; needs a folder.
    - `memory_limit`: bytes per device that a program may use (default: 80 % of what is free).
    - `checkpoint_seconds`: at most this much work is lost when the process is killed.
    """

    folder: str | Path | None = None
    resume: bool = False
    lanes_at_once: int | None = None
    lanes_per_device: int | None = None
    sequential: bool = False
    group_by_sizes: bool = False
    save_policies: str = "best"
    memory_limit: int | None = None
    checkpoint_seconds: float | int = 30.0

    def __post_init__(self):
        if self.save_policies not in ("best", "all", "none"):
            raise ValueError(f"save_policies is best, all or none; got {self.save_policies!r}")
        for name in ("lanes_at_once", "lanes_per_device", "memory_limit"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.checkpoint_seconds < 0:
            raise ValueError(f"checkpoint_seconds must be at least 0, got {self.checkpoint_seconds}")

    def at(self, folder: str | Path | None, resume: bool) -> Execution:
        """The same, in `folder` (None: where it is stored anyway), and continued if either says `resume`."""
        return replace(self, folder=self.folder if folder is None else folder, resume=resume or self.resume)
