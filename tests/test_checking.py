"""What `hyperlax check` says of folders that are no complete experiments."""

from __future__ import annotations

import pytest
from folders import MANIFEST, new, trained, write

import hyperlax
from hyperlax.storage import store
from hyperlax.storage.integrity import write_json


def test_a_home_is_expanded_as_it_is_for_reading(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    trained(tmp_path / "x")
    assert [entry.state for entry in hyperlax.check("~/x")] == ["complete"]
    assert hyperlax.read("~/x").folder == hyperlax.check("~/x")[0].folder


def test_a_run_of_an_older_version_that_was_killed_before_its_first_table_has_begun_nothing(tmp_path):
    """Its manifest lists no files."""
    write_json(tmp_path / "manifest.json", {**MANIFEST, "complete": False})
    (checked,) = hyperlax.check(tmp_path)
    assert (checked.state, checked.problems) == ("nothing begun", ())
    (tmp_path / "samples.parquet").write_bytes(b"nothing")
    (checked,) = hyperlax.check(tmp_path)
    assert checked.state == "damaged"
    assert "samples.parquet" in checked.problems[0]


@pytest.mark.parametrize("below", ["", "sweep"])
def test_units_that_are_not_merged_are_named_with_the_command_that_merges_them(tmp_path, below):
    root = tmp_path / below
    write(new(root / ".units" / "c000-u0000" / "run"), 1)
    said = rf"the units of {root} are not merged yet; .*hyperlax merge {root}$"
    with pytest.raises(FileNotFoundError, match=f"nothing to check: .*{said}"):
        hyperlax.check(tmp_path)
    with pytest.raises(ValueError, match=f"no experiment found in {tmp_path}: {said}"):
        store.find(tmp_path)
    trained(root)
    assert [entry.folder for entry in hyperlax.check(tmp_path)] == [root]


def test_the_record_of_a_benchmark_is_verified_before_its_units_are_merged(tmp_path):
    write(new(tmp_path / ".units" / "c000-u0000" / "run"), 1)
    write_json(tmp_path / "benchmark.json", {"cells": {"a": {"status": "waiting"}}})
    assert [(entry.folder, entry.state) for entry in hyperlax.check(tmp_path)] == [(tmp_path, "unfinished")]


def test_where_there_is_nothing_no_units_are_spoken_of(tmp_path):
    (tmp_path / ".hidden").mkdir()
    trained(tmp_path / ".hidden" / "x")
    with pytest.raises(FileNotFoundError, match=r"holds no experiment and no benchmark$"):
        hyperlax.check(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no experiment and no benchmark$"):
        hyperlax.check(tmp_path / "not-there")
