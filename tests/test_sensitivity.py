"""Sobol' indices against analytic ones, with designs drawn by the project's own sampler."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from report_data import sobol_design, synthetic

from hyperlax.hyperparams.samplers import Saltelli, rest
from hyperlax.hyperparams.spaces import Choice, Joint, LogUniform, Uniform
from hyperlax.report.sensitivity import sobol_table
from hyperlax.statistics import Unavailable, noise_share, sobol_indices

CUBE = {f"x{i}": Uniform(-np.pi, np.pi) for i in (1, 2, 3)}


def evaluated(space, function, rows: int, seed: int = 0):
    """Evaluate a function on A, B and every AB of a drawn design; the result fits `sobol_indices`."""
    design = rest(Saltelli(space, seed, rows))
    scores = np.array([function({k: v for k, v in row.items() if k != "matrix"}) for row in design], float)
    a, b, *mixed = scores.reshape(-1, rows)
    return a, b, np.array(mixed)


def ishigami(x):
    """The function of Ishigami & Homma 1990 with a = 7 and b = 0.1, whose indices are known."""
    return np.sin(x["x1"]) + 7 * np.sin(x["x2"]) ** 2 + 0.1 * x["x3"] ** 4 * np.sin(x["x1"])


def ishigami_indices() -> tuple[np.ndarray, np.ndarray]:
    v1 = 0.5 * (1 + 0.1 * np.pi**4 / 5) ** 2
    v2 = 7**2 / 8
    v13 = 0.1**2 * np.pi**8 * (1 / 18 - 1 / 50)
    variance = v1 + v2 + v13
    return np.array([v1, v2, 0.0]) / variance, np.array([v1 + v13, v2, v13]) / variance


@pytest.mark.parametrize("seed", [0, 1])
def test_the_indices_of_the_ishigami_function(seed):
    first, total, used = sobol_indices(*evaluated(CUBE, ishigami, 2048, seed))
    for found, known in zip((first, total), ishigami_indices(), strict=True):
        np.testing.assert_allclose(found.value, known, atol=0.02)
        assert np.all((found.low <= known) & (known <= found.high))
        assert np.all(found.high - found.low < 0.15)
    assert used.tolist() == [2048] * 3


def test_first_and_total_indices_of_a_linear_function_are_its_squared_weights():
    space = {"a": Uniform(0, 1), "b": Uniform(0, 1), "c": LogUniform(1e-4, 1)}
    first, total, _ = sobol_indices(
        *evaluated(space, lambda x: x["a"] + 2 * x["b"] + 3 * np.log(x["c"]) / np.log(1e4), 1024)
    )
    np.testing.assert_allclose(first.value, np.array([1, 4, 9]) / 14, atol=0.02)
    np.testing.assert_allclose(total.value, np.array([1, 4, 9]) / 14, atol=0.02)


def test_a_joint_choice_is_one_dimension():
    """For f = shape + gate, the shape (a joint choice) has variance 2/3 and the gate 1/4."""
    space = {
        "width+depth": Joint(("width", "depth"), (1, 0), (1, 1), (1, 2)),
        "gate": Choice(True, False),
    }
    first, total, _ = sobol_indices(*evaluated(space, lambda x: x["width"] * x["depth"] + x["gate"], 1024))
    np.testing.assert_allclose(first.value, [8 / 11, 3 / 11], atol=0.02)
    np.testing.assert_allclose(total.value, [8 / 11, 3 / 11], atol=0.02)


def test_the_interval_covers_the_true_index():
    """The rows are independent; x explains 0.8 of the variance, and noise the rest."""
    rng = np.random.default_rng(0)
    hits, wanted = 0, np.array([[0.8, 0.0], [1.0, 0.2]])
    for _ in range(150):
        x, y = rng.normal(size=(2, 80)), rng.normal(size=(2, 80))
        a, b = x[0] + 0.5 * y[0], x[1] + 0.5 * y[1]
        ab = np.stack([x[1], x[0]]) + 0.5 * rng.normal(size=(2, 80))
        found = sobol_indices(a, b, ab, repetitions=300)[:2]
        hits += sum(((e.low <= w) & (w <= e.high)).sum() for e, w in zip(found, wanted, strict=True))
    assert 0.9 < hits / (4 * 150) < 0.99


def test_rows_with_a_lost_evaluation_are_left_out():
    a, b, ab = evaluated(CUBE, ishigami, 512)
    broken = ab.copy()
    broken[0, :100] = np.nan
    first, total, used = sobol_indices(a, b, broken)
    whole = sobol_indices(a, b, ab)
    assert used.tolist() == [412, 512, 512]
    np.testing.assert_array_equal(first.value[1:], whole[0].value[1:])
    kept = sobol_indices(a[100:], b[100:], ab[:, 100:])
    assert first.value[0] == pytest.approx(kept[0].value[0])
    assert total.value[0] == pytest.approx(kept[1].value[0])
    a[:200] = np.nan
    assert sobol_indices(a, b, ab)[2].tolist() == [312] * 3


def test_constant_scores_have_no_indices():
    for same in (np.zeros(8), np.full(8, 0.1)):
        first, total, _ = sobol_indices(same, same, np.stack([same, same]))
        assert np.isnan([first.value, total.low, total.high]).all()
    lost = np.full(8, np.nan)
    first, total, used = sobol_indices(lost, lost, np.stack([lost]))
    assert np.isnan([first.value, first.low, total.value, total.high]).all()
    assert used.tolist() == [0]


def test_the_share_of_noise():
    rng = np.random.default_rng(3)
    scores = rng.normal(size=(4000, 1)) + 2 * rng.normal(size=(4000, 3))
    assert noise_share(scores) == pytest.approx(4 / 7, abs=0.03)
    assert np.isnan(noise_share(scores[:, :1]))
    assert noise_share(np.broadcast_to(scores[:, :1], (4000, 3))) == pytest.approx(0)


def test_the_table_of_an_experiment():
    table = sobol_table(sobol_design())
    assert table["hyperparameter"].to_list() == ["rate", "width+depth"]
    assert table["rows"].to_list() == [3, 3]
    assert table["total"][1] == pytest.approx(0)
    assert table["total"][0] > 0.3
    assert table["first"][1] < table["first"][0]


def test_designs_without_indices_are_refused_with_the_reason():
    with pytest.raises(Unavailable, match="--omit-ab"):
        sobol_table(sobol_design(omit_ab=True))
    with pytest.raises(Unavailable, match="--experiment-type"):
        sobol_table(synthetic(samples=4, seeds=1))
    whole = sobol_design()
    with pytest.raises(Unavailable, match="No sample has an evaluation"):
        sobol_table(dataclasses.replace(whole, curves=whole.curves.clear(), lanes=whole.lanes.clear()))


def test_rows_that_do_not_belong_together_are_refused():
    whole = sobol_design()
    with pytest.raises(Unavailable, match="AB:rate do not belong together"):
        sobol_table(dataclasses.replace(whole, samples=whole.samples.filter(pl.col("sample") != 1)))
