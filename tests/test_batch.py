"""Drawing many experiments: failures are reported by folder and do not stop the others."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from report_data import synthetic

from hyperlax.commands import main as cli
from hyperlax.report.batch import draw_all, readable
from hyperlax.report.export import about, export_charts, informed_title
from hyperlax.report.options import Options
from hyperlax.storage.results import SCHEMAS, Results
from hyperlax.storage.store import Store


def written(folder: Path, results: Results, parts: bool = False) -> Path:
    """Write `results` to `folder`; with `parts`, the growing tables are left in their first part."""
    store = Store(folder)
    store.write_manifest(results.manifest)
    store.write_samples(results.samples)
    for table in SCHEMAS:
        name = f"parts/{table}-000001" if parts and table != "lanes" else table
        store.write_frame(getattr(results, table), name)
    return folder


@pytest.fixture(scope="module")
def small() -> Results:
    return synthetic(samples=3, seeds=2, evaluations=2, diverged=())


@pytest.fixture
def home(tmp_path, small, monkeypatch) -> Path:
    """A folder with one running experiment, and three experiments that are broken in different ways."""
    monkeypatch.setattr("hyperlax.report.charts.CHARTS", {})
    monkeypatch.setattr("hyperlax.report.html._body", lambda *_: "")
    written(tmp_path / "running_one" / "gymnax.mountain_car", small, parts=True)
    broken = written(tmp_path / "torn" / "a", small)
    (broken / "curves.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "empty" / "a").mkdir(parents=True)
    (tmp_path / "empty" / "a" / "manifest.json").write_text("")
    written(tmp_path / "none" / "a", dataclasses.replace(small, samples=small.samples.clear()))
    return tmp_path


def test_unreadable_folders_are_named_and_the_others_are_read(home):
    folders = sorted(p.parent for p in home.rglob("manifest.json"))
    found, broken = readable(folders)
    assert [folder.parent.name for folder in found] == ["running_one"]
    assert {folder.parent.name for folder in broken} == {"torn", "empty", "none"}
    assert all(problem.startswith("cannot be read: ") for problem in broken.values())
    assert broken[home / "none" / "a"] == "cannot be read: it has no samples"
    (results,) = found.values()
    assert len(results.curves) > 0


def test_the_command_draws_readable_experiments_and_names_the_others(home, capsys):
    line = ["plot-benchmark", "--results-dir-to-plot", str(home)]
    with pytest.raises(SystemExit) as left:
        cli.main(line)
    assert left.value.code == 1
    output = capsys.readouterr()
    assert output.out.split() == [str(home / "running_one" / "gymnax.mountain_car" / "report.html")]
    assert {Path(text.split(" cannot be read")[0]).parent.name for text in output.err.splitlines()} == {
        "torn",
        "empty",
        "none",
    }


def test_an_experiment_that_cannot_be_drawn_does_not_stop_the_others(tmp_path, small, monkeypatch):
    def write(results, path, options):
        if results.name == "bad":
            raise KeyError("what")
        return path

    monkeypatch.setattr("hyperlax.report.batch.write_report", write)
    bad = dataclasses.replace(small, manifest={**small.manifest, "name": "bad"})
    drawn = list(draw_all({tmp_path / "a": bad, tmp_path / "b": small}, ["html"], Options()))
    assert drawn == [
        (tmp_path / "a", [], "cannot be drawn: KeyError: 'what'"),
        (tmp_path / "b", [tmp_path / "b" / "report.html"], ""),
    ]


@pytest.mark.slow  # every process imports all of it
def test_several_processes_draw_the_same(tmp_path, small):
    """The pages, their order and the options do not depend on the number of workers."""
    folders = [written(tmp_path / name / "gymnax.mountain_car", small) for name in ("two", "one")]
    experiments = dict(zip(folders, [small, small], strict=True))
    options = Options(top=2, metric="final_return")
    pages = {}
    for workers in (1, 2):
        drawn = list(draw_all(experiments, ["html"], options, workers))
        assert [(folder, problem) for folder, _, problem in drawn] == [(folder, "") for folder in folders]
        pages[workers] = [re.sub(r"view_\d+", "view", path.read_text()) for _, (path,), _ in drawn]
    assert pages[1] == pages[2]
    assert "final return" in pages[1][0]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", Options()),
        ("--top-n 3 --slice-metric auc_at_budget", Options(3, "auc_at_budget")),
        ("--include-additional-info-in-titles", Options(informed=True)),
        ("--include-additional-info-in-titles True", Options(informed=True)),
        ("--include-additional-info-in-titles False", Options()),
        ("--no-include-additional-info-in-titles", Options()),
        ("--combined-only False --max-workers 4", Options()),
    ],
)
def test_flags_become_options(tmp_path, small, monkeypatch, flags, expected):
    """Boolean flags may be given with or without a value, and negated."""
    seen = []
    written(tmp_path / "a" / "b", small)
    monkeypatch.setattr("hyperlax.report.batch.draw_all", lambda *given: seen.append(given) or [])
    with pytest.raises(SystemExit) as left:
        cli.main(f"plot-benchmark --results-dir-to-plot {tmp_path} {flags} --format html,svg".split())
    assert left.value.code == 0
    ((_, formats, options, workers),) = seen
    assert options == expected
    assert formats == ["html", "svg"]
    assert workers == (4 if "workers" in flags else 1)


@pytest.mark.parametrize("flags", ["--combined-only", "--combined-only True"])
def test_combined_only_draws_only_the_comparison(tmp_path, small, monkeypatch, flags):
    written(tmp_path / "a" / "b", small)
    monkeypatch.setattr("hyperlax.report.batch.draw_all", lambda *_: pytest.fail("drawn"))
    with pytest.raises(SystemExit):
        cli.main(f"plot-benchmark --results-dir-to-plot {tmp_path} {flags}".split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--slice-metric peak_retrun", 'unknown metric "peak_retrun"; did you mean "peak_return"?'),
        ("--compare nowhere.csv", "the published table nowhere.csv does not exist"),
        ("--max-workers 0", "--max-workers must be at least 1"),
    ],
)
def test_invalid_arguments_are_refused_before_anything_is_written(tmp_path, small, capsys, flags, message):
    folder = written(tmp_path / "a" / "b", small)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as left:
        cli.main(f"plot-benchmark --results-dir-to-plot {folder} {flags}".split())
    assert left.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert sorted(tmp_path.rglob("*")) == before


def test_informed_titles_name_the_experiment_and_its_settings(tmp_path, small, monkeypatch):
    spec = {"title": {"text": "Leaderboard", "subtitle": ["A rank is a range."]}}
    title = informed_title(spec, [small])["title"]
    assert title["text"] == "Leaderboard: ppo_mlp on gymnax.pendulum"
    assert title["subtitle"] == ["A rank is a range.", about(small)]
    assert about(small) == (
        "3 samples × 2 seeds, 500,000 env steps, 2 evaluations of 16 episodes, protocol corrected, seed 0."
    )
    specs = []
    monkeypatch.setattr(
        "hyperlax.report.export.image", lambda spec, _: specs.append(json.dumps(spec)) or b"x"
    )
    for informed in (True, False):
        export_charts(small, tmp_path, ["svg"], Options(informed=informed))
        assert all(("ppo_mlp on gymnax.pendulum" in text) == informed for text in specs)
        specs.clear()
