"""Networks as stacks of dense layers, for programs that know nothing of this package."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class PlainLayer(NamedTuple):
    """A dense layer, then LayerNorm if there is one, then an activation.

    - `scale`, `shift`: those of LayerNorm, whose ε is `layer_norm.LAYER_NORM_EPS`; None without it.
    - `activation`: one of `mlp.ACTIVATIONS`, or `none`.
    """

    weight: Float[np.ndarray, "out in"]
    bias: Float[np.ndarray, " out"]
    scale: Float[np.ndarray, " out"] | None = None
    shift: Float[np.ndarray, " out"] | None = None
    activation: str = "none"
