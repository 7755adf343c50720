"""Grouping samples into programs, given what every group would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Group = tuple[int, ...]
"""The places of samples that share a program."""
LEAST_SAVED = 1e-6
"""Seconds that moving samples has to save; less is rounding."""


def equal(keys: Sequence[tuple]) -> list[Group]:
    """Group the indices of equal keys."""
    groups: dict[tuple, list[int]] = {}
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [tuple(g) for g in groups.values()]


def merged(
    groups: list[Group], cost: Callable[[Group], tuple[float, bool]], max_programs: int
) -> list[Group]:
    """Merge pairs of groups by `cost` (seconds, acceptable) while that saves time or there are too many."""
    seconds = {g: cost(g)[0] for g in groups}
    joined: dict[tuple[Group, Group], tuple[float, bool]] = {}
    while len(groups) > 1:
        best, pair = float("inf"), (0, 0)
        too_many = len(groups) > max_programs
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                key = (groups[a], groups[b])
                if key not in joined:
                    joined[key] = cost(groups[a] + groups[b])
                together, acceptable = joined[key]
                added = together - seconds[groups[a]] - seconds[groups[b]]
                if added < best and (acceptable or too_many):
                    best, pair = added, (a, b)
        if best >= 0 and not too_many:
            break
        if best == float("inf"):
            break
        both = groups[pair[0]] + groups[pair[1]]
        seconds[both] = joined[groups[pair[0]], groups[pair[1]]][0]
        groups = [g for i, g in enumerate(groups) if i not in pair] + [both]
    return groups


def moved(groups: Sequence[Group], alike: Sequence[Group], seconds: Callable[[Group], float]) -> list[Group]:
    """Move samples between `groups`, those that are `alike` together, while the sum of `seconds` falls.

    Merging pairs only ever joins; samples that came early into a group may fit another one better.
    """
    known: dict[Group, float] = {(): 0.0}

    def cost(group: Group) -> float:
        if group not in known:
            known[group] = seconds(group)
        return known[group]

    found = [tuple(sorted(group)) for group in groups]
    improved = True
    while improved:
        improved = False
        for part in alike:
            home = next(group for group in found if part[0] in group)
            rest = tuple(i for i in home if i not in part)
            others = {group: tuple(sorted(group + part)) for group in found if group != home}
            if not others:
                continue
            other = min(others, key=lambda group: cost(others[group]) - cost(group))
            if cost(others[other]) - cost(other) < cost(home) - cost(rest) - LEAST_SAVED:
                found = [group for group in (rest, others[other], *found) if group not in ((), home, other)]
                improved = True
    return found
