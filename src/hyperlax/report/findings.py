"""What an experiment has found, in three plain sentences that claim no more than the statistics do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hyperlax.report.charts.ablation import ablation_notes, ablation_table
from hyperlax.report.charts.style import text
from hyperlax.report.confirmed import confirmed_words
from hyperlax.report.evaluations import behind, common_end, has_ended
from hyperlax.report.figures.pairs import claimed
from hyperlax.report.leaderboard import leaderboard, tied, varied_hyperparameters
from hyperlax.report.lineage import explored
from hyperlax.report.metrics import reference_scores
from hyperlax.report.scores import headline_of, title_of
from hyperlax.report.words import chosen_words, left_out_words, score_words
from hyperlax.storage.results import UNFINISHED, Results
from hyperlax.storage.wording import counted, listed

_NAMED = 3
"""Most hyperparameters of the best sample that are named; more would hide the score."""
_CONFIRMED = 5
"""Most samples that are proposed for a confirmation."""
_NOTHING = "No sample has an evaluation: every lane was lost, or none was evaluated."


@dataclass(frozen=True)
class Findings:
    """What was compared, what is best and how sure that is, and what to do next, a sentence or two each.

    `flags` are those to add to the command of the experiment for what comes next, each with its value; empty
    if there is no such command. `sample` is the one that comes next, if it is named.
    """

    compared: str
    best: str
    next: str
    flags: tuple[tuple[str, ...], ...] = ()
    sample: int | None = None

    @property
    def sentences(self) -> list[str]:
        """The three, in order."""
        return [self.compared, self.best, self.next]


def findings(results: Results) -> Findings:
    """Return what the experiment has found so far, by its headline metric."""
    board = leaderboard(results, None)
    compared = _compared(results)
    left = int(results.lanes["status"].is_in(UNFINISHED).sum())
    if not board["score"].count():
        best = "Nothing has been evaluated yet." if left or results.lanes.is_empty() else _NOTHING
        return Findings(compared, best, *_when_unfinished(left))
    best = _best(results, board)
    if notes := ablation_notes(results):
        best += " " + " ".join(f"In pairs, {note}" for note in notes)
    if left:
        return Findings(compared, best, *_when_unfinished(left))
    if (said := confirmed_words(results)) is not None:
        return Findings(compared, best, *_after_confirming(results, *said))
    return Findings(compared, best, *_next(results, board))


def named(results: Results) -> list[str]:
    """Return the hyperparameters to name of the best sample: those that vary, unless these are many."""
    varied = varied_hyperparameters(results.samples)
    return varied if len(varied) <= _NAMED else []


def _compared(results: Results) -> str:
    manifest, settings = results.manifest, results.manifest.get("settings", {})
    trials = len(results.trials)
    samples = counted(trials or len(results.samples), "trial" if trials else "sample")
    recipe, env = manifest.get("recipe", results.name), manifest.get("env", "an unnamed environment")
    seeds = settings.get("seeds")
    each = " each" if len(results.samples) > 1 else ""
    made = f", with {counted(int(seeds), 'seed')}{each}" if seeds else ""
    asked = settings.get("total_timesteps")
    ends = results.lanes.filter(pl.col("status") == "done", pl.col("env_steps") > 0)["env_steps"].to_list()
    as_asked = not ends or (asked and common_end([*ends, asked]) is None)
    budget = asked if as_asked else min(ends)
    trained = f" over {int(budget):,} env steps" if budget else ""
    varied = varied_hyperparameters(results.samples)
    differ = f"; they differ in {_listed(varied)}" if varied else ""
    return f"Compared: {samples} of {recipe} on {env}{made}{trained}{differ}."


def _listed(names: Sequence[str]) -> str:
    if len(names) > _NAMED + 1:
        return f"{len(names)} hyperparameters"
    return listed(names)


def _best(results: Results, board: pl.DataFrame) -> str:
    row, title = board.row(0, named=True), title_of([results])
    scored, late = int((board["rank"] != "–").sum()), behind(results)
    left_out = f"Not ranked: {left_out_words(len(late))}." if late else ""
    solved = reference_scores(results.manifest).get("solved")
    known = "" if solved is None else f", where {text(solved)} counts as solved"
    if len(results.samples) == 1:
        return f"Its {title} is {score_words(row)}{known}. {left_out}".strip()
    if not scored:
        return f"No sample can be ranked yet. {left_out}"
    chosen = ", ".join(f"{name} = {text(row[name])}" for name in named(results))
    at_first = " at the start" if explored(results) else ""
    which = f"sample {row['sample']}" + (f" ({chosen}{at_first})" if chosen else "")
    said = f"Best: {which} with a {title} of {score_words(row)}{known}."
    apart = _apart(row, tied(board), scored, len(results.samples))
    return " ".join(filter(None, [said, chosen_words(row, scored), apart, left_out]))


def _apart(row: dict[str, Any], same: int, scored: int, samples: int) -> str:
    """Say from how many others the first sample of a leaderboard is told apart: its rank is "1–last"."""
    if scored == 1:
        return "No other sample is ranked." if samples > 1 else ""
    last = int(row["rank"].rpartition("–")[2])
    others, apart = scored - 1, scored - last
    if apart == others:
        return (
            "It is told apart from the other one."
            if others == 1
            else f"It is told apart from all {others} others."
        )
    why = "; ranks need four seeds or more" if int(row["seeds"]) < 4 else ""
    if same > 1:
        why = f"; {counted(same, 'sample')} score exactly the same"
    if apart:
        return f"It is told apart from {apart} of the {others} others, not from the rest{why}."
    if others == 1:
        return f"It cannot be told apart from the other one{why}."
    return f"It cannot be told apart from any of the {others} others{why}."


def _when_unfinished(left: int) -> tuple[str, tuple[tuple[str, ...], ...]]:
    if left:
        still = "is" if left == 1 else "are"
        return f"Next: {counted(left, 'lane')} {still} not done; continue with --resume.", (("--resume",),)
    return "Next: see which lanes were lost, and why, under Training health.", ()


def _after_confirming(
    results: Results, said: str, sample: int
) -> tuple[str, tuple[tuple[str, ...], ...], int | None]:
    """Return `said`, unless the confirmation goes on first, with the flags for that and the sample named."""
    again = results.confirmation
    left = int(again.lanes["status"].is_in(UNFINISHED).sum()) if again is not None else 0
    if left:
        still = "is" if left == 1 else "are"
        next_ = f"Next: {counted(left, 'lane')} of the confirmation {still} not done; continue with --resume."
        return next_, (("--resume",),), None
    return said, (), sample


def _next(results: Results, board: pl.DataFrame) -> tuple[str, tuple[tuple[str, ...], ...]]:
    if len(results.trials):
        if "done" not in results.trials["state"]:
            return "Next: search further, with more trials, because none was trained to its end.", ()
        return (
            "Next: train best_recipe.py with fresh seeds, because the best trial owes a part of its score "
            "to being chosen.",
            (),
        )
    if (pairs := ablation_table(results)).height:
        if not all(claimed(pairs.rows(named=True))):
            return (
                "Next: draw more pairs, with another --seed in another folder, and give hyperlax figure both "
                "folders, to narrow what is open.",
                (),
            )
        return "Next: draw the paired differences for a paper, with hyperlax figure.", ()
    if len(results.samples) == 1:
        if results.manifest.get("confirms"):
            return "Next: quote this score, of fresh seeds, and not the one that it was chosen by.", ()
        return (
            "Next: train other hyperparameters beside it with sweep-hp-samples, to see what they reach.",
            (),
        )
    if explored(results) or results.manifest.get("confirms"):
        return "Next: watch the best policy with hyperlax play, or draw the curves with hyperlax figure.", ()
    first = [rank.partition("–")[0] == "1" for rank in board["rank"].to_list()]
    if not any(first):
        return _when_unfinished(0)
    count = min(_CONFIRMED, sum(first))
    several = f"{count} of the {sum(first)}" if sum(first) > count else f"the {count}"
    which = "the best sample" if count == 1 else f"{several} that may be the best"
    return (
        f"Next: train {which} again from fresh seeds, with --resume --confirm {count}, because a score is "
        "optimistic when it was chosen for being high.",
        (("--resume",), ("--confirm", str(count))),
    )


def comparison_findings(
    environments: Mapping[str, Sequence[Results]], verdicts: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the three sentences for experiments side by side, by environment, with `verdicts` on each."""
    every = [results for families in environments.values() for results in families]
    names = list(dict.fromkeys(results.name for results in every))
    shown = " and ".join(names) if len(names) < 3 else f"{len(names)} families"
    places = counted(len(environments), "environment") if len(environments) > 1 else next(iter(environments))
    title = headline_of(every[0].manifest).title
    compared = f"Compared: {shown} on {places}, {counted(len(every), 'experiment')} in all, by their {title}."
    best = []
    for env, families in environments.items():
        boards = [(results, leaderboard(results, None)) for results in families]
        ended = [(r, board) for r, board in boards if has_ended(r)] or boards
        known = [(r, board) for r, board in ended if board["score"].count()]
        if not known:
            best.append(f"On {env} nothing has been evaluated yet.")
            continue
        missing = [r.name for r in families if r.name not in {other.name for other, _ in known}]
        said = f"Best on {env}: {_leaders(known)}"
        if missing:
            said += f" {listed(missing)} {'has' if len(missing) == 1 else 'have'} no score yet."
        more = len(verdicts[env]) - _NAMED
        rest = [f"{counted(more, 'more comparison')} below."] if more > 0 else []
        best.append(" ".join([said, *verdicts[env][:_NAMED], *rest]))
    claimed = any(" is ahead of " in line for lines in verdicts.values() for line in lines)
    following = (
        "Next: read the scores of the best samples as optimistic until they are trained again from fresh "
        "seeds, with --confirm in a sweep."
        if claimed
        else "Next: train more samples or seeds if the difference matters: no claim does not mean that there "
        "is no difference."
    )
    return [compared, " ".join(best), following]


def _leaders(known: Sequence[tuple[Results, pl.DataFrame]]) -> str:
    """Name in a sentence who has the highest score of all families, each with those of its own that tie."""
    highest = max(float(board["score"][0]) for _, board in known)
    leaders = [(results, board) for results, board in known if board["score"][0] == highest]
    names = []
    for results, board in leaders:
        same = tied(board)
        others = f" (one of {same} that score the same)" if same > 1 else ""
        names.append(f"sample {board['sample'][0]} of {results.name}{others}")
    alike, row = "" if len(names) == 1 else " alike,", leaders[0][1].row(0, named=True)
    scored = sum(int(board["score"].count()) for _, board in known)
    return f"{listed(names)}{alike} with {score_words(row)}. {chosen_words(row, scored)}".strip()
