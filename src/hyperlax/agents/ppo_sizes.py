"""What a PPO program allocates, and what its cycles cost: the arithmetic behind `plan`.

Costs are in floating-point operations; fixed costs (starting a kernel, a step of a loop) are expressed in
the operations a core would have done meanwhile. They decide how lanes are grouped, never what they learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from hyperlax.agents.base import merge, nested
from hyperlax.networks.base import Sizes

STEP_OVERHEAD = 2.5e6
"""One gradient step of both networks, beyond what follows: loops, losses, small kernels."""
PER_WEIGHT = 270
"""What a step costs per allocated weight whatever the minibatch: the optimiser's passes over memory."""
CHUNK_OVERHEAD = 1e6
SWITCH_OVERHEAD = 2e5
"""Choosing among several chunk sizes."""
ROW_OVERHEAD = 1e6
"""One step of one block of environments, beyond what each environment costs."""
ENV_STEP = 3e4
"""Environment, random numbers and bookkeeping, per environment step."""
LARGEST_CHUNK = 2048
MOST_CHUNKS = 3
CHUNK_COMPILATION = 1e11
"""What compiling the gradient once more, for another chunk size, is worth."""
SMALL_BATCH = 64
"""Up to this many samples, products are faster with the batch first."""


def chunk_for(minibatch: int, chunks: Sequence[int]) -> int:
    """The chunk a minibatch is processed in: the smallest that holds it, else the largest."""
    return next((c for c in chunks if c >= minibatch), chunks[-1])


def gradient_work(sizes: Sizes, caps: Sizes, per_sample: float) -> float:
    """Cost of all gradient steps of a cycle; `per_sample` is one forward pass of both networks."""
    chunk = chunk_for(sizes["minibatch"], caps["minibatch_chunks"])
    count = -(-sizes["minibatch"] // chunk)
    fixed = STEP_OVERHEAD + PER_WEIGHT * per_sample / 2  # a dense layer does two operations per weight
    if len(caps["minibatch_chunks"]) > 1:
        fixed += SWITCH_OVERHEAD
    step = fixed + count * (CHUNK_OVERHEAD + chunk * 3 * per_sample)
    return sizes["epochs"] * sizes["minibatches"] * step


def rollout_work(sizes: Sizes, caps: Sizes, per_sample: float) -> float:
    """Cost of collecting and valuing a rollout."""
    blocks = -(-sizes["num_envs"] // caps["env_block"])
    samples = blocks * caps["env_block"]
    return sizes["rollout_length"] * (blocks * ROW_OVERHEAD + samples * (ENV_STEP + per_sample))


def capacities(
    sizes: Sequence[Sizes], cycles: Sequence[int], networks: Sequence[tuple[str, Any]], in_size: int
) -> dict[str, Any]:
    """Capacities of a program for lanes of `sizes`, block and chunk sizes chosen for the least total cost."""
    caps = merge(sizes)
    per_sample = forward(caps, networks, in_size)
    env_blocks = sorted({s["num_envs"] for s in sizes})
    caps["env_block"] = min(
        env_blocks, key=lambda b: sum(rollout_work(s, {"env_block": b}, per_sample) for s in sizes)
    )
    caps["env_blocks"] = -(-caps["num_envs"] // caps["env_block"])
    caps["minibatch_chunks"] = _chunks(sizes, cycles, per_sample)
    for prefix, _ in networks:
        caps[f"{prefix}.batch_last"] = caps["minibatch_chunks"][0] > SMALL_BATCH
    return caps


def forward(sizes: Sizes, networks: Sequence[tuple[str, Any]], in_size: int) -> float:
    """Operations of one forward pass of all `networks`, given as (prefix, hyperparameter class)."""
    return sum(cls.flops(in_size, nested(sizes, prefix)) for prefix, cls in networks)


def _chunks(sizes: Sequence[Sizes], cycles: Sequence[int], per_sample: float) -> tuple[int, ...]:
    wanted = sorted({min(s["minibatch"], LARGEST_CHUNK) for s in sizes})
    thinned = wanted if len(wanted) <= 10 else [wanted[round(i * (len(wanted) - 1) / 9)] for i in range(10)]

    def cost(chunks: tuple[int, ...]) -> float:
        work = (
            n * gradient_work(s, {"minibatch_chunks": chunks}, per_sample)
            for n, s in zip(cycles, sizes, strict=True)
        )
        return sum(work) + len(chunks) * CHUNK_COMPILATION

    counts = range(1, min(MOST_CHUNKS, len(thinned)) + 1)
    return min((chunks for n in counts for chunks in combinations(thinned, n)), key=cost)
