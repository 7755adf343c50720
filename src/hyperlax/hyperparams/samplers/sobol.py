"""Sobol' sequences."""

from __future__ import annotations

import math
from typing import final

from hyperlax.hyperparams.samplers.base import AbstractPointDesign, Points


@final
class Sobol(AbstractPointDesign):
    """A scrambled Sobol' sequence (Owen 1998), whose first 2ᵏ points fill every dimension evenly."""

    def points(self, first: int, last: int) -> Points:
        from scipy.stats import qmc

        # `seed=`, because scipy would spawn another generator for `rng=` and change the published design
        sequence = qmc.Sobol(len(self.space), scramble=True, seed=int(self.seed))  # pyright: ignore[reportCallIssue]
        return sequence.random_base2(math.ceil(math.log2(last)))[first:last]
