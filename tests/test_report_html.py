"""The report of an experiment in any state is one offline file, safe against injection and free of paths."""

import json
from html.parser import HTMLParser

import pytest
from report_data import confirmed, nothing_yet, sobol_design, synthetic

from hyperlax.report import export_charts, write_report
from hyperlax.report.charts import CHARTS, SCHEDULED
from hyperlax.report.templates import piece
from hyperlax.storage.files import write_atomically
from hyperlax.storage.shareable import without_folders

VOID = {"meta", "link", "input"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return _read(write_report(synthetic(), tmp_path_factory.mktemp("run") / "new" / "report.html"))


def test_the_page_is_well_formed(page):
    assert page.open == []
    assert page.problems == []


def test_the_page_loads_nothing(page):
    loads = [value for tag, name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert [value for value in loads if not value.startswith(("#", "data:"))] == []
    (policy,) = [value for _, name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "url(" not in page.styles
    assert "@import" not in page.styles


def test_every_chart_has_its_place(page):
    placed = {value for _, name, value in page.attributes if name == "data-chart"}
    charts = json.loads(page.scripts[0])
    assert placed == set(charts["specs"])
    missing = {
        "learning_curves_circuit_executions",
        "entanglement",
        "confirmation",
        "sobol_indices",
        "ablation",
        "return_against_parameters",  # all lanes have as many
    }
    assert placed == set(CHARTS) - missing - set(SCHEDULED)
    assert set(charts["themes"]) == {"light", "dark"}
    assert "vegaEmbed" in page.scripts[1]


def test_curves_against_circuit_executions_are_shown_only_for_circuits(page, tmp_path):
    circuit = _read(write_report(synthetic(circuits=61), tmp_path / "report.html"))
    assert "circuit executions" in circuit.text
    assert "circuit executions" not in page.text
    assert "learning_curves_circuit_executions" in json.loads(circuit.scripts[0])["specs"]


def test_a_confirmation_has_a_section_with_chart_and_table(page, tmp_path):
    again = _read(write_report(confirmed(synthetic(samples=4, seeds=3)), tmp_path / "report.html"))
    assert "confirmed score" not in page.text
    assert "confirmation" in json.loads(again.scripts[0])["specs"]
    ids = {value for _, name, value in again.attributes if name == "id"}
    assert {"confirmation", "confirmed"} <= ids
    assert "estimates how far selecting the best samples by their tuning scores has inflated" in again.text


def test_only_sobol_designs_have_a_section_on_sobol_indices(page, tmp_path):
    drawn = _read(write_report(sobol_design(rows=8), tmp_path / "drawn.html"))
    assert "Only 8 base rows" in drawn.text
    assert "only 7 rows remain for at least one index" in drawn.text
    assert {"sobol_indices", "importance"} <= set(json.loads(drawn.scripts[0])["specs"])
    without = _read(write_report(sobol_design(omit_ab=True), tmp_path / "without.html"))
    assert "no AB matrices (--omit-ab)" in without.text
    assert "Importances need 10 samples with an evaluation." in without.text
    assert "Sobol" not in page.text


def test_a_single_sample_is_not_compared_with_itself(page, tmp_path):
    single = _read(write_report(synthetic(samples=1, diverged=()), tmp_path / "report.html"))
    missing = {value for _, name, value in page.attributes if name == "id"} - {
        value for _, name, value in single.attributes if name == "id"
    }
    assert {"tuned", "distribution", "budget", "slices", "importance", "parallel"} <= missing
    assert set(json.loads(single.scripts[0])["specs"]) >= {
        "leaderboard",
        "learning_curves",
        "training_health",
    }
    assert "No hyperparameter varies" not in single.text


def test_anchors_and_ids_agree(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {v.removeprefix("#") for _, n, v in page.attributes if n == "href" and v.startswith("#")}
    wanted |= {value for _, name, value in page.attributes if name in ("aria-controls", "data-filters")}
    assert wanted <= set(ids)


def test_the_page_says_what_was_run(page):
    for fact in (
        "ppo_mlp on gymnax.pendulum",
        "63\u00a0done, 1\u00a0diverged",
        "500,000 env steps",
        "1 min 36 s",
    ):
        assert fact in page.text, fact
    assert "Protocol corrected" in page.text
    assert "hyperlax sweep-hp-samples ppo_mlp" in page.text
    assert "rollout 256, width 128" in page.text
    assert "0.10.2" in page.text


def test_the_page_names_no_folder_of_the_machine(page):
    assert "/home" not in page.text
    assert "…/out" in page.text


def test_rows_of_samples_can_be_selected(page):
    rows = [value for tag, name, value in page.attributes if tag == "tr" and name == "data-sample"]
    assert set(rows) == {str(sample) for sample in range(16)}
    assert rows.count("11") == 2


def test_an_experiment_without_evaluations_is_reported(tmp_path):
    page = _read(write_report(nothing_yet(), tmp_path / "report.html"))
    assert page.problems == []
    assert "No evaluation has been written yet." in page.text
    assert "none yet" in page.text
    assert json.loads(page.scripts[0])["specs"] == {}


def test_optional_keys_of_the_manifest_may_be_missing(tmp_path):
    results = nothing_yet()
    kept = {"name": "dqn_mlp"}
    results.manifest.clear()
    results.manifest.update(kept)
    page = _read(write_report(results, tmp_path / "report.html"))
    assert "dqn_mlp on an unnamed environment" in page.text


def test_text_of_the_user_is_escaped(tmp_path):
    attack = "</script><img src=x onerror=alert(1)>"
    results = synthetic(samples=3, seeds=1, diverged=())
    results.manifest.update(name=attack, env=attack, git_commit=attack, command=["hyperlax", attack])
    results.manifest["plan"][0]["caps"] = {attack: 1}
    samples = results.samples.with_columns(results.samples["actor.activation"].replace("tanh", attack))
    attacked = type(results)(
        results.manifest, samples.rename({"gamma": attack}), results.lanes, results.curves
    )
    page = _read(write_report(attacked, tmp_path / "report.html"))
    assert "img" not in {tag for tag, _, _ in page.attributes}
    assert page.problems == []
    assert attack in page.text
    assert json.loads(page.scripts[0])


def test_a_failed_write_leaves_the_previous_report(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "report.html", b"the last one")

    def power_cut(*_):
        raise OSError("power cut")

    monkeypatch.setattr("os.replace", power_cut)
    with pytest.raises(OSError, match="power cut"):
        write_report(nothing_yet(), path)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
    assert path.read_bytes() == b"the last one"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("/home/me/results/run", "…/run"),
        ("--output-root=/tmp/x/out --seed 3", "--output-root=…/out --seed 3"),
        ("configs/ppo.py:recipe", "configs/ppo.py:recipe"),
        ("~/runs/a", "…/a"),
        ("a/b and 3/4", "a/b and 3/4"),
    ],
)
def test_folders_are_shortened(written, shown):
    assert without_folders(written) == shown


def test_public_text_is_escaped():
    assert piece("command", "<b>") == "<pre>&lt;b&gt;</pre>"


def test_charts_are_exported(tmp_path, monkeypatch):
    few = {name: CHARTS[name] for name in ("leaderboard", "timeline")}
    monkeypatch.setattr("hyperlax.report.charts.CHARTS", few)
    written = export_charts(synthetic(samples=3, seeds=2, evaluations=2), tmp_path / "charts")
    starts = {".png": b"\x89PNG", ".svg": b"<svg", ".pdf": b"%PDF"}
    assert len(written) == len(few) * len(starts)
    assert all(path.read_bytes().startswith(starts[path.suffix]) for path in written)


def test_charts_without_data_are_not_exported(tmp_path):
    assert export_charts(nothing_yet(), tmp_path, formats=("png",)) == []


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gif; choose from png, svg, pdf"):
        export_charts(nothing_yet(), tmp_path, formats=("gif",))


class _Page(HTMLParser):
    """Parser that collects the attributes, text and scripts of a page and checks that its tags balance."""

    def __init__(self):
        super().__init__()
        self.open, self.problems, self.attributes = [], [], []
        self.text, self.styles, self.scripts = "", "", []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs] or [(tag, "", "")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"unexpected </{tag}> at {self.getpos()}")

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.scripts[-1] += data
        elif inside == "style":
            self.styles += data
        else:
            self.text += data


def _read(path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    return page
