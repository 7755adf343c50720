"""Experiments before they run: samples, lanes and settings, checked, and the manifest to repeat them."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import UInt32

from hyperlax import envs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv, describe
from hyperlax.experiments import feasible, foreign
from hyperlax.experiments.feasible import Room
from hyperlax.experiments.machine import git_commit, machine, versions
from hyperlax.experiments.memory import device_memory
from hyperlax.experiments.recipes import Recipe
from hyperlax.experiments.samples import Lane, Sample, lane_keys
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import assign, design, paths, values
from hyperlax.lanes.keys import seeded
from hyperlax.programs.budget import cycle_steps
from hyperlax.registry import sources
from hyperlax.registry.limits import refuse_lanes, within
from hyperlax.storage.shareable import shareable, shareable_command
from hyperlax.storage.wording import noted


@runtime_checkable
class ExperimentSchedule(Protocol):
    """The part of a schedule that an experiment uses before it runs; `schedules.Schedule` implements it."""

    @property
    def grows(self) -> bool:
        """Whether samples are added while the experiment runs."""
        ...

    def check(self, experiment: Experiment[Any]) -> None:
        """Raise `ValueError` with the fix if the experiment cannot be run; may add to its notes."""
        ...

    def describe(self) -> dict[str, Any] | None:
        """The parameters that influence results, JSON-ready; None if the schedule does not influence them."""
        ...

    def manifest(self) -> dict[str, Any]:
        """Further entries of the manifest of the experiment, JSON-ready."""
        ...


Scheduled = TypeVar("Scheduled", bound=ExperimentSchedule)


@dataclass
class Experiment(Generic[Scheduled]):
    """Everything that decides what the lanes of an experiment learn, and nothing else."""

    recipe_name: str
    recipe: Recipe
    env_name: str
    env: AbstractEnv
    settings: Settings
    base: AbstractAgentHyperparams
    fixed: dict[str, Any]
    schedule: Scheduled
    records: dict[int, Sample] = field(default_factory=dict)
    """Id → sample, ordered by place."""
    notes: list[str] = field(default_factory=list)
    protocol_values: dict[str, Any] = field(default_factory=dict)
    """The values of hyperparameters that the published protocol prescribes; empty for another protocol."""
    confirms: dict[str, Any] | None = None
    """The experiment whose best samples are trained again here, if they are (`confirmation.py`)."""
    shared: bool = False
    """Whether other processes add samples of their own: then the place of a sample is its id."""

    def add(self, row: Mapping[str, Any]) -> Sample:
        """Check a sample, add it, and return it.

        `row` maps dotted paths of hyperparameters to values; fixed and missing ones have the values of
        `base`. Samples with the same `pair` are trained with the same random keys. Raises `ValueError` for an
        unknown hyperparameter or value, for the id of another sample, for sizes that do not fit into memory
        or would train for years, and for a cycle longer than the run.
        """
        known = paths(self.base)
        chosen = {k: v for k, v in row.items() if k not in design.COLUMNS and k not in self.fixed}
        if unknown := [k for k in chosen if k not in known]:
            assign(self.base, dict.fromkeys(unknown))
        tree = assign(self.base, chosen)
        number = within("sample", row.get("sample", len(self.records)), "the sample id")
        if number in self.records:
            raise ValueError(
                f"the sample id {number} belongs to another sample, too; leave out the column sample to "
                "number the samples"
            )
        with foreign.traced(tree, self.env, f"sample {number} of {self.recipe.name}"):
            foreign.check_networks(tree, self.env)
            refusal = feasible.refusal(tree, self.env, self.settings, self.room)
        if refusal:
            raise ValueError(f"sample {number} of {self.recipe.name} does not fit {self.env_name}: {refusal}")
        if refusal := _cannot_measure(tree, self.env, self.settings):
            raise ValueError(f"sample {number} of {self.recipe.name}: {refusal}")
        steps = self.settings.last_step(cycle_steps(tree.sizes()))
        problems = [*tree.problems(), *_nothing_learned(tree, steps, self.settings.total_timesteps)]
        problems += [
            f"{k} is {v!r} as asked for, not {self.protocol_values[k]!r} as in the published protocol"
            for k, v in values(tree).items()
            if k in self.protocol_values and v != self.protocol_values[k]
        ]
        for problem in problems:
            noted(self.notes, number, problem)
        keys, init_keys = self._keys(within("sample", row.get("pair", number), "the pair id"))
        executions = tree.executions(self.env)
        place = number if self.shared else len(self.records)
        sample = Sample(place, number, dict(row), tree, keys, init_keys, executions, steps)
        self.records[number] = sample
        return sample

    @property
    def label(self) -> str:
        """The name of the recipe for people: that of a file without the folders that it is in."""
        return re.sub(r"[^+]*/", "", self.recipe_name)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The row that every sample was made from, dotted path → value."""
        return [sample.row for sample in self.records.values()]

    @property
    def trees(self) -> list[AbstractAgentHyperparams]:
        """The hyperparameters of every sample."""
        return [sample.tree for sample in self.records.values()]

    @property
    def samples(self) -> pl.DataFrame:
        """The table of samples: id, its place in a design if it has one, and every hyperparameter."""
        table = [
            {"sample": s.id, **{c: s.row[c] for c in design.COLUMNS[1:] if c in s.row}, **values(s.tree)}
            for s in self.records.values()
        ]
        return pl.DataFrame(table, schema=None if table else {"sample": pl.Int64}, infer_schema_length=None)

    def lanes(self, samples: Iterable[Sample] | None = None) -> list[Lane]:
        """New lanes, one for every seed of every sample (by default of all)."""
        seeds = self.settings.seeds
        return [
            Lane(s.place * seeds + seed, s.id, seed, parameters=s.tree.parameter_count(self.env))
            for s in (self.records.values() if samples is None else samples)
            for seed in range(seeds)
        ]

    def part(self, places: Collection[int]) -> Experiment[Scheduled]:
        """The experiment of the samples at these places alone; their lanes have the same numbers in it."""
        chosen = {number: s for number, s in self.records.items() if s.place in places}
        return dataclasses.replace(self, records=chosen, notes=list(self.notes))

    def _keys(self, sample: int) -> tuple[UInt32[np.ndarray, "seeds 2"], UInt32[np.ndarray, "seeds 2"]]:
        """Raw keys (training, initial weights) of the lanes of the sample, or of the pair, with this id."""
        seeds = np.arange(self.settings.seeds, dtype=np.uint32)
        keys, init_keys = lane_keys(self._key, np.uint32(sample), seeds)
        if self.settings.initial_weights == "shared":
            init_keys = np.broadcast_to(self._key, init_keys.shape)
        return np.asarray(keys), np.asarray(init_keys)

    @cached_property
    def room(self) -> Room:
        """The memory and the speed of this machine."""
        return Room.here()

    def check_lanes(self, trees: Sequence[AbstractAgentHyperparams], samples: int) -> None:
        """Note how long `samples` like `trees` train, if that is long.

        Raises `ValueError` with the numbers for too many lanes, and if they would train for years.
        """
        seconds = [feasible.lane_seconds(t, self.env, self.settings, self.room.machine) for t in trees]
        if note := feasible.check_lanes(seconds, samples, self.settings, self.room.machine):
            self.notes.append(note)

    @cached_property
    def _key(self) -> UInt32[np.ndarray, "2"]:
        return np.asarray(jr.key_data(seeded(self.settings.seed)))

    @property
    def reference(self) -> dict[str, float] | None:
        """The returns of a random policy and of one that solves the environment; None if they are unknown."""
        scores = envs.REFERENCE_SCORES.get(self.env_name.partition("[")[0])
        return {"random": scores[0], "solved": scores[1]} if scores else None

    def identity(self) -> dict[str, Any]:
        """The description that is equal for equal experiments, JSON-ready."""
        scheduled = self.schedule.describe()
        identity: dict[str, Any] = {"recipe": self.recipe_name, "env": self.env_name}
        if scheduled is not None:
            identity["schedule"] = scheduled
        if self.schedule.grows:
            identity["fixed"] = {k: str(v) for k, v in self.fixed.items()}
        else:
            digest = hashlib.sha256(self.samples.write_csv().encode()).hexdigest()[:16]
            identity["samples"] = f"{len(self.records)} ({digest})"
        names = (self.recipe_name, self.recipe.algorithm, self.recipe.network, self.env_name)
        things = (self.env, self.schedule, self.base, *self.base.nested_networks().values())
        if code := sources.digests(names, things):
            identity[CODE] = code
        return {**identity, **dataclasses.asdict(self.settings)}

    def manifest(self, command: Sequence[str] | None = None) -> dict[str, Any]:
        """A JSON-ready description of the experiment, the software and the machine.

        `command` is the command line to record, by default that of this process. No path of this machine is
        in it: manifests are passed on.
        """
        about = {
            "schema": 1,
            "name": self.recipe.name,
            "recipe": self.label,
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
            "versions": versions(),
            "machine": machine(),
            "git_commit": git_commit(),
            **self.schedule.manifest(),
        }
        said = shareable_command(command if command is not None else sys.argv)
        return {**shareable(about), "command": said}


