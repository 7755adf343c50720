"""How tests compile: little optimisation, because programs hardly run."""

from __future__ import annotations

from functools import partial

import jax

from hyperlax.lanes.compilation import compiler_options

LOW_EFFORT = compiler_options("low", "cpu")

quick = partial(jax.jit, compiler_options=LOW_EFFORT)
"""One program for what would be dozens if it ran operation by operation, each compiled on its own."""
