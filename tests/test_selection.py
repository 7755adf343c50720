"""Selection bias of tuning scores: the drop, its interval, and the claims made from it."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from report_data import confirmed, frame, manifest, synthetic
from scipy.stats import permutation_test

from hyperlax.report.charts import NothingToDraw, confirmation_chart
from hyperlax.report.selection import average_drop, drop_words, selection_bias
from hyperlax.storage.results import Results


def scored(*samples: list[float]) -> Results:
    """Build an experiment whose lanes have one evaluation each, from one row of returns per sample."""
    lanes, curves = [], []
    for sample, returns in enumerate(samples):
        for seed, value in enumerate(returns):
            lane = len(lanes)
            lanes.append((lane, sample, seed, "done", 100, 1, 0, 1.0, 1, 0, None))
            curves.append((lane, sample, seed, 100, 1, 0, 1.0, "return", float(value)))
    table = pl.DataFrame({"sample": range(len(samples))})
    return Results(manifest(1, 1, 1, 100), table, frame("lanes", lanes), frame("curves", curves))


def with_confirmation(results: Results, again: Results) -> Results:
    return dataclasses.replace(results, confirmation=again)


def test_scores_and_drop_agree_with_hand_computed_values():
    """The scores are interquartile means; a sample that was not retrained is absent."""
    before = scored([1, 1, 1, 1], [2, 4, 6, 100], [9, 9, 9, 9])
    again = scored([0, 0, 0, 0], [1, 2, 4, 50], [9, 9, 9, 9])
    keep = pl.col("sample") > 0
    again = dataclasses.replace(
        again,
        samples=again.samples.filter(keep),
        lanes=again.lanes.filter(keep),
        curves=again.curves.filter(keep),
    )
    found = selection_bias(with_confirmation(before, again))
    assert found["sample"].to_list() == [2, 1]
    assert found["tuning"].to_list() == [9.0, 5.0]
    assert found["confirmed"].to_list() == [9.0, 3.0]
    assert found["drop"].to_list() == [0.0, 2.0]
    assert found.row(0)[7:10] == (0.0, None, None)
    assert found["seeds"].to_list() == [4, 4]
    assert average_drop(with_confirmation(before, again)).value == 1.0


def test_the_interval_of_the_drop_is_that_of_a_permutation_test():
    """Zero lies outside of it exactly if scipy's test rejects."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        before, after = rng.normal(53, 5, 6), rng.normal(47, 5, 6)
        found = selection_bias(with_confirmation(scored(list(before)), scored(list(after))))
        low, high = found.row(0, named=True)["drop_low"], found.row(0, named=True)["drop_high"]
        test = permutation_test((before, after), lambda a, b: a.mean() - b.mean(), n_resamples=1_000)
        assert (low > 0 or high < 0) == (test.pvalue <= 0.05)


def test_the_interval_of_the_average_shrinks_with_the_number_of_samples():
    """Four times as many samples halve the width of the interval."""
    rng = np.random.default_rng(1)
    widths = []
    for count in (4, 16):
        before, after = (scored(*rng.normal(0, 1, (count, 20)).tolist()) for _ in range(2))
        ends = average_drop(with_confirmation(before, after))
        widths.append(float(ends.high - ends.low))
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.3)


def test_a_bias_is_claimed_only_if_the_interval_excludes_zero():
    same = with_confirmation(scored([1, 2, 3, 4]), scored([1.1, 2, 3, 4]))
    lower = with_confirmation(scored([11, 12, 13, 14]), scored([1, 2, 3, 4]))
    single = with_confirmation(scored([3]), scored([1]))
    assert drop_words(same).endswith("no bias is claimed.")
    assert drop_words(lower).startswith("The average drop is 10 [")
    assert "claimed" not in drop_words(lower)
    assert drop_words(single) == "The average drop is 2; so few seeds give no interval."
    assert drop_words(with_confirmation(scored([3]), scored([]))) == "Nothing has been confirmed yet."


def test_experiments_without_a_confirmation_are_refused():
    with pytest.raises(ValueError, match=r"use --confirm or hyperlax\.confirm"):
        selection_bias(scored([1, 2]))
    with pytest.raises(NothingToDraw, match="retrained with fresh seeds"):
        confirmation_chart(scored([1, 2]))


def test_the_chart_has_equal_axes_a_diagonal_and_bars_both_ways():
    spec = confirmation_chart(confirmed(synthetic(samples=4, seeds=10), (2, 0, 1))).to_dict()
    scales = [layer["encoding"][axis]["scale"]["domain"] for layer in spec["layer"] for axis in ("x", "y")]
    assert all(scale == scales[0] for scale in scales)
    assert spec["width"] == spec["height"]
    marks = [layer["mark"]["type"] for layer in spec["layer"]]
    assert marks == ["line", "rule", "rule", "point", "text"]
    ends = spec["datasets"][spec["layer"][0]["data"]["name"]]
    assert all(row["tuning"] == row["confirmed"] for row in ends)


def test_one_seed_is_drawn_without_bars():
    spec = confirmation_chart(confirmed(synthetic(samples=3, seeds=1, diverged=()), (0,))).to_dict()
    assert [layer["mark"]["type"] for layer in spec["layer"]] == ["line", "point", "text"]
