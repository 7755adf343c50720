"""Halton sequences."""

from __future__ import annotations

from typing import final

import numpy as np

from hyperlax.hyperparams.samplers.base import AbstractPointDesign, Points


@final
class Halton(AbstractPointDesign):
    """A scrambled Halton sequence: each dimension counts in a prime base of its own."""

    def points(self, first: int, last: int) -> Points:
        from scipy.stats import qmc

        rng = np.random.default_rng(int(self.seed))
        return qmc.Halton(len(self.space), scramble=True, rng=rng).random(last)[first:]
