"""PED-ANOVA importances against Optuna's and known answers, and the chance level."""

import dataclasses

import numpy as np
import optuna
import polars as pl
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from report_data import SPACE, nothing_yet, sobol_design, synthetic

from hyperlax.report.charts.slices import slices
from hyperlax.report.importance import dimension, dimensions_of, importance_table
from hyperlax.statistics import Unavailable, divergence, importances, top_samples

SPACES = {
    "lr": {"type": "log_uniform", "low": 1e-5, "high": 1e-2},
    "gamma": {"type": "uniform", "low": 0.9, "high": 0.999},
    "epochs": {"type": "integers", "low": 1, "high": 10},
    "act": {"type": "choice", "values": ["tanh", "relu", "silu"]},
    "flag": {"type": "choice", "values": [True, False]},
}
DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-5, 1e-2, log=True),
    "gamma": FloatDistribution(0.9, 0.999),
    "epochs": IntDistribution(1, 10),
    "act": CategoricalDistribution(["tanh", "relu", "silu"]),
    "flag": CategoricalDistribution([True, False]),
}


def drawn(samples: int, seed: int) -> tuple[dict[str, list], np.ndarray]:
    """Draw random hyperparameters, and scores that depend on the rate, the epochs and the activation."""
    rng = np.random.default_rng(seed)
    values = {
        "lr": (10 ** rng.uniform(-5, -2, samples)).tolist(),
        "gamma": rng.uniform(0.9, 0.999, samples).tolist(),
        "epochs": rng.integers(1, 11, samples).tolist(),
        "act": [("tanh", "relu", "silu")[i] for i in rng.integers(3, size=samples)],
        "flag": [bool(i) for i in rng.integers(2, size=samples)],
    }
    rate, relu = np.log10(values["lr"]) + 3.5, np.array(values["act"]) == "relu"
    epochs = np.array(values["epochs"]) - 5.0
    return values, -(rate**2) + 3 * relu - 0.05 * epochs**2 + 0.2 * rng.normal(size=samples)


