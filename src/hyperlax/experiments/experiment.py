"""An experiment before it runs: samples, lanes and settings, checked, with everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
import polars as pl

from hyperlax import envs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv, describe
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import assign, fields, values
from hyperlax.schedules import Schedule

PACKAGES = ("hyperlax", "jax", "jaxlib", "equinox", "optax", "gymnax", "brax", "pennylane", "numpy", "scipy")


@dataclass
class Lane:
    """One agent in training: a sample × a seed, and how far it has come."""

    lane: int
    sample: int
    seed: int
    program: int = -1
    status: str = "queued"
    env_steps: int = 0
    gradient_steps: int = 0
    circuit_executions: int = 0
    seconds: float = 0.0
    parameters: int = 0
    diverged_at: int | None = None

    @property
    def over(self) -> bool:
        return self.status in ("done", "diverged", "pruned", "failed")


@dataclass
class Experiment:
    """Everything that decides what an experiment's lanes learn, and nothing that does not."""

    recipe_name: str
    recipe: Recipe
    env_name: str
    env: AbstractEnv
    settings: Settings
    base: AbstractAgentHyperparams
    fixed: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    trees: list[AbstractAgentHyperparams] = field(default_factory=list)
    sample_ids: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    schedule: Schedule = field(default_factory=Schedule)
    settled: dict[str, Any] = field(default_factory=dict)
    """What the protocol settles."""
    confirms: dict[str, Any] | None = None
    """Whose best samples these are, when they are trained again (`confirmation.py`)."""

    def add(self, row: Mapping[str, Any]) -> int:
        """Adds a sample, checked, and returns its place.

        The value of a hyperparameter is `base`'s unless the row has one and it is not `fixed`. Raises
        `ValueError` for an unknown hyperparameter or value, an id that another sample has, and a network that
        memory cannot hold.
        """
        known = {f.path for f in fields(self.base)}
        chosen = {k: v for k, v in row.items() if k not in ("sample", "matrix") and k not in self.fixed}
        if unknown := [k for k in chosen if k not in known]:
            assign(self.base, dict.fromkeys(unknown))
        tree, number = assign(self.base, chosen), int(row.get("sample", len(self.rows)))
        if number < 0 or number in self.sample_ids:
            why = "is negative" if number < 0 else "is another sample's too"
            raise ValueError(
                f"the id {number} of a sample {why}; leave column sample out to number them anew"
            )
        if refusal := tree.refusal(self.env, device_memory()):
            raise ValueError(f"sample {number} of {self.recipe.name} does not fit {self.env_name}: {refusal}")
        if refusal := _cannot_measure(tree, self.env, self.settings):
            raise ValueError(f"sample {number} of {self.recipe.name}: {refusal}")
        problems = [*tree.problems(), *_too_long(tree, self.settings.total_timesteps)]
        problems += [
            f"{k} is {v!r} as asked for, not {self.settled[k]!r} as in the published protocol"
            for k, v in values(tree).items()
            if k in self.settled and v != self.settled[k]
        ]
        self.notes += [f"sample {number}: {p}" for p in problems]
        self.rows.append(dict(row))
        self.trees.append(tree)
        self.sample_ids.append(number)
        return len(self.rows) - 1

    @property
    def samples(self) -> pl.DataFrame:
        """One row per sample: id, design matrix if any, every hyperparameter."""
        extra = [{"matrix": r["matrix"]} if "matrix" in r else {} for r in self.rows]
        table = [
            {"sample": i, **more, **values(tree)}
            for i, more, tree in zip(self.sample_ids, extra, self.trees, strict=True)
        ]
        return pl.DataFrame(table, schema=None if table else {"sample": pl.Int64}, infer_schema_length=None)

    def lanes(self, places: Sequence[int] | None = None) -> list[Lane]:
        """Every sample × seed, not yet started; only of the samples at `places` where given."""
        seeds = self.settings.seeds
        return [
            Lane(i * seeds + s, self.sample_ids[i], s, parameters=self.trees[i].parameter_count(self.env))
            for i in (range(len(self.rows)) if places is None else places)
            for s in range(seeds)
        ]

    def lane_keys(self, places: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Raw keys (training, initial weights) of `lanes(places)`; they belong to (sample, seed) alone."""
        chosen = self.sample_ids if places is None else [self.sample_ids[i] for i in places]
        ids = np.repeat(np.asarray(chosen, np.uint32), self.settings.seeds)
        seeds = np.tile(np.arange(self.settings.seeds, dtype=np.uint32), len(chosen))
        base = jr.key_data(jr.key(self.settings.seed))
        keys, init = _keys(base, ids, seeds)
        if self.settings.initial_weights == "shared":
            init = np.broadcast_to(np.asarray(base), init.shape)
        return np.asarray(keys), np.asarray(init)

    @property
    def reference(self) -> dict[str, float] | None:
        """Returns of the environment's random policy and of one that has solved it, where they are known."""
        scores = envs.REFERENCE_SCORES.get(self.env_name.partition("[")[0])
        return {"random": scores[0], "solved": scores[1]} if scores else None

    def identity(self) -> dict[str, Any]:
        """What must be equal for two experiments to be the same one."""
        scheduled = self.schedule.describe()
        identity: dict[str, Any] = {"recipe": self.recipe_name, "env": self.env_name}
        if scheduled is not None:
            identity["schedule"] = scheduled
        if self.schedule.grows:
            identity["fixed"] = {k: str(v) for k, v in self.fixed.items()}
        else:
            digest = hashlib.sha256(self.samples.write_csv().encode()).hexdigest()[:16]
            identity["samples"] = f"{len(self.trees)} ({digest})"
        return {**identity, **dataclasses.asdict(self.settings)}

    def manifest(self, command: Sequence[str] | None = None) -> dict[str, Any]:
        """The experiment, the software and the machine, JSON-ready."""
        return {
            "schema": 1,
            "name": self.recipe.name,
            "recipe": self.recipe_name,
            "algorithm": self.recipe.algorithm,
            "network": self.recipe.network,
            "env": self.env_name,
            "protocol": self.settings.protocol,
            "seed": self.settings.seed,
            "settings": dataclasses.asdict(self.settings),
            "space": {path: s.describe() for path, s in self.recipe.search_space().items()},
            "defaults": values(self.recipe.hyperparams()),
            "inputs": {name: use.inputs for name, use in self.base.networks(self.env).items()},
            "identity": self.identity(),
            "reference": self.reference,
            "notes": self.notes,
            "confirms": self.confirms,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "command": list(command if command is not None else sys.argv),
            "versions": versions(),
            "machine": machine(),
            "git_commit": git_commit(),
            **self.schedule.manifest(),
        }


@jax.jit
def _keys(base: Any, ids: Any, seeds: Any) -> tuple[Any, Any]:
    """Raw keys for training and for initial weights, of every (sample id, seed)."""

    def one(sample: Any, seed: Any) -> tuple[Any, Any]:
        own = jr.fold_in(jr.fold_in(jr.wrap_key_data(base), sample), seed)
        return jr.key_data(jr.fold_in(own, 0)), jr.key_data(jr.fold_in(own, 1))

    return jax.vmap(one)(ids, seeds)


def build(
    recipe_name: str,
    recipe: Recipe,
    env_name: str,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    fixed: Mapping[str, Any],
    schedule: Schedule | None = None,
) -> Experiment:
    """The experiment, with every sample turned into a hyperparameter tree.

    Fixed values win over the samples'. Raises `ValueError` for an unknown environment, hyperparameter or
    value, for an algorithm that cannot act in the environment, and for a network that this machine's memory
    cannot hold.
    """
    env = envs.load(env_name)
    base = recipe.hyperparams()
    if problem := base.supports(env.action_space):
        raise ValueError(
            f"{recipe.name} cannot act in {env_name}, which has {describe(env.action_space)}: {problem}"
        )
    settled = recipe.published(env_name) if settings.protocol == "published" else {}
    base = assign(base, settled)
    settled = {k: v for k, v in values(base).items() if k in settled}
    base = assign(base, fixed)
    experiment = Experiment(recipe_name, recipe, env_name, env, settings, base, dict(fixed), settled=settled)
    if schedule is not None:
        experiment.schedule = schedule
    for row in rows:
        experiment.add(row)
    experiment.schedule.check(experiment)
    return experiment


def _cannot_measure(tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings) -> str | None:
    """Why evaluation cannot measure this sample's circuits as the settings ask; None when it can."""
    if settings.measurement.exact:
        return None
    networks = tree.networks(env).values()
    if not any(sum(use.hp.executions(use.inputs)) for use in networks):
        return "eval.shots and eval.depolarizing are for circuits, and it has none; take a recipe of drpqc"
    memory = device_memory() // (2 * settings.eval_episodes)
    refusals = (use.hp.measurement_refusal(use.inputs, settings.measurement, memory) for use in networks)
    return next((f"{r} for each of {2 * settings.eval_episodes} episodes" for r in refusals if r), None)


def _too_long(tree: AbstractAgentHyperparams, total: int) -> list[str]:
    """Says so when one cycle, or what comes before learning, takes all the environment steps of the run."""
    cycle, warm = int(tree.num_envs) * int(tree.rollout_length), tree.warmup_steps()
    if warm and -(-warm // cycle) * cycle >= total:
        return [f"the warm-up is {warm:,} steps, the run {total:,}: nothing is learned"]
    if cycle <= total:
        return []
    return [f"one rollout is {cycle:,} steps, the run {total:,}: it trains once, on {cycle:,} steps"]


DEFAULTS = dataclasses.asdict(Settings())
"""What a folder written before a setting existed was made with."""


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two `identity`s, in words."""
    return [
        f"{k}: {stored.get(k)!r} in the folder, {wanted.get(k)!r} asked for"
        for k in sorted({*stored, *wanted})
        if json.dumps(stored.get(k, DEFAULTS.get(k)), default=str) != json.dumps(wanted.get(k), default=str)
    ]


def sample_difference(stored: pl.DataFrame, wanted: pl.DataFrame) -> list[str]:
    """The first sample whose hyperparameters differ, in words: at most one line."""
    asked = {row["sample"]: row for row in wanted.iter_rows(named=True)}
    for row in stored.iter_rows(named=True):
        other = asked.get(row["sample"], row)
        if changed := [k for k in row if row[k] != other.get(k)]:
            words = [f"{k} {row[k]!r} in the folder, {other.get(k)!r} asked for" for k in changed[:3]]
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return [f"first in sample {row['sample']}: {'; '.join(words)}{more}"]
    return []


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """Processor, memory and devices of this machine; nothing that identifies whose it is."""
    import psutil

    devices = jax.devices()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": processor(),
        "cores": usable_cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
    }


def device_memory() -> int:
    """Bytes of memory of a device, used or not."""
    import psutil

    stats = jax.devices()[0].memory_stats() or {}
    return int(stats.get("bytes_limit", psutil.virtual_memory().total))


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def git_commit() -> str | None:
    """The commit of the hyperlax checkout this runs from, None when installed without one."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def processor() -> str:
    """The name of the processor model."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
