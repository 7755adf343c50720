"""Designs: reproducible, space-filling, and exactly the published one where it was published."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from hyperlax.experiments import recipes
from hyperlax.hyperparams.samplers import (
    METHODS,
    SAMPLERS,
    AbstractPointDesign,
    Saltelli,
    design,
    draw,
    rest,
    sampler_class,
)
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Uniform

PUBLISHED = "benchmarked.01_static_qmc_sampling_S64.ppo_mlp"
DATA = Path(__file__).parent / "data"
CONTINUOUS = {f"x{i}": Uniform(0, 1) for i in range(5)}
MIXED = {
    "net": Joint(("width", "depth"), (32, 1), (64, 2), (128, 3)),
    "lr": LogUniform(1e-5, 1e-1),
    "steps": Integers(1, 4),
    "norm": Choice(True, False),
}
POINT_METHODS = [m for m in METHODS if m != "grid"]


def unit_points(method, n, seed):
    sampler = SAMPLERS[method].sized(CONTINUOUS, seed, n)
    assert isinstance(sampler, AbstractPointDesign)
    return sampler.points(0, n)


def points(rows):
    return np.array([[row[k] for k in CONTINUOUS] for row in rows])


@pytest.mark.parametrize(
    "name", [f"{a}_{n}" for a in ("ppo", "dqn", "sac") for n in ("mlp", "tmlp", "drpqc")]
)
def test_the_published_design_is_reproduced(name):
    space = recipes.resolve(f"benchmarked.01_static_qmc_sampling_S64.{name}").search_space()
    drawn = design(space, 64, "qmc_sobol", 42)
    with open(DATA / f"published_{name}_design.csv", newline="") as file:
        published = list(csv.DictReader(file))
    assert [int(row["sample"]) for row in published] == list(range(64))
    for row, sample in zip(published, drawn, strict=True):
        assert set(sample) == set(row) - {"sample"}
        for path, value in sample.items():
            if isinstance(value, float):
                digit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
                assert abs(value - float(row[path])) <= (0.5 + 1e-3) * digit, "four digits were published"
            else:
                assert str(value) == row[path], path


def test_published_samples_zero_and_one():
    first, second = design(recipes.resolve(PUBLISHED).search_space(), 2, "qmc_sobol", 42)
    golden = {
        "actor.width": (64, 128),
        "critic.width": (32, 128),
        "actor.layer_norm": (False, True),
        "critic.activation": ("silu", "relu"),
        "gae_lambda": (0.910319, 0.989217),
        "clip_eps": (0.268863, 0.050186),
        "vf_coef": (0.690530, 0.915780),
        "max_grad_norm": (0.634632, 0.125881),
        "rollout_length": (2, 4),
        "num_minibatches": (128, 512),
        "num_envs": (1024, 2048),
    }
    for path, (a, b) in golden.items():
        exact = lambda x: pytest.approx(x, abs=1e-6) if isinstance(x, float) else x  # noqa: E731
        assert first[path] == exact(a), path
        assert second[path] == exact(b), path


@pytest.mark.parametrize("method", ["qmc_sobol", "random", "halton"])
def test_a_smaller_design_is_a_prefix_of_a_larger_one(method):
    rng = np.random.default_rng(0)
    for _ in range(10):
        small, more, seed = (int(x) for x in rng.integers(1, 60, 3))
        large = design(MIXED, small + more, method, seed)
        assert design(MIXED, small, method, seed) == large[:small]


@pytest.mark.parametrize("method", METHODS)
def test_designs_depend_on_the_seed_alone(method):
    assert design(MIXED, 12, method, 3) == design(MIXED, 12, method, 3)
    if method != "grid":
        assert design(MIXED, 12, method, 3) != design(MIXED, 12, method, 4)


@pytest.mark.parametrize("method", METHODS)
def test_every_sample_lies_in_the_space(method):
    for sample in design(MIXED, 24, method, 1):
        assert list(sample) == ["width", "depth", "lr", "steps", "norm"]
        assert MIXED["net"].contains({k: sample[k] for k in ("width", "depth")})
        assert all(MIXED[k].contains(sample[k]) for k in ("lr", "steps", "norm"))


@pytest.mark.parametrize("method", POINT_METHODS)
def test_points_lie_in_the_unit_cube_and_there_are_n(method):
    for n in (1, 7, 64):
        drawn = unit_points(method, n, 5)
        assert drawn.shape == (n, 5)
        assert ((drawn >= 0) & (drawn < 1)).all()


def test_latin_hypercube_puts_one_point_in_every_slice():
    for n in (1, 5, 17, 64):
        slices = np.floor(unit_points("latin_hypercube", n, n) * n).astype(int)
        assert (np.sort(slices, axis=0) == np.arange(n)[:, None]).all()


def test_sobol_balances_every_dimension():
    """2^k points: exactly one in each of the 2^k slices of every dimension."""
    slices = np.floor(unit_points("qmc_sobol", 64, 9) * 64).astype(int)
    assert (np.sort(slices, axis=0) == np.arange(64)[:, None]).all()


def test_halton_balances_each_dimension_in_its_own_base():
    """p² points put exactly one into each of the p² slices of the dimension whose base is the prime p."""
    for dimension, base in enumerate((2, 3, 5, 7, 11)):
        count = base**2
        column = unit_points("halton", count, 3)[:, dimension]
        assert (np.sort(np.floor(column * count).astype(int)) == np.arange(count)).all()


def test_quasi_random_designs_fill_the_cube_better_than_random_ones():
    from scipy.stats import qmc

    spread = {m: qmc.discrepancy(points(design(CONTINUOUS, 64, m, 0))) for m in POINT_METHODS}
    assert max(spread["qmc_sobol"], spread["halton"], spread["latin_hypercube"]) < spread["random"]


def test_a_grid_is_a_full_factorial_of_at_most_n():
    for n in (1, 2, 5, 12, 24, 100, 1000):
        rows = design(MIXED, n, "grid", 0)
        assert 1 <= len(rows) <= n
        columns = [dict.fromkeys((r["width"], r["depth"]) for r in rows)]
        columns += [dict.fromkeys(r[k] for r in rows) for k in ("lr", "steps", "norm")]
        assert len(rows) == math.prod(map(len, columns))
        combinations = {((r["width"], r["depth"]), r["lr"], r["steps"], r["norm"]) for r in rows}
        assert combinations == set(itertools.product(*columns))


def test_a_grid_uses_every_discrete_value_when_there_is_room():
    rows = design({"a": Choice(1, 2, 3), "b": Integers(0, 1)}, 6, "grid", 0)
    assert rows == [{"a": a, "b": b} for a in (1, 2, 3) for b in (0, 1)]


def test_a_grid_reaches_the_ends_of_continuous_spaces():
    rows = design({"a": Uniform(2, 4), "b": LogUniform(1e-4, 1e-2)}, 9, "grid", 0)
    assert sorted({round(r["a"], 6) for r in rows}) == [2, 3, 4]
    assert sorted({r["b"] for r in rows}) == pytest.approx([1e-4, 1e-3, 1e-2], rel=1e-5)


def test_saltelli_mixes_one_column_of_b_into_a():
    for n in (1, 3, 8):
        rows = rest(Saltelli(CONTINUOUS, 7, n))
        assert len(rows) == n * (len(CONTINUOUS) + 2)
        by_matrix = {
            m: [r for r in rows if r["matrix"] == m] for m in dict.fromkeys(r["matrix"] for r in rows)
        }
        assert list(by_matrix) == ["A", "B", *(f"AB:{path}" for path in CONTINUOUS)]
        a, b = points(by_matrix["A"]), points(by_matrix["B"])
        assert (a != b).all()
        for i, path in enumerate(CONTINUOUS):
            mixed = points(by_matrix[f"AB:{path}"])
            expected = a.copy()
            expected[:, i] = b[:, i]
            np.testing.assert_array_equal(mixed, expected)


def test_saltelli_matrices_estimate_first_order_effects():
    """Of f = x0 + 2 x1 the shares of variance are 1/5 and 4/5; needs A and B independent of one another."""
    rows = rest(Saltelli(CONTINUOUS, 1, 512))
    f = {}
    for m in ("A", "B", "AB:x0", "AB:x1", "AB:x2"):
        x = points([r for r in rows if r["matrix"] == m])
        f[m] = x[:, 0] + 2 * x[:, 1]
    total = np.var(np.concatenate([f["A"], f["B"]]))
    share = [np.mean(f["B"] * (f[f"AB:x{i}"] - f["A"])) / total for i in range(3)]
    np.testing.assert_allclose(share, [0.2, 0.8, 0.0], atol=0.03)


def test_saltelli_can_leave_out_the_mixed_matrices():
    assert {r["matrix"] for r in rest(Saltelli(MIXED, 0, 4, omit_ab=True))} == {"A", "B"}
    drawn = draw(MIXED, 4, experiment_type="sobol_matrices_A_B_AB", omit_ab=True, seed=0)
    assert drawn == rest(Saltelli(MIXED, 0, 4))[:8]


def test_an_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match='did you mean "qmc_sobol"'):
        design(MIXED, 4, "sobol", 0)
    with pytest.raises(ValueError, match='did you mean "grid"'):
        sampler_class("gird")
    with pytest.raises(ValueError, match='unknown experiment type "sobol_matrices"; did you mean'):
        draw(MIXED, 4, experiment_type="sobol_matrices", seed=0)


def test_a_design_needs_a_sample():
    with pytest.raises(ValueError, match="num_samples must be at least 1"):
        design(MIXED, 0, "random", 0)


def test_nothing_to_search_is_one_sample_of_defaults():
    assert design({}, 8, "qmc_sobol", 0) == [{}]
