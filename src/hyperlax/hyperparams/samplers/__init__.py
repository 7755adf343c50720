"""Designs: which hyperparameter samples a sweep trains, by method name."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.stats import qmc

from hyperlax.hyperparams import nearest
from hyperlax.hyperparams.spaces import Joint, Space, decode

Points = Float64[np.ndarray, "samples dimensions"]


def sobol(space: Mapping[str, Space], n: int, seed: int) -> Points:
    """The first `n` points of a scrambled Sobol sequence (Owen 1998); a prefix of every longer design."""
    power = math.ceil(math.log2(max(n, 1)))
    # `seed=`, not `rng=`: from a Generator scipy spawns another one, which is not the published design
    return qmc.Sobol(len(space), scramble=True, seed=seed).random_base2(power)[:n]  # pyright: ignore[reportCallIssue]


def uniform(space: Mapping[str, Space], n: int, seed: int) -> Points:
    """Independent uniform points; a prefix of every longer design."""
    return np.random.default_rng(seed).random((n, len(space)))


def latin_hypercube(space: Mapping[str, Space], n: int, seed: int) -> Points:
    """One point in each of `n` slices of every dimension (McKay et al. 1979)."""
    return qmc.LatinHypercube(len(space), rng=np.random.default_rng(seed)).random(n)


def halton(space: Mapping[str, Space], n: int, seed: int) -> Points:
    """The first `n` points of a scrambled Halton sequence."""
    return qmc.Halton(len(space), scramble=True, rng=np.random.default_rng(seed)).random(n)


Sampler = Callable[[Mapping[str, Space], int, int], Points]
SAMPLERS: dict[str, Sampler] = {
    "qmc_sobol": sobol,
    "random": uniform,
    "latin_hypercube": latin_hypercube,
    "halton": halton,
}
"""Method name → points in the unit cube. `grid` is not among them: it draws values, not points."""

METHODS = (*SAMPLERS, "grid")
EXPERIMENT_TYPES = ("independent_samples", "sobol_matrices_A_B_AB")


def design(space: Mapping[str, Space], n: int, method: str, seed: int) -> list[dict[str, Any]]:
    """`n` samples (at most `n` for a grid) of `space` as dicts from dotted path to value.

    Raises `ValueError` for an unknown method, naming the nearest.
    """
    if n < 1:
        raise ValueError(f"a design needs at least one sample, got {n}")
    if not space:
        return [{}]
    if method == "grid":
        return _grid(space, n)
    if method not in SAMPLERS:
        raise ValueError(
            f'unknown sampling method "{method}"{nearest(method, METHODS)}; known: {", ".join(METHODS)}'
        )
    return [decode(space, point) for point in SAMPLERS[method](space, n, seed)]


def saltelli(space: Mapping[str, Space], n: int, seed: int, omit_ab: bool = False) -> list[dict[str, Any]]:
    """The matrices A, B and (unless omitted) one AB per dimension, as Saltelli et al. 2010 define them.

    A and B are the two halves of one 2D-dimensional Sobol sequence; AB_i is A with column i taken from B.
    Every sample carries its `matrix`: "A", "B" or "AB:<path>".
    """
    size = len(space)
    power = math.ceil(math.log2(max(n, 1)))
    points = qmc.Sobol(2 * size, scramble=True, rng=np.random.default_rng(seed)).random_base2(power)[:n]
    a, b = points[:, :size], points[:, size:]
    rows = [{"matrix": "A", **decode(space, p)} for p in a] + [{"matrix": "B", **decode(space, p)} for p in b]
    if not omit_ab:
        for i, path in enumerate(space):
            mixed = a.copy()
            mixed[:, i] = b[:, i]
            rows += [{"matrix": f"AB:{path}", **decode(space, p)} for p in mixed]
    return rows


def load(path: Path, known: Sequence[str]) -> list[dict[str, Any]]:
    """Samples from a csv, json (list of objects) or parquet file whose columns are dotted paths.

    A `sample` column keeps its ids. Raises `ValueError` for columns that are no hyperparameters, and
    `FileNotFoundError` when there is no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"samples file {path} does not exist")
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    elif path.suffix == ".json":
        rows = json.loads(path.read_text())
    elif path.suffix == ".parquet":
        import polars as pl

        rows = pl.read_parquet(path).to_dicts()
    else:
        raise ValueError(f"samples file {path} must end in .csv, .json or .parquet")
    if not rows:
        raise ValueError(f"samples file {path} holds no samples")
    columns = dict.fromkeys(name for row in rows for name in row)
    for name in columns:
        if name not in (*known, "sample", "matrix"):
            raise ValueError(f'samples file {path}: unknown column "{name}"{nearest(name, known)}')
    kept = [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]
    ids = [int(row.get("sample", i)) for i, row in enumerate(kept)]
    if len(set(ids)) < len(ids):
        raise ValueError(f"samples file {path}: the ids in column sample are not unique")
    return kept


def _grid(space: Mapping[str, Space], n: int) -> list[dict[str, Any]]:
    """A full factorial of at most `n` samples: levels are added to one dimension after the other."""
    levels = dict.fromkeys(space, 1)

    def count(levels: Mapping[str, int]) -> int:
        return math.prod(len(_levels(space[k], v)) for k, v in levels.items())

    grown = True
    while grown:
        grown = False
        for name in space:
            more = {**levels, name: levels[name] + 1}
            if (
                len(_levels(space[name], more[name])) > len(_levels(space[name], levels[name]))
                and count(more) <= n
            ):
                levels, grown = more, True
    rows: list[dict[str, Any]] = [{}]
    for name, dimension in space.items():
        rows = [
            {**row, **(value if isinstance(dimension, Joint) else {name: value})}
            for row in rows
            for value in _levels(dimension, levels[name])
        ]
    return rows


def _levels(space: Space, count: int) -> list[Any]:
    """`count` values of `space` for a grid; the middle one when there is room for one only."""
    if count == 1:
        return [space.ppf(0.5)]
    values = space.grid(count)
    if len(values) <= count:
        return values
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]