def build(
    recipe_name: str,
    recipe: Recipe,
    env_name: str,
    settings: Settings,
    rows: Sequence[Mapping[str, Any]],
    fixed: Mapping[str, Any],
    schedule: Scheduled,
) -> Experiment[Scheduled]:
    """Build an experiment, turning every row of samples into a hyperparameter tree.

    Fixed values override those of the samples. Raises `ValueError` for an unknown environment, hyperparameter
    or value, for an algorithm that cannot act in the environment, for a network that does not fit into the
    memory of this machine, and for classes from outside hyperlax with which no cycle can be traced.
    """
    env = envs.load(env_name)
    base = recipe.hyperparams()
    if problem := base.supports(env.action_space):
        raise ValueError(
            f"{recipe.name} cannot act in {env_name}, which has {describe(env.action_space)}: {problem}"
        )
    foreign.check_classes(base, env, settings.eval_episodes)
    prescribed = recipe.published(env_name) if settings.protocol == "published" else {}
    base = assign(base, prescribed)
    prescribed = {k: v for k, v in values(base).items() if k in prescribed}
    base = assign(base, fixed)
    refuse_lanes(max(1, len(rows)), settings.seeds)
    experiment = Experiment(
        recipe_name, recipe, env_name, env, settings, base, dict(fixed), schedule, protocol_values=prescribed
    )
    for row in rows:
        experiment.add(row)
    experiment.check_lanes(experiment.trees, len(rows))
    experiment.notes += _shortfall(experiment.records.values(), settings.total_timesteps)
    schedule.check(experiment)
    return experiment


