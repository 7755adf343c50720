"""Halton sequences."""

from __future__ import annotations

from typing import final

import numpy as np

from hyperlax.hyperparams.samplers.base import AbstractPointDesign, Points


@final
class Halton(AbstractPointDesign):
    """A scrambled Halton sequence (Halton 1960), which uses another prime base for each dimension."""

    def points(self, first: int, last: int) -> Points:
        from scipy.stats import qmc

        rng = np.random.default_rng(int(self.seed))
        return qmc.Halton(len(self.space), scramble=True, rng=rng).random(last)[first:]
