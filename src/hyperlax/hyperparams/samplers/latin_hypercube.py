"""Latin hypercubes."""

from __future__ import annotations

from typing import ClassVar, final

import numpy as np

from hyperlax.hyperparams.samplers.base import AbstractPointDesign, Points


@final
class LatinHypercube(AbstractPointDesign):
    """A Latin hypercube: one point in each of `size` slices of every dimension (McKay et al. 1979).

    The size must be known in advance, because a hypercube of 16 points is not part of one of 64.
    """

    endless: ClassVar[bool] = False

    def points(self, first: int, last: int) -> Points:
        from scipy.stats import qmc

        assert self.size is not None
        rng = np.random.default_rng(int(self.seed))
        return qmc.LatinHypercube(len(self.space), rng=rng).random(self.size)[first:last]
