"""How tests compile: little optimisation, because programs hardly run."""

from __future__ import annotations

from hyperlax.lanes.compilation import compiler_options

LOW_EFFORT = compiler_options("low", "cpu")
