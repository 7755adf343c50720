"""Options for the charts of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from hyperlax.hyperparams import nearest
from hyperlax.report.metrics import METRICS


@dataclass(frozen=True)
class Options:
    """Options for the charts of an experiment.

    - `top`: number of best samples that are drawn together.
    - `metric`: one of `METRICS`, by which slices and parallel coordinates score and colour the samples.
    - `informed`: whether titles of exported images name the experiment and its settings.

    Raises ValueError if `top` is below 1, or if `metric` is unknown; the message suggests the nearest name.
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
