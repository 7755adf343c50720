"""Cutting the plan of an experiment into units of about equal length."""

from __future__ import annotations

from collections.abc import Sequence

from hyperlax.cluster.sweep import Unit
from hyperlax.experiments import feasible
from hyperlax.experiments.experiment import Experiment
from hyperlax.experiments.samples import Sample
from hyperlax.programs.budget import cycle_steps
from hyperlax.programs.lockstep import training_seconds
from hyperlax.programs.plan import Machine, Program

UNIT_SECONDS = 3600.0
"""Predicted seconds of a unit by default: many times its compilation, and below the limits of most queues."""


def is_whole(spec: Experiment, sequential: bool) -> bool:
    """Whether all lanes of an experiment have to be in one unit.

    That is so for searches, for schedules that compare lanes with one another, and for lanes that train one
    at a time, because they are being timed.
    """
    return sequential or spec.schedule.grows or spec.schedule.describe() is not None


def split(
    number: int,
    spec: Experiment,
    programs: Sequence[Program],
    machine: Machine,
    sequential: bool = False,
    wanted: int | None = None,
    seconds: float = UNIT_SECONDS,
) -> list[Unit]:
    """The units of cell `number`: `wanted` of them, or as many as take about `seconds` each on one device.

    A search is cut only if `wanted` says so, into processes that share its study.
    Every unit has samples of a single program, so there are at least as many as programs, and at most as many
    as samples. Samples are dealt so that the units of a program take about equally long. On an accelerator a
    program is one unit unless `wanted` says more: its slots are a part of what lanes learn from and run in
    lockstep, so that a part of its samples takes as long as all of them.
    """
    seeds = spec.settings.seeds
    if is_whole(spec, sequential):
        number_of = max(len(spec.records), spec.schedule.expected)
        steps = sum(s.steps for s in spec.records.values()) or number_of * spec.settings.total_timesteps
        trees = spec.trees or list(spec.schedule.trees_to_plan(spec))
        each = [feasible.lane_seconds(t, spec.env, spec.settings, machine) for t in trees]
        total = number_of * seeds * sum(each) / len(each)
        whole = Unit(f"c{number:03d}", number, None, number_of * seeds, steps * seeds, total)
        count = min(wanted or 1, number_of) if spec.schedule.grows else 1
        return [whole] if count == 1 else _shares(whole, number_of, count)
    by_place = {s.place: s for s in spec.records.values()}
    cost = {
        place: seeds * feasible.lane_seconds(s.tree, spec.env, spec.settings, machine)
        for place, s in by_place.items()
    }
    totals = [sum(cost[place] for place in p.samples) for p in programs]
    if machine.accelerator:
        totals, seconds = [_lockstep_seconds(spec, p, by_place, machine) for p in programs], float("inf")
    counts = _counts(totals, [len(p.samples) for p in programs], wanted, seconds)
    units = []
    for p, (program, count) in enumerate(zip(programs, counts, strict=True)):
        for k, places in enumerate(_dealt(program.samples, cost, count)):
            samples: list[Sample] = [by_place[place] for place in places]
            steps = sum(s.steps for s in samples) * seeds
            predicted = totals[p] if machine.accelerator else sum(cost[place] for place in places)
            name = f"c{number:03d}-p{p}-{k:03d}"
            units.append(Unit(name, number, places, len(places) * seeds, steps, predicted))
    return units


def _lockstep_seconds(
    spec: Experiment, program: Program, by_place: dict[int, Sample], machine: Machine
) -> float:
    """Predict how long one accelerator trains all samples of a program."""
    samples = [by_place[place] for place in program.samples]
    cycles = [s.steps // cycle_steps(s.tree.sizes()) for s in samples]
    lanes = [n * program.iterations(s.tree) for n, s in zip(cycles, samples, strict=True)]
    iterations = [n for n in lanes for _ in range(spec.settings.seeds)]
    slots, first = program.slots or len(iterations), samples[0].tree
    return sum(training_seconds(first, program.caps, spec.env, iterations, slots, 1, machine.rate))


def _shares(whole: Unit, trials: int, count: int) -> list[Unit]:
    """The units of `count` processes that share a study, each with about its part of the trials."""
    units = []
    for worker in range(count):
        part = (trials // count + (worker < trials % count)) / trials
        lanes, steps = round(whole.lanes * part), round(whole.env_steps * part)
        name = f"{whole.name}-w{worker:03d}"
        units.append(Unit(name, whole.cell, None, lanes, steps, whole.seconds * part, worker))
    return units


def _counts(totals: Sequence[float], samples: Sequence[int], wanted: int | None, seconds: float) -> list[int]:
    """The number of units of every program, from its predicted seconds and its number of samples."""
    if wanted is None:
        return [min(n, max(1, round(total / seconds))) for total, n in zip(totals, samples, strict=True)]
    counts = [1] * len(samples)
    while sum(counts) < min(wanted, sum(samples)):
        open_ = [i for i, n in enumerate(samples) if counts[i] < n]
        counts[max(open_, key=lambda i: totals[i] / counts[i])] += 1
    return counts


def _dealt(places: Sequence[int], cost: dict[int, float], count: int) -> list[tuple[int, ...]]:
    """Deal the samples at `places` into `count` hands of about equal cost, none of them empty."""
    hands: list[list[int]] = [[] for _ in range(count)]
    loads = [0.0] * count
    for place in sorted(places, key=lambda p: (-cost[p], p)):
        least = min(range(count), key=lambda i: (bool(hands[i]), loads[i], i))
        hands[least].append(place)
        loads[least] += cost[place]
    return [tuple(sorted(hand)) for hand in hands]
