"""Options for the charts of an experiment."""

from __future__ import annotations

from dataclasses import dataclass

from hyperlax.hyperparams import nearest
from hyperlax.report.metrics import METRICS
from hyperlax.report.scores import SCORE


@dataclass(frozen=True)
class Options:
    """Options for the charts of an experiment.

    - `top`: number of best samples that are drawn together.
    - `metric`: by which slices and parallel coordinates score and colour the samples: one of `METRICS`, or
      `score`, which is the headline metric.
    - `embed_data`: whether pages hold the data of their charts and what draws them; otherwise they hold
      pictures, which are small and cannot be pointed at.
    - `informed`: whether titles of exported images name the experiment and its settings.

    Raises ValueError if `top` is below 1, or if `metric` is unknown; the message suggests the nearest name.
    """

    top: int = 5
    metric: str = SCORE
    informed: bool = False
    embed_data: bool = True

    def __post_init__(self):
        known = (*METRICS, SCORE)
        if self.metric not in known:
            hint = nearest(self.metric, known, f"known: {', '.join(known)}")
            raise ValueError(f'unknown metric "{self.metric}"{hint}')
        if self.top < 1:
            raise ValueError(f"top must be at least 1, got {self.top}")
