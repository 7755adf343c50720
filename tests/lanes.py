"""How tests compile: little optimisation, because programs hardly run."""

from __future__ import annotations

from hyperlax.programs.compiled import compiler_options

LOW_EFFORT = compiler_options("low", "cpu")
