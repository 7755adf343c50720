"""The folder of an experiment holds every row exactly once, whenever the process is killed."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from hyperlax.storage import store
from hyperlax.storage.results import SCHEMAS, empty
from hyperlax.storage.store import GROWING, Store, read

LANES = pl.DataFrame([{"lane": 0, "sample": 0, "seed": 0, "status": "running"}]).select(
    pl.lit(None, dtype=kind).alias(name)
    if name not in ("lane", "sample", "seed", "status")
    else pl.col(name).cast(kind)
    for name, kind in SCHEMAS["lanes"].items()
)


def point(step):
    return {"lane": 0, "sample": 0, "seed": 0, "env_steps": step, "metric": "return", "value": float(step)}


def phase(step):
    return {"phase": "train", "program": 0, "start": float(step), "end": step + 1.0}


def new(folder) -> Store:
    keeper = Store(folder)
    keeper.write_manifest({"name": "ppo_mlp"})
    keeper.write_samples(pl.DataFrame({"sample": [0], "gamma": [0.9]}))
    keeper.write_frame(LANES, "lanes")
    return keeper


def write(keeper, *steps):
    """Write one part with a row per step in two of the growing tables."""
    keeper.append("curves", [point(s) for s in steps])
    keeper.append("timeline", [phase(s) for s in steps])
    keeper.flush(LANES)


def steps(folder):
    results = read(folder)
    assert results.timeline["start"].to_list() == results.curves["env_steps"].to_list()
    return results.curves["env_steps"].to_list()


class Killed(BaseException):
    """Raised in place of a kill of the process."""


def test_what_is_flushed_can_be_read_while_the_sweep_runs(tmp_path):
    keeper = new(tmp_path)
    assert steps(tmp_path) == []
    write(keeper, 1, 2)
    keeper.append("curves", [point(3)])
    assert steps(tmp_path) == [1, 2], "rows that wait belong to no checkpoint yet"
    keeper.append("timeline", [phase(3)])
    keeper.flush(LANES)
    assert steps(tmp_path) == [1, 2, 3]


def test_tables_have_their_schemas_with_and_without_rows(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    results = read(tmp_path)
    for name, schema in SCHEMAS.items():
        assert dict(getattr(results, name).schema) == schema, name
    assert results.episodes.equals(empty("episodes"))
    assert results.manifest == {"name": "ppo_mlp"}
    assert results.samples.equals(pl.DataFrame({"sample": [0], "gamma": [0.9]}))
    assert pl.read_csv(tmp_path / "samples.csv").equals(results.samples)


def test_a_column_that_an_older_version_left_out_is_null(tmp_path):
    write(new(tmp_path), 1)
    (part,) = (tmp_path / "parts").glob("timeline-*.parquet")
    pl.read_parquet(part).drop("program").write_parquet(part)
    assert read(tmp_path).timeline["program"].to_list() == [None]


def test_a_flush_without_rows_writes_no_part(tmp_path):
    keeper = new(tmp_path)
    keeper.flush(LANES)
    assert not (tmp_path / "parts").exists()


def test_work_after_the_checkpoint_is_recorded_once(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    write(keeper, 2)
    again = Store(tmp_path)
    again.discard_after(1)
    assert steps(tmp_path) == [1]
    write(again, 2)
    assert steps(tmp_path) == [1, 2]


def test_starting_over_discards_everything(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    keeper.merge()
    write(keeper, 2)
    Store(tmp_path).discard_after(0)
    assert steps(tmp_path) == []


def test_merging_is_idempotent_and_leaves_one_file_per_table(tmp_path):
    keeper = new(tmp_path)
    for i in range(12):
        write(keeper, 2 * i, 2 * i + 1)
    for _ in range(3):
        keeper.merge()
        assert steps(tmp_path) == list(range(24))
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"manifest.json", "samples.parquet", "samples.csv", "lanes.parquet"} | {
        "curves.parquet",
        "timeline.parquet",
    }


def test_rows_of_a_continued_experiment_join_the_merged_ones(tmp_path):
    """Resuming an experiment that was complete appends to its tables; it must not replace them."""
    keeper = new(tmp_path)
    write(keeper, 1)
    keeper.merge()
    again = Store(tmp_path)
    again.discard_after(1)
    write(again, 2)
    assert steps(tmp_path) == [1, 2]
    again.merge()
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("after", range(6))
def test_a_merge_killed_anywhere_loses_and_repeats_nothing(tmp_path, monkeypatch, after):
    """The process dies after `after` file operations of the merge, for every possible number."""
    keeper = new(tmp_path)
    for i in range(3):
        write(keeper, i)
    left = [after]

    def until_killed(original):
        def operation(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return original(*args, **kwargs)

        return operation

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_atomically", until_killed(store.write_atomically))
        patched.setattr(Path, "unlink", until_killed(Path.unlink))
        with pytest.raises(Killed):
            keeper.merge()
    assert steps(tmp_path) == [0, 1, 2]
    again = Store(tmp_path)
    again.discard_after(3)
    assert steps(tmp_path) == [0, 1, 2]
    again.merge()
    assert steps(tmp_path) == [0, 1, 2]
    write(again, 3)
    again.merge()
    assert steps(tmp_path) == [0, 1, 2, 3]


def test_files_left_half_written_are_ignored(tmp_path):
    keeper = new(tmp_path)
    write(keeper, 1)
    for name in ("parts/.curves-000002.parquet.123.tmp", ".lanes.parquet.123.tmp"):
        (tmp_path / name).write_bytes(b"half a fi")
    assert steps(tmp_path) == [1]
    again = Store(tmp_path)
    again.discard_after(1)
    write(again, 2)
    again.merge()
    assert steps(tmp_path) == [1, 2]


def test_parts_are_read_in_order_beyond_any_number_of_digits(tmp_path):
    keeper = new(tmp_path)
    keeper.parts = 999_998
    for i in range(3):
        write(keeper, i)
    assert steps(tmp_path) == [0, 1, 2]
    keeper.merge()
    assert steps(tmp_path) == [0, 1, 2]


def test_a_folder_without_an_experiment_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no experiment"):
        read(tmp_path)
    assert store.read_manifest(tmp_path) is None


def test_every_growing_table_has_a_schema():
    assert set(GROWING) | {"lanes"} == set(SCHEMAS)


def test_a_forgotten_lane_leaves_no_row_in_files_or_parts(tmp_path):
    """Other lanes keep their rows, and merged parts are not read twice."""
    keeper = new(tmp_path)
    both = lambda step: [point(step), {**point(step), "lane": 1}]  # noqa: E731
    keeper.append("curves", both(1))
    keeper.flush(LANES)
    keeper.merge()
    keeper.append("curves", both(2))
    keeper.flush(LANES)
    keeper.forget([0])
    kept = read(tmp_path).curves
    assert list(zip(kept["lane"], kept["env_steps"], strict=True)) == [(1, 1), (1, 2)]
    keeper.merge()
    assert read(tmp_path).curves.equals(kept)


@pytest.mark.parametrize("name", ["line.py.Line[speed=1e-3]", "run?", "run*"])
def test_a_folder_is_read_whatever_it_is_called(tmp_path, name):
    (tmp_path / "run1").mkdir()
    write(new(tmp_path / "run1"), 7)
    keeper = new(tmp_path / name)
    write(keeper, 1)
    keeper.merge()
    write(keeper, 2)
    assert steps(tmp_path / name) == [1, 2]
