"""Tables that people bring: understood with a note, or refused with file, row and column."""

from __future__ import annotations

import json
import random

import polars as pl
import pytest

from hyperlax.experiments import recipes
from hyperlax.hyperparams import fields
from hyperlax.hyperparams.samplers.samples_file import checked_rows
from hyperlax.hyperparams.tables import read_table
from hyperlax.report import read_published

KNOWN = {f.path: f for f in fields(recipes.resolve("ppo_mlp").hyperparams())}
PLAIN = "sample,actor.width,actor_lr\n0,32,0.001\n1,64,0.5\n"
WANTED = [(0, 32, 0.001), (1, 64, 0.5)]


def read(given):
    rows = checked_rows(read_table(given), KNOWN)
    return [(r.get("sample", i), *_numbers(r)) for i, r in enumerate(rows)]


def _numbers(row):
    return tuple(KNOWN[k].encode(row[k]).item() for k in ("actor.width", "actor_lr"))


UNDERSTOOD = {
    "plain.csv": PLAIN.encode(),
    "mark.csv": b"\xef\xbb\xbf" + PLAIN.encode(),
    "utf16.csv": PLAIN.encode("utf-16"),
    "semicolons.csv": PLAIN.replace(",", ";").encode(),
    "tabs.tsv": PLAIN.replace(",", "\t").encode(),
    "german.csv": PLAIN.replace(",", ";").replace("0.", "0,").encode(),
    "blank_rows.csv": PLAIN.replace("\n1", "\n\n,,\n1").encode(),
    "trailing.csv": PLAIN.replace("\n", ",\n").encode(),
    "windows.csv": PLAIN.replace("\n", "\r\n").encode(),
    "index.csv": b",sample,actor.width,actor_lr\n0,0,32,0.001\n1,1,64,0.5\n",
    "quoted.csv": b'sample,actor.width,actor_lr\n"0","32","0.001"\n"1","64","0.5"\n',
    "float_ids.csv": b"sample,actor.width,actor_lr\n0.0,32.0,1e-3\n1.0,6.4e1,0.5\n",
    "records.json": b'[{"actor.width": 32, "actor_lr": 0.001}, {"actor.width": 64, "actor_lr": 0.5}]',
    "nested.json": json.dumps(
        [{"actor": {"width": 32}, "actor_lr": 0.001}, {"actor": {"width": 64}, "actor_lr": 0.5}]
    ).encode(),
    "lines.json": b'{"actor.width": 32, "actor_lr": 0.001}\n{"actor.width": 64, "actor_lr": 0.5}\n',
    "columns.json": b'{"actor.width": [32, 64], "actor_lr": [0.001, 0.5]}',
    "pandas.json": b'{"actor.width": {"0": 32, "1": 64}, "actor_lr": {"0": 0.001, "1": 0.5}}',
}  # fmt: skip


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_habits_of_other_programs_are_understood(tmp_path, name, capsys):
    (tmp_path / name).write_bytes(UNDERSTOOD[name])
    assert [(i, w, pytest.approx(lr)) for i, w, lr in WANTED] == read(tmp_path / name)
    same = name in ("plain.csv", "mark.csv", "windows.csv", "quoted.csv", "float_ids.csv", "records.json")
    assert bool(capsys.readouterr().err) == (not same and name not in ("nested.json", "trailing.csv"))


def test_points_are_decimal_where_no_cell_has_a_decimal_comma(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"actor.width;actor_lr\n32;1.500\n64;0.25\n")
    assert [row[1:] for row in read(tmp_path / "a.csv")] == [(32, 1.5), (64, 0.25)]


def test_a_single_line_of_objects_is_a_table(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"actor.width": 32, "actor_lr": 0.5}\n')
    assert read(tmp_path / "a.jsonl") == [(0, 32, 0.5)]


def test_frames_and_lists_are_tables():
    frame = pl.DataFrame({"actor.width": [32, 64], "actor_lr": [0.001, 0.5]})
    for given in (frame, frame.to_dicts(), _Pandas(frame)):
        assert [(i, w, pytest.approx(lr)) for i, w, lr in WANTED] == read(given)


