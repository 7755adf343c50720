"""Diagnostics of untrained circuits: gate counts, gradient variance, entanglement and expressibility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import Array, Float, PRNGKeyArray

from hyperlax.hyperparams import assign
from hyperlax.lanes.compilation import compiler_options
from hyperlax.lanes.keys import seeded
from hyperlax.lanes.sizes import merge
from hyperlax.networks.circuit import final_state
from hyperlax.networks.pennylane import ANGLES, couplings
from hyperlax.networks.pqc import ENTANGLERS, PQC, PQCHyperparams, qubits, state_bytes

BINS = 75
"""Bins of the histogram of fidelities, as many as in Sim et al. 2019."""


def counts(hp: PQCHyperparams, in_size: int) -> dict[str, int]:
    """Sizes of the circuit of one sample `hp` for observations of `in_size` features.

    `shift_rule_executions` counts the circuits that hardware runs for one gradient of one observation by the
    parameter-shift rule; `gradient_bytes` is the memory that the simulator needs for it.
    """
    layers, wires = int(hp.layers), qubits(in_size, int(hp.stacks))
    entangler = ENTANGLERS[int(hp.entangler)]
    return {
        "qubits": wires,
        "layers": layers,
        "stacks": int(hp.stacks),
        "parameters": hp.parameter_count(in_size),
        "rotations": hp.rotations(in_size),
        "cz_gates": sum(len(couplings(wires, layer, entangler)) for layer in range(layers)),
        "shift_rule_executions": hp.executions(in_size)[1],
        "gradient_bytes": state_bytes(wires),
    }


def entangling_capability(states: Float[Array, "2 amplitudes batch"]) -> Float[Array, " batch"]:
    """The Meyer–Wallach measure of entanglement of pure states: 0 for product states, at most 1.

    Q = 2 (1 - mean over wires of Tr ρ²), where ρ is the reduced state of a wire (Meyer & Wallach 2002, in the
    form of Brennen 2003). `states` holds real and imaginary parts along its first axis.
    """
    amplitudes, batch = states.shape[1:]
    wires = amplitudes.bit_length() - 1
    purities = []
    for w in range(wires):
        re, im = (x.reshape(2**w, 2, -1, batch) for x in states)
        zero, one = (re[:, 0], im[:, 0]), (re[:, 1], im[:, 1])
        p = [jnp.sum(r**2 + i**2, (0, 1)) for r, i in (zero, one)]
        cross_re = jnp.sum(zero[0] * one[0] + zero[1] * one[1], (0, 1))
        cross_im = jnp.sum(zero[0] * one[1] - zero[1] * one[0], (0, 1))
        purities.append(p[0] ** 2 + p[1] ** 2 + 2 * (cross_re**2 + cross_im**2))
    return 2 * (1 - jnp.mean(jnp.stack(purities), 0))


def expressibility(fidelities: np.ndarray, wires: int) -> float:
    """Divergence of the fidelities between pairs of states from those of Haar-random states; 0 is best.

    It is the Kullback–Leibler divergence of the histogram of `fidelities` from the Haar distribution, whose
    density is (N - 1)(1 - F)^(N - 2) with N = 2 ^ wires (Sim et al. 2019, eq. 4, 8 and 9).
    """
    edges = np.linspace(0, 1, BINS + 1)
    found = np.histogram(np.clip(fidelities, 0, 1), edges)[0] / len(fidelities)
    beyond = (1 - edges) ** (2**wires - 1)
    haar = beyond[:-1] - beyond[1:]
    return float(
        np.sum(np.where(found > 0, found * np.log(np.maximum(found, 1e-300) / np.maximum(haar, 1e-300)), 0))
    )


def measure(
    samples: Sequence[PQCHyperparams], in_size: int, draws: int, seed: int = 0
) -> list[dict[str, float]]:
    """Properties of each sample over `draws` pairs of initial weights and standard normal observations.

    `samples` share one compiled program and must therefore agree in the number of stacks; all other
    hyperparameters may differ.

    - `gradient_variance`: variance of the derivative of the first wire's ⟨σz⟩, averaged over all trained
      angles; an exponential decay with the number of qubits is a barren plateau (McClean et al. 2018).
    - `entangling_capability`: mean Meyer–Wallach measure of the states.
    - `expressibility`: `expressibility` of the fidelities between two independent sets of states.
    """
    caps = merge([hp.sizes() for hp in samples])
    wires = qubits(in_size, int(samples[0].stacks))
    keys = jr.split(seeded(seed), (2, draws))

    @partial(jax.jit, compiler_options=compiler_options("low", jax.default_backend()))
    def run(hp: Any, keys: Any) -> Any:
        return jax.lax.map(partial(_state_and_gradient, hp, in_size, caps), keys)

    rows = []
    for hp in samples:
        (states, slopes), (others, _) = (run(jax.tree.map(jnp.asarray, hp), k) for k in keys)
        a, b = (np.asarray(s[:, 0]) + 1j * np.asarray(s[:, 1]) for s in (states, others))
        used = np.asarray(slopes)[:, : int(hp.layers) + 1]
        rows.append(
            {
                "gradient_variance": float(np.mean(np.var(used, axis=0))),
                "entangling_capability": float(np.mean(entangling_capability(jnp.moveaxis(states, 0, -1)))),
                "expressibility": expressibility(np.abs(np.sum(a.conj() * b, axis=1)) ** 2, wires),
            }
        )
    return rows


def bytes_needed(samples: Sequence[PQCHyperparams], in_size: int, draws: int) -> int:
    """Bytes of the states and gradients that `measure` holds for `draws` pairs of `samples`, at least."""
    wires = qubits(in_size, max(int(hp.stacks) for hp in samples))
    layers = max(int(hp.layers) for hp in samples)
    return 2 * draws * 4 * (2 * 2**wires + ANGLES * wires * (layers + 1))


def _state_and_gradient(
    hp: PQCHyperparams, in_size: int, sizes: Mapping[str, Any], key: PRNGKeyArray
) -> tuple[Array, Array]:
    """The final state of one random circuit, and the gradient of its first wire's ⟨σz⟩ by the angles."""
    keys = jr.split(key)
    net = PQC(hp, in_size, sizes, key=keys[0])
    x = jr.normal(keys[1], (in_size, 1))

    def first_wire(angles: Array) -> Float[Array, ""]:
        return eqx.tree_at(lambda n: n.angles, net, angles).apply(x)[0, 0]

    state = final_state(*net.rotation_angles(x), net.signs(), hp.layers)
    return state[..., 0], jax.grad(first_wire)(net.angles)


def inspect(
    hp: PQCHyperparams, in_size: int, layers: Sequence[int], stacks: Sequence[int], draws: int, seed: int = 0
) -> pl.DataFrame:
    """A table of `counts` and `measure`, with one row per combination of `layers` and `stacks`."""
    rows = []
    for s in stacks:
        samples = [assign(hp, {"layers": n, "stacks": s}) for n in layers]
        properties = measure(samples, in_size, draws, seed)
        rows += [{**counts(hp, in_size), **p} for hp, p in zip(samples, properties, strict=True)]
    return pl.DataFrame(rows)
