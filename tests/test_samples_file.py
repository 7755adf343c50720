"""Samples from files: every format, the ids that it gives, and errors that name the column."""

from __future__ import annotations

import json

import polars as pl
import pytest

from hyperlax.experiments import recipes
from hyperlax.hyperparams import fields
from hyperlax.hyperparams.samplers import SamplesFile, rest


def load(path, known):
    return rest(SamplesFile(path, known))


KNOWN = ["actor.width", "actor.activation", "actor_lr"]
ROWS = [
    {"sample": 4, "actor.width": 32, "actor.activation": "relu", "actor_lr": 1e-3},
    {"sample": 9, "actor.width": 64, "actor.activation": "tanh", "actor_lr": 2e-4},
]


def write(folder, suffix, rows):
    path = folder / f"samples{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    else:
        pl.DataFrame(rows).write_parquet(path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_samples_survive_a_file_in_every_format(tmp_path, suffix):
    tree = recipes.resolve("ppo_mlp").hyperparams()
    encode = {f.path: f.encode for f in fields(tree)}
    loaded = load(write(tmp_path, suffix, ROWS), list(encode))
    for row, wanted in zip(loaded, ROWS, strict=True):
        assert int(row["sample"]) == wanted["sample"]
        for path in KNOWN:
            assert encode[path](row[path]) == encode[path](wanted[path])


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_an_unknown_column_names_the_nearest(tmp_path, suffix):
    path = write(tmp_path, suffix, [{"actor.widht": 32}])
    with pytest.raises(ValueError, match=r'"actor\.widht"; did you mean "actor\.width"'):
        load(path, KNOWN)


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_ids_must_be_unique(tmp_path, suffix):
    path = write(tmp_path, suffix, [{"sample": 1, "actor_lr": 1e-3}, {"sample": 1, "actor_lr": 1e-4}])
    with pytest.raises(ValueError, match="not unique"):
        load(path, KNOWN)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    """Spreadsheets write one."""
    path = tmp_path / "samples.csv"
    path.write_bytes(b"\xef\xbb\xbfsample,gamma\r\n3,0.9\r\n")
    assert load(path, ["gamma"]) == [{"sample": 3, "gamma": "0.9"}]


def test_a_cell_left_empty_is_refused_by_row_and_column(tmp_path):
    path = tmp_path / "samples.csv"
    path.write_text("actor.width,actor_lr\n32,0.1\n,0.001\n")
    with pytest.raises(ValueError, match=r'samples.csv, line 3, column "actor.width": the cell is empty'):
        load(path, KNOWN)


def test_files_that_are_missing_empty_or_of_another_kind_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load(tmp_path / "none.csv", KNOWN)
    (tmp_path / "samples.txt").write_text("actor_lr\n1\n")
    with pytest.raises(ValueError, match=r"must end in \.csv, \.json or \.parquet"):
        load(tmp_path / "samples.txt", KNOWN)
    (tmp_path / "empty.csv").write_text("actor_lr\n")
    with pytest.raises(ValueError, match="no samples"):
        load(tmp_path / "empty.csv", KNOWN)
