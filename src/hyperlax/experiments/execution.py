"""The options of running an experiment, which do not change its results."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hyperlax.registry import nearest
from hyperlax.registry.limits import within
from hyperlax.statistics import HEADLINES
from hyperlax.storage.places import as_typed


@dataclass(frozen=True)
class Execution:
    """How an experiment is run; nothing here changes what the lanes learn, except by rounding.

    - `folder`: where to store the experiment, `~` expanded; by default nothing is written. A folder that
      holds another experiment is refused.
    - `resume`: continue the experiment that `folder` holds.
    - `lanes_at_once`: the largest number of lanes in training at a time (default: what suits the machine).
    - `lanes_per_device`: lanes mapped together on a device (default: one on a CPU, where more gain nothing;
      elsewhere as many as fit).
    - `sequential`: train one lane at a time, in the same programs and with the same numbers, for comparison.
    - `group_by_sizes`: compile a program for every distinct set of sizes, instead of planning as few as pay
      off.
    - `save_policies`: which trained agents to save: the `best` (five), `all` or `none`; needs a folder.
    - `memory_limit`: bytes per device that a program may use (default: 80 % of what is free).
    - `any_device`: whether to continue on another kind of device, or with another jaxlib, than the run began
      with; its lanes then learn the same only up to rounding, and the manifest says so.
    - `retrain_damaged`: on `resume`, retrain the lanes whose results were in files that are now damaged;
      these files are moved to the subfolder `damaged`. Without it a folder with such files is refused.
    - `metric`: the metric that samples are scored and ranked by, a name in `statistics.HEADLINES` (default:
      that of the protocol, or on `resume` the one that the experiment was begun with).
    - `checkpoint_seconds`: seconds between checkpoints, the work that is lost if the process is killed. They
      are longer, up to ten minutes, where writing a checkpoint would take more than a tenth of the time.
    """

    folder: str | Path | None = None
    resume: bool = False
    lanes_at_once: int | None = None
    lanes_per_device: int | None = None
    sequential: bool = False
    group_by_sizes: bool = False
    save_policies: str = "best"
    memory_limit: int | None = None
    any_device: bool = False
    retrain_damaged: bool = False
    metric: str | None = None
    checkpoint_seconds: float | int = 30.0

    def __post_init__(self):
        if self.save_policies not in ("best", "all", "none"):
            raise ValueError(f"save_policies is best, all or none; got {self.save_policies!r}")
        if self.metric is not None and self.metric not in HEADLINES:
            hint = nearest(self.metric, HEADLINES, f"known: {', '.join(HEADLINES)}")
            raise ValueError(f'unknown metric "{self.metric}"{hint}')
        if self.folder is not None:
            object.__setattr__(self, "folder", as_typed(self.folder, "folder"))
        for name in ("lanes_at_once", "lanes_per_device", "memory_limit"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, within(name, value))
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be at least 0, got {self.checkpoint_seconds}")

    def at(self, folder: str | Path | None, resume: bool) -> Execution:
        """A copy with another `folder`, unless that is None, and with `resume` if either asks for it."""
        return replace(self, folder=self.folder if folder is None else folder, resume=resume or self.resume)
