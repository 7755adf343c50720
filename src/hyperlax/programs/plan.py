"""The plan of an experiment: which lanes share a program, weighing compilation against padding."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hyperlax.agents import costs
from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Sizes, fits, from_json, merge, shapes, to_json, without_branches
from hyperlax.programs import grouping, lockstep
from hyperlax.programs.budget import cycles_of
from hyperlax.programs.shared import shared_values

MAX_PROGRAMS, MAX_PROGRAMS_IN_LOCKSTEP = 8, 32
"""The largest number of programs in a plan, on a CPU and on accelerators."""
HARDLY_RUNS = 0.05
"""Padded groups that run for less than this share of their compilation time are merged regardless."""
WORTH_OPTIMISING = 1.0
"""Predicted seconds of running from which the compilation of optimised code pays off."""
PLANNED_CPU_DEVICES = 2
"""Devices that plans for a CPU reckon with, whatever there are: plans are a part of what lanes learn from."""
PLANNED_AT_ONCE = 4
"""Programs that plans for accelerators expect to train on a device at the same time, whatever is done.

Between a single process and the most that share a device: what is lost to a plan for either is little.
"""


@dataclass(frozen=True)
class Machine:
    """The speed of the machine, as the planner predicts it.

    - `devices`: how many devices share the work.
    - `rate`: operations per second and device.
    - `compile_seconds`: seconds of compiling a simple program.
    - `least_useful`: the smallest share of useful work to which programs are merged, unless they hardly run.
    - `accelerator`: whether programs are made for latency rather than for arithmetic.
    - `at_once`: how many programs are compiled and trained at the same time on a device, each in a process
      of its own. The kernels of one process wait while those of another compute.
    - `most_programs`: the largest number of programs in a plan, if they run one after the other.
    """

    devices: int
    rate: float
    compile_seconds: float
    least_useful: float = 0.0
    accelerator: bool = False
    at_once: int = 1
    most_programs: int = MAX_PROGRAMS

    @staticmethod
    def of(platform: str, devices: int) -> Machine:
        """Rough figures for a platform; they only decide how to group, so an error of factor 2 costs little.

        On a CPU the cost of a lane is proportional to its work. On an accelerator small lanes are bound by
        latency, so that padding is cheap and sharing a program is worth more. The rate of an H100 is the
        lowest of those by which PPO slowed down from 1 to 16, 128 and 512 lanes, at 64 environments × 128
        steps and networks of 2×64: 1.0, 1.6 and 1.5 · 10¹³ (jax 0.11.2).
        """
        if platform == "cpu":
            return Machine(devices, 1.5e11, 8.0, 0.9)
        return Machine(
            devices,
            1e13,
            10.0,
            accelerator=True,
            at_once=PLANNED_AT_ONCE,
            most_programs=MAX_PROGRAMS_IN_LOCKSTEP,
        )

    @staticmethod
    def planned(platform: str) -> Machine:
        """The machine to plan for: the same on every machine of the platform, however many devices it has."""
        return Machine.of(platform, PLANNED_CPU_DEVICES if platform == "cpu" else 1)

    def most(self, turns: bool) -> int:
        """The largest number of programs in a plan; those that take `turns` are all on the device at once."""
        return MAX_PROGRAMS if turns else self.most_programs


@dataclass(frozen=True)
class Program:
    """A group of samples whose lanes train in one compiled program.

    - `samples`: the places of the samples in the experiment.
    - `caps`: the capacities that are allocated.
    - `useful_share`: the predicted share of work that is not padding.
    - `effort`: the compilation effort, "full" or "low".
    - `accelerator`: whether the program is made for an accelerator.
    - `shared`: the hyperparameters that are constants of the program, by dotted path.
    - `slots`: the number of lanes to train at a time; 0 for as many as suit the devices.
    - `lanes_per_device`: the number of lanes that are mapped together, on which results depend up to
      rounding; 0 until the program has been compiled for the first time.
    - `copies`: how many times so many lanes train side by side, if a schedule depends on it as searches do;
      otherwise 0, for as many as there are devices.
    """

    samples: tuple[int, ...]
    caps: dict[str, Any]
    useful_share: float
    effort: str = "full"
    accelerator: bool = False
    shared: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 0
    lanes_per_device: int = 0
    copies: int = 0

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description, from which `Program.restored` makes the program again."""
        return {
            "samples": list(self.samples),
            "caps": to_json(self.caps),
            "useful_share": round(self.useful_share, 4),
            "effort": self.effort,
            "accelerator": self.accelerator,
            "shared": dict(self.shared),
            "slots": self.slots,
            "lanes_per_device": self.lanes_per_device,
            "copies": self.copies,
        }

    @staticmethod
    def restored(about: Mapping[str, Any]) -> Program:
        """The program whose `describe` returned `about`; a resumed run thus keeps its plan."""
        caps = from_json(about["caps"])
        return Program(
            tuple(about["samples"]),
            caps,
            about["useful_share"],
            about["effort"],
            about.get("accelerator", False),
            about.get("shared", {}),
            about.get("slots", 0),
            about.get("lanes_per_device", 0),
            about.get("copies", 0),
        )

    def holds(self, sizes: Sizes) -> bool:
        """Whether a sample of `sizes` fits the capacities of the program."""
        return fits(sizes, self.caps)

    def work(self, sample: AbstractAgentHyperparams, env: AbstractEnv) -> float:
        """Predict the cost of a cycle of `sample` in this program, in floating-point operations.

        On an accelerator it is in kernels, and the same for every iteration, as lanes run in lockstep.
        """
        if self.accelerator:
            kernels = costs.cycle_chain(costs.one_iteration(self.caps), sample.chain(self.caps, env))
            return self.iterations(sample) * kernels
        return sample.work(sample.sizes(), self.caps, env)[0]

    def iterations(self, sample: AbstractAgentHyperparams) -> int:
        """The iterations of the program that a cycle of `sample` takes (see `programs.train`)."""
        return costs.iterations(sample.sizes(), self.caps)

    @property
    def key(self) -> str:
        """A key that is equal for programs that compile to the same code."""
        about = self.describe()
        entries = [about[name] for name in ("caps", "effort", "accelerator", "shared")]
        return json.dumps(entries, sort_keys=True, default=str)


