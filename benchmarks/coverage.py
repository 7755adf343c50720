"""Do the intervals, orders and claims of `hyperlax.statistics` hold? Simulations with known truths.

    python benchmarks/coverage.py [--repetitions 4000] [--only intervals orders claims importance]

Most rows of the table are rates over the repetitions: how often an interval covers the truth where there is
one ("–" if there is none), how often a leaderboard holds a false order, how often a claim is false or found.
Those of widths, noise and importance are averages, the last over 100 repetitions.
Rows outside of what is to be reached are marked. Writes `benchmarks/out/coverage.json`.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from hyperlax import statistics as st

COUNTS = (3, 4, 5, 8, 10, 20)
COVERED = (0.93, 0.99)
AT_MOST = (0.0, 0.0575)
"""At most 5 %, plus two standard errors of a rate of 5 % over 4,000 repetitions and the last digit."""
Draw = Callable[[tuple[int, ...], np.random.Generator], np.ndarray]
Score = Callable[[np.ndarray], np.ndarray]


class Rate(NamedTuple):
    """One row: a rate over the repetitions, NaN if there is no interval, and what is to be reached."""

    what: str
    case: str
    runs: str
    rate: float
    reach: tuple[float, float]

    @property
    def holds(self) -> bool:
        return bool(np.isnan(self.rate) or self.reach[0] <= round(self.rate, 3) <= self.reach[1])


def failing(share: float) -> Draw:
    """Draw runs of which a share fails: around 0 instead of around 1, with a spread of 0.05."""

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return (rng.random(shape) >= share) + 0.05 * rng.normal(size=shape)

    return draw


def saturated(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw runs of which 40 % reach the largest return there is, 500."""
    return np.where(rng.random(shape) < 0.4, 500.0, 500 - 100 * rng.exponential(size=shape))


DRAWS: dict[str, Draw] = {
    "normal": lambda shape, rng: rng.normal(size=shape),
    "skewed": lambda shape, rng: rng.exponential(size=shape),
    "skewed heavily": lambda shape, rng: np.exp(rng.normal(size=shape)),
    "20 % failing": failing(0.2),
    "27 % failing": failing(0.27),
    "30 % failing": failing(0.3),
    "40 % failing": failing(0.4),
    "saturated": saturated,
}
USUAL = ("normal", "skewed", "30 % failing", "saturated")


def covered(low: np.ndarray, high: np.ndarray, truth: np.ndarray | float) -> float:
    """The share of the intervals that hold the truth, among those that exist; NaN if fewer than 1 % do."""
    known = ~np.isnan(low)
    slack = 1e-9
    hits = (low <= truth + slack) & (truth - slack <= high)
    return float(np.mean(hits[known])) if np.mean(known) > 0.01 else np.nan


@cache
def population(case: str) -> np.ndarray:
    """A million ordered values of a distribution, from which truths are taken."""
    return np.sort(DRAWS[case]((1_000_000,), np.random.default_rng(1)))