def test_a_number_of_samples_is_no_table():
    with pytest.raises(ValueError, match="num_samples says how many"):
        read_table(2)


class _Pandas:
    """What the reader uses of a frame of pandas."""

    def __init__(self, frame: pl.DataFrame):
        self.frame = frame

    def to_dict(self, orient: str):
        assert orient == "records"
        return self.frame.to_dicts()


REFUSED = [
    ("a.csv", b"actor.width,actor_lr\n32,\n", r'a.csv, line 2, column "actor_lr": the cell is empty'),
    ("a.csv", b"actor.width,actor.width\n32,64\n", 'has 2 columns "actor.width"'),
    ("a.csv", b"actor.width,actor_lr\n32\n", "line 2 has 1 cells, the header has 2"),
    ("a.csv", b"actor.width\n32,5\n", "line 2 has 2 cells, the header has 1"),
    ("a.csv", b'actor.width\n"1,234"\n', "can mean 1234 or 1.234"),
    ("a.csv", b"actor.width;actor_lr\n1.000;0,5\n", r"'1\.000' can mean 1000 or 1,000; write one of them"),
    ("a.csv", b"actor.width\tactor_lr\n1.000\t0,5\n", r"'1\.000' can mean 1000 or 1,000"),
    ("a.csv", b'actor.width,actor_lr\n1.000,"0,5"\n', r"'1\.000' can mean 1000 or 1,000"),
    ("a.csv", b"actor.widht\n32\n", 'unknown column "actor.widht"; did you mean "actor.width"'),
    ("a.csv", b"actor.width\n2.5\n", 'line 2, column "actor.width": actor.width needs an integer'),
    ("a.csv", b"actor.width\n99999999999999999999\n", 'line 2, column "actor.width": .* at most'),
    ("a.csv", b"actor_lr\ninf\n", r'line 2, column "actor_lr": .* at most'),
    ("a.csv", b"actor_lr\nnan\n", r'line 2, column "actor_lr": .* needs a number'),
    ("a.csv", b"sample,actor_lr\n1,0.1\n1.0,0.2\n", "the ids are not unique: 1 is also in line 2"),
    ("a.csv", b"sample,actor_lr\nx,0.1\n", 'line 2, column "sample": the sample id needs an integer'),
    ("a.csv", b"matrix,actor_lr\nC,0.1\n", 'line 2, column "matrix": a matrix is A, B or AB:'),
    ("a.json", b'[{"matrix": 1, "actor_lr": 0.1}]', 'row 1, column "matrix": a matrix is A, B or .*, got 1'),
    ("a.csv", b"actor_lr\n\xff\xfe0.1\n", "save it as CSV in UTF-8"),
    ("a.csv", b"", "holds no samples"),
    ("a.csv", b",actor_lr\nfoo,0.1\n", "column 1 has no name"),
    ("a.json", b"[1, 2]", "row 1: a row is an object"),
    ("a.json", b"3", "a table is a list of rows, got int"),
    ("a.json", b'[{"actor_lr": NaN}]', "NaN is not a number"),
    ("a.json", b'[{"actor_lr": 0.1, "actor_lr": 0.2}]', "names a column twice"),
    ("a.json", b'[{"actor_lr": 0.1}, {"gamma": 0.9}]', 'row 1, column "gamma": the cell is empty'),
    ("a.json", b"{", "no JSON that can be read"),
    ("a.json", b"[" * 5000, "no JSON that can be read"),
    ("a.parquet", b"PAR1 and then something", "it does not begin and end as one"),
    ("a.parquet", b"PAR1 no", "not a parquet file that can be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), REFUSED)
def test_what_is_not_understood_is_refused_by_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as found:
        read(tmp_path / name)
    assert name in str(found.value)


TABLE = "env,algo,network,best_peak\n"
SUMMARY = "sample id,peak return\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", TABLE + "a,ppo,mlp,1\nA,PPO,mlp,2\n", "ppo_mlp on a is in the table twice"),
        ("t.csv", TABLE + "a,ppo,mlp,good\n", "not a number"),
        (
            "e_ppo-mlp_summary.csv",
            SUMMARY + "0,1.0\n0,2.0\n",
            "the sample 0 in column sample_id is there twice",
        ),
        ("e_ppo-mlp_summary.csv", SUMMARY + "x,1.0\n", "column sample_id .* not a number"),
        ("e_ppo-mlp_summary.csv", SUMMARY + "nan,1.0\n", "not the id of a sample"),
        ("e_ppo-mlp_summary.csv", SUMMARY + "0,good\n", "column peak_return .* not a number"),
    ],
)
def test_published_tables_that_contradict_themselves_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message) as found:
        read_published(tmp_path / name)
    assert name in str(found.value)


