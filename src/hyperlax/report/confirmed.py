"""What the fresh seeds of a confirmation have shown, in words that choose nothing once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from hyperlax.report.scores import headline_of, measured_by, ranked, sample_scores, seed_scores
from hyperlax.report.words import score_words
from hyperlax.statistics import LEVEL, difference, holm
from hyperlax.storage.results import Results
from hyperlax.storage.wording import counted, listed


def confirmed_words(results: Results) -> tuple[str, int] | None:
    """Return what a confirmation has shown and the sample whose score is to be quoted; None without scores.

    That sample is the first of the tuning scores, which was chosen before any of the fresh seeds. The highest
    confirmed score would be a maximum again, and optimistic for the same reason as the tuning scores.
    """
    if results.confirmation is None:
        return None
    again = measured_by(results.confirmation, headline_of(results.manifest).name)
    scored = sample_scores(again).drop_nulls("score")
    tuned = ranked(results).join(scored.select("sample"), on="sample", how="semi", maintain_order="left")
    if tuned.is_empty():
        return None
    first = int(tuned["sample"][0])
    own = scored.row(by_predicate=pl.col("sample") == first, named=True)
    alike = int((tuned["score"] == tuned["score"][0]).sum())
    place = f"the first of {alike} that tied in tuning" if alike > 1 else "which came first in tuning"
    if first != int(ranked(results)["sample"][0]):
        place += " of those with a confirmed score"
    said = [f"Confirmed: with fresh seeds, sample {first}, {place}, scores {score_words(own)}; quote that."]
    said += _others_words(again, scored.filter(pl.col("sample") != first), own)
    return " ".join(said), first


def _others_words(again: Results, others: pl.DataFrame, own: dict[str, Any]) -> list[str]:
    """Say which other confirmed samples score as much as `own` or more, and what that is worth."""
    first, said = own["sample"], []
    alike = others.filter(pl.col("score") == own["score"])["sample"].to_list()
    if alike:
        said.append(f"{_samples(alike)} {'scores' if len(alike) == 1 else 'score'} exactly the same.")
    above = others.filter(pl.col("score") > own["score"])
    if above.is_empty():
        return said
    highest = float(above["score"].to_numpy().max())
    top = above.filter(pl.col("score") == highest)
    names = top["sample"].to_list()
    verb = "scores" if len(names) == 1 else "score"
    value = score_words(top.row(0, named=True))
    apart = set(names) & set(_ahead(again, others["sample"].to_list(), int(first)))
    told = "is told apart from" if apart else "cannot be told apart from"
    if len(names) > 1:
        told = "some are told apart from" if apart else "none can be told apart from"
    said.append(
        f"{_samples(names)} {verb} more, {value}, but that is again a maximum, of "
        f"{counted(len(others) + 1, 'sample')}, and so optimistic; {'it ' if len(names) == 1 else ''}{told} "
        f"sample {first}."
    )
    return said


def _ahead(again: Results, others: Sequence[int], first: int) -> list[int]:
    """Return the samples of `others` that a permutation test finds ahead of `first`, corrected by Holm.

    There are none where scores are a maximum over the mean of seeds, which single seeds say nothing about.
    """
    if headline_of(again.manifest).maximum:
        return []
    own, *rest = seed_scores(again, [first, *others])
    gaps = [difference(values, own) for values in rest]
    p = holm(np.array([gap.p for gap in gaps]))
    return [
        sample
        for sample, gap, corrected in zip(others, gaps, p, strict=True)
        if corrected <= 1 - LEVEL and gap.value > 0
    ]


def _samples(ids: Sequence[int]) -> str:
    return f"Sample {ids[0]}" if len(ids) == 1 else f"Samples {listed([str(i) for i in sorted(ids)])}"
