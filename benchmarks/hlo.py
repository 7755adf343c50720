"""What a GPU launches, read from the optimised HLO text of a compiled program.

`count(text)` returns the entry computation as a `Region`: its kernels, and the loops and conditionals inside
it, which are regions in turn. Loops are recognised by where they come from. The text names the call stack of
every instruction, and a `jax.named_scope` around a loop is part of the names of its instructions, so a loop
has the role that `ROLES` gives to its scope, to the function that is its body, or to the function it is
called in.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

NO_LAUNCH = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier", "domain"),
    *("after-all", "add-dependency", "partition-id", "replica-id", "get-dimension-size"),
}
"""Instructions for which nothing is launched."""
_UNFILLED = "AllocateBuffer"
"""The target of a custom call that takes memory without filling it, for which nothing is launched either."""

CYCLE, ENV_STEP, VALUES, ADVANTAGE = "cycle", "env step", "values", "advantage step"
EPOCH, GRADIENT_STEP, SHUFFLE, EVALUATION_STEP = "epoch", "gradient step", "shuffle", "evaluation step"

_ALL = (CYCLE, ENV_STEP, VALUES, ADVANTAGE, EPOCH, GRADIENT_STEP, SHUFFLE, EVALUATION_STEP)
ROLES = {
    **{role.replace(" ", "_"): role for role in _ALL},  # scopes
    # functions of this package that a loop is called in
    "in segment": CYCLE,
    "in collect": ENV_STEP,
    "in _in_blocks": VALUES,
    "in generalised_advantage": ADVANTAGE,
    "in discounted_sums": ADVANTAGE,
    "in _fold_at_once": GRADIENT_STEP,
    "in fold": EPOCH,
    "in epoch": GRADIENT_STEP,
    "in off_policy.learn": GRADIENT_STEP,
    "in permuted": SHUFFLE,
    "in evaluate": EVALUATION_STEP,
    "in unasked": EVALUATION_STEP,
    # bodies of the loops of rejax and purejaxrl, and functions their loops are called in
    "in eval_iteration": CYCLE,
    "env_step": ENV_STEP,
    "in calculate_gae": ADVANTAGE,
    "update_epoch": EPOCH,
    "in update_epoch": GRADIENT_STEP,
    "in do_updates": GRADIENT_STEP,
    "_update_step": CYCLE,
    "_env_step": ENV_STEP,
    "_get_advantages": ADVANTAGE,
    "_update_epoch": EPOCH,
    "_update_minbatch": GRADIENT_STEP,
}
"""A scope, the function that is the body of a loop, or "in" a function, or file and function → its role.

The innermost that is named here counts. A loop that is not recognised has the name of its function.
"""

PLUMBING = re.compile(r"<lambda>|lane_\w+|__call__|device|train_lane|<module>")
"""Functions that say nothing about what is computed."""


@dataclass(frozen=True)
class Frame:
    """A call on the stack of an instruction: the function's own name, and where the call is in its file."""

    function: str
    file: str
    line: int


@dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    - `scopes`: the words of its `op_name`, innermost first; named scopes are among them.
    - `stack`: the calls that it was traced in, innermost first, each once; empty if the text does not tell.
    """

    name: str
    opcode: str
    attributes: str
    scopes: tuple[str, ...]
    stack: tuple[Frame, ...]

    def called(self, attribute: str) -> list[str]:
        """The names of the computations that `attribute` holds."""
        found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%?[\w.\-]+)", self.attributes)
        return re.findall(r"[\w.\-]+", found[1]) if found else []


@dataclass(frozen=True)
class Module:
    """A parsed program: instructions by computation, and the name of the entry."""

    computations: dict[str, list[Instruction]]
    entry: str


@dataclass
class Region:
    """What one execution of a computation launches, apart from the regions inside it.

    - `role`: what a loop is for, a value of `ROLES`, or the name of the function that it is called in.
    - `trips`: the number of iterations of a loop; None if the program does not know it.
    - `condition`: the kernels of a loop's condition, launched before every iteration of a loop whose number
      of iterations is unknown.
    - `kernels`: kinds of kernels; `sources`: functions whose code they compute.
    - `conditionals`: for each conditional the regions of its branches.
    """

    role: str
    trips: int | None = None
    condition: int = 0
    kernels: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    loops: list[Region] = field(default_factory=list)
    conditionals: list[list[Region]] = field(default_factory=list)

    @property
    def own(self) -> int:
        """The kernels of one execution, without those of loops and branches inside."""
        return sum(self.kernels.values())

    def inside(self) -> Iterator[Region]:
        """All loops within, at any depth, in order; those in branches too."""
        for loop in [*self.loops, *(x for branches in self.conditionals for b in branches for x in b.loops)]:
            yield loop
            yield from loop.inside()

    def find(self, role: str) -> Region | None:
        """The loop with a role, this region included: of several, the one with the most kernels."""
        found = [x for x in (self, *self.inside()) if x.role == role]
        return max(found, key=lambda x: x.own, default=None)

    def branches(self) -> int:
        """The number of conditionals within, at any depth."""
        nested = [b for branches in self.conditionals for b in branches]
        return len(self.conditionals) + sum(x.branches() for x in (*nested, *self.loops))

    def total(self, trips: Mapping[str, int]) -> int:
        """The kernels of one execution with everything inside; of a conditional, those of its longest branch.

        `trips` says by role how often loops of unknown length iterate; a loop that it does not name, once.
        """
        found = self.own + sum(max(b.total(trips) for b in branches) for branches in self.conditionals)
        for loop in self.loops:
            n = loop.trips if loop.trips is not None else trips.get(loop.role, 1)
            check = loop.condition if loop.trips is None else 0
            found += n * (loop.total(trips) + check)
        return found

    def launches(self) -> str:
        """The kernels of one execution as a sum: its own, "n?" in a conditional's longest branch, loops."""
        branches = [f"{max(b.total({}) for b in branches)}?" for branches in self.conditionals]
        loops = [f"{'?' if x.trips is None else x.trips} × ({x.launches()})" for x in self.loops]
        return " + ".join([str(self.own), *branches, *loops])

    def describe(self) -> dict[str, Any]:
        """A JSON-ready description."""
        return {
            "role": self.role,
            "trips": self.trips,
            "condition": self.condition,
            "kernels": dict(self.kernels.most_common()),
            "sources": dict(self.sources.most_common()),
            "loops": [x.describe() for x in self.loops],
            "conditionals": [[b.describe() for b in branches] for branches in self.conditionals],
        }

    def lines(self, depth: int = 0, sources: bool = False) -> list[str]:
        """An outline of the region, a line per loop and branch; with `sources`, what the kernels compute."""
        pad = "  " * depth
        count = f"{pad}{self.role}{self._iterations()}: {self.own} kernels"
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.kernels.most_common())
        found = [f"{count} ({kinds})" if kinds else count]
        if sources and self.sources:
            found.append(f"{pad}    from " + ", ".join(f"{x} {n}" for x, n in self.sources.most_common()))
        for branches in self.conditionals:
            found.append(f"{pad}  conditional")
            found += [line for b in branches for line in b.lines(depth + 2, sources)]
        return found + [line for loop in self.loops for line in loop.lines(depth + 1, sources)]

    def _iterations(self) -> str:
        if self.role in ("program", "branch"):
            return ""
        return f" × {self.trips}" if self.trips is not None else f" × ? (+ {self.condition} to ask)"


def count(text: str) -> Region:
    """The program whose optimised HLO text is `text`."""
    module = parse(text)
    return _region(module, module.entry, Region("program"), None)


_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_LINE = re.compile(r"\s+(?:ROOT )?%?([\w.\-]+) = .*?\s([a-z][\w\-]*)\((.*)")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


def parse(text: str) -> Module:
    """Parse the text of a scheduled HLO module; raises `ValueError` if it has no entry computation."""
    tables: dict[str, dict[int, str]] = {name: {} for name in _TABLES}
    computations: dict[str, list[Instruction]] = {}
    entry, table = "", ""
    lines: list[tuple[list[Instruction], str]] = []
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if line in tables:
            table = line
        elif table and (row := re.match(r"(\d+) (.*)", line)):
            tables[table][int(row[1])] = row[2]
        elif head := _HEAD.match(line):
            table, current = "", computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None:
            lines.append((current, line))
    if not entry:
        raise ValueError("this is not the text of an HLO module: it has no ENTRY computation")
    stacks = _stacks(tables)
    for instructions, line in lines:
        if found := _LINE.match(line):
            op_name = re.search(r'op_name="([^"]*)"', found[3])
            frame = re.search(r"stack_frame_id=(\d+)", found[3])
            scopes = tuple(reversed(re.findall(r"\w+", op_name[1]))) if op_name else ()
            stack = stacks[int(frame[1])] if frame else ()
            instructions.append(Instruction(found[1], found[2], found[3], scopes, stack))
    return Module(computations, entry)


def _stacks(tables: Mapping[str, Mapping[int, str]]) -> dict[int, tuple[Frame, ...]]:
    """The stack that begins with each frame, by the frame's number; zero is the empty stack.

    JAX repeats calls on the stack of what is inside a `scan`. Callers have lower numbers than what they call.
    """

    def numbers(row: str) -> dict[str, int]:
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)}

    rows = {number: numbers(row) for number, row in sorted(tables["StackFrames"].items())}
    printed_plus_one = rows.get(1, {}).get("parent_frame_id") == 1  # the first frame has no caller
    stacks: dict[int, tuple[Frame, ...]] = {0: ()}
    for number, row in rows.items():
        place = numbers(tables["FileLocations"][row["file_location_id"]])
        function = tables["FunctionNames"][place["function_name_id"]].strip('"')
        file = tables["FileNames"][place["file_name_id"]].strip('"').rpartition("/")[2]
        frame = Frame(function.rpartition(".")[2], file, place["line"])
        callers = stacks[row.get("parent_frame_id", 0) - printed_plus_one]
        stacks[number] = callers if frame in callers else (frame, *callers)
    return stacks


def _region(module: Module, name: str, region: Region, loop: Instruction | None) -> Region:
    """Fill `region` with what the computation `name` launches, inside `loop` if it is not the entry's."""
    for op in module.computations[name]:
        if op.opcode == "while":
            region.loops.append(_loop(module, op, region, loop))
        elif op.opcode == "conditional":
            branches = [
                branch
                for attribute in ("branch_computations", "true_computation", "false_computation")
                for branch in op.called(attribute)
            ]
            region.conditionals.append([_region(module, b, Region("branch"), loop) for b in branches])
        elif op.opcode in ("call", "async-start"):
            for called in (*op.called("to_apply"), *op.called("calls")):
                _region(module, called, region, loop)
        elif _launches(op):
            region.kernels[_kind(op)] += 1
            region.sources[_source(op, loop)] += 1
    return region


def _launches(op: Instruction) -> bool:
    if op.opcode == "custom-call" and f'custom_call_target="{_UNFILLED}"' in op.attributes:
        return False
    return op.opcode not in NO_LAUNCH and not op.opcode.endswith(("-done", "-update"))


def _loop(module: Module, op: Instruction, around: Region, outer: Instruction | None) -> Region:
    """The region of the loop `op`, which lies in the region `around`."""
    (body,), (condition,) = op.called("body"), op.called("condition")
    known = re.search(r'known_trip_count"?:\s*\{"n":\s*"?(\d+)', op.attributes)
    asked = _region(module, condition, Region("condition"), op).own
    role = _role(module, op, body, outer)
    return _region(module, body, Region(role, int(known[1]) if known else None, asked), op)


def _role(module: Module, op: Instruction, body: str, outer: Instruction | None) -> str:
    """What the loop `op` is for, from scopes and functions between it and the loop `outer` around it."""
    inherited = len(outer.scopes) if outer and op.scopes[-len(outer.scopes) :] == outer.scopes else 0
    scopes = op.scopes[: len(op.scopes) - inherited]
    called_in = _new(op, outer)
    names = [*scopes, *_body_functions(module, op, body)]
    for frame in called_in:
        names += [f"in {frame.function}", f"in {frame.file.removesuffix('.py')}.{frame.function}"]
    telling = (frame.function for frame in called_in if not PLUMBING.fullmatch(frame.function))
    return next((ROLES[name] for name in names if name in ROLES), next(telling, "loop"))


def _new(op: Instruction, outer: Instruction | None) -> list[Frame]:
    """The calls on the stack of `op` that are not on that of the loop `outer` around it."""
    return [frame for frame in op.stack if outer is None or frame not in outer.stack]


def _body_functions(module: Module, op: Instruction, body: str) -> list[str]:
    """The function that most instructions of `body`, the computation that `op` repeats, lie in, if any."""
    called: Counter[str] = Counter()
    for inner in module.computations[body]:
        if op.stack and op.stack[0] in inner.stack[1:]:
            called[inner.stack[inner.stack.index(op.stack[0]) - 1].function] += 1
    return [name for name, _ in called.most_common(1)]


def _source(op: Instruction, loop: Instruction | None) -> str:
    """Where the code of a kernel stands: the two innermost functions that say what it computes."""
    telling = [f.function for f in _new(op, loop) if not PLUMBING.fullmatch(f.function)]
    return " > ".join(reversed(telling[:2])) or "(moved by XLA)"


def _kind(op: Instruction) -> str:
    """The kind of kernel: which emitter of XLA, which library, or which instruction."""
    if op.opcode in ("fusion", "fusion-start"):
        emitter = re.search(r'"kind":"([^"]*)"', op.attributes) or re.search(r"\bkind=k(\w+)", op.attributes)
        return f"fusion {emitter[1].strip('_')}" if emitter else "fusion"
    if op.opcode == "custom-call":
        target = re.search(r'custom_call_target="([^"]*)"', op.attributes)
        return f"custom-call {target[1]}" if target else "custom-call"
    return op.opcode