def test_thousands_in_published_tables_are_understood(tmp_path):
    path = tmp_path / "e_ppo-mlp_summary.csv"
    path.write_text(SUMMARY + '0,"1,234.5"\n1,\n')
    (found,) = read_published(path).samples.values()
    assert found["peak"].to_list() == [1234.5, None]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with up to three bytes, lines or characters removed, repeated or replaced."""
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(4)
        if what == 0:
            data = data[:at] + data[at + rng.randint(1, 8) :]
        elif what == 1:
            data = (
                data[:at]
                + rng.choice([b",", b";", b'"', b"\n", b"nan", b"1e999", b"\xff", b"-", b"{", b"\0"])
                + data[at:]
            )
        elif what == 2:
            data = data[:at] + data[max(0, at - rng.randint(1, 30)) :]
        else:
            data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
    return data


def campaign(tmp_path, cases: int, seed: int) -> int:
    """Read that many mutated files of samples and published tables; returns how many were refused."""
    rng, refused = random.Random(seed), 0
    pl.DataFrame({"actor.width": [32, 64], "actor_lr": [0.001, 0.5]}).write_parquet(tmp_path / "p.parquet")
    sources = {**UNDERSTOOD, "p.parquet": (tmp_path / "p.parquet").read_bytes()}
    published = {
        "t.csv": TABLE + "a,ppo,mlp,1.5\nb,ppo,mlp,2\n",
        "e_ppo-mlp_summary.csv": SUMMARY + "0,1\n1,2\n",
    }
    for case in range(cases):
        name = rng.choice([*sources, *published])
        path = tmp_path / name
        path.write_bytes(mutated(sources[name] if name in sources else published[name].encode(), rng))
        said = None
        try:
            read_published(path) if name in published else read(path)
        except ValueError as error:
            said = str(error)
        assert said is None or name in said, f"case {case}: {said} does not name {name}"
        refused += said is not None
    return refused


def test_mutated_tables_end_in_one_line_that_names_the_file(tmp_path):
    assert 100 < campaign(tmp_path, 300, 0) < 300


@pytest.mark.slow
def test_ten_thousand_mutated_tables(tmp_path):
    assert 3_000 < campaign(tmp_path, 12_000, 1) < 12_000


@pytest.mark.parametrize(
    "row", ['{"actor.width":16,"actor":{"width":32}}', '{"actor":{"width":32},"actor.width":16}']
)
def test_a_value_that_is_named_twice_is_refused(tmp_path, row):
    (tmp_path / "a.json").write_text(f"[{row}]")
    with pytest.raises(ValueError, match=r'a\.json, row 1: names "actor\.width" twice'):
        read(tmp_path / "a.json")


@pytest.mark.parametrize("value", ["1e-50", "1e-40", "1e-400", "-0.5E-999"])
def test_a_number_that_would_become_zero_is_refused(tmp_path, value):
    (tmp_path / "a.csv").write_text(f"actor.width,actor_lr\n32,{value}\n")
    with pytest.raises(
        ValueError, match=r'line 2, column "actor_lr": actor_lr must be 0 or at least 1\.18e-38'
    ):
        read(tmp_path / "a.csv")
    (tmp_path / "a.json").write_text(f'[{{"actor_lr": {value}}}]')
    with pytest.raises(ValueError, match=r'row 1, column "actor_lr": actor_lr must be'):
        read(tmp_path / "a.json")
