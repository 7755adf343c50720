"""Compilation of programs, which have a fixed number of slots for lanes on every device.

A program is compiled for a single device, and a copy of it runs on each, in a thread of its own. What a lane
learns therefore does not depend on the number of devices, but on how many lanes each of them trains: XLA
makes other code of a program that is partitioned over several. On a CPU, whose devices differ in nothing, all
copies run the same compiled code.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array

from hyperlax.agents.base import AbstractAgentHyperparams
from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.compilation import compiler_options, without_garbage_collection
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import LANES, lane_cond
from hyperlax.lanes.vectors import right_in_wide_vectors
from hyperlax.learning.evaluation import evaluate
from hyperlax.networks.measurement import EXACT, Measurement
from hyperlax.programs import lockstep, train
from hyperlax.programs.orders import Orders
from hyperlax.programs.plan import Machine, Program
from hyperlax.programs.shared import NOTHING, Shared
from hyperlax.programs.train import TrainState
from hyperlax.storage.aside import set_aside

SMALL_STATE = 2**25
"""Bytes of the state on a device up to which it is moved as a whole: that needs no compilation."""
FIRST_RATE = 5e9
"""Assumed cost per second (`Program.work`) of a program for a CPU before it has run."""
_trace_lock = threading.Lock()


State = list[TrainState]
"""The states of all slots: an element for each device, with a leading axis of its slots."""


@dataclass(frozen=True)
class Copy:
    """The compiled program on one device: functions of the state of the slots there, which they consume."""

    device: Any
    train: Callable[..., TrainState]
    start: Callable[..., TrainState]
    evaluate: Callable[..., tuple[TrainState, Array, Array, dict[str, Array]]]


@dataclass
class Compiled:
    """A compiled program; `start`, `train` and `evaluate` take and return the state of all slots.

    A state that they have taken must not be used again. Devices without anything to do are left alone, the
    others work at the same time. `rate` is the cost, in the unit of `Program.work`, that a lane is assumed to
    train per second.
    """

    slots: int
    copies: list[Copy]
    state_like: TrainState
    trace_seconds: float
    compile_seconds: float
    bytes_per_lane: int
    rate: float = FIRST_RATE

    @property
    def per_device(self) -> int:
        """The number of slots on each device."""
        return self.slots // len(self.copies)

    def empty_state(self) -> State:
        """The state of slots that hold no lanes."""
        blank = jax.tree.map(lambda x: np.zeros((self.per_device, *x.shape), x.dtype), self.state_like)
        return [jax.device_put(blank, copy.device) for copy in self.copies]

    def start(self, state: State, orders: Orders) -> State:
        """Start the lanes in the slots of `orders` that are fresh."""
        shares = self._shares(orders.fresh, orders.arrays())
        return self._at_once(lambda copy, s, of: copy.start(s, *of), state, shares)

    def train(self, state: State, iterations: np.ndarray) -> State:
        """Train the lane in every slot for its number of `iterations` (`programs.train.segment`)."""
        shares = self._shares(iterations, iterations)
        return self._at_once(lambda copy, s, of: copy.train(s, of), state, shares)

    def evaluate(
        self, state: State, due: np.ndarray, asked: np.ndarray
    ) -> tuple[State, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return the state, and by slot the returns, lengths and training metrics of the lanes `asked` for.

        Lanes play episodes if they are `due`. Returns and lengths have the shape [slots, modes, episodes];
        they and the metrics, of shape [slots], are zeros on devices that are not asked.
        """
        shares = self._shares(asked, due)
        done = self._at_once(lambda copy, s, of: copy.evaluate(s, of), state, shares)
        measured = [result[1:] for result in done if isinstance(result, tuple)]
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), measured[0])
        rows = [r[1:] if isinstance(r, tuple) else blank for r in done]
        state = [r[0] if isinstance(r, tuple) else r for r in done]
        return state, *jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *rows)

    def read(self, state: State, part: Callable[[TrainState], Array]) -> np.ndarray:
        """One of the arrays of the state of all slots, with a leading axis of slots."""
        return np.concatenate([np.asarray(part(s)) for s in state])

    def with_keys(self, state: State, keys: np.ndarray) -> State:
        """`state` with other raw random keys, of shape [slots, 2]; it must not be used again."""
        shares = np.split(keys, len(self.copies))
        return [
            eqx.tree_at(lambda s: s.key, there, jax.device_put(share, copy.device))
            for copy, there, share in zip(self.copies, state, shares, strict=True)
        ]

    def place(self, state: State, slot: int, lane: TrainState) -> State:
        """`state` with `lane` (a single state of host arrays) in `slot`; `state` must not be used again.

        Only that lane is moved to the device, unless all of them fit into a few megabytes.
        """
        number, inside = divmod(slot, self.per_device)
        there, device = state[number], self.copies[number].device
        if _size(there) > SMALL_STATE:
            there = jax.device_put(_put(there, np.int32(inside), lane), device)
        else:
            host = jax.tree.map(lambda x: np.asarray(x).copy(), there)
            for target, value in zip(jax.tree.leaves(host), jax.tree.leaves(lane), strict=True):
                target[inside] = value
            there = jax.device_put(host, device)
        return [*state[:number], there, *state[number + 1 :]]

    def lane(self, state: State, slot: int) -> TrainState:
        """The lane in `slot` as host arrays; only that lane is moved, unless they are small."""
        number, inside = divmod(slot, self.per_device)
        there = state[number]
        if _size(there) > SMALL_STATE:
            return jax.tree.map(np.array, _take(there, np.int32(inside)))
        return jax.tree.map(lambda x: np.array(np.asarray(x)[inside]), there)

    def lanes(
        self, state: State, slots: Iterable[int], spare: Callable[[Any], int] = lambda device: 0
    ) -> list[TrainState]:
        """The lanes in `slots` as host arrays, which are valid until `state` is used again.

        Where a device has enough `spare` bytes they are set aside there, if they are large: what is returned
        is fetched meanwhile, and stays valid (`storage.aside`).
        """
        held = [
            set_aside(there)
            if self._fits_twice(there, spare(copy.device))
            else jax.tree.map(np.asarray, there)
            for copy, there in zip(self.copies, state, strict=True)
        ]
        at = [divmod(slot, self.per_device) for slot in slots]
        return [jax.tree.map(lambda x, i=i: x[i], held[number]) for number, i in at]

    def _fits_twice(self, there: TrainState, spare: int) -> bool:
        """Whether a copy of the state on a device is worthwhile, and leaves the program its memory."""
        return SMALL_STATE < _size(there) <= spare - self.bytes_per_lane * self.per_device

    def _shares(self, busy: np.ndarray, arguments: Any) -> list[Any]:
        """The `arguments` of each device, None for those that have nothing to do: no slot there is `busy`."""
        slices = [slice(i, i + self.per_device) for i in range(0, self.slots, self.per_device)]
        cut = lambda at: jax.tree.map(lambda x: x[at], arguments)  # noqa: E731
        return [cut(at) if busy[at].any() else None for at in slices]

    def _at_once(
        self, work: Callable[[Copy, TrainState, Any], Any], state: State, shares: list[Any]
    ) -> list[Any]:
        """Do some work on all devices that have a share of it, and wait; from the others, their state."""
        tasks = [
            (copy, s, share)
            for copy, s, share in zip(self.copies, state, shares, strict=True)
            if share is not None
        ]
        if len(tasks) < 2:
            results = iter([work(*task) for task in tasks])
        else:
            results = _threads(len(self.copies)).map(lambda task: jax.block_until_ready(work(*task)), tasks)
        return [s if share is None else next(results) for s, share in zip(state, shares, strict=True)]


