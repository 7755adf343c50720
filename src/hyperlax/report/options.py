"""What a reader may choose about the pictures of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from hyperlax.hyperparams import nearest
from hyperlax.report.metrics import METRICS


@dataclass(frozen=True)
class Options:
    """How the charts of an experiment are drawn.

    - `top`: how many of the best samples are drawn together.
    - `metric`: of `METRICS`, what slices, parallel coordinates and colours show of a sample.
    - `informed`: titles of images say which experiment they are of, and how it was made.

    Raises ValueError for a metric that is not known, with the nearest that is.
    """

    top: int = 5
    metric: str = "peak_return"
    informed: bool = False

    def __post_init__(self):
        if self.metric not in METRICS:
            hint = nearest(self.metric, METRICS)
            raise ValueError(f'unknown metric "{self.metric}"{hint}; known: {", ".join(METRICS)}')
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
