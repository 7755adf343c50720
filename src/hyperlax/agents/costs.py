"""What a program allocates, and what its cycles cost: the arithmetic behind `plan`, the same for every agent.

Costs are in floating-point operations; fixed costs (starting a kernel, a step of a loop) are expressed in
the operations a core would have done meanwhile. They decide how lanes are grouped, never what they learn.
Fitted to gradient steps measured on one core: 20 µs, and 1 µs per thousand weights, and 0.034 µs per thousand
weights and sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Extent, Sizes, has_alternatives

STEP_OVERHEAD = 2e6
"""One gradient step, beyond what follows: loops, losses, small kernels."""
PER_WEIGHT = 130
"""What a step costs per allocated weight whatever the minibatch: the optimiser's passes over memory."""
CHUNK_OVERHEAD = 1e6
PER_SUMMED_WEIGHT = 250
"""What a chunk costs per weight when several are summed."""
ROW_OVERHEAD = 1e6
"""One step of one block of environments, beyond what each environment costs."""
LARGEST_CHUNK = 2048
MOST_CHUNKS = 3
CHUNK_COMPILATION = 1e11
"""What compiling the gradient once more, for another chunk size, is worth."""
SMALL_BATCH = 64
"""Up to this many samples, products are faster with the batch first."""


class Arithmetic(NamedTuple):
    """Operations per env step, acting included, and per sample of a gradient step; how many weights train."""

    step: float
    gradient: float
    weights: float


def chunk_for(minibatch: int, chunks: Sequence[int]) -> int:
    """The chunk a minibatch is processed in: the smallest that holds it, else the largest."""
    return next((c for c in chunks if c >= minibatch), chunks[-1])


def gradient_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> float:
    """Cost of all gradient steps of a cycle."""
    chunk = chunk_for(sizes["minibatch"], caps["minibatch_chunks"])
    count = -(-sizes["minibatch"] // chunk)
    step = STEP_OVERHEAD + PER_WEIGHT * arithmetic.weights
    step += count * (CHUNK_OVERHEAD + chunk * arithmetic.gradient)
    if count > 1:
        step += count * PER_SUMMED_WEIGHT * arithmetic.weights
    return sizes["gradient_steps"] * step


def rollout_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> float:
    """Cost of collecting and valuing a rollout."""
    blocks = -(-sizes["num_envs"] // caps["env_block"])
    samples = blocks * caps["env_block"]
    return sizes["rollout_length"] * (blocks * ROW_OVERHEAD + samples * arithmetic.step)


def cycle_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> tuple[float, float]:
    """Cost of a cycle of a lane of `sizes` in a program with `caps`: (all of it, gradient steps)."""
    gradient = gradient_work(sizes, caps, arithmetic)
    return gradient + rollout_work(sizes, caps, arithmetic), gradient


def compilation(caps: Sizes, env: AbstractEnv) -> float:
    """Compilation time, in units of a program of one chunk size without branches in a simple environment."""
    return 0.5 + env.compilation + (0.65 if has_alternatives(caps) else 0.5) * len(caps["minibatch_chunks"])


def unshared(caps: Sizes, sizes: Sizes) -> dict[str, Any]:
    """`caps` with the blocks and chunks that a lane of `sizes` would choose for itself."""
    chunk = min(sizes["minibatch"], LARGEST_CHUNK)
    return {**caps, "minibatch_chunks": (chunk,), "env_block": sizes["num_envs"]}


def chunks_wanted(sizes: Sequence[Sizes]) -> list[int]:
    """The chunk sizes that lanes of `sizes` would choose for themselves, ascending."""
    return sorted({min(s["minibatch"], LARGEST_CHUNK) for s in sizes})


def with_blocks(
    caps: dict[str, Any], sizes: Sequence[Sizes], cycles: Sequence[int], arithmetic: Arithmetic
) -> dict[str, Any]:
    """`caps` completed by the block and chunk sizes of least total cost for lanes of `sizes`."""
    blocks = sorted({s["num_envs"] for s in sizes})
    block = min(blocks, key=lambda b: sum(rollout_work(s, {"env_block": b}, arithmetic) for s in sizes))
    chunks = _chunks(sizes, cycles, arithmetic)
    networks = {k.partition(".")[0] for k in caps if "." in k}
    return {
        **caps,
        "env_block": Extent(block),
        "env_blocks": Extent(-(-caps["num_envs"] // block)),
        "minibatch_chunks": chunks,
        **{f"{name}.batch_last": chunks[0] > SMALL_BATCH for name in sorted(networks)},
    }


def _chunks(sizes: Sequence[Sizes], cycles: Sequence[int], arithmetic: Arithmetic) -> tuple[int, ...]:
    wanted = chunks_wanted(sizes)
    thinned = wanted if len(wanted) <= 10 else [wanted[round(i * (len(wanted) - 1) / 9)] for i in range(10)]

    def cost(chunks: tuple[int, ...]) -> float:
        work = (
            n * gradient_work(s, {"minibatch_chunks": chunks}, arithmetic)
            for n, s in zip(cycles, sizes, strict=True)
        )
        return sum(work) + len(chunks) * CHUNK_COMPILATION

    counts = range(1, min(MOST_CHUNKS, len(thinned)) + 1)
    return min((chunks for n in counts for chunks in combinations(thinned, n)), key=cost)
