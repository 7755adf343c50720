"""Many units, disturbed in every way, on a made-up cluster: none is lost and none is trained by two."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("units", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_units_that_are_killed_preempted_and_cut_off_end_as_undisturbed_ones(tmp_path, units, monkeypatch):
    path = Path(__file__).parents[1] / "benchmarks" / "fleet.py"
    spec = importlib.util.spec_from_file_location("fleet", path)
    assert spec is not None
    assert spec.loader is not None
    fleet = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fleet", fleet)
    spec.loader.exec_module(fleet)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # no power fails here, and disks are slow
    happened = fleet.run(tmp_path, units, slots=30)
    assert happened["started"] > units
    assert min(happened[name] for name in ("killed", "preempted", "cut off", "superseded")) > 0
