"""Hyperparameter sensitivity: how much the performance of an agent depends on tuning per environment.

After Adkins et al. 2024, "A method for evaluating hyperparameter sensitivity in reinforcement learning".
Scores are made comparable between environments by scaling them with percentiles of all scores on the same
environment. Hyperparameter sensitivity is the score of an agent tuned for each environment separately, minus
the score of the single sample that is best on average. The effective hyperparameter dimensionality is the
smallest number of hyperparameters that have to be tuned per environment, while the others keep the values of
that single sample, to retain 95 % of the score of tuning all of them. Scores that are scaled have no natural
zero: where that score is below 1, at most 0.05 may be lost, which is 5 % of the range of the percentiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import polars as pl
from jaxtyping import Float, Int

from hyperlax.report.evaluations import behind
from hyperlax.report.importance import hyperparameters_of
from hyperlax.report.scores import described, measured_alike, sample_scores, seed_scores
from hyperlax.statistics import Unavailable, iqm, quantiles
from hyperlax.storage.results import Results

PERCENTILES = (0.05, 0.95)
"""Percentiles of the scores on an environment that are scaled to 0 and 1."""
RETAINED = 0.95
"""Share of the fully tuned score that the effective dimensionality has to retain."""
_MAX_DIMENSIONS = 12
"""Maximum number of hyperparameters: all their subsets are tried."""


def normalised(
    scores: Float[np.ndarray, "samples *repetitions"], pool: Float[np.ndarray, " scores"]
) -> Float[np.ndarray, "samples *repetitions"]:
    """Scale the scores on one environment so that the 5th percentile of `pool` is 0 and the 95th is 1.

    `pool` holds the scores of all agents on that environment. NaN if the two percentiles are equal.
    """
    low, high = (float(q) for q in quantiles(pool[None], PERCENTILES)[:, 0])
    return (scores - low) / (high - low if high > low else np.nan)


def tuned_scores(
    scores: Float[np.ndarray, "environments samples *repetitions"],
) -> tuple[
    Float[np.ndarray, "*repetitions"], Float[np.ndarray, "*repetitions"], Int[np.ndarray, "*repetitions"]
]:
    """Return the score of tuning per environment, that of tuning once for all, and the sample of the latter.

    The first is the mean over environments of the best score on each, the second the mean score of the sample
    that is best on average; their difference is the hyperparameter sensitivity. A sample that is NaN in some
    environment cannot be the one for all; a score is NaN if no sample is left.
    """
    known = np.where(np.isnan(scores), -np.inf, scores)
    everywhere = known.mean(axis=0)
    own, common = known.max(axis=1).mean(axis=0), everywhere.max(axis=0)
    own, common = (np.where(np.isfinite(score), score, np.nan) for score in (own, common))
    return own, common, np.asarray(everywhere.argmax(axis=0))


def scores_by_tuned(
    scores: Float[np.ndarray, "environments samples"], levels: Int[np.ndarray, "samples dimensions"]
) -> Float[np.ndarray, " dimensions_and_none"]:
    """Return the best mean score if k hyperparameters are tuned per environment, for k = 0 … dimensions.

    For each k the best set of k hyperparameters is taken; the others keep their values in the sample that is
    best on average. `levels` numbers the values of every hyperparameter; the samples should be all
    combinations of these values.
    """
    default = int(tuned_scores(scores)[2])
    known = np.where(np.isnan(scores), -np.inf, scores)
    differs = levels != levels[default]
    dimensions = levels.shape[1]
    best = np.full(dimensions + 1, -np.inf)
    for count in range(dimensions + 1):
        for tuned in combinations(range(dimensions), count):
            fixed = np.setdiff1d(np.arange(dimensions), tuned)
            allowed = ~differs[:, fixed].any(axis=1)
            best[count] = max(best[count], known[:, allowed].max(axis=1).mean())
    return best


def effective_dimensionality(
    by_tuned: Float[np.ndarray, " dimensions_and_none"], retained: float = RETAINED
) -> int:
    """Return the smallest number of hyperparameters to tune for a share `retained` of the full score.

    `by_tuned` holds the scaled score for each number of tuned hyperparameters, from none to all. What may be
    lost is the rest of the share, of the full score or of the range from 0 to 1 if that is larger: a share of
    a score below zero would be a higher score.
    """
    return int(np.argmax(by_tuned >= by_tuned[-1] - (1 - retained) * max(1.0, float(by_tuned[-1]))))


def sensitivity(
    scores: Sequence[Float[np.ndarray, "samples _"]], pools: Sequence[Float[np.ndarray, "_"]]
) -> tuple[float, float, float]:
    """Return the scores of tuning per environment and of tuning once, and the sensitivity, their difference.

    `scores` has one array (samples, seeds) per environment, with the samples in the same order; `pools` has
    the scores of all agents on each environment. The maximum of noisy scores is optimistic, and more so when
    it is taken in each environment: with few seeds the sensitivity tends to be too high. For the same reason
    there is no interval: none holds for a maximum.
    """
    single = [normalised(iqm(s, axis=1), p) for s, p in zip(scores, pools, strict=True)]
    own, common, _ = tuned_scores(np.stack(single))
    return float(own), float(common), float(own - common)


COLUMNS = ("per_environment", "across_environments", "sensitivity")


def sensitivity_table(experiments: Sequence[Results]) -> pl.DataFrame:
    """Return the sensitivity of every family that was trained with the same samples on several environments.

    Columns: `family` (its recipe), `environments`, `samples` (the number they share), `missing` (how many
    scores of these are, on an environment, unknown or of fewer env steps than others), for each of `COLUMNS`
    the value, `best_for_all` (the id of the sample that is best on average),
    `effective_dimensionality` (null unless the samples are a full grid) and `hyperparameters` (the number
    that vary) and what the scores are (`metric`, `definition`). Lanes that continue from copies of others do
    not show what their samples reach, and are left out. Raises `Unavailable` if there is no such family, or
    if all samples are equally good on some environment.
    """
    experiments = [results for results in measured_alike(experiments) if not len(results.lineage)]
    found_scores = {id(results): _by_seed(results) for results in experiments}
    pools: dict[str, np.ndarray] = {}
    for results in experiments:
        over_seeds = iqm(found_scores[id(results)][1], axis=1)
        env = _env(results)
        pools[env] = np.concatenate([pools.get(env, np.empty(0)), over_seeds])
    rows, reason = [], "No family was trained with the same samples in two environments or more."
    for family, group in _families_by_recipe(experiments).items():
        if not (shared := _shared_samples(group)):
            continue
        scores = []
        for results in group:
            place = {sample: row for row, sample in enumerate(found_scores[id(results)][0].tolist())}
            values = found_scores[id(results)][1]
            none = np.full(values.shape[1], np.nan)
            scores.append(np.array([values[place[s]] if s in place else none for s in shared]))
        if any(np.isnan(s).all() for s in scores):
            continue
        reason = f"The sensitivity of {family} is undefined: in one environment all samples are equally good."
        pool = [pools[_env(results)] for results in group]
        found = sensitivity(scores, pool)
        if not np.isfinite(found).all():
            continue
        single = [normalised(iqm(s, axis=1), p) for s, p in zip(scores, pool, strict=True)]
        row: dict[str, object] = {"family": family, "environments": len(group), "samples": len(shared)}
        row["missing"] = int(np.isnan(np.stack(single)).sum())
        row |= dict(zip(COLUMNS, found, strict=True))
        row["best_for_all"] = shared[int(tuned_scores(np.stack(single))[2])]
        rows.append({**row, **_effective_dimensionality(group[0], shared, np.stack(single))})
    if not rows:
        raise Unavailable(reason)
    return described(pl.DataFrame(rows, infer_schema_length=None).fill_nan(None), experiments[0]).drop(
        "recipe"
    )


def _effective_dimensionality(
    results: Results, shared: list[int], scores: np.ndarray
) -> dict[str, int | None]:
    """Return the number of hyperparameters and, if the shared samples are a full grid, how many matter."""
    samples = results.samples.filter(pl.col("sample").is_in(shared)).sort("sample")
    columns = hyperparameters_of(samples, results.manifest.get("space") or {}).values()
    none = {"effective_dimensionality": None, "hyperparameters": len(columns)}
    if not 0 < len(columns) <= _MAX_DIMENSIONS:
        return none
    levels = np.stack([_number_rows(samples.select(own)) for own in columns], axis=1)
    if np.prod(levels.max(axis=0) + 1.0) != len(np.unique(levels, axis=0)):
        return none
    return {**none, "effective_dimensionality": effective_dimensionality(scores_by_tuned(scores, levels))}


def _number_rows(values: pl.DataFrame) -> Int[np.ndarray, " rows"]:
    """Number the distinct rows of `values` in the order in which they first occur."""
    rows = [str(row) for row in values.rows()]
    known = {row: place for place, row in enumerate(dict.fromkeys(rows))}
    return np.array([known[row] for row in rows])


def _families_by_recipe(experiments: Sequence[Results]) -> dict[str, list[Results]]:
    """Group experiments by recipe, with one experiment per environment, and keep groups of two or more."""
    found: dict[str, dict[str, Results]] = {}
    for results in experiments:
        recipe = str(results.manifest.get("recipe", results.name))
        found.setdefault(recipe, {}).setdefault(_env(results), results)
    return {recipe: list(by_env.values()) for recipe, by_env in found.items() if len(by_env) > 1}


def _shared_samples(group: Sequence[Results]) -> list[int]:
    """Return the ids of the samples with equal hyperparameters everywhere; none if fewer than two."""
    first = group[0].samples.drop("matrix", "pair", strict=False)
    known = {row["sample"]: row for row in first.iter_rows(named=True)}
    for results in group[1:]:
        other = {
            row["sample"]: row
            for row in results.samples.drop("matrix", "pair", strict=False).iter_rows(named=True)
        }
        known = {sample: row for sample, row in known.items() if other.get(sample) == row}
    return sorted(known) if len(known) > 1 else []


def _by_seed(results: Results) -> tuple[np.ndarray, Float[np.ndarray, "samples seeds"]]:
    """Return the sample ids and the score of every seed, NaN for those that cannot be compared (`behind`)."""
    ids = sample_scores(results)["sample"]
    values = seed_scores(results, ids.to_list())
    values[ids.is_in(list(behind(results))).to_numpy()] = np.nan
    return ids.to_numpy(), values


def _env(results: Results) -> str:
    return str(results.manifest.get("env", "an unnamed environment"))
