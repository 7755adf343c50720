"""The files of every tracker hold the exported runs: read back with its client or by its format."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_data import confirmed, nothing_yet, synthetic

import hyperlax
from hyperlax.commands import main as cli
from hyperlax.exporters import EXPORTERS, export, runs
from hyperlax.storage.results import Results
from hyperlax.storage.store import GROWING, Store


@pytest.fixture(scope="module")
def results() -> Results:
    """An experiment with more hyperparameters than MLflow accepts in one request."""
    found = confirmed(synthetic(samples=3, seeds=3, evaluations=3))
    more = found.manifest | {"defaults": {f"x{i}": float(i) for i in range(150)}}
    return dataclasses.replace(found, manifest=more)


@pytest.fixture(scope="module")
def exported(results) -> list[runs.Run]:
    return list(runs.tracker_runs([results], 2))


def stored(results: Results, folder: Path) -> Path:
    """Write the experiment to disk in the form that an unfinished sweep leaves."""
    store = Store(folder)
    store.begin(results.manifest, results.samples)
    for table in GROWING:
        store.append(table, getattr(results, table).to_dicts())
    store.put("lanes", results.lanes)
    store.commit([], {})
    return folder


def test_tensorboard_event_files_hold_every_value(results, exported, tmp_path):
    pytest.importorskip("tensorboardX")
    assert export(results, "tensorboard", tmp_path / "x", top_k=2) == f"tensorboard --logdir {tmp_path / 'x'}"
    home = tmp_path / "x" / "gymnax.pendulum" / "ppo_mlp"
    folders = [home, *(home / f"sample-{run.sample}" for run in exported[1:])]
    assert {p.parent for p in (tmp_path / "x").rglob("events*")} == set(folders)
    for run, folder in zip(exported, folders, strict=True):
        scalars: dict[str, dict[int, float]] = defaultdict(dict)
        plugins = set()
        for event in events(folder):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name:
                    plugins.add(value.metadata.plugin_data.plugin_name)
                if value.HasField("simple_value"):
                    scalars[value.tag][event.step] = value.simple_value
        for point in run.points:
            for name, value in point.values.items():
                assert scalars[name][point.env_steps] == pytest.approx(value, rel=1e-6)
        summary = {k.removeprefix("summary/"): v for k, v in scalars.items() if k.startswith("summary/")}
        assert {k: next(iter(v.values())) for k, v in summary.items()} == pytest.approx(run.summary, rel=1e-6)
        assert plugins == {"custom_scalars", "text" if run.sample is None else "hparams"}


def events(folder: Path) -> Iterator:
    """Parse the events of the single file in `folder`: each is length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue] - made at import

    (file,) = folder.glob("events*")
    data = io.BytesIO(file.read_bytes())
    while header := data.read(12):
        event = Event()
        event.ParseFromString(data.read(struct.unpack("<Q", header[:8])[0]))
        data.read(4)
        yield event


