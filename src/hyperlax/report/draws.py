"""Which samples are independent random draws, as every interval and claim over samples takes them to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float

from hyperlax.report.evaluations import behind, is_guided, stopped_early
from hyperlax.report.scores import sample_scores, scores
from hyperlax.report.words import left_out_words
from hyperlax.storage.results import Results
from hyperlax.storage.wording import counted, listed

AGREEING = "agree with others in all but a part of their hyperparameters"
"""What samples do that are no independent draws because they are `repeated`, or have others like them."""


def chosen(results: Results) -> str:
    """Say in a clause how scores decided which samples there are, or how they ended; empty if they did not.

    No sample of such an experiment is a draw that is independent of the others.
    """
    if is_guided(results):
        return f"a search proposed the trials of {results.name} by the scores of those before"
    if len(results.lineage):
        return f"lanes of {results.name} continued from copies of one another"
    if count := stopped_early(results):
        return f"{counted(count, 'sample')} of {results.name} stopped early by their scores"
    return ""


def repeated(results: Results) -> frozenset[int]:
    """Return the samples of a design that agree with one before in all but a part of their hyperparameters.

    These are all but the first of a pair, and the rows of the AB matrices of a sensitivity analysis.
    """
    samples, again = results.samples, pl.lit(value=False)
    if "pair" in samples.columns:
        again |= pl.col("pair").is_not_null() & ~pl.col("pair").is_first_distinct()
    if "matrix" in samples.columns:
        again |= pl.col("matrix").str.starts_with("AB:").fill_null(value=False)
    return frozenset(samples.filter(again)["sample"].to_list())


def dependence(results: Results) -> str:
    """Say in a clause why the samples are no independent draws; empty if they are."""
    if repeated(results):
        return f"samples of {results.name} {AGREEING}"
    return chosen(results)


def drawn_scores(results: Results) -> Float[np.ndarray, " samples"]:
    """Return `scores` without those of `repeated` samples."""
    return scores(results, repeated(results))


def no_interval_words(experiments: Sequence[Results]) -> str:
    """Say of which experiments no interval over samples is drawn, as a sentence; empty if of none."""
    return no_interval([dependence(results) for results in experiments])


def no_interval(reasons: Iterable[str]) -> str:
    """Say that there is no interval for these `reasons`, each once, as a sentence; empty if all are."""
    why = [reason for reason in dict.fromkeys(reasons) if reason]
    return f"No interval over samples that are no independent draws: {'; '.join(why)}." if why else ""


def fewer_steps_words(experiments: Sequence[Results]) -> str:
    """Say how many samples of a chart have fewer env steps than others, as a sentence; empty if none."""
    late = sum(len(behind(results)) for results in experiments)
    return f" Among them {left_out_words(late)}." if late else ""


def unscored_words(experiments: Sequence[Results]) -> str:
    """Say how many samples have no place in a chart of scores, as a sentence; empty if all have."""
    scored = [sample_scores(results)["score"].count() for results in experiments]
    count = sum(len(results.samples) for results in experiments) - sum(scored)
    return f" Left out: {counted(count, 'sample')} without an evaluation." if count else ""


def uncompared(results: Results) -> int:
    """Return how many samples, beside those that are `repeated`, are not among `drawn_scores`."""
    again = len(repeated(results) & set(results.samples["sample"].to_list()))
    return len(results.samples) - again - len(drawn_scores(results))


def uncompared_words(experiments: Sequence[Results]) -> str:
    """Say how many samples of which experiments are `uncompared`, as a sentence; empty if none."""
    said = [
        f"{count:,} of {counted(len(results.samples), 'sample')} of {results.name}"
        for results in experiments
        if (count := uncompared(results))
    ]
    return f"Left out, without an evaluation or with fewer env steps: {listed(said)}." if said else ""


def repeated_words(experiments: Sequence[Results]) -> str:
    """Say how many samples are left out because they repeat others; empty if none."""
    count = sum(len(repeated(results)) for results in experiments)
    agreeing = AGREEING.replace("agree", "agrees") if count == 1 else AGREEING
    return (
        f"Left out: {counted(count, 'sample')} of pairs or of a sensitivity analysis, which {agreeing}."
        if count
        else ""
    )
