"""Small files that stand for much more memory are refused by their headers, before anything is allocated."""

from __future__ import annotations

import io
import random
import zipfile
from typing import Any

import numpy as np
import polars as pl
import pytest
from folders import MANIFEST, commit, new, point

import hyperlax
from hyperlax.hyperparams import parquet, tables
from hyperlax.hyperparams.tables import read_table
from hyperlax.policies import reference
from hyperlax.report import read_published
from hyperlax.storage import commits
from hyperlax.storage.integrity import Digest, read_json, write_json
from hyperlax.storage.memory import Bound

LINE = r"^[^\n]*{}[^\n]* would take [\d,]+ MiB of memory for the [\d,]+ bytes of the file[^\n]*$"


def written(frame: pl.DataFrame, compression: Any = "zstd") -> bytes:
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression=compression)
    return buffer.getvalue()


def varint(value: int) -> bytes:
    """The zigzag form of a count in the headers of Parquet."""
    found, left = bytearray(), 2 * value
    while left > 127:
        found.append(left & 127 | 128)
        left >>= 7
    return bytes([*found, left])


def claiming(rows: int) -> bytes:
    """A file with two million equal numbers whose headers say that there are `rows` of them."""
    content = written(pl.DataFrame({"gamma": np.zeros(2_000_000, np.int8)}))
    told = varint(rows)
    assert len(told) == len(varint(2_000_000))
    return content.replace(varint(2_000_000), told)


BOMBS = {
    "equal numbers": lambda: written(pl.DataFrame({"gamma": np.zeros(8_000_000, np.int8)})),
    "a long text, often": lambda: written(pl.DataFrame({"x": ["x" * 100_000] * 500})),
    "a count that is not true": lambda: claiming(100_000_000),
    "bytes that are compressed": lambda: written(pl.DataFrame({"x": [bytes(2**25)]})),
    "texts in objects": lambda: written(pl.DataFrame({"a": [{"b": "x" * 20_000}] * 2_000})),
}


@pytest.fixture(autouse=True)
def low(monkeypatch):
    """Less than is allowed, so that the files need not stand for gigabytes."""
    monkeypatch.setattr(parquet, "FLOOR", 2**24)


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    return {name: make() for name, make in BOMBS.items()}


@pytest.mark.parametrize("name", BOMBS)
def test_no_reader_of_tables_takes_what_expands(tmp_path, bombs, name, monkeypatch):
    content = bombs[name]
    assert len(content) < 100_000
    (tmp_path / "few.parquet").write_bytes(content)
    if "text" not in name:  # whose length is known once they are decoded, each of them once
        monkeypatch.setattr(pl, "read_parquet", lambda *_: pytest.fail("it is read"))
    for reader in (read_table, read_published):
        with pytest.raises(ValueError, match=LINE.format("few.parquet")):
            reader(tmp_path / "few.parquet")


MANY = {
    "rows.parquet": written(pl.DataFrame({"gamma": [0.9] * 11})),
    "columns.parquet": written(pl.DataFrame({f"c{i}": [1] for i in range(31)})),
    "lists.parquet": written(pl.DataFrame({"a": [{"b": [0] * 31}]})),
    "rows.csv": b"gamma\n" + b"0.9\n" * 11,
    "old.csv": b"gamma\r" + b"0.9\r" * 11,
    "columns.csv": b",".join([b"c"] * 32),
    "rows.json": b'{"gamma": [' + b"9," * 10 + b"9]}",
    "lists.json": b"[" * 31,
    "lines.json": b'{"gamma": 1}\n' * 31,
}


@pytest.mark.parametrize("name", MANY)
def test_no_objects_are_made_of_tables_with_too_many_rows_or_values(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tables, "MOST_ROWS", 10)
    monkeypatch.setattr(tables, "MOST_VALUES", 30)
    monkeypatch.setattr(pl.DataFrame, "to_dicts", lambda _: pytest.fail("objects are made"))
    (tmp_path / name).write_bytes(MANY[name])
    line = rf"^[^\n]*{name} holds [\d,]+ rows and [\d,]+ values, and a table may hold 10 rows and 30 [^\n]*$"
    with pytest.raises(ValueError, match=line):
        read_table(tmp_path / name)
    with pytest.raises(ValueError, match="samples holds 11 rows"):
        read_table(pl.DataFrame({"gamma": [0.9] * 11}))