def by_optuna(values, scores) -> dict[str, float]:
    """Return Optuna's Pearson divergences, without the factor that all hyperparameters share."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for i, score in enumerate(scores):
        params = {name: column[i] for name, column in values.items()}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=DISTRIBUTIONS, value=float(score))
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    return {name: value / 0.1**2 for name, value in found.items()}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("seed", range(3))
def test_importances_agree_with_those_of_optuna(seed):
    """Importances of numbers agree closely; those of categories are smaller in Optuna.

    Optuna smooths categories by an amount that does not shrink as samples are added, which damps differences.
    """
    values, scores = drawn(400, seed)
    theirs = by_optuna(values, scores)
    top = top_samples(scores, 0.1)[None]
    ours = {n: float(divergence(dimension(n, column, SPACES[n]), top)[0]) for n, column in values.items()}
    for name in ("lr", "gamma", "epochs"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.05, abs=0.02), name
    for name in ("act", "flag"):
        assert theirs[name] < ours[name] * 0.5
    assert max(ours, key=ours.__getitem__) == "act"


def test_the_divergence_of_categories_follows_from_their_frequencies():
    """With three equally frequent categories and a top of one category only, the divergence is 2.

    (3 - 1)² / 3 + 2 (0 - 1)² / 3 = 2.
    """
    dim = dimension("act", ["a", "b", "c"] * 1000, {"type": "choice", "values": ["a", "b", "c"]})
    top = np.zeros((2, 3000), bool)
    top[0, :900:3] = True
    top[1, :900] = True
    np.testing.assert_allclose(divergence(dim, top), [2, 0], atol=0.03)


@pytest.mark.parametrize("only", list(SPACES))
def test_the_only_hyperparameter_with_an_effect_is_found(only):
    values, _ = drawn(120, 5)
    dims = [dimension(name, column, SPACES[name]) for name, column in values.items()]
    own = next(dim for dim in dims if dim.name == only)
    noise = 0.1 * np.random.default_rng(0).normal(size=(120, 5))
    found = importances(own.cell[:, None] / own.cells + noise, dims, repetitions=400)
    place = list(values).index(only)
    assert np.argmax(found.share) == place
    assert found.share[place] > 0.5
    assert found.p[place] <= 0.05
    assert np.sum(found.p <= 0.05) == 1
    assert found.share.sum() == pytest.approx(1)


@pytest.mark.parametrize("samples", [16, 64])
def test_an_effect_of_noise_is_claimed_in_5_percent_of_reports(samples):
    """Of five hyperparameters without effect, any exceeds its chance level in 5 % of cases or fewer."""
    values, _ = drawn(samples, 1)
    dims = [dimension(name, column, SPACES[name]) for name, column in values.items()]
    claims = []
    for seed in range(150):
        scores = np.random.default_rng(seed).normal(size=(samples, 1))
        found = importances(scores, dims, repetitions=200, seed=seed)
        claims.append((found.p <= 0.05).any())
        np.testing.assert_array_equal(found.p <= 0.05, found.share > found.chance)
    assert 0.005 < np.mean(claims) < 0.1


def test_ties_with_the_last_of_the_top_belong_to_the_top():
    scores = np.array([[5.0, 5, 5, 4, 3, 5], [1, 2, 3, 4, 5, 6]])
    assert [int(top_samples(own, 0.3, 1).sum()) for own in scores] == [4, 2]
    assert top_samples(np.zeros(7), 0.1, 1).all()
    found = importances(np.zeros((7, 2)), [dimension("x", [1, 2, 3, 4, 5, 6, 7])])
    assert np.isnan([found.share, found.p, found.chance]).all()


def test_samples_without_a_score_are_the_worst():
    """Their hyperparameter is then what matters."""
    scores = np.array([4.0, np.nan, 3, 2, np.nan, 1, 5, 6])
    assert np.flatnonzero(top_samples(scores, 0.25, 2)).tolist() == [6, 7]
    rng = np.random.default_rng(1)
    rates, many = rng.uniform(size=60), rng.normal(size=(60, 3))
    many[rates > 0.5] = np.nan
    dims = [dimension("rate", rates.tolist()), dimension("other", rng.uniform(size=60).tolist())]
    found = importances(many, dims, 0.4, repetitions=300)
    assert found.p[0] <= 0.05 < found.p[1]


def test_cells_follow_the_space():
    log = dimension("lr", [1e-5, 1e-4, 1e-3, 1e-2], SPACES["lr"])
    assert log.cell.tolist() == [0, 16, 33, 49]
    assert dimension("epochs", [1, 2, 10], SPACES["epochs"]).cell.tolist() == [0, 1, 9]
    wide = dimension("n", [1, 500, 1000], {"type": "integers", "low": 1, "high": 1000})
    assert (wide.cell.tolist(), wide.cells) == ([0, 24, 49], 50)
    flag = dimension("flag", [False, True], SPACES["flag"])
    assert (flag.cell.tolist(), flag.cells, flag.ordered) == ([1, 0], 2, False)
    unknown = dimension("size", [1, 7])
    assert (unknown.cells, unknown.ordered) == (7, True)
    assert dimension("rate", [1e-4, 2e-3, 1e-2]).cell.tolist() == [0, 32, 49]
    assert dimension("name", ["b", "a", "b"]).cell.tolist() == [0, 1, 0]


@pytest.mark.parametrize("described", [{"type": "normal", "mean": 0.9, "deviation": 0.1}, {"mean": 0.9}])
def test_a_space_of_ones_own_that_describes_no_ends_is_as_wide_as_its_values(described):
    assert dimension("gamma", [0.8, 0.9, 1.0], described).cell.tolist() == [0, 25, 49]
    results = synthetic(samples=12)
    results.manifest["space"] = {**SPACE, "gamma": described}
    assert "gamma" in importance_table(results)["hyperparameter"].to_list()
    assert slices(results).to_dict()


def test_a_joint_choice_is_one_dimension():
    samples = synthetic(samples=12).samples
    names = [dim.name for dim in dimensions_of(samples, SPACE)]
    assert names == [
        *("lr", "gamma", "rollout", "epochs", "actor.activation", "normalise_observations", "actor"),
    ]
    full = {"actor.width+actor.depth": {**SPACE["actor"], "paths": ["actor.width", "actor.depth"]}}
    (joint,) = (d for d in dimensions_of(samples, full) if "+" in d.name)
    assert joint.cell.tolist() == [0, 1, 2] * 4
    assert (joint.cells, joint.ordered) == (3, False)


def test_the_table_of_an_experiment():
    table = importance_table(synthetic())
    assert table["importance"].sum() == pytest.approx(1)
    assert table["importance"].is_sorted(descending=True)
    assert len(table) == 7
    assert table.filter(pl.col("p") <= 0.05).equals(
        table.filter(pl.col("importance") > pl.col("chance")), null_equal=True
    )


def test_ab_matrices_are_left_out():
    """Rows of AB matrices differ from rows of A in one hyperparameter, and would count the others again."""
    whole = sobol_design(rows=8)
    halves = dataclasses.replace(whole, samples=whole.samples.filter(pl.col("matrix").is_in(["A", "B"])))
    kept = halves.samples["sample"].to_list()
    halves = dataclasses.replace(
        halves,
        curves=whole.curves.filter(pl.col("sample").is_in(kept)),
        lanes=whole.lanes.filter(pl.col("sample").is_in(kept)),
    )
    assert importance_table(whole).equals(importance_table(halves))
    assert importance_table(whole)["hyperparameter"].to_list()[0] == "rate"
    with pytest.raises(Unavailable, match="10 samples"):
        importance_table(sobol_design(rows=4))


def test_experiments_without_enough_information_are_refused_with_the_reason():
    with pytest.raises(Unavailable, match="10 samples"):
        importance_table(synthetic(samples=9))
    with pytest.raises(Unavailable, match="10 samples"):
        importance_table(nothing_yet())
    full = synthetic(samples=12)
    with pytest.raises(Unavailable, match="No hyperparameter varies"):
        importance_table(dataclasses.replace(full, samples=full.samples.select("sample", "max_grad_norm")))
    flat = full.curves.with_columns(value=pl.lit(1.0))
    with pytest.raises(Unavailable, match="same return"):
        importance_table(dataclasses.replace(full, curves=flat))
