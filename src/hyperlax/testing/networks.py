"""`check_network`: the properties that agents and programs rely on, for any network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from hyperlax.hyperparams import trainable
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.keys import refuse_typed_keys
from hyperlax.lanes.sizes import AbstractSize, Extent, Sizes, merge, shapes
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.networks.extended import extended
from hyperlax.programs.compiled import non_arrays
from hyperlax.testing.agents import network_of
from hyperlax.testing.lanes import check_strong
from hyperlax.testing.laws import corner
from hyperlax.testing.samples import describe, draw

BATCH = 5
RELATIVE = 1e-5
"""How far outputs and gradients may differ between two programs, as a share of their largest number."""


def check_network(
    network: Any,
    in_size: int = 3,
    *,
    count: int = 4,
    samples: Sequence[Mapping[str, Any]] = (),
    seed: int = 7,
) -> None:
    """Check a network: its outputs, gradients and counts are those of each sample, whatever is allocated.

    `count` random samples, drawn from the fields of the class, are built at their own sizes and inside
    capacities that hold all of them, and see the same few vectors of `in_size` numbers. `samples` are
    hyperparameters by name for them to take in turn, where not every combination makes sense.

    - The output is a float32 vector, finite, zero where it is padding, and equal in both allocations.
    - So are the gradients of the weights; those of padding are zero.
    - A batch gives what its vectors give one by one, in both layouts.
    - `prepared` and `extended`, where the class defines them, give the same outputs.
    - `parameter_count` is between the weights that move and those that are allocated; `out` is the length of
      the output.
    - All samples of equal `Shape` are built and evaluated by one program, traced once, and every leaf is an
      array.

    Raises `AssertionError` naming the sample and the leaf, and `TypeError` for anything but a network.
    """
    kind = network_of(network)
    build: Any = kind
    _check_sizes(build())
    rng = np.random.default_rng([seed, count, in_size])
    hps = draw(build(), count, rng, lambda hp: hp.parameter_count(in_size), samples)
    inputs = jnp.asarray(rng.normal(size=(BATCH, in_size)), jnp.float32)
    programs: list[list[int]] = []
    for i, hp in enumerate(hps):
        own = next((own for own in programs if shapes(hps[own[0]].sizes()) == shapes(hp.sizes())), [])
        if not own:
            programs.append(own)
        own.append(i)
    for own in programs:
        _check_program(kind, in_size, inputs, {i: hps[i] for i in own})


def _check_program(
    kind: type, in_size: int, inputs: Any, hps: Mapping[int, AbstractNetworkHyperparams]
) -> None:
    """Check samples, by their number, that one program can hold."""
    shared = _Evaluation(in_size, {**merge([hp.sizes() for hp in hps.values()]), "batch_last": True}, inputs)
    for i, hp in hps.items():
        where = f"sample {i} of {kind.__name__} ({describe(hp)})"
        exact = _Evaluation(in_size, {**hp.sizes(), "batch_last": False}, inputs)
        _check_sample(where, hp, in_size, exact(hp, i), shared(hp, i))
    examples = list(hps.values())[:2]
    assert shared.traces == 1, (
        f"one program: {kind.__name__} was traced {shared.traces} times for samples that differ in values "
        f"inside the same capacities, for example {' and '.join(f'({describe(hp)})' for hp in examples)}"
    )


def _check_sizes(hp: AbstractNetworkHyperparams) -> None:
    for name, size in hp.sizes().items():
        assert isinstance(size, AbstractSize), (
            f"{type(hp).__name__}.sizes()[{name!r}] is {size!r}; say how it combines with those of other "
            f"samples: Extent is padded, Branches are all compiled, a Shape needs a program of its own"
        )
        assert not isinstance(size, Extent) or size >= 0, f"{type(hp).__name__}.sizes()[{name!r}] is negative"


class _Evaluation:
    """What a network inside some capacities computes for `inputs`, compiled once."""

    def __init__(self, in_size: int, caps: Sizes, inputs: Any):
        self.traces = 0

        def outputs(network: AbstractNetwork) -> Any:
            return jax.vmap(network)(inputs)

        def run(hp: AbstractNetworkHyperparams, key: Any) -> dict[str, Any]:
            self.traces += 1
            network = hp.network(in_size, caps, key=key)
            _check_structure(type(hp).__name__, network)
            out = outputs(network)
            weights, rest = eqx.partition(network, trainable(network))
            unit = jnp.arange(network.out_cap, dtype=jnp.int32)
            head = jnp.where(
                unit < network.out_size, jnp.cos(1.0 + unit.astype(jnp.float32)), 0.0
            )  # zero on padding, as heads are
            loss = lambda weights: jnp.sum(outputs(eqx.combine(weights, rest)) @ head)  # noqa: E731
            return {
                "network": network,
                "one by one": jax.lax.map(network, inputs),
                "output": out,
                "size": network.out_size,
                "gradient": jax.grad(loss)(weights),
                **_on_accelerators(network, inputs),
            }

        low = compiler_options("low", jax.default_backend())
        self.run: Callable[..., Any] = jax.jit(run, compiler_options=low)

    def __call__(self, hp: AbstractNetworkHyperparams, i: int) -> dict[str, Any]:
        return self.run(jax.tree.map(jnp.asarray, hp), jr.fold_in(jr.key(11), i))


def _on_accelerators(network: AbstractNetwork, inputs: Any) -> dict[str, Any]:
    """The outputs that programs for accelerators get from `prepared` and `extended`, if they are its own."""
    own = lambda name: getattr(type(network), name) is not getattr(AbstractNetwork, name)  # noqa: E731
    found = {}
    with tracing_for_accelerator():
        if own("prepared"):
            found["prepared()"] = jax.vmap(network.prepared())(inputs)
        if own("extended"):
            found["extended()"] = jax.vmap(network.extended)(inputs)
    return found


def _check_structure(name: str, network: Any) -> None:
    assert isinstance(network, AbstractNetwork), (
        f"{name}.network returns a {type(network).__name__}, which is no AbstractNetwork; for a stock module "
        "derive the hyperparameters from hyperlax.networks.AbstractStockHyperparams"
    )
    if others := non_arrays(network):
        raise AssertionError(
            f"{name} builds a network that holds {', '.join(others)}, no array: declare the field with "
            "eqx.field(static=True), or derive the hyperparameters from AbstractStockHyperparams"
        )
    try:
        refuse_typed_keys(f"{name} builds a network that", network)
    except ValueError as error:
        raise AssertionError(str(error)) from None
    check_strong(f"{name} builds a network whose", network)


def _check_sample(where: str, hp: Any, in_size: int, exact: dict[str, Any], shared: dict[str, Any]) -> None:
    size = int(exact["size"])
    out = np.asarray(exact["output"])
    assert out.dtype == np.float32, f"{where}: the output is {out.dtype}, not float32"
    assert out.ndim == 2, f"{where}: the output has shape {out.shape[1:]}, not that of a vector"
    assert np.isfinite(out).all(), f"{where}: the output is not finite"
    assert size == int(shared["size"]), f"{where}: out_size is {size} alone, {int(shared['size'])} together"
    assert hp.out(in_size) == size, f"{where}: out() says {hp.out(in_size)}, the output has {size} numbers"
    for found in (exact, shared):
        assert not np.asarray(found["output"])[:, size:].any(), (
            f"{where}: the padding of the output is not zero"
        )
        _near(f"{where}: a batch and its vectors one by one", found["output"], found["one by one"])
        if "prepared()" in found:
            _near(f"{where}: the output of prepared()", found["prepared()"], found["output"])
        if "extended()" in found:
            _near(f"{where}: extended()", found["extended()"], jax.vmap(extended)(found["output"]))
    _near(f"{where}: the output inside larger capacities", shared["output"][:, :size], out[:, :size])
    slopes, others = (_by_path(found["gradient"]) for found in (exact, shared))
    moving = 0
    for path, slope in slopes.items():
        assert np.isfinite(slope).all(), f"{where}: the gradient of {path} is not finite"
        inside, padding = corner(others.pop(path), slope)
        _near(f"{where}: the gradient of {path} inside larger capacities", inside, slope)
        assert not padding.any(), (
            f"{where}: the padding of {path} has a gradient of {np.abs(padding).max():.3g}"
        )
        moving += int(np.count_nonzero(slope))
    for path, slope in others.items():
        assert not slope.any(), f"{where}: {path} belongs to other samples, but has a gradient"
    allocated = sum(slope.size for slope in slopes.values())
    counted = hp.parameter_count(in_size)
    assert moving <= counted <= allocated, (
        f"{where}: parameter_count says {counted}; {allocated} weights are allocated at its own sizes and "
        f"{moving} of them have a gradient"
    )


def _near(where: str, found: Any, exact: Any) -> None:
    found, exact = np.asarray(found), np.asarray(exact)
    far, allowed = np.abs(found - exact).max(initial=0), RELATIVE * np.abs(exact).max(initial=0) + 1e-7
    assert far <= allowed, f"{where} differs by {far:.3g} where {allowed:.3g} is rounding"


def _by_path(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
