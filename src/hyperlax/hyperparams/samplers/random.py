"""Independent random samples."""

from __future__ import annotations

from typing import final

import numpy as np

from hyperlax.hyperparams.samplers.base import AbstractPointDesign, Points


@final
class Random(AbstractPointDesign):
    """Independent samples, from points drawn uniformly from the unit cube."""

    def points(self, first: int, last: int) -> Points:
        return np.random.default_rng(int(self.seed)).random((last, len(self.space)))[first:]
