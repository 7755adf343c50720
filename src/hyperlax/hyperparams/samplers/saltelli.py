"""Designs for variance-based sensitivity analysis."""

from __future__ import annotations

import math
from typing import Any, ClassVar, final

import equinox as eqx
import numpy as np

from hyperlax.hyperparams.samplers.base import AbstractDesign
from hyperlax.hyperparams.spaces import decode


@final
class Saltelli(AbstractDesign):
    """The matrices A and B, and a matrix AB per dimension, as defined by Saltelli et al. 2010.

    A and B, with `size` rows each, are the two halves of the columns of one Sobol' sequence with twice as
    many dimensions. The AB of a dimension is A with the column of that dimension from B. Samples are ordered
    by matrix, and each includes the name of its `matrix`: "A", "B" or "AB:<path>". `omit_ab` leaves out the
    AB.
    """

    omit_ab: bool = eqx.field(default=False, static=True)
    chosen_by: ClassVar[str] = "experiment_type"
    endless: ClassVar[bool] = False

    @property
    def total(self) -> int:
        assert self.size is not None
        return len(self._matrices()) * self.size

    def rows(self, first: int, last: int) -> list[dict[str, Any]]:
        from scipy.stats import qmc

        assert self.size is not None
        size, count = len(self.space), self.size
        rng = np.random.default_rng(int(self.seed))
        sequence = qmc.Sobol(2 * size, scramble=True, rng=rng)
        points = sequence.random_base2(math.ceil(math.log2(count)))[:count]
        a, b = points[:, :size], points[:, size:]
        names, paths = self._matrices(), list(self.space)
        rows = []
        for number in range(first, last):
            matrix, row = names[number // count], number % count
            if matrix in ("A", "B"):
                point = a[row] if matrix == "A" else b[row]
            else:
                column = np.arange(size) == paths.index(matrix.removeprefix("AB:"))
                point = np.where(column, b[row], a[row])
            rows.append({"matrix": matrix, **decode(self.space, point)})
        return rows

    def _matrices(self) -> list[str]:
        """The names of the matrices, in order."""
        return ["A", "B", *(() if self.omit_ab else (f"AB:{path}" for path in self.space))]