def plan(
    samples: Sequence[AbstractAgentHyperparams],
    env: AbstractEnv,
    total_steps: int,
    seeds: int,
    machine: Machine,
    max_programs: int | None = None,
    group_by_sizes: bool = False,
    varying: Collection[str] = (),
) -> list[Program]:
    """Group `samples` (one hyperparameter tree each) into programs of least predicted total time.

    Planning starts with a program for every distinct architecture and merges the pair that adds the least
    time, as long as that saves more compilation than it adds padding, or there are more than `max_programs`
    (by default `Machine.most_programs`). On accelerators samples then move to where they cost less.
    With `group_by_sizes`, every distinct set of sizes gets a program of its own instead. `varying` are the
    paths of hyperparameters in which later samples may differ, although these do not.
    """
    sizes = [hp.sizes() for hp in samples]
    cycles = [max(1, cycles_of(total_steps, s)) for s in sizes]  # too long a cycle is refused elsewhere
    prototype = samples[0]

    def divided(members: tuple[int, ...], caps: Sizes) -> lockstep.Parts:
        """How a group on an accelerator takes the cycles of its lanes."""
        lanes = [(sizes[i], cycles[i]) for i in members for _ in range(seeds)]
        return lockstep.parts(prototype, caps, env, lanes, machine.devices, machine.rate, machine.at_once)

    def running(members: tuple[int, ...], caps: Sizes) -> float:
        """Padded training seconds of a group, with the chunk and block sizes that suit each lane best."""
        if machine.accelerator:
            return divided(members, caps).seconds.shared(machine.at_once)
        work, arithmetic = 0.0, prototype.arithmetic(caps, env)
        for i in members:
            work += cycles[i] * costs.cycle_work(sizes[i], costs.unshared(caps, sizes[i]), arithmetic)[0]
        return seeds * work / machine.rate / machine.devices

    if machine.accelerator:  # samples whose networks are faster with equal sizes get those
        either = [(s, prototype.evened(s, env)) for s in sizes]
        sizes = [min(pair, key=lambda s, i=i: running((i,), s)) for i, pair in enumerate(either)]
    alone = [running((i,), sizes[i]) for i in range(len(sizes))]

    def cost(members: tuple[int, ...]) -> tuple[float, bool]:
        """Seconds of a group, compilation included, and whether its padding is acceptable.

        The time is infinite for samples that cannot share a program.
        """
        if len({shapes(sizes[i]) for i in members}) > 1:
            return float("inf"), False
        member_sizes = [sizes[i] for i in members]
        caps = merge(member_sizes)
        padded = running(members, caps)
        chunks = costs.preferred_chunks(member_sizes)[: 1 if machine.accelerator else costs.MOST_CHUNKS]
        compiling = machine.compile_seconds / machine.at_once
        chunked = {**caps, "minibatch_chunks": tuple(chunks)}
        compiling *= costs.compilation(chunked, env, machine.accelerator)
        useful = sum(alone[i] for i in members) >= machine.least_useful * padded
        return compiling + padded, useful or padded < HARDLY_RUNS * compiling

    def shared(members: tuple[int, ...]) -> dict[str, Any]:
        """The constants of the program of a group."""
        return shared_values([samples[i] for i in members], varying) if machine.accelerator else {}

    if group_by_sizes:
        groups = grouping.equal([without_branches(s) for s in sizes])
    else:
        alike = _by_architecture(sizes, machine.accelerator)
        groups = grouping.merged(alike, cost, max_programs or machine.most_programs)
        if machine.accelerator:
            groups = grouping.moved(groups, alike, lambda group: cost(group)[0])
    runs = [seeds * c for c in cycles]
    programs = [
        _program(members, sizes, runs, prototype, env, machine, shared(members)) for members in groups
    ]
    if machine.accelerator:
        parts = [divided(p.samples, p.caps) for p in programs]
        found = [
            (x.seconds.shared(machine.at_once), _in_lockstep(p, x, sizes, cycles, seeds, prototype, env))
            for p, x in zip(programs, parts, strict=True)
        ]
        return [program for _, program in sorted(found, key=lambda pair: pair[0], reverse=True)]

    def total(program: Program) -> float:
        arithmetic = prototype.arithmetic(program.caps, env)
        return sum(
            cycles[i] * costs.cycle_work(sizes[i], program.caps, arithmetic)[0] for i in program.samples
        )

    return sorted(programs, key=total, reverse=True)


