"""The file of a planned sweep that does not hold what this version expects: what is wrong is said."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from hyperlax.cluster import sweep
from hyperlax.cluster.sweep import Cell, Sweep, Unit
from hyperlax.storage.integrity import Damaged, read_json, write_json
from hyperlax.storage.places import PLAN

CELL = Cell(".", "batched", {}, None, {}, {}, [])
UNIT = Unit("c000-u0000", 0, (0, 1), 2, 100, 1.0)

ADDED: dict[str, Any] = {"extra": 1}


@pytest.fixture
def found(tmp_path) -> Sweep:
    made = Sweep(tmp_path, "s", {}, "cpu", {}, (CELL,), (UNIT,))
    made.write()
    return made


def rewritten(found: Sweep, **changes: Any) -> Sweep:
    """The sweep as it is read once its file has been written with `changes`."""
    write_json(found.root / PLAN, {**read_json(found.root / PLAN), **changes})
    return sweep.needed(found.root)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"cells": [{**asdict(CELL), **ADDED}]},
            "it has 'extra' in a cell, which this version does not know",
        ),
        (
            {"units": [{**asdict(UNIT), **ADDED}]},
            "it has 'extra' in a unit, which this version does not know",
        ),
        ({"cells": [{k: v for k, v in asdict(CELL).items() if k != "mode"}]}, "'mode' is missing"),
        ({"units": [{k: v for k, v in asdict(UNIT).items() if k != "samples"}]}, "'samples' is missing"),
        ({"units": [1]}, "is damaged: "),
        ({"cells": {"a": 1}}, "is damaged: "),
        ({"units": None}, "is damaged: "),
    ],
)
def test_what_is_wrong_with_it_is_said_as_it_is(found, changes, said):
    with pytest.raises(Damaged) as refused:
        rewritten(found, **changes)
    assert said in str(refused.value)
    assert ("is missing" in str(refused.value)) == said.endswith("is missing")


def test_a_unit_of_an_older_version_has_no_worker(found):
    older = {k: v for k, v in asdict(UNIT).items() if k != "worker"}
    assert rewritten(found, units=[older]).units == (UNIT,)