def test_no_text_is_read_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MOST_BYTES", 10)
    (tmp_path / "a.csv").write_text("gamma\n0.90\n")
    with pytest.raises(ValueError, match=r"a\.csv has 11 bytes, and a table may have 10"):
        read_table(tmp_path / "a.csv")


def test_no_table_of_results_is_taken_that_expands(tmp_path, bombs, monkeypatch):
    """Its digest is right, as whoever has made the folder can see to; what fits into memory is read."""
    bound = Bound(2**30, 2**30)
    monkeypatch.setattr(commits, "host_memory", lambda: bound)
    keeper = new(tmp_path)
    keeper.append("curves", [point(1)])
    commit(keeper, 1)
    keeper.complete(dict(MANIFEST))
    content = bombs["a long text, often"]
    (tmp_path / "curves.parquet").write_bytes(content)
    manifest = read_json(tmp_path / "manifest.json")
    manifest["files"]["curves.parquet"] = Digest.of(content)
    write_json(tmp_path / "manifest.json", manifest)
    assert hyperlax.read(tmp_path).curves.height == 500
    bound = Bound(2**30, 2**24)
    with pytest.raises(ValueError, match=LINE.format("curves.parquet")):
        hyperlax.read(tmp_path)
    assert [entry.problems for entry in hyperlax.check(tmp_path)] == [()]


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"])
def test_honest_tables_are_read(compression):
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "lane": np.repeat(np.arange(100), 200),
            "metric": ["return", "length"] * 10_000,
            "value": [None, *rng.normal(size=19_999)],
            "nested": [{"x": [1, 2], "y": "z"}] * 20_000,
        }
    )
    assert parquet.read_parquet(written(frame, compression)).equals(frame)
    assert parquet.read_parquet(written(frame.clear(), compression)).equals(frame.clear())


def test_encodings_that_repeat_parts_of_texts_are_refused():
    content = written(pl.DataFrame({"x": ["a", "b"] * 500}), "uncompressed")
    page = b"\x15" + varint(1000) + b"\x15\x10\x15"
    assert page in content
    with pytest.raises(ValueError, match="it uses encoding 7, which is not read"):
        parquet.read_parquet(content.replace(page, page.replace(b"\x10", b"\x0e")))


def campaign(cases: int, seed: int) -> int:
    """Read that many mutated files; returns how many were refused, each in one line."""
    draw, refused = random.Random(seed), 0
    rows = {"sample": range(40), "gamma": [0.9 + i / 1000 for i in range(40)], "x": ["a", "bc"] * 20}
    sources = [written(pl.DataFrame(rows), how) for how in ("zstd", "uncompressed")]
    for case in range(cases):
        content = bytearray(draw.choice(sources))
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(len(content))] = draw.randrange(256)
        if draw.random() < 0.1:
            del content[draw.randrange(len(content)) :]
        said = refusal(bytes(content))
        assert said is None or "\n" not in said, case
        refused += said is not None
    return refused


def refusal(content: bytes) -> str | None:
    try:
        parquet.read_parquet(content)
    except ValueError as error:
        return str(error)
    return None


def test_mutated_tables_are_refused_in_a_line():
    assert 50 < campaign(200, 0) < 200


@pytest.mark.slow
def test_thousands_of_mutated_tables():
    assert 500 < campaign(5_000, 1) < 5_000


def test_exported_policies_are_no_larger_than_their_files(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    crafted = {"huge.npz": header.getvalue(), "damaged.npz": b"\x93NUMPY\x01\x00", "other.npz": b"text"}
    for name, content in crafted.items():
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("head.weight.npy", content)
    np.savez_compressed(tmp_path / "packed.npz", about=np.zeros(10**7))
    np.savez_compressed(tmp_path / "broken.npz", about=np.zeros(100))
    packed = (tmp_path / "broken.npz").read_bytes()
    (tmp_path / "broken.npz").write_bytes(packed.replace(packed[60:64], b"\xff\xff\xff\xff", 1))
    np.savez(tmp_path / "lacking.npz", obs_mean=np.zeros(3))
    (tmp_path / "none.npz").write_bytes(b"PK")
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=f"{path.name} is not an exported policy, or damaged .*; export"):
            reference.load(path)