def _cannot_measure(tree: AbstractAgentHyperparams, env: AbstractEnv, settings: Settings) -> str | None:
    """Say why evaluation cannot measure the circuits of a sample as the settings say; None if it can."""
    if settings.measurement.exact:
        return None
    networks = tree.networks(env).values()
    if not any(sum(use.hp.executions(use.inputs)) for use in networks):
        return "eval.shots and eval.depolarizing apply to circuits, and it has none; use a recipe of drpqc"
    memory = device_memory() // (2 * settings.eval_episodes)
    refusals = (use.hp.measurement_refusal(use.inputs, settings.measurement, memory) for use in networks)
    return next((f"{r} for each of {2 * settings.eval_episodes} episodes" for r in refusals if r), None)


def _nothing_learned(tree: AbstractAgentHyperparams, steps: int, total: int) -> list[str]:
    """A note if a lane learns from none of the `steps` env steps that it trains, where `total` are asked for.

    It does not from the warm-up and, where `last_rollout` says so, from the rollout that reaches `total`.
    """
    cycle, warm = cycle_steps(tree.sizes()), tree.warmup_steps()
    last = cycle if steps >= total and values(tree).get("last_rollout") == "unlearned" else 0
    if -(-warm // cycle) * cycle + last < steps:
        return []
    why = (
        [f"the warm-up is {warm:,} steps", f"the run {steps:,}"] if warm else [f"the run is {steps:,} steps"]
    )
    why += [f"of which the last {last:,} are not learned from"] * bool(last)
    return [f"{', '.join(why)}: nothing is learned"]


def _shortfall(samples: Collection[Sample], total: int) -> list[str]:
    """A note if the lanes of some samples end below the `total` env steps asked for."""
    short = [s for s in samples if s.steps < total]
    if not short:
        return []
    trained = _span(s.steps for s in short)
    cycles = _span(cycle_steps(s.tree.sizes()) for s in short)
    return [
        f"{len(short)} of {len(samples)} samples train {trained} of {total:,} env steps: whole cycles of "
        f"{cycles} (num_envs × rollout_length), and one more would end over 1 % above"
    ]


def _span(numbers: Iterable[int]) -> str:
    """The least and the greatest of some numbers in words."""
    distinct = sorted(set(numbers))
    return " to ".join(f"{n:,}" for n in dict.fromkeys((distinct[0], distinct[-1])))


CODE = "code"
"""The entry of `Experiment.identity` with the digests of files of one's own; older folders have none."""
DEFAULTS = dataclasses.asdict(Settings())
"""The settings of folders that were written before a setting existed."""


def difference(stored: Mapping[str, Any], requested: Mapping[str, Any]) -> list[str]:
    """Describe the differences between two results of `Experiment.identity`, one per line.

    Paths are compared by their last components, because that is what a manifest holds of them.
    """
    stored, requested = shareable(stored), shareable(requested)
    told = [
        f"{k}: {stored.get(k)!r} in the folder, {requested.get(k)!r} asked for"
        for k in sorted({*stored, *requested} - {CODE})
        if json.dumps(stored.get(k, DEFAULTS.get(k)), default=str)
        != json.dumps(requested.get(k), default=str)
    ]
    return told + sources.refusal(stored.get(CODE), requested.get(CODE))


def sample_difference(stored: pl.DataFrame, requested: pl.DataFrame) -> list[str]:
    """Describe the first sample whose hyperparameters differ in two tables of samples; at most one line."""
    by_id = {row["sample"]: row for row in requested.iter_rows(named=True)}
    for row in stored.iter_rows(named=True):
        other = by_id.get(row["sample"], row)
        if changed := [k for k in row if row[k] != other.get(k)]:
            words = [f"{k} {row[k]!r} in the folder, {other.get(k)!r} asked for" for k in changed[:3]]
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            return [f"first in sample {row['sample']}: {'; '.join(words)}{more}"]
    return []