def _by_architecture(sizes: Sequence[Sizes], lockstep: bool) -> list[tuple[int, ...]]:
    """Group the samples whose networks have the same sizes and shapes; indices into `sizes`.

    If lanes run in `lockstep`, those of a group also take equally many steps per cycle.
    """
    steps = ("rollout_length", "gradient_steps") if lockstep else ()
    return grouping.equal(
        [tuple(e for e in without_branches(s) if "." in e[0] or e[0] in steps) for s in sizes]
    )


def _in_lockstep(
    program: Program,
    parts: lockstep.Parts,
    sizes: Sequence[Sizes],
    cycles: Sequence[int],
    seeds: int,
    prototype: AbstractAgentHyperparams,
    env: AbstractEnv,
) -> Program:
    """`program` divided into `parts`, with its slots and the useful share of their steps."""
    caps, chain = parts.caps(program.caps), prototype.chain(program.caps, env)
    needed = seeds * sum(cycles[i] * costs.cycle_chain(sizes[i], chain) for i in program.samples)
    iterations = [cycles[i] * costs.iterations(sizes[i], caps) for i in program.samples for _ in range(seeds)]
    padded = costs.cycle_chain(costs.one_iteration(caps), chain)
    share = lockstep.useful_share(needed, iterations, parts.slots, padded)
    return replace(program, caps=caps, slots=parts.slots, useful_share=share)


def _program(
    members: tuple[int, ...],
    sizes: Sequence[Sizes],
    cycles: Sequence[int],
    prototype: Any,
    env: AbstractEnv,
    machine: Machine,
    shared: Mapping[str, Any],
) -> Program:
    """The program for the samples `members`, with its capacities, useful share and compilation effort."""
    members = tuple(sorted(members))
    caps = prototype.capacities([sizes[i] for i in members], [cycles[i] for i in members], env)
    if machine.accelerator:
        caps = costs.whole(caps)
    arithmetic = prototype.arithmetic(caps, env)
    performed = {i: costs.cycle_work(sizes[i], caps, arithmetic)[0] for i in members}
    useful = {
        i: prototype.work(sizes[i], prototype.capacities([sizes[i]], [cycles[i]], env), env)[0]
        for i in members
    }
    total = sum(performed[i] * cycles[i] for i in members)
    share = sum(useful[i] * cycles[i] for i in members) / total
    effort = "low" if total / machine.rate / machine.devices < WORTH_OPTIMISING else "full"
    return Program(members, caps, min(share, 1.0), effort, machine.accelerator, shared)