def intervals(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Coverage of the intervals of averages, quantiles, profiles, correlations and sample complexity."""
    for case, draw in DRAWS.items():
        everyone = population(case)
        middle, median = float(st.iqm(everyone)), float(np.median(everyone))
        for n in COUNTS:
            runs = draw((repetitions, n, 1), rng)
            over_runs = st.iqm_over_runs(runs)
            yield Rate(
                "IQM", case, f"{n}", covered(over_runs.low[:, 0], over_runs.high[:, 0], middle), COVERED
            )
            over_runs = st.median_over_runs(runs)
            rate = covered(over_runs.low[:, 0], over_runs.high[:, 0], median)
            yield Rate("median", case, f"{n}", rate, (0.93, 1.0) if case == "saturated" else COVERED)
    for case in USUAL:
        for n in COUNTS:
            yield Rate("profile, all thresholds", case, f"{n}", profile(case, n, repetitions, rng), (0.93, 1))
    for case in USUAL[:3]:
        for n in COUNTS:
            yield from complexity(case, n, repetitions, rng)
        for n in (10, 20, 64):
            for k, rate in best(case, n, repetitions, rng).items():
                yield Rate(f"median best of {k}", case, f"{n} samples", rate, (0.93, 1))
    for count in (2, 4, 8, 16, 64):
        found = [st.iqm_over_runs(rng.normal(size=(count, 10, 1))) for _ in range(min(repetitions, 2_000))]
        places = [int(np.argmax(e.value)) for e in found]
        low, high = (
            np.array([getattr(e, end)[place, 0] for e, place in zip(found, places, strict=True)])
            for end in ("low", "high")
        )
        yield Rate("IQM of the best", "normal", f"10, of {count} equals", covered(low, high, 0.0), (0.0, 1.0))
    for case in (*USUAL[:3], "27 % failing"):
        for count in (5, 9):
            for n in COUNTS:
                strata = np.stack([DRAWS[case]((n, repetitions), rng) + shift for shift in range(count)])
                found = st.iqm_over_strata(strata)
                truth = float(st.iqm(population(case))) + (count - 1) / 2
                rate = covered(found.low, found.high, truth)
                yield Rate(f"IQM over {count} samples", case, f"{n}", rate, (0.9, 1.0))
    yield from correlations(repetitions, rng)


def profile(case: str, n: int, repetitions: int, rng: np.random.Generator) -> float:
    """How often a band holds the distribution at every threshold: at the values, and just below them."""
    everyone, hits = population(case), []
    for values in DRAWS[case]((repetitions, n), rng):
        at = np.unique(values)
        at = np.concatenate([at, at - 1e-9])
        band = st.performance_profile(values, at)
        truth = 1 - np.searchsorted(everyone, at, side="right") / len(everyone)
        hits.append(np.all((band.low <= truth + 1e-3) & (truth - 1e-3 <= band.high)))
    return float(np.mean(hits))


def best(case: str, n: int, repetitions: int, rng: np.random.Generator) -> dict[int, float]:
    """Coverage of the median best of k by k, for the sizes of search that have intervals."""
    everyone = population(case)
    found = [st.median_best_of_k(values) for values in DRAWS[case]((repetitions, n), rng)]
    return {
        k: covered(
            np.array([e.low[k - 1] for e in found]),
            np.array([e.high[k - 1] for e in found]),
            float(np.quantile(everyone, 0.5 ** (1 / k))),
        )
        for k in (1, 2, n // 4, n)
    }


def complexity(case: str, n: int, repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Coverage of the steps after which half of the runs reach a target, for n seeds and for n samples.

    The seeds of a sample share half of the variance of the time that they take.
    """
    for label, shape in (("seeds", (1, n)), ("samples of 3 seeds", (n, 3))):
        common = DRAWS[case]((100_000, 1), rng) + DRAWS[case]((100_000, shape[1]), rng)
        everyone = common if shape[0] > 1 else DRAWS[case]((300_000,), rng)
        truth, steps = np.median(everyone), np.linspace(everyone.min() - 1, everyone.max(), 2_001)
        low, high = np.full((2, repetitions), np.nan)
        for row in range(repetitions):
            times = DRAWS[case](shape, rng) + (DRAWS[case]((n, 1), rng) if shape[0] > 1 else 0.0)
            reached = (steps >= times[..., None]).astype(float)
            found = st.sample_complexity(steps, reached, 1.0, 0.5, repetitions=500)
            low[row], high[row] = found.low, found.high
            if row == 50 and np.isnan(low[:50]).all():
                break
        step = steps[1] - steps[0]
        rate = covered(low - step, high + step, truth)
        yield Rate("sample complexity", case, f"{n} {label}", rate, COVERED)


def correlations(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Coverage of rank correlations of normal pairs, whose truth is (6 / π) arcsin(ρ / 2)."""
    for rho in (0.0, 0.5, 0.8):
        for n in (8, 10, 20, 64):
            pairs = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=(repetitions, n))
            found = [st.spearman(own[:, 0], own[:, 1]) for own in pairs]
            low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
            truth = 6 / np.pi * np.arcsin(rho / 2)
            yield Rate("rank correlation", f"{truth:.2f}", f"{n} pairs", covered(low, high, truth), COVERED)


def orders(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Leaderboards with a false order: of equal samples, equal pairs far apart, and unequally noisy ones."""
    for case in USUAL:
        for k in (4, 16, 64):
            for n in (3, 5, 10):
                false = 0
                for values in DRAWS[case]((repetitions, k, n), rng):
                    false += bool((st.rank_intervals(values)[0] > 1).any())
                yield Rate("false order", case, f"{k} samples × {n}", false / repetitions, AT_MOST)
    for n in (3, 5, 10):
        pairs, noisy, apart = 0, 0, 0
        for _ in range(repetitions):
            values = rng.normal(size=(16, n)) + 100 * (np.arange(16)[:, None] // 2)
            first, last = st.rank_intervals(values)
            pairs += any(first[i] > last[i + 1] or first[i + 1] > last[i] for i in range(0, 16, 2))
            values = rng.normal(size=(16, n)) * np.where(np.arange(16) < 4, 10.0, 1.0)[:, None]
            noisy += bool((st.rank_intervals(values)[0] > 1).any())
            first, last = st.rank_intervals(rng.normal(size=(16, n)) + 2 * np.arange(16)[:, None])
            apart += float(np.mean(last - first)) / 15
        yield Rate("false order", "8 pairs of equals", f"16 samples × {n}", pairs / repetitions, AT_MOST)
        yield Rate("false order", "4 noisy of 16", f"16 samples × {n}", noisy / repetitions, AT_MOST)
        yield Rate("width of the ranks, of all", "2 sd apart", f"16 × {n}", apart / repetitions, (0, 1))


def claims(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Differences of two families: coverage, false claims and power; the probability of improvement."""
    sizes = {"normal": 1.0, "skewed": 1.0, "30 % failing": 0.46, "saturated": 89.0}
    for case in USUAL:
        for n in COUNTS:
            for shift in (0.0, 1.0, 2.0):
                moved = shift * sizes[case]
                ours, theirs = DRAWS[case]((repetitions, n), rng) + moved, DRAWS[case]((repetitions, n), rng)
                found = [st.difference(a, b) for a, b in zip(ours, theirs, strict=True)]
                low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
                rate = float(np.mean([e.p <= 0.05 for e in found]))
                apart = f"{shift:g} sd"
                yield Rate("difference", f"{case}, {apart}", f"{n}", covered(low, high, moved), COVERED)
                if shift == 0:
                    yield Rate("false “ahead”", case, f"{n}", rate, AT_MOST)
                elif n >= 5:
                    reach = (0.8, 1.0) if shift == 2 and case != "30 % failing" else (0.0, 1.0)
                    yield Rate(f"“ahead” found, {apart}", case, f"{n}", rate, reach)
                yield improvement(case, n, moved, apart, ours, theirs)
        for n in COUNTS:
            yield from pairs(case, n, sizes[case], repetitions, rng)
    yield from unequal(repetitions, rng)
    for n in (5, 10):
        yield Rate(
            "false “ahead”, 10 pairs of families", "normal", f"{n}", holm(n, repetitions, rng), AT_MOST
        )
    for n in COUNTS:
        means = np.array([[0.0] * 5, [1.0] * 5])[..., None]
        found = []
        for _ in range(repetitions):
            before, after = rng.normal(size=(2, 5, n)) + means[0] + 3 * rng.normal(size=(5, 1))
            found.append(st.average_difference(list(zip(before + 1, after, strict=True))))
        low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
        yield Rate("average drop of 5 samples", "normal", f"{n}", covered(low, high, 1.0), COVERED)


def pairs(case: str, n: int, size: float, repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Paired differences of n samples that families share, whose levels spread three times as much."""
    for shift in (0.0, 1.0, 2.0):
        level = 3 * size * rng.normal(size=(repetitions, n))
        ours = level + DRAWS[case]((repetitions, n), rng) + shift * size
        theirs = level + DRAWS[case]((repetitions, n), rng)
        found = [st.paired_difference(a, b) for a, b in zip(ours, theirs, strict=True)]
        low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
        apart, claimed = f"{shift:g} sd", float(np.mean([e.p <= 0.05 for e in found]))
        rate = covered(low, high, shift * size)
        yield Rate("paired difference", f"{case}, {apart}", f"{n}", rate, COVERED)
        if shift == 0:
            yield Rate("false “ahead”, paired", case, f"{n}", claimed, AT_MOST)
        else:
            yield Rate(f"“ahead” found, {apart}, paired", case, f"{n}", claimed, (0.0, 1.0))


def unequal(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Groups of equal mean that differ in size and spread, and pairs with skewed gaps of mean zero."""
    cases: dict[str, tuple[Callable[[int], np.ndarray], Callable[[int], np.ndarray], tuple]] = {
        "normal, 5 times the spread": (
            lambda n: 5 * rng.normal(size=n),
            lambda n: rng.normal(size=n),
            ((3, 12), (5, 20), (20, 5), (5, 40), (8, 32), (8, 64)),
        ),
        "skewed, 5 times the spread": (
            lambda n: 5 * (rng.exponential(size=n) - 1),
            lambda n: rng.exponential(size=n) - 1,
            ((5, 20), (8, 32), (20, 60)),
        ),
        "20 % at 500, steady at 180": (
            lambda n: np.where(rng.random(n) < 0.2, 500.0, 100.0),
            lambda n: np.full(n, 180.0),
            ((16, 16),),
        ),
    }
    for case, (ours, theirs, sizes) in cases.items():
        above = ours(20_000)[:, None]
        below = theirs(200)[None]
        truth = float(np.mean(above > below) + np.mean(above == below) / 2)
        for m, n in sizes:
            drawn = [(ours(m), theirs(n)) for _ in range(repetitions)]
            false = float(np.mean([st.difference(a, b).p <= 0.05 for a, b in drawn]))
            yield Rate("false “ahead”", case, f"{m} against {n}", false, (0.0, 0.15))
            if min(m, n) >= st.MIN_PER_SIDE:
                found = [st.probability_of_improvement(a, b) for a, b in drawn]
                low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
                rate = covered(low - 0.01, high + 0.01, truth)
                yield Rate("probability of improvement", case, f"{m} against {n}", rate, (0.9, 1.0))
    gaps: dict[str, Callable[[int], np.ndarray]] = {
        "skewed gaps": lambda n: rng.exponential(size=n) - 1,
        "gaps skewed heavily": lambda n: np.exp(rng.normal(size=n)) - np.exp(0.5),
    }
    for case, draw in gaps.items():
        for n in (8, 14, 20, 50):
            claimed = [st.paired_difference(draw(n), np.zeros(n)).p <= 0.05 for _ in range(repetitions)]
            yield Rate("false “ahead”, paired", case, f"{n}", float(np.mean(claimed)), (0.0, 0.15))


def improvement(case: str, n: int, moved: float, apart: str, ours: np.ndarray, theirs: np.ndarray) -> Rate:
    """Coverage of the probability of improvement."""
    everyone = population(case)[::50]
    above = np.searchsorted(everyone, everyone + moved, side="left")
    level = np.searchsorted(everyone, everyone + moved, side="right")
    truth = float(np.mean(above + level)) / 2 / len(everyone)
    found = [st.probability_of_improvement(a, b) for a, b in zip(ours, theirs, strict=True)]
    low, high = (np.array([float(getattr(e, end)) for e in found]) for end in ("low", "high"))
    rate = covered(low - 1e-3, high + 1e-3, truth)
    return Rate("probability of improvement", f"{case}, {apart}", f"{n}", rate, (0.93, 1.0))


def holm(n: int, repetitions: int, rng: np.random.Generator) -> float:
    """How often any of the 10 pairs of 5 equal families is claimed to differ."""
    false = 0
    for families in rng.normal(size=(repetitions, 5, n)):
        p = [st.difference(families[i], families[j]).p for i in range(5) for j in range(i)]
        false += bool((st.holm(np.array(p)) <= 0.05).any())
    return false / repetitions


def importance(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Effects claimed of inert hyperparameters, and found of one that matters; noise of the seeds."""
    for n in (16, 64):
        false, found = 0, 0
        for _ in range(repetitions):
            x = rng.random((3, n))
            dims = [st.Dimension(f"x{i}", (own * 50).astype(int), 50, True) for i, own in enumerate(x)]
            dims.append(st.Dimension("choice", rng.integers(3, size=n), 3, False))
            noise = rng.normal(size=(n, 1))
            false += bool((st.importances(noise, dims, repetitions=400).p <= 0.05).any())
            found += bool(st.importances(5 * x[0][:, None] + noise, dims, repetitions=400).p[0] <= 0.05)
        yield Rate("false “effect”", "4 inert hyperparameters", f"{n} samples", false / repetitions, AT_MOST)
        yield Rate("“effect” found", "5 sd over its range", f"{n} samples", found / repetitions, (0, 1))
    for n in (3, 5, 10):
        truth = float(np.var(st.iqm(rng.normal(size=(200_000, n)))))
        shares = [
            st.noise_share(rng.normal(size=(64, 1)) * np.sqrt(truth) + rng.normal(size=(64, n)))
            for _ in range(repetitions)
        ]
        yield Rate("share of noise, true 0.5", "normal", f"{n}", float(np.mean(shares)), (0.45, 0.55))
    yield from known_divergences(rng)
    yield from indices(min(repetitions, 400), rng)


def indices(repetitions: int, rng: np.random.Generator) -> Iterator[Rate]:
    """Coverage of Sobol' indices, by hyperparameter, of independent rows with noise of 0.3."""
    for case, score in {
        "smooth": lambda x: 3 * x[:, 0] + x[:, 1] * x[:, 2],
        "one in twenty": lambda x: 10.0 * (x[:, 0] > 0.9) * (x[:, 1] > 0.5) + x[:, 2],
    }.items():
        truth = _jansen(score, 500_000, np.random.default_rng(3))
        for rows in (64, 256):
            hits = np.zeros((2, 4))
            for _ in range(repetitions):
                found = st.sobol_indices(*_rows(score, rows, rng), repetitions=500)[:2]
                hits += [(e.low <= t) & (t <= e.high) for e, t in zip(found, truth, strict=True)]
            for kind, rates in zip(("first order", "total"), hits / repetitions, strict=True):
                for place, rate in enumerate(rates.tolist()):
                    yield Rate(f"Sobol' index, {kind}", case, f"{rows} rows, x{place}", rate, (0.7, 1.0))


def _rows(score: Score, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the noisy scores of the matrices A, B and AB."""
    a, b = rng.random((2, rows, 4))
    mixed = [np.where(np.arange(4) == place, b, a) for place in range(4)]
    noisy = [score(x) + 0.3 * rng.normal(size=rows) for x in (a, b, *mixed)]
    return noisy[0], noisy[1], np.stack(noisy[2:])


def _jansen(score: Score, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of all rows, first-order and total, without an interval."""
    a, b, ab = _rows(score, rows, rng)
    variance = np.var(np.concatenate([a, b]))
    return 1 - np.mean((b - ab) ** 2, axis=1) / 2 / variance, np.mean((a - ab) ** 2, axis=1) / 2 / variance


def known_divergences(rng: np.random.Generator) -> Iterator[Rate]:
    """Divergence of a choice and of a number, over the known one, by our estimate and by Optuna's."""
    for n in (64, 256, 1024):
        found = []
        for _ in range(100):
            x, choice = rng.random(n), rng.integers(3, size=n)
            score = norm.ppf(np.clip(x, 1e-9, 1 - 1e-9)) + 1.0 * (choice == 0)
            dims = [
                st.Dimension("x", (x * 50).astype(int), 50, True),
                st.Dimension("choice", choice, 3, False),
            ]
            top = st.top_samples(score)[None]
            ours = [float(st.divergence(dim, top)[0]) for dim in dims]
            found.append([*ours, *(by_optuna(x, choice, score) if len(found) < 10 else (np.nan, np.nan))])
        ratios = np.nanmean(found, axis=0) / np.tile(known_truth(), 2)
        for name, ratio in zip(("number", "choice", "number, Optuna", "choice, Optuna"), ratios, strict=True):
            yield Rate("importance, over the true one", name, f"{n} samples", float(ratio), (0, 2))


def by_optuna(x: np.ndarray, choice: np.ndarray, score: np.ndarray) -> tuple[float, float]:
    """Optuna's divergences of the number and the choice, without the factor that all of them share."""
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    spaces = {"x": FloatDistribution(0, 1), "choice": CategoricalDistribution([0, 1, 2])}
    study = optuna.create_study(direction="maximize")
    for own_x, own_choice, value in zip(x.tolist(), choice.tolist(), score.tolist(), strict=True):
        params = {"x": own_x, "choice": own_choice}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=spaces, value=value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return found["x"] / 0.1**2, found["choice"] / 0.1**2


@cache
def known_truth() -> tuple[float, float]:
    """The divergences of the best tenth in the population of `known_divergences`, on the same grids."""
    rng = np.random.default_rng(2)
    x, choice = rng.random(4_000_000), rng.integers(3, size=4_000_000)
    top = st.top_samples(norm.ppf(x) + 1.0 * (choice == 0))
    number = np.bincount((x[top] * 50).astype(int), minlength=50) / top.sum()
    category = np.bincount(choice[top]) / top.sum()
    return float(50 * np.sum((number - 1 / 50) ** 2)), float(3 * np.sum((category - 1 / 3) ** 2))


PARTS = {"intervals": intervals, "orders": orders, "claims": claims, "importance": importance}


def main() -> None:
    from common import save, table

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4_000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    chosen = parser.parse_args()
    rates = []
    for part in chosen.only:
        rates += PARTS[part](chosen.repetitions, np.random.default_rng(0))
    rows = [
        {
            "what": r.what,
            "case": r.case,
            "seeds or samples": r.runs,
            "rate": "–" if np.isnan(r.rate) else f"{r.rate:.3f}",
            "to reach": f"{r.reach[0]:.2f} to {r.reach[1]:.2f}",
            "": "" if r.holds else "← outside",
        }
        for r in rates
    ]
    table(rows, f"{chosen.repetitions} repetitions")
    save("coverage", [{**r._asdict(), "holds": r.holds} for r in rates])


if __name__ == "__main__":
    main()