def test_wandb_runs_are_offline_and_hold_every_value(results, exported, tmp_path, capfd, monkeypatch):
    """The export is silent and offline even if environment variables ask for another mode."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    export(results, "wandb", tmp_path / "x", top_k=2)
    wandb.teardown()
    assert capfd.readouterr() == ("", "")
    folders = list((tmp_path / "x" / "wandb").glob("offline-run-*"))
    assert len(folders) == 3
    written = {}
    for folder in folders:
        found = list(records(folder))
        (about,) = [r.run for r in found if r.WhichOneof("record_type") == "run"]
        written[about.display_name] = (about, found)
    for run in exported:
        name = "ppo_mlp on gymnax.pendulum" + ("" if run.sample is None else f", sample {run.sample}")
        about, found = written[name]
        assert (about.project, about.run_group) == ("hyperlax", "ppo_mlp on gymnax.pendulum")
        assert about.job_type == ("experiment" if run.sample is None else "sample")
        config = {entry.key: json.loads(entry.value_json) for entry in about.config.update}
        assert run.config.items() <= config.items()
        history = [values(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
        assert [row["env_steps"] for row in history] == [point.env_steps for point in run.points]
        for row, point in zip(history, run.points, strict=True):
            assert {k: row[k] for k in point.values} == pytest.approx(point.values)
        summary: dict = {}
        for record in found:
            if record.WhichOneof("record_type") == "summary":
                summary |= values(record.summary.update)
        assert {k: summary[k] for k in run.summary} == pytest.approx(run.summary)


def values(items) -> dict:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(folder: Path) -> Iterator:
    """Parse the records of a run: LevelDB's log format in blocks of 32 kB, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import (  # pyright: ignore[reportMissingImports] - optional
        Record,  # pyright: ignore[reportAttributeAccessIssue] - made when it is imported
    )

    (file,) = folder.glob("*.wandb")
    data, at, message = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:
            at += left
            continue
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        message += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(message)
            message = b""
            yield record


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # of MLflow's own tables
def test_mlflow_holds_every_value(results, exported, tmp_path, capfd, monkeypatch):
    """The runs are in one local file, samples nested in their experiment; an address adds further runs."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    command = export(results, "mlflow", tmp_path / "x", top_k=2)
    address = f"sqlite:///{tmp_path / 'x' / 'mlflow.db'}"
    assert command == f"mlflow ui --backend-store-uri {address}"
    client = mlflow.MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("gymnax.pendulum")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert len(found) == 3
    parent = found["ppo_mlp"].info.run_id
    for run in exported:
        written = found["ppo_mlp" if run.sample is None else f"ppo_mlp, sample {run.sample}"]
        assert written.data.tags.get("mlflow.parentRunId") == (None if run.sample is None else parent)
        assert written.data.params == {k.replace("+", "_"): str(v) for k, v in run.config.items()}
        assert {k: written.data.metrics[f"summary/{k}"] for k in run.summary} == pytest.approx(run.summary)
        for name in run.points[0].values:
            history = client.get_metric_history(written.info.run_id, name)
            expected = {point.env_steps: point.values[name] for point in run.points}
            assert {m.step: m.value for m in history} == pytest.approx(expected)
            assert history[0].timestamp == round(1_000 * run.points[0].time)
    export(results, "mlflow", address, top_k=0)
    assert len(client.search_runs([experiment.experiment_id])) == 4
    assert {p.name for p in tmp_path.iterdir()} == {"x"}
    assert capfd.readouterr() == ("", "")


def test_running_experiments_are_exported_with_the_data_they_have(tmp_path):
    """Experiments are exported from their folders while they are being written."""
    pytest.importorskip("tensorboardX")
    stored(synthetic(samples=2, seeds=2), tmp_path / "a")
    begun = nothing_yet()
    stored(dataclasses.replace(begun, manifest={**begun.manifest, "name": "sac_mlp"}), tmp_path / "b")
    export(tmp_path, "tensorboard", top_k=1)
    found = {p.parent.relative_to(tmp_path / "tensorboard") for p in tmp_path.rglob("events*")}
    env = Path("gymnax.pendulum")
    assert {p for p in found if p.parts[1] == "sac_mlp"} == {env / "sac_mlp"}
    assert len(found) == 3


def test_invalid_exports_are_refused_before_anything_is_written(results, tmp_path, monkeypatch):
    """Errors are raised before the destination is created."""
    target = tmp_path / "x"
    with pytest.raises(ValueError, match='unknown tracker "wandbb"; did you mean "wandb"'):
        export(results, "wandbb", target)
    with pytest.raises(ValueError, match="top_k must be at least 0"):
        export(results, "wandb", target, top_k=-1)
    with pytest.raises(ValueError, match="give a destination"):
        export(results, "wandb")
    with pytest.raises(ValueError, match="tensorboard is written to a folder"):
        export(results, "tensorboard", "http://localhost:1")
    with pytest.raises(ValueError, match="no experiment found"):
        export(tmp_path, "wandb")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty; remove it, or choose another --destination"):
        export(results, "wandb", tmp_path)
    for tracker, module in (("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=rf'{module} is not installed: pip install "\.\[trackers'):
            export(results, tracker, target)
    assert not target.exists()


def test_the_command_exports_all_experiments_in_a_folder(results, tmp_path, capsys):
    pytest.importorskip("tensorboardX")
    stored(results, tmp_path / "a")
    line = ["export", "--results-dir", str(tmp_path), "--to", "tensorboard", "--top-k", "1"]
    with pytest.raises(SystemExit) as left:
        cli.main(line)
    assert left.value.code == 0
    assert f"tensorboard --logdir {tmp_path / 'tensorboard'}" in capsys.readouterr().out
    assert len(list(tmp_path.rglob("events*"))) == 2
    with pytest.raises(SystemExit) as left:
        cli.main(line)
    assert left.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_the_command_names_every_tracker(capsys):
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in EXPORTERS)
    assert hyperlax.export is export
