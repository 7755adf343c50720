"""Tables that commands print at their end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyperlax.registry import escaped

if TYPE_CHECKING:
    from rich.console import RenderableType

_EXPENDABLE_OF_CELLS = (
    *("programs", "evaluate", "compile", "train", "env steps", "lanes", "mode", "seconds", "state"),
    "predicted",
)
"""The columns of a table of cells to leave out where the terminal is narrow, the least important first."""


def cells_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The cells of a benchmark, with a column per entry of any cell; below it those that were not run."""
    from rich.console import Group

    from hyperlax.run.fitting import Fitting
    from hyperlax.studies.prediction import BORROWED

    columns = [k for k in dict.fromkeys(k for row in rows for k in row) if any(row.get(k) for row in rows)]
    why = [f"{row['recipe']} on {row['environment']} {row['why']}" for row in rows if row.get("why")]
    columns = [column for column in columns if column != "why"]
    shown = [
        ["" if row.get(column) is None else _count(row[column]) for column in columns]
        for row in rows
        if not str(row.get("why")).startswith("skipped")
    ]
    borrowed = any(str(row.get("predicted", "")).startswith(BORROWED) for row in rows)
    meanings = {"predicted": f"{BORROWED} marks estimates from similar cells"} if borrowed else {}
    return Group(Fitting(columns, shown, _EXPENDABLE_OF_CELLS, columns[:3], meanings), *why)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def checked_table(found: Sequence[Any], root: Any) -> RenderableType:
    """The findings of `storage.checking.check`: one row per folder, by its path below `root`."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("folder", "state", "files", ""):
        table.add_column(name, justify="right" if name == "files" else "left", overflow="fold")
    for entry in found:
        said = [f"{len(entry.problems)} damaged"] if entry.problems else []
        table.add_row(
            escaped(str(entry.folder.relative_to(root))),
            entry.state,
            str(entry.files),
            "; ".join([*said, *entry.notes]),
        )
    return table


def states_table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The rows of `cluster.state.Look`, of its units, or of `states.State`."""
    from hyperlax.run.fitting import Fitting

    names = [name for name in (rows[0] if rows else {}) if name != "merged"]
    cells = [[escaped(str(row[name])) for name in names] for row in rows]
    expendable = ("by", "left", "units", "lost", "waiting", "running", "env steps")
    return Fitting(names, cells, expendable, ("cell", "unit", "experiment", "state", "by"))


def leaderboard_table(board: Any, samples: int) -> RenderableType:
    """The frame of `report.leaderboard`, the best of `samples`; hyperparameters are left to the report."""
    from rich.console import Group

    from hyperlax.report.scores import FRESH_WORDS, PLAIN_MEAN
    from hyperlax.run.fitting import Fitting
    from hyperlax.statistics import FEWEST_TRIMMED, HEADLINES, iqm

    headline, rows = HEADLINES[board["metric"][0]], []
    certain = board["score_low"].null_count() < board.height
    spread = "95 % interval" if certain else "range of seeds"
    for row in board.iter_rows(named=True):
        ends = ("score_low", "score_high") if certain else ("lowest_seed", "highest_seed")
        seeds = f"{row['seeds_done']}" + (
            f" ({row['seeds_diverged']} diverged)" if row["seeds_diverged"] else ""
        )
        rows.append(
            [
                row["rank"],
                str(row["sample"]),
                number(row["score"]),
                span(*(row[end] for end in ends)) if certain or row["seeds"] > 1 else "–",
                number(row["fresh_return"]),
                seeds,
            ]
        )
    names = ("rank", "sample", headline.title, spread, "fresh", "seeds")
    title = f"best {board.height} of {samples} samples by {headline.title}" if samples > 1 else headline.title
    table = Fitting(names, rows, ("fresh", "seeds", spread), meanings={"fresh": FRESH_WORDS})
    if board["seeds"].max() < FEWEST_TRIMMED and headline.average is iqm:
        return Group(f"{title}: {headline.definition}. {PLAIN_MEAN}", table)
    return Group(f"{title}: {headline.definition}", table)


def confirmed_table(found: Any) -> RenderableType:
    """The frame of `report.selection_bias`: what the best samples score from fresh seeds."""
    from rich.console import Group

    from hyperlax.run.fitting import Fitting
    from hyperlax.statistics import HEADLINES

    rows = [
        [
            str(row["sample"]),
            number(row["tuning"]),
            number(row["confirmed"]),
            number(row["drop"]),
            span(row["drop_low"], row["drop_high"]),
            f"{row['seeds']}" + (f" ({row['seeds_diverged']} diverged)" if row["seeds_diverged"] else ""),
        ]
        for row in found.iter_rows(named=True)
    ]
    names = ("sample", "tuning", "confirmed", "drop", "95 % interval", "seeds")
    table = Fitting(names, rows, ("seeds", "drop", "95 % interval"))
    title = HEADLINES[found["metric"][0]].title if found.height else "score"
    return Group(f"confirmed from fresh seeds: {title}; drop: how much being chosen had added", table)


def best_words(board: Any, samples: Any) -> str:
    """What was chosen for the first sample of the leaderboard; nothing when there is no choice or score.

    `board` holds all samples, since others may score the same.
    """
    from hyperlax.report.leaderboard import tied, varied_hyperparameters

    varied = varied_hyperparameters(samples)
    if not varied or not board.height or board["score"][0] is None:
        return ""
    row = board.row(0, named=True)
    chosen = (
        f"{name}={row[name]:.4g}" if isinstance(row[name], float) else f"{name}={row[name]}"
        for name in varied
    )
    others = f", of {tied(board)} that score the same" if tied(board) > 1 else ""
    return f"sample {row['sample']}{others}: {', '.join(chosen)}"


def span(low: float | None, high: float | None) -> str:
    """Two ends of a range in words; a dash without them."""
    return "–" if low is None or high is None else f"{low:.1f} … {high:.1f}"


def number(value: float | None) -> str:
    """A score in words; a dash for none."""
    return "–" if value is None else f"{value:.1f}"
