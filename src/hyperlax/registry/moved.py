"""Modules that have moved: importing one by its old name gives the module itself, never a second copy."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "agents.chunks": "learning.minibatches",
    "benchmark": "studies.benchmark",
    "checkpoint": "storage.checkpoint",
    "cli": "commands.main",
    "confirmation": "studies.confirmation",
    "execution": "experiments.execution",
    "experiment": "experiments.experiment",
    "files": "storage.files",
    "inspection": "studies.inspection",
    "launch": "commands.launch",
    "masking": "lanes.masking",
    "monitor": "run.monitor",
    "normalise": "learning.normalise",
    "optimise": "learning.optimise",
    "plan": "programs.plan",
    "run.policies": "policies.files",
    "plot": "report.plot",
    "prediction": "studies.prediction",
    "recipes": "experiments.recipes",
    "recording": "run.recording",
    "replaced": "run.replaced",
    "replay": "learning.replay",
    "results": "storage.results",
    "returns": "learning.returns",
    "rollout": "learning.rollout",
    "runner": "run.runner",
    "samplers": "hyperparams.samplers",
    "settings": "experiments.settings",
    "slots": "run.slots",
    "spaces": "hyperparams.spaces",
    "stopping": "run.signals",
    "store": "storage.store",
    "suites": "studies.suites",
    "tables": "commands.tables",
    "terminal": "run.terminal",
    "threefry": "lanes.threefry",
    "train": "programs.train",
}
"""Old name → new name, below `hyperlax`."""


class Moved(Loader):
    """A finder and loader, for `sys.meta_path`, of modules by their old names."""

    def __init__(self, moved: dict[str, str]):
        self._homes = {f"hyperlax.{old}": f"hyperlax.{new}" for old, new in moved.items()}
        self._specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name in self._homes else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._homes[spec.name])
        self._specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back what the import under its old name has put in its place."""
        assert module.__spec__ is not None
        module.__spec__ = self._specs.pop(module.__spec__.name)
