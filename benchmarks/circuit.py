"""Speed of the data re-uploading circuit in this package and in other simulators, batch 256, one core.

    python benchmarks/circuit.py [--peer-python PYTHON] [--only NAME ...] [--sizes F,L,V ...] [--limit S]

For the forward pass, and for value and gradient (by angles and input scales) of the sum of all ⟨σz⟩², this
measures the time to trace and compile, the median time per call, and the memory that XLA plans. PennyLane is
a dependency and runs in this Python; tensorcircuit-ng and qujax run in `--peer-python`, a virtual environment
that has them and the same version of jax. Every measurement is a fresh process on one core; one that exceeds
the limit (in seconds) is reported as an error.

    python benchmarks/circuit.py --largest     20 qubits, 5 layers, one observation
    python benchmarks/circuit.py --depths      trace + compile at 5, 10 and 30 layers
    python benchmarks/circuit.py --paths       `networks/circuit_paths.py`, on a GPU if there is one
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from common import pinned, save, table, usable_cores

SIZES = ("3,5,1", "4,5,2", "8,10,2", "11,15,3")
"""Sizes of circuits: features, layers, stacks."""
PATH_SIZES = (
    ("4,5,2", 256),
    ("4,10,3", 64),
    ("4,10,3", 256),
    ("4,10,3", 4096),
    ("4,10,3", 65536),
    ("11,15,3", 256),
)
"""Sizes and batches at which they are timed: 4, 6 and 12 wires."""
PEERS = ("tensorcircuit", "qujax")
NAMES = ("hyperlax", "pennylane", *PEERS)
BATCH = 256


def wires_of(features: int, stacks: int) -> int:
    return -(-features // 3) * stacks


def inputs(features: int, layers: int, stacks: int, batch: int) -> tuple[Any, Any, Any]:
    """Angles and scales [layers + 1, wires, 3], and observations [batch, features], as NumPy arrays."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (layers + 1, wires_of(features, stacks), 3)
    draw = lambda s: rng.uniform(size=s).astype(np.float32)  # noqa: E731
    return draw(shape), draw(shape), rng.normal(size=(batch, features)).astype(np.float32)


def hyperlax(features: int, layers: int, stacks: int) -> Callable[..., Any]:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from hyperlax.hyperparams import assign
    from hyperlax.networks import PQCHyperparams

    hp = assign(PQCHyperparams(), {"layers": layers, "stacks": stacks})
    net = jax.tree.map(jnp.asarray, hp).network(features, hp.sizes(), key=jr.key(0))

    def expectations(angles: Any, scales: Any, xs: Any) -> Any:
        return jax.vmap(eqx.tree_at(lambda n: (n.angles, n.scales), net, (angles, scales)))(xs)

    return expectations


def steps(layers: int, wires: int, blocks: int, apply: Callable[..., None], cz: Callable[..., Any]) -> None:
    """Apply the circuit gate by gate.

    `apply(layer, wire, kind)` rotates a wire, where `kind` is `encode`, `train` or `both`; `cz(a, b)` applies
    CZ to two wires.
    """
    for layer in range(layers):
        for w in range(wires):
            apply(layer, w, "encode")
            apply(layer, w, "train")
        for w in range(layer % 2, wires - 1, 2):
            cz(w, w + 1)
    for w in range(wires):
        apply(layers, w, "both")


def angle_of(kind: str, angles: Any, encoded: Any) -> Any:
    return {"encode": encoded, "train": angles, "both": angles + encoded}[kind]


def padded(x: Any, blocks: int) -> Any:
    import jax.numpy as jnp

    return jnp.pad(x, (0, 3 * blocks - x.shape[0])).reshape(blocks, 3)


