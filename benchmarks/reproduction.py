"""Samples of the published benchmark trained again at full length in its protocol, sample by sample.

    python benchmarks/reproduction.py --published FOLDER [--cells ppo_mlp:gymnax.pendulum ...] [--samples 16]

`FOLDER` holds the published summaries, <env>_<algo>-<network>_summary.csv. The samples are those of the
published design that take the fewest gradient steps, or the first ones with `--first`. The report also says
what rank correlation two honest runs could have: it is simulated from the published peaks and from the spread
between seeds that was measured here. With `--folder`, a run that was cut off is continued.

    python benchmarks/reproduction.py --published FOLDER --ceiling [SPREAD ...]

simulates that for all published cells and trains nothing; the standard deviations between seeds are given in
units of the return, by default as shares of 2, 5 and 10 % of the range of the published peaks.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from common import save, table
from jaxtyping import Float

import hyperlax
from hyperlax import sweeps
from hyperlax.experiments.settings import RUN_LENGTHS
from hyperlax.programs.budget import cycles_of
from hyperlax.report.published import STEPS, Cell, other_schedule, read_published
from hyperlax.statistics import spearman
from hyperlax.storage.results import Results

STUDY = "benchmarked.01_static_qmc_sampling_S64"
CELLS = (
    "sac_mlp:gymnax.pendulum",
    "ppo_mlp:gymnax.pendulum",
    "sac_mlp:gymnax.reacher",
    "ppo_mlp:gymnax.cartpole",
)
DESIGN = 64
"""Samples of the published design."""
SHARES = (0.02, 0.05, 0.1)
REPETITIONS = 1_000
"""Simulated pairs of runs."""


def design(recipe: str, env: str, count: int, first: bool) -> list[dict[str, Any]]:
    """The rows of `count` published samples: those with the fewest gradient steps, or the `first` ones."""
    spec = sweeps.prepare(
        f"{STUDY}.{recipe}", env, num_samples=DESIGN, protocol="published", run_length_modifier="long"
    )

    def gradient_steps(number: int) -> int:
        sizes = spec.records[number].tree.sizes()
        return cycles_of(spec.settings.total_timesteps, sizes) * sizes["gradient_steps"]

    chosen = sorted(spec.records) if first else sorted(spec.records, key=gradient_steps)
    return [{**spec.records[number].row, "sample": number} for number in sorted(chosen[:count])]


def seed_peaks(results: Results) -> pl.DataFrame:
    """The peak of the mean curve of every sample, and the peaks of its seeds' own curves as a list."""
    curves = results.curves.filter(pl.col("metric") == "return")
    curves = curves.join(results.lanes.select("lane", "sample", "seed"), on="lane")
    own = curves.group_by("sample", "seed").agg(pl.col("value").max()).sort("sample", "seed")
    mean = curves.group_by("sample", "env_steps").agg(pl.col("value").mean())
    peaks = mean.group_by("sample").agg(ours=pl.col("value").max())
    return peaks.join(own.group_by("sample").agg(seeds="value"), on="sample").sort("sample")


