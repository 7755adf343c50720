"""The cost model of `programs.plan`: what a program allocates, and what its cycles cost, for any agent.

Costs are counted in floating-point operations. Fixed costs (starting a kernel, a step of a loop) are
expressed as the operations that a core would perform in the same time. Costs decide how lanes are grouped,
never what they learn. The constants were fitted to gradient steps on one core, which took 20 µs plus 1 µs per
thousand weights plus 0.034 µs per thousand weights and sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from hyperlax.envs.base import AbstractEnv
from hyperlax.lanes.sizes import Extent, Sizes, has_alternatives

STEP_OVERHEAD = 2e6
"""Fixed cost of a gradient step: loops, losses and small kernels."""
PER_WEIGHT = 130
"""Cost of a gradient step per allocated weight, for any minibatch: the optimiser's passes over memory."""
CHUNK_OVERHEAD = 1e6
"""Fixed cost of a chunk."""
PER_SUMMED_WEIGHT = 250
"""Cost of a chunk per weight when the gradients of several chunks are summed."""
ROW_OVERHEAD = 1e6
"""Fixed cost of one step of one block of environments."""
LARGEST_CHUNK = 2048
"""The largest chunk, in samples."""
MOST_CHUNKS = 3
"""The largest number of chunk sizes of a program."""
CHUNK_COMPILATION = 1e11
"""Cost of compiling the gradient for one more chunk size."""
ENV_COMPILATION = 0.25
"""What an environment adds to the compilation for an accelerator, relative to that for a CPU.

Two cores took 30 s with brax' inverted double pendulum and 15 s with CartPole, where `BraxEnv.compilation`
alone would predict 75 s (for an H100, jax 0.10.2).
"""
STEP_KERNELS, STEP_KERNELS_PER_PRODUCT = 2.0, 2.0
"""Kernels of an env step on an accelerator: always, and per matrix product of the longest network."""
GRADIENT_KERNELS, GRADIENT_KERNELS_PER_PRODUCT = 8.0, 4.7
"""The same for a gradient step; both were counted in compiled programs."""
CYCLE_KERNELS = 65.0
"""Kernels of a cycle beside its env steps and gradient steps."""
SMALL_BATCH = 64
"""The largest chunk, in samples, for which matrix products are faster with the batch axis first."""


class Arithmetic(NamedTuple):
    """Operations of an agent per env step (acting included) and per learned sample; its trained weights."""

    step: float
    gradient: float
    weights: float


class Chain(NamedTuple):
    """The kernels that an accelerator runs one after the other per env step and per gradient step."""

    step: float
    gradient: float


def cycle_chain(sizes: Sizes, chain: Chain) -> float:
    """The kernels of a cycle of `sizes`; those of all lanes of a program run in lockstep."""
    return CYCLE_KERNELS + sizes["rollout_length"] * chain.step + sizes["gradient_steps"] * chain.gradient