def pennylane(features: int, layers: int, stacks: int) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp
    import pennylane as qml

    wires, blocks = wires_of(features, stacks), -(-features // 3)

    @qml.qnode(qml.device("default.qubit", wires=wires), interface="jax", diff_method="backprop")
    def node(angles: Any, scales: Any, x: Any) -> Any:
        x = padded(x, blocks)

        def apply(layer: int, w: int, kind: str) -> None:
            a = angle_of(kind, angles[layer, w], x[w % blocks] * scales[layer, w])
            qml.Rot(a[0], a[1], a[2], wires=w)

        steps(layers, wires, blocks, apply, lambda a, b: qml.CZ(wires=[a, b]))
        return [qml.expval(qml.PauliZ(w)) for w in range(wires)]

    one = lambda angles, scales, x: jnp.stack(node(angles, scales, x))  # noqa: E731
    return jax.vmap(one, in_axes=(None, None, 0))


def tensorcircuit(features: int, layers: int, stacks: int) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    tc = importlib.import_module("tensorcircuit")

    tc.set_backend("jax")
    wires, blocks = wires_of(features, stacks), -(-features // 3)

    def one(angles: Any, scales: Any, x: Any) -> Any:
        x = padded(x, blocks)
        c = tc.Circuit(wires)

        def apply(layer: int, w: int, kind: str) -> None:
            a = angle_of(kind, angles[layer, w], x[w % blocks] * scales[layer, w])
            c.rz(w, theta=a[0])
            c.ry(w, theta=a[1])
            c.rz(w, theta=a[2])

        steps(layers, wires, blocks, apply, lambda a, b: c.cz(a, b))
        return jnp.stack([jnp.real(c.expectation_ps(z=[w])) for w in range(wires)])

    return jax.vmap(one, in_axes=(None, None, 0))


def qujax(features: int, layers: int, stacks: int) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    qj = importlib.import_module("qujax")

    wires, blocks = wires_of(features, stacks), -(-features // 3)
    gates: list[str] = []
    qubits: list[list[int]] = []
    places: list[list[int]] = []

    def apply(layer: int, w: int, kind: str) -> None:
        for gate in ("Rz", "Ry", "Rz"):
            places.append([sum(len(p) for p in places)])
            gates.append(gate)
            qubits.append([w])

    def cz(a: int, b: int) -> None:
        gates.append("CZ")
        qubits.append([a, b])
        places.append([])

    steps(layers, wires, blocks, apply, cz)
    state = qj.get_params_to_statetensor_func(gates, qubits, places, wires)

    def one(angles: Any, scales: Any, x: Any) -> Any:
        x = padded(x, blocks)
        used: list[Any] = []
        collect = lambda layer, w, kind: used.append(  # noqa: E731
            angle_of(kind, angles[layer, w], x[w % blocks] * scales[layer, w])
        )
        steps(layers, wires, blocks, collect, lambda a, b: None)
        tensor = state(jnp.concatenate(used) / jnp.pi)
        p = jnp.abs(tensor) ** 2
        return jnp.stack(
            [
                jnp.dot(jnp.sum(p, tuple(i for i in range(wires) if i != w)), jnp.array([1.0, -1.0]))
                for w in range(wires)
            ]
        )

    return jax.vmap(one, in_axes=(None, None, 0))


def value_and_gradient(expectations: Callable[..., Any]) -> Callable[..., Any]:
    """A function with the arguments of `expectations`: the sum of their squares, and its gradient."""
    import jax
    import jax.numpy as jnp

    def loss(angles: Any, scales: Any, xs: Any) -> Any:
        return jnp.sum(expectations(angles, scales, xs) ** 2)

    return jax.value_and_grad(loss, (0, 1))


def measure(name: str, size: str, batch: int, gradient: bool) -> dict[str, Any]:
    """Measure one implementation at one size in this process."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    features, layers, stacks = map(int, size.split(","))
    build = {"hyperlax": hyperlax, "pennylane": pennylane, "tensorcircuit": tensorcircuit, "qujax": qujax}
    arguments = [jnp.asarray(x) for x in inputs(features, layers, stacks, batch)]
    expectations = build[name](features, layers, stacks)

    f = value_and_gradient(expectations) if gradient else expectations
    if os.environ.get("HYPERLAX_CIRCUIT") == "fused":
        jax.jit(build[name](features, layers, stacks)).lower(*arguments)  # kernels are checked on first use
    began = time.perf_counter()
    compiled = jax.jit(f).lower(*arguments).compile()
    ready = time.perf_counter()
    out = jax.block_until_ready(compiled(*arguments))
    times = []
    end = time.perf_counter() + 5
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 300):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    memory = compiled.memory_analysis()
    looped = {"loop_ms": in_a_loop(f, arguments)} if gradient and jax.devices()[0].platform != "cpu" else {}
    return {
        "compile_s": ready - began,
        "call_ms": 1e3 * statistics.median(times),
        **looped,
        "memory_mb": memory.temp_size_in_bytes / 2**20 if memory else None,
        "check": float(out[0]) if gradient else float(np.sum(np.asarray(out) ** 2)),
    }


def in_a_loop(f: Callable[..., Any], arguments: list[Any], times: int = 100) -> float:
    """Milliseconds of one of so many evaluations of `f` in a loop on the device, each after the other."""
    import jax

    def step(_: Any, angles: Any) -> Any:
        return angles + 1e-30 * f(angles, *arguments[1:])[1][0]

    loop = jax.jit(lambda angles: jax.lax.fori_loop(0, times, step, angles))
    found = []
    for _ in range(4):
        began = time.perf_counter()
        jax.block_until_ready(loop(arguments[0]))
        found.append(time.perf_counter() - began)
    return 1e3 * min(found[1:]) / times


def by_path(limit: float) -> list[dict[str, Any]]:
    """Value and gradient by the paths of `networks/circuit_paths.py`; `fused` only where there is a GPU."""
    gpu = shutil.which("nvidia-smi") is not None  # asking jax would reserve the memory of the GPU
    rows = []
    for size, batch in PATH_SIZES:
        for path in ("loops", "grouped", "fused") if gpu else ("loops", "grouped"):
            how = {"HYPERLAX_CIRCUIT": path, "JAX_PLATFORMS": "cuda" if gpu else "cpu"}
            row = in_own_process(sys.executable, "hyperlax", size, limit, True, batch, how)
            rows.append({"path": path, "platform": how["JAX_PLATFORMS"], "batch": batch, **row})
    return rows


def in_own_process(
    python: str,
    name: str,
    size: str,
    limit: float,
    gradient: bool,
    batch: int = BATCH,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    command = [python, __file__, "--one", name, "--sizes", size, "--batch", str(batch)]
    label = {"simulator": name, "size": size, "what": "value and gradient" if gradient else "forward"}
    environ = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
        **(environment or {}),
    }
    if python != sys.executable:
        environ.pop("PYTHONPATH")
    command += [] if gradient else ["--forward"]
    try:
        with pinned(usable_cores()[-1:]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environ)
    except subprocess.TimeoutExpired:
        return {**label, "error": f"more than {limit:.0f} s"}
    if done.returncode:
        return {**label, "error": (done.stderr.strip().splitlines() or ["failed"])[-1][:80]}
    return {**label, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer-python")
    parser.add_argument("--only", nargs="*", default=NAMES, choices=NAMES)
    parser.add_argument("--sizes", nargs="*", default=SIZES)
    parser.add_argument("--limit", type=float, default=600)
    parser.add_argument("--largest", action="store_true")
    parser.add_argument("--depths", action="store_true")
    parser.add_argument("--paths", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=BATCH, help=argparse.SUPPRESS)
    parser.add_argument("--forward", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.sizes[0], args.batch, not args.forward)))
        return

    me = sys.executable
    if args.largest:
        rows = [in_own_process(me, "hyperlax", "60,5,1", args.limit, g, batch=1) for g in (False, True)]
    elif args.paths:
        rows = by_path(args.limit)
    elif args.depths:
        rows = [in_own_process(me, "hyperlax", f"8,{n},2", args.limit, True) for n in (5, 10, 30)]
    else:
        rows = [
            in_own_process(args.peer_python if name in PEERS else me, name, size, args.limit, gradient)
            for size in args.sizes
            for name in args.only
            if name not in PEERS or args.peer_python
            for gradient in (False, True)
        ]
    chosen = [name for name in ("largest", "paths", "depths") if getattr(args, name)]
    which = "_".join(["circuit", *chosen[:1]])
    columns = dict.fromkeys(k for row in rows for k in row)
    title = which if chosen else f"{which}: batch {BATCH}, one core"
    table([{k: row.get(k, "") for k in columns} for row in rows], title)
    print(save(which, rows))


if __name__ == "__main__":
    main()
