"""How commands end: the report, what is printed last, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hyperlax import leaving
from hyperlax.storage import calling
from hyperlax.storage.patience import patient

FAILED = 1


@patient()
def conclude(results: Any, folder: Path, more: Sequence[str] = ()) -> int:
    """Write the report; print the leaderboard, the findings, `more`, and what to do next.

    The exit code is `FAILED` if a lane has failed, or if all of them are lost, here or in the confirmation.
    """
    from rich.console import Console

    from hyperlax.commands.tables import best_words, confirmed_table, leaderboard_table
    from hyperlax.report import leaderboard, selection_bias, write_report
    from hyperlax.report.charts.ablation import ablated
    from hyperlax.report.findings import findings, named
    from hyperlax.report.lineage import explored
    from hyperlax.run.advice import advice, all_lost
    from hyperlax.storage import store

    console = Console(highlight=False, markup=False)  # a folder may be called x[speed=2]
    with console.status("writing the report"):
        report = write_report(results, folder / store.REPORT)
        if (confirmed := results.confirmation) is not None:
            write_report(confirmed, confirmed.folder / store.REPORT)
        leaving.from_now_on(None)
        board = leaderboard(results, None)
        found = findings(results)
    if board["score"].count():
        console.print(leaderboard_table(board.head(5), results.samples.height))
        if not more and not named(results) and (best := best_words(board, results.samples)):
            console.print(best)
            if explored(results):
                console.print("(its values at the start: the report shows how they changed)", style="dim")
    if confirmed is not None:
        console.print(confirmed_table(selection_bias(results)))
    for path in ablated(results):
        drawn = calling.line("figure", folder.absolute(), "--by", path, "--paired")
        console.print(f"figure: {drawn}", soft_wrap=True)
    lanes = results.lanes["status"]
    counts = {s: int((lanes == s).sum()) for s in ("done", "diverged", "pruned", "failed")}
    console.print(
        ", ".join(f"{n} {s}" for s, n in counts.items() if n)
        + f" in {results.manifest['timings']['wall_seconds']:.1f} s"
    )
    parts = [results, confirmed] if confirmed is not None else [results]
    for part, of in zip(parts, ("", "confirmation: "), strict=False):
        for line in advice(part):
            console.print(of + line, style="yellow", soft_wrap=True)
    console.print()
    for sentence in found.sentences:
        console.print(sentence)
    console.print()
    for line in more:
        console.print(line, soft_wrap=True)
    if not more:
        console.print(f"next: {next_command(results, found.flags, folder, found.sample)}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return FAILED if sum(_failures(part) for part in parts) or any(map(all_lost, parts)) else 0


def next_command(
    results: Any, flags: Sequence[tuple[str, ...]], folder: Path, sample: int | None = None
) -> str:
    """The suggested next command: this one with more flags, or one that plays the best policy.

    If the findings name a `sample`, that is the best kept policy of this sample, a confirmed one if there is
    any.
    """
    from hyperlax.storage import store

    command = sys.argv[1:]  # the manifest, which may be passed on, names no folders
    if flags and results.manifest.get("command"):
        return calling.here(*command, *(word for flag in flags if flag[0] not in command for word in flag))
    parts = [(results, folder)]
    if sample is not None and (again := results.confirmation) is not None:
        parts.insert(0, (again, again.folder or folder / store.CONFIRMATION))
    for part, place in parts:
        policy = _best_policy(part, place, sample)
        if policy is not None and (played := _playing(part, policy)) is not None:
            return played
    return calling.line("plot-benchmark", "--results-dir-to-plot", folder.absolute(), "--format", "png")


def _playing(results: Any, policy: Path) -> str | None:
    """The command that plays a policy, which names the classes of one's own, as files of data may not.

    None where a class is in a file that the manifest does not name in full.
    """
    from hyperlax import envs
    from hyperlax.agents import AGENTS
    from hyperlax.networks import NETWORKS

    known = {
        "algorithm": ("--algorithm", lambda name: name in AGENTS),
        "network": ("--network", lambda name: name in NETWORKS),
        "env": ("--env-config", envs.named),
    }
    named = [(flag, results.manifest.get(entry), found) for entry, (flag, found) in known.items()]
    own = [(flag, name) for flag, name, registered in named if name and not registered(name)]
    if any(name.startswith("…") for _, name in own):
        return None
    words = [word for pair in own for word in pair]
    return (calling.here if own else calling.line)("play", policy.absolute(), *words)


def _best_policy(results: Any, folder: Path, sample: int | None) -> Path | None:
    """The kept policy of the lane with the highest score, of one `sample` or of all; None without any."""
    from hyperlax.report.scores import lane_scores

    kept = {int(path.stem.rpartition("-")[2]): path for path in (folder / "policies").glob("lane-*.policy")}
    scored = lane_scores(results).drop_nulls("score").sort("score", descending=True, maintain_order=True)
    if sample is not None:
        scored = scored.filter(scored["sample"] == sample)
    return next((kept[lane] for lane in scored["lane"].to_list() if lane in kept), None)


def _failures(results: Any) -> int:
    """Print why lanes have failed; return how many."""
    from hyperlax.run.advice import first_line

    for lane, error in results.manifest["timings"]["errors"].items():
        of = " of the confirmation" if results.manifest.get("confirms") else ""
        print(f"lane {lane}{of} failed: {first_line(error)}", file=sys.stderr)
    return int((results.lanes["status"] == "failed").sum())


def _again(typed: Sequence[str]) -> str:
    """The command that continues the run; empty for one of many tasks, or if it may hold a password."""
    if typed[:1] == ["unit"] or any("://" in word for word in typed):
        return ""
    resumed = [] if any(word.startswith("--resume") for word in typed) else ["--resume"]
    return f": {calling.here(*typed, *resumed)}"


def stopped(why: Any) -> int:
    """Print how to continue; return the exit code of an interrupted run."""
    print(f"{why}; {leaving.RESUMABLE}{_again(sys.argv[1:])}", file=sys.stderr)
    return leaving.exit_code(why.signum)
