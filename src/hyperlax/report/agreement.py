"""What experiments that are compared must have in common, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hyperlax.report.scores import headline_of
from hyperlax.storage.results import Results

_SETTINGS = ("total_timesteps", "evaluations", "eval_episodes", "seeds", "protocol", "evaluation")


def differences(experiments: Sequence[Results]) -> list[str]:
    """Say in which settings experiments of distinct names differ, in one sentence; none if they agree.

    Settings that an experiment does not know, because an older version has written it, count as different.
    """
    found = []
    for key in _SETTINGS:
        values = {results.name: _setting(results, key) for results in experiments}
        if len(set(values.values())) > 1:
            shown = ", ".join(f"{name} {_shown(value)}" for name, value in values.items())
            found.append(f"{_NAMES.get(key, key.replace('_', ' '))}: {shown}")
    return [f"The experiments differ in {'; '.join(found)}."] if found else []


def check_comparable(groups: Mapping[str, Sequence[Results]]) -> None:
    """Raise `ValueError` if no two experiments have an environment in common.

    `groups` holds the experiments by environment.
    """
    if all(len(group) < 2 for group in groups.values()):
        found = ", ".join(f"{group[0].name} on {env}" for env, group in groups.items())
        raise ValueError(
            f"nothing can be compared: no two experiments have an environment in common ({found})"
        )


def metrics_words(experiments: Sequence[Results]) -> list[str]:
    """Say that experiments were ranked by different metrics, and by which they are compared, if so."""
    names = dict.fromkeys(headline_of(results.manifest).name for results in experiments)
    if len(names) < 2:
        return []
    return [
        f"The experiments were ranked by different metrics ({', '.join(names)}) and are compared by final; "
        "--metric chooses another."
    ]


_NAMES = {"total_timesteps": "env steps"}


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _setting(results: Results, key: str) -> Any:
    """Look up `key` in the settings of an experiment, else in its manifest."""
    return results.manifest.get("settings", {}).get(key, results.manifest.get(key))