def ceiling(
    published: Float[np.ndarray, " samples"], spread: Float[np.ndarray, " samples"], seeds: int
) -> tuple[float, float, float]:
    """The 2.5, 50 and 97.5 % quantiles of the rank correlation of two runs of the same code.

    One has `seeds` seeds, the other one four. The true values are taken to be the published peaks, which lie
    further apart than the truth, so that this is an upper bound. `spread` is the standard deviation between
    seeds of every sample.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(REPETITIONS):
        one, four = (published + rng.normal(0, spread / np.sqrt(n)) for n in (seeds, 4))
        found.append(float(spearman(one, four).value))
    low, middle, high = np.quantile(found, [0.025, 0.5, 0.975])
    return float(low), float(middle), float(high)


def ceilings(published: Mapping[Cell, pl.DataFrame], spreads: Sequence[float]) -> list[dict[str, Any]]:
    """The `ceiling` of every cell that is a reference, for one seed against four and several spreads."""
    rows = []
    for cell, samples in sorted(published.items()):
        if other_schedule(samples):
            continue
        peaks = samples["peak"].drop_nulls().to_numpy()
        given = {f"{x:g}": x for x in spreads} or {f"{x:.0%}": x * np.ptp(peaks) for x in SHARES}
        found = {name: ceiling(peaks, np.full(len(peaks), x), 1) for name, x in given.items()}
        shown = {name: f"{middle:.2f} [{low:.2f}, {high:.2f}]" for name, (low, middle, high) in found.items()}
        rows.append({"cell": str(cell), "samples": len(peaks), "range": float(np.ptp(peaks)), **shown})
    return rows


def pooled_spread(
    published: Float[np.ndarray, " samples"], seeds: Float[np.ndarray, "samples seeds"]
) -> Float[np.ndarray, " samples"]:
    """The standard deviation between seeds, pooled over the third of the samples with similar peaks."""
    order = np.argsort(published)
    spread = np.zeros(len(published))
    for third in np.array_split(order, 3):
        spread[third] = np.sqrt(np.mean(np.var(seeds[third], axis=1, ddof=1)))
    return spread


def compare(results: Results, samples: pl.DataFrame, title: str) -> dict[str, Any]:
    """Compare one cell with its published samples, and print both peaks of every sample."""
    pairs = seed_peaks(results).join(samples.select("sample", published="peak"), on="sample").drop_nulls()
    rows = [
        {
            "sample": row["sample"],
            "ours": row["ours"],
            "published": row["published"],
            "seeds": " ".join(f"{x:.4g}" for x in row["seeds"]),
        }
        for row in pairs.iter_rows(named=True)
    ]
    table(rows, title)
    ours, published = pairs["ours"].to_numpy(), pairs["published"].to_numpy()
    correlation = spearman(ours, published)
    about: dict[str, Any] = {
        "cell": title,
        "correlation": [float(x) for x in (correlation.value, correlation.low, correlation.high)],
        "schedule": other_schedule(samples),
        "samples": rows,
    }
    seeds = pairs["seeds"].list.len().min()
    if isinstance(seeds, int) and seeds > 1:
        own = np.stack([np.asarray(x, np.float64) for x in pairs["seeds"]])
        about["ceiling"] = ceiling(published, pooled_spread(published, own), seeds)
        about["one seed"] = ceiling(published, pooled_spread(published, own), 1)
    print({k: v for k, v in about.items() if k != "samples"})
    return about


def parsed(cell: str) -> tuple[str, str, Cell]:
    """The recipe, the environment and the published cell that `<recipe>:<env>` names."""
    recipe, _, env = cell.partition(":")
    algorithm, _, network = recipe.partition("_")
    return recipe, env, Cell.of(env, algorithm, network)


def written(cells: Iterable[Cell]) -> str:
    """Cells as they are given to `--cells`."""
    return ", ".join(f"{cell.algorithm}_{cell.network}:{cell.env}" for cell in sorted(cells)) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--published", type=Path, required=True)
    parser.add_argument("--cells", nargs="*", default=CELLS)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--first", action="store_true")
    parser.add_argument("--seeds", type=int, default=RUN_LENGTHS["long"]["seeds"])
    parser.add_argument("--steps", type=int, default=STEPS, help="fewer, to learn the spread between seeds")
    parser.add_argument("--ceiling", type=float, nargs="*", metavar="SPREAD")
    parser.add_argument("--folder", type=Path, help="where to keep the runs, one folder per cell")
    arguments = parser.parse_args()
    published, found = read_published(arguments.published).samples, []
    if arguments.ceiling is not None:
        rows = ceilings(published, arguments.ceiling)
        table(rows, "median and 95 % range of the rank correlation of one seed with four", width=160)
        print(save("ceiling", rows))
        return
    cells = {cell: parsed(cell) for cell in arguments.cells}
    if missing := [cell for cell, (_, _, key) in cells.items() if key not in published]:
        parser.error(
            f"no samples of {', '.join(missing)} in {arguments.published}; there: {written(published)}"
        )
    for cell, (recipe, env, key) in cells.items():
        folder = arguments.folder and arguments.folder / f"{recipe}-{env}"
        results = hyperlax.sweep(
            f"{STUDY}.{recipe}",
            env,
            samples=design(recipe, env, arguments.samples, arguments.first),
            seeds=arguments.seeds,
            protocol="published",
            run_length_modifier="long",
            total_timesteps=arguments.steps,
            folder=folder,
            resume=bool(folder and folder.exists()),
            progress=True,
        )
        found.append(compare(results, published[key], cell))
        print(save("reproduction", found))


if __name__ == "__main__":
    main()