@cache
def _threads(number: int) -> ThreadPoolExecutor:
    """Threads for so many devices; a call of a compiled program returns when it has run (`set_up_jax`)."""
    return ThreadPoolExecutor(number, thread_name_prefix="device")


@partial(jax.jit, donate_argnums=0)
def _put(state: TrainState, slot: Any, lane: TrainState) -> TrainState:
    return jax.tree.map(lambda x, value: x.at[slot].set(value), state, lane)


@jax.jit
def _take(state: TrainState, slot: Any) -> TrainState:
    return jax.tree.map(lambda x: x[slot], state)


def _size(state: TrainState) -> int:
    """The bytes of all arrays of `state`."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))


def lane_specs(hp: AbstractAgentHyperparams) -> tuple[Any, ...]:
    """The shapes and dtypes of the `Orders` of one lane."""
    scalar = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    hp_spec = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), hp)
    return hp_spec, key, key, scalar, jax.ShapeDtypeStruct((), jnp.bool_)


def state_like(hp: AbstractAgentHyperparams, env: AbstractEnv, caps: Any) -> TrainState:
    """The shapes and dtypes of the state of one lane."""
    return jax.eval_shape(_beginning(env, caps), *lane_specs(hp)[:4])


def identity(
    program: Program, hp: AbstractAgentHyperparams, env_name: str, env: AbstractEnv, settings: Any
) -> Hashable:
    """A key that is equal for experiments that can share the compiled program.

    The structure of `hp` contains the classes of the algorithm and its networks; of `settings`, those of the
    evaluation enter.
    """
    evaluation = (settings.eval_episodes, settings.measurement, settings.evaluation_keys)
    return program.key, jax.tree.structure(hp), env_name, type(env), evaluation


def _beginning(env: AbstractEnv, caps: Any, shared: Shared = NOTHING) -> Callable[..., TrainState]:
    """A function from hyperparameters, keys (training, initial weights) and env steps to a new lane.

    When it is traced, `shared` finds its places in the state.
    """

    def begin(hp: Any, key: Any, init: Any, total: Any) -> TrainState:
        state = train.start(hp, env, caps, total, key=key, init_key=init)
        shared.find(hp, state)
        if others := non_arrays(state):
            raise TypeError(
                f"{type(hp).__name__} builds an agent that holds {others[0]}, which is not an array: a "
                "program cannot pass it on from step to step. Declare the field with eqx.field(static=True); "
                "for a stock module as a network, derive its hyperparameters from "
                "hyperlax.networks.AbstractStockHyperparams, which keeps functions apart"
            )
        return state

    return jax.jit(begin)


def non_arrays(tree: Any) -> list[str]:
    """Describe the leaves of `tree` that are not arrays, such as functions: path, and name or value."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    found = [(jax.tree_util.keystr(path), x) for path, x in leaves if not eqx.is_array(x)]
    return [f"{path.removeprefix('.')} ({getattr(x, '__name__', repr(x))})" for path, x in found]


