"""Advice about lost lanes, by the causes that the manifest records."""

from __future__ import annotations

from collections import Counter

from hyperlax.run.causes import ENVIRONMENT, EXCEPTION, LEARNING, MEMORY
from hyperlax.storage.results import Results

LOST = ("diverged", "failed")
"""The states of lanes that are lost."""
SIZES = "lower num_envs, rollout_length or the network's size"


def all_lost(results: Results) -> bool:
    """Whether there are lanes, and every one has diverged or failed.

    In a search, a lane that was stopped because another of its trial was lost counts as lost.
    """
    lanes = results.lanes
    lost = lanes["status"].is_in(LOST)
    if len(results.trials):
        trials = lanes.filter(lost)["sample"].unique().to_list()
        lost |= (lanes["status"] == "pruned") & lanes["sample"].is_in(trials)
    return bool(len(lanes)) and bool(lost.all())


def causes(results: Results) -> Counter[str]:
    """Cause → the number of lanes that are lost for it, most frequent first.

    Results of versions that recorded none count as diverged by learning, or as failed by an exception.
    """
    known = results.manifest.get("timings", {}).get("causes", {})
    assumed = {"diverged": LEARNING, "failed": EXCEPTION}
    lost = results.lanes.filter(results.lanes["status"].is_in(LOST)).select("lane", "status").rows()
    return Counter(dict(Counter(known.get(str(n)) or assumed[status] for n, status in lost).most_common()))


def advice(results: Results) -> list[str]:
    """A line with what to try for each cause of lost lanes, the most frequent first.

    Learning and exceptions are mentioned only if no lane is left: in a search, some lanes may diverge, and
    failed lanes are named with their errors elsewhere.
    """
    lost, total, whole = causes(results), len(results.lanes), all_lost(results)
    lines = []
    for cause, number in lost.items():
        if cause in (LEARNING, EXCEPTION) and not whole:
            continue
        which = "every lane" if len(lost) == 1 and whole else f"{number} of {total} lanes"
        lines.append(f"{which} {_WORDS[cause](results)}")
    return lines


def _by_environment(results: Results) -> str:
    return (
        f"diverged because {results.manifest['env']} returned rewards or observations that are not finite: "
        f"{_check(results)} tells where"
    )


def _by_learning(results: Results) -> str:
    smaller = " ".join(
        f"--set {k}={v / 10:g}"
        for k, v in results.manifest["defaults"].items()
        if k.endswith("_lr") and "." not in k
    )
    how = f" ({smaller})" if smaller else ""
    env = results.manifest["env"]
    return (
        f"diverged: try smaller learning rates{how}; if they all diverge again, {_check(results)} tells "
        f"whether {env} returns finite numbers"
    )


def _by_memory(results: Results) -> str:
    return f"failed for want of memory: {SIZES}"


def _by_exception(results: Results) -> str:
    numbers = results.manifest.get("timings", {}).get("causes", {})
    errors = results.manifest.get("timings", {}).get("errors", {})
    said = next(
        (first_line(e) for lane, e in errors.items() if numbers.get(lane, EXCEPTION) == EXCEPTION), ""
    )
    return f"failed: {said or 'the log has the reason'}"


_WORDS = {
    ENVIRONMENT: _by_environment,
    LEARNING: _by_learning,
    MEMORY: _by_memory,
    EXCEPTION: _by_exception,
}


def first_line(error: str) -> str:
    """The first line of the text of an error that says anything."""
    return next((line.strip() for line in error.splitlines() if line.strip()), "")


def _check(results: Results) -> str:
    """The call that checks the environment; a class of the user's own is built by its constructor."""
    place, colon, rest = str(results.manifest["env"]).rpartition(":")
    name = rest.partition("[")[0]
    return f"hyperlax.testing.check_env({f'{name}()' if colon and name else repr(place + colon + rest)})"