def iterations(sizes: Sizes, caps: Sizes) -> int:
    """The iterations of a program with `caps` that a cycle of a lane of `sizes` takes.

    More than one if the program takes the gradient steps of a cycle in parts (`steps_per_part` of `caps`).
    """
    part = caps.get("steps_per_part")
    return 1 if part is None else max(1, -(-sizes["gradient_steps"] // part))


def one_iteration(caps: Sizes) -> Sizes:
    """`caps` with the gradient steps of one iteration in place of those of a cycle."""
    return {**caps, "gradient_steps": caps.get("steps_per_part", caps["gradient_steps"])}


def cycle_operations(sizes: Sizes, arithmetic: Arithmetic) -> float:
    """The floating-point operations of a cycle of `sizes`, without any fixed cost."""
    stepping = sizes["rollout_length"] * sizes["num_envs"] * arithmetic.step
    return stepping + sizes["gradient_steps"] * sizes["minibatch"] * arithmetic.gradient


def chunk_for(minibatch: int, chunks: Sequence[int]) -> int:
    """The chunk size for a minibatch: the smallest of `chunks` that holds it, or else the largest."""
    return next((c for c in chunks if c >= minibatch), chunks[-1])


def gradient_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> float:
    """Cost of all gradient steps of a cycle, for a lane of `sizes` in a program with `caps`."""
    chunk = chunk_for(sizes["minibatch"], caps["minibatch_chunks"])
    count = -(-sizes["minibatch"] // chunk)
    step = STEP_OVERHEAD + PER_WEIGHT * arithmetic.weights
    step += count * (CHUNK_OVERHEAD + chunk * arithmetic.gradient)
    if count > 1:
        step += count * PER_SUMMED_WEIGHT * arithmetic.weights
    return sizes["gradient_steps"] * step


def rollout_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> float:
    """Cost of a rollout and of estimating its values, for a lane of `sizes` in a program with `caps`."""
    blocks = -(-sizes["num_envs"] // caps["env_block"])
    samples = blocks * caps["env_block"]
    return sizes["rollout_length"] * (blocks * ROW_OVERHEAD + samples * arithmetic.step)


def cycle_work(sizes: Sizes, caps: Sizes, arithmetic: Arithmetic) -> tuple[float, float]:
    """Cost of a cycle, in total and of its gradient steps alone; arguments as in `gradient_work`."""
    gradient = gradient_work(sizes, caps, arithmetic)
    return gradient + rollout_work(sizes, caps, arithmetic), gradient


def compilation(caps: Sizes, env: AbstractEnv, accelerator: bool) -> float:
    """Compilation time, in units of that with a simple environment, one chunk size and no branches.

    Both are for the same kind of machine, an `accelerator` or a CPU.
    """
    added = env.compilation * (ENV_COMPILATION if accelerator else 1)
    return 0.5 + added + (0.65 if has_alternatives(caps) else 0.5) * len(caps["minibatch_chunks"])


def unshared(caps: Sizes, sizes: Sizes) -> dict[str, Any]:
    """`caps` with the block and chunk sizes that suit a lane of `sizes` best."""
    chunk = min(sizes["minibatch"], LARGEST_CHUNK)
    return {**caps, "minibatch_chunks": (chunk,), "env_block": sizes["num_envs"]}


def preferred_chunks(sizes: Sequence[Sizes]) -> list[int]:
    """The chunk sizes that suit the lanes of `sizes` best, in ascending order."""
    return sorted({min(s["minibatch"], LARGEST_CHUNK) for s in sizes})


def with_blocks(
    caps: dict[str, Any], sizes: Sequence[Sizes], cycles: Sequence[int], arithmetic: Arithmetic
) -> dict[str, Any]:
    """Complete `caps`, for lanes of `sizes`, with the block of least cost per cycle and the best chunks."""
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


def whole(caps: dict[str, Any]) -> dict[str, Any]:
    """`caps` with a single block of environments and a single chunk of a minibatch, for accelerators.

    Blocks and chunks keep data in the cache of a core; an accelerator has no use for them, and padding costs
    it less than a loop.
    """
    return {
        **caps,
        "env_block": Extent(caps["num_envs"]),
        "env_blocks": Extent(1),
        "minibatch_chunks": (caps["minibatch"],),
        **{name: False for name in caps if name.endswith(".batch_last")},
    }


def _chunks(sizes: Sequence[Sizes], cycles: Sequence[int], arithmetic: Arithmetic) -> tuple[int, ...]:
    """The up to `MOST_CHUNKS` chunk sizes of least cost, chosen from at most ten candidates."""
    best = preferred_chunks(sizes)
    thinned = best if len(best) <= 10 else [best[round(i * (len(best) - 1) / 9)] for i in range(10)]

    def cost(chunks: tuple[int, ...]) -> float:
        work = (
            n * gradient_work(s, {"minibatch_chunks": chunks}, arithmetic)
            for n, s in zip(cycles, sizes, strict=True)
        )
        return sum(work) + len(chunks) * CHUNK_COMPILATION

    counts = range(1, min(MOST_CHUNKS, len(thinned)) + 1)
    return min((chunks for n in counts for chunks in combinations(thinned, n)), key=cost)