def compile_program(
    program: Program,
    hp: AbstractAgentHyperparams,
    env: AbstractEnv,
    episodes: int,
    slots: int,
    devices: list[Any],
    measurement: Measurement = EXACT,
    fixed_keys: bool = False,
) -> Compiled:
    """Trace and compile `program` for `slots` lanes at once, a multiple of the number of devices.

    `hp` is the hyperparameter tree of any of its samples, as only the structure matters. `episodes` is the
    number of episodes of an evaluation; with `fixed_keys`, all evaluations of a lane have the same key.
    """
    caps, per_device = program.caps, slots // len(devices)
    shared = Shared(program.shared, once=program.accelerator)
    begin = _beginning(env, caps, shared)  # jitted, so that its trace serves the shapes and the program
    with _trace_lock:
        like = jax.eval_shape(begin, *lane_specs(hp)[:4])

    def start_lane(state: TrainState, hp: Any, key: Any, init_key: Any, total: Any, fresh: Any) -> TrainState:
        new = lambda s: begin(hp, key, init_key, total)  # noqa: E731
        return lane_cond(fresh, new, lambda s: s, state, costly=True)

    def train_lane(state: TrainState, iterations: Any) -> TrainState:
        return train.segment(state, env, caps, iterations, shared)

    def evaluate_lane(state: TrainState, due: Any) -> tuple[TrainState, Array, Array, dict[str, Array]]:
        key = train.evaluation_key(state.key, jnp.int32(0) if fixed_keys else state.env_steps)
        returns, lengths = evaluate(state.agent, env, episodes, due, measurement, key=key)
        cleared, metrics = train.read_metrics(state)
        state = jax.tree.map(lambda c, s: c if c is s else jnp.where(due, c, s), cleared, state)
        return state, returns, lengths, metrics

    def lowered(device: Any) -> list[tuple[Any, Any]]:
        """The three functions for the slots of a device, as jaxprs and lowered.

        Kernels in Pallas ask for the architecture of the device.
        """
        place = _on(device)
        batch = lambda x: jax.ShapeDtypeStruct((per_device, *x.shape), x.dtype, sharding=place)  # noqa: E731
        states, orders = jax.tree.map(batch, like), jax.tree.map(batch, lane_specs(hp))
        due, count = (batch(jax.ShapeDtypeStruct((), d)) for d in (jnp.bool_, jnp.int32))
        with _trace_lock, without_garbage_collection(), tracing_for_accelerator(program.accelerator):
            traced = [
                _mapped(train_lane, per_device).trace(states, count),
                _mapped(start_lane, per_device).trace(states, *orders),
                _mapped(evaluate_lane, per_device).trace(states, due),
            ]
            with jax.default_device(device):
                return [(function.jaxpr, function.lower()) for function in traced]

    def options(jaxpr: Any, role: str) -> dict[str, Any]:
        """The XLA options of a function; a lane starts once, which optimisation would hardly make faster."""
        platform, effort = devices[0].platform, "low" if role == "start" else program.effort
        wide_vectors = platform == "cpu" and effort == "full" and right_in_wide_vectors(jaxpr)
        return compiler_options(effort, platform, program.accelerator and role == "train", wide_vectors)

    def compiled_all(functions: list[tuple[Any, Any]]) -> list[jax.stages.Compiled]:
        roles = ("train", "start", "evaluate")
        chosen = [options(jaxpr, role) for (jaxpr, _), role in zip(functions, roles, strict=True)]
        with ThreadPoolExecutor(len(functions)) as pool:
            return list(pool.map(lambda f, o: f[1].compile(compiler_options=o), functions, chosen))

    began = time.perf_counter()
    first = lowered(devices[0])
    traced = time.perf_counter()
    functions = compiled_all(first)
    copies = [Copy(devices[0], *functions)]
    for device in devices[1:]:
        same = devices[0].platform == "cpu" or device == devices[0]
        copies.append(copies[0] if same else Copy(device, *compiled_all(lowered(device))))
    compiled = time.perf_counter()
    return Compiled(
        slots,
        copies,
        like,
        traced - began,
        compiled - traced,
        _bytes(functions[0]) // per_device,
        _first_rate(program, hp, env, per_device),
    )


def _first_rate(program: Program, hp: AbstractAgentHyperparams, env: AbstractEnv, lanes: int) -> float:
    """The cost per second that a program of so many lanes on a device is assumed to train at first."""
    if not program.accelerator:
        return FIRST_RATE
    return lockstep.kernels_per_second(hp, program.caps, env, lanes, Machine.planned("gpu").rate)


def _on(device: Any) -> Sharding:
    """The placement of arrays on one device."""
    return NamedSharding(Mesh(np.array([device]), ("device",)), PartitionSpec())


def _mapped(lane: Callable[..., Any], per_device: int) -> Any:
    """Jit `lane` for the slots of a device, mapped over them if there are several."""

    def device(*args: Any) -> Any:
        if per_device == 1:
            out = lane(*jax.tree.map(lambda x: x[0], args))
            return jax.tree.map(lambda x: x[None], out)
        return eqx.filter_vmap(lane, axis_name=LANES)(*args)

    return jax.jit(device, donate_argnums=0)


def _bytes(compiled: Any) -> int:
    """Device memory, in bytes, that the program needs on one device according to XLA."""
    memory = compiled.memory_analysis()
    if memory is None:
        return 0
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )
