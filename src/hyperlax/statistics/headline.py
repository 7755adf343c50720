"""The headline metric: the one number by which a sample is scored, ranked, searched for and recommended.

Every metric gives each seed a value, and the sample the average of its seeds. They differ in what they take
from the learning curve. `final` is the default: it is the return of what training leaves behind, in the units
of the environment, it needs no reference scores, and it is not a maximum, so that luck does not add to it. A
maximum over evaluations grows with their number and with their noise, and rewards an agent that forgets;
`peak` and `peak_of_mean` are there because others publish them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hyperlax.statistics.averages import iqm, mean
from hyperlax.statistics.curves import final_return, mean_return, peak_return
from hyperlax.statistics.estimates import Estimate, without_interval
from hyperlax.statistics.intervals import iqm_over_runs

Steps = Float[np.ndarray, "samples points"]
Returns = Float[np.ndarray, "samples seeds points"]
PerSeed = Float[np.ndarray, "samples seeds"]

DEFAULT = "final"
PUBLISHED = "peak_of_mean"
"""The metric of the published protocol, which is that of hyperlax v0.1."""


@dataclass(frozen=True)
class Headline:
    """A definition of the score of a sample.

    - `name`: as in `--metric`. `title`: as in tables and on axes. `definition`: a sentence for readers.
    - `per_seed`: the value of every seed, from env steps and returns; NaN stands for a missing evaluation.
    - `average`: what makes the score of a sample of the values of its seeds.
    - `maximum`: whether the score is a maximum over noisy averages, for which no interval holds.
    """

    name: str
    title: str
    definition: str
    per_seed: Callable[[Steps, Returns], PerSeed]
    average: Callable[[PerSeed], Float[np.ndarray, " samples"]] = iqm
    maximum: bool = False

    def of_seeds(self, values: PerSeed) -> Estimate:
        """Return the score of every sample with its 95 % interval over seeds, from the values of the seeds.

        The ends are NaN where no interval holds: with fewer than `MIN_RUNS` seeds, with seeds that all agree,
        and for a maximum.
        """
        if self.maximum:
            return without_interval(self.average(values))
        found = iqm_over_runs(values[..., None])
        return Estimate(found.value[:, 0], found.low[:, 0], found.high[:, 0])

    def score(self, steps: Steps, returns: Returns) -> Float[np.ndarray, " samples"]:
        """Return the score of every sample; NaN for one without an evaluation."""
        return self.average(self.per_seed(steps, returns))


def _by_lane(measure: Callable[[Steps, Steps], np.ndarray]) -> Callable[[Steps, Returns], PerSeed]:
    """Turn a function of single curves into one of samples × seeds, with all NaN moved to the end."""

    def per_seed(steps: Steps, returns: Returns) -> PerSeed:
        if not returns.size:
            return np.full(returns.shape[:2], np.nan)
        rows = returns.reshape(-1, returns.shape[-1])
        order = np.argsort(np.isnan(rows), axis=1, kind="stable")
        values = np.take_along_axis(rows, order, 1)
        at = np.take_along_axis(np.repeat(steps, returns.shape[1], axis=0), order, 1)
        return measure(np.where(np.isnan(values), np.nan, at), values).reshape(returns.shape[:2])

    return per_seed


def _at_peak_of_mean(steps: Steps, returns: Returns) -> PerSeed:
    """Return the returns of all seeds at the evaluation that is best in the mean over seeds."""
    if not returns.size:
        return np.full(returns.shape[:2], np.nan)
    over_seeds = mean(returns, axis=1)
    best = np.argmax(np.where(np.isnan(over_seeds), -np.inf, over_seeds), axis=1)
    return np.take_along_axis(returns, best[:, None, None], axis=2)[..., 0]


_OVER_SEEDS = "interquartile mean over seeds"
HEADLINES: dict[str, Headline] = {
    found.name: found
    for found in (
        Headline(
            "final",
            "final return",
            f"{_OVER_SEEDS} of the mean return of the last tenth of a seed's evaluations (at least one)",
            _by_lane(lambda steps, returns: final_return(returns)),
        ),
        Headline(
            "auc",
            "mean return in training",
            f"{_OVER_SEEDS} of the area under a seed's learning curve, divided by its env steps",
            _by_lane(mean_return),
        ),
        Headline(
            "peak",
            "peak return",
            f"{_OVER_SEEDS} of a seed's largest evaluation, each seed at its own luckiest moment: "
            "no point of the sample's curve is higher",
            _by_lane(lambda steps, returns: peak_return(returns)),
        ),
        Headline(
            "peak_of_mean",
            "peak of the mean return",
            "largest evaluation of the mean curve over seeds, as hyperlax v0.1 published; "
            "a maximum, for which no interval holds",
            _at_peak_of_mean,
            average=mean,
            maximum=True,
        ),
    )
}
"""Name → metric. `final` is the default, `peak_of_mean` that of the published protocol."""
