"""What happens before a command runs: device, compilation cache, display, log file."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from hyperlax.commands import launch
from hyperlax.run.terminal import Lines, Live

CACHE = str(Path(__file__).parents[1] / ".jax_cache")


@pytest.fixture(autouse=True)
def _place(monkeypatch):
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", CACHE)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    launch.end_logging()


def test_starting_jax_twice_changes_nothing():
    """Devices are counted when jax starts; later it keeps what it has."""
    before = jax.local_device_count()
    launch.start_jax("auto")
    launch.start_jax("cpu")
    assert jax.local_device_count() == before
    assert Path(jax.config.values["jax_compilation_cache_dir"]).parent == Path(CACHE)


def test_a_device_that_is_not_there_is_refused_with_the_fix():
    with pytest.raises(ValueError, match=r'--device gpu: .*"\.\[cuda13\]".*--device cpu'):
        launch.start_jax("gpu")


@pytest.mark.parametrize("error", [RuntimeError("no CUDA"), AssertionError()])
def test_jax_failing_to_start_is_the_same_refusal(monkeypatch, error):
    """jax raises one or the other, by version."""

    def fail():
        raise error

    monkeypatch.setattr(jax, "default_backend", fail)
    with pytest.raises(ValueError, match=r"--device gpu: jax finds no such device.*--device cpu") as refusal:
        launch.start_jax("gpu")
    assert str(error) in str(refusal.value)


def test_a_gpu_that_jax_does_not_see_is_said_loudly(monkeypatch, capsys):
    """With the install command; nothing is said when the CPU was asked for, or there is no GPU."""
    monkeypatch.setattr(launch.shutil, "which", lambda name: f"/usr/bin/{name}")
    launch.start_jax("auto")
    said = capsys.readouterr().err
    assert said.startswith("WARNING: this machine has an NVIDIA GPU but jax sees none")
    assert 'pip install ".[cuda13]"' in said
    assert "Continuing on the CPU" in said
    launch.start_jax("cpu")
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    launch.start_jax("auto")
    assert capsys.readouterr().err == ""


def test_the_cache_folder_can_be_moved_and_turned_off(monkeypatch, tmp_path):
    """By hyperlax's own variable, by jax's, and by the user's cache folder."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(tmp_path))
    moved = launch.compilation_cache()
    assert moved is not None
    assert moved.parent == tmp_path
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", "")
    assert launch.compilation_cache() is None
    monkeypatch.delenv("HYPERLAX_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    default = launch.compilation_cache()
    assert default is not None
    assert default.parent == tmp_path / "hyperlax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    assert launch.compilation_cache() is None


def test_machines_that_need_other_programs_have_other_folders(monkeypatch, tmp_path):
    """Below one folder for all of them: by processor, by what it can do, by GPU and by version of jaxlib."""
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", str(tmp_path))
    folders = {launch.compilation_cache()}
    for facts in ({"model name": "another"}, {"model name": "another", "flags": "fpu"}):
        monkeypatch.setattr(
            "hyperlax.experiments.machine._cpuinfo", lambda entry, facts=facts: facts.get(entry)
        )
        folders.add(launch.compilation_cache())
    monkeypatch.setattr(launch, "version", lambda package: "9.9.9")
    folders.add(launch.compilation_cache())
    gpu = SimpleNamespace(platform="gpu", device_kind="NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(jax, "devices", lambda: [gpu])
    folders.add(tmp_path / "compiled-9.9.9-nvidia-h100-80gb-hbm3")
    assert launch.compilation_cache() in folders
    assert len(folders) == 5
    assert {folder.parent for folder in folders if folder} == {tmp_path}


@pytest.mark.parametrize("place", ["a file/below it", "~nobody-of-this-name/cache"])
def test_a_cache_folder_that_cannot_be_written_is_left_out_with_one_line(
    monkeypatch, tmp_path, caplog, place
):
    """Wherever there is none: a home that a container does not have, a user without a home."""
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HYPERLAX_CACHE_DIR", place if place.startswith("~") else str(tmp_path / place))
    assert launch.compilation_cache() is None
    assert launch.compilation_cache() is None
    assert len(caplog.messages) == 1
    assert place in caplog.messages[0]
    assert "set HYPERLAX_CACHE_DIR to a folder that can" in caplog.messages[0]


def test_the_log_file_holds_everything_and_the_terminal_what_was_asked_for(tmp_path, capsys):
    shown = launch.display(tmp_path / "run", "WARNING", save_logs=True)
    assert type(shown) is Lines
    log = logging.getLogger("hyperlax")
    for level in (logging.DEBUG, logging.INFO, logging.WARNING):
        log.log(level, "said at %d", level)
    assert [line.split("] ")[1] for line in capsys.readouterr().out.splitlines()] == ["said at 30"]
    lines = (tmp_path / "run" / "hyperlax.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "DEBUG said at 10",
        "INFO said at 20",
        "WARNING said at 30",
    ]


def test_without_logs_nothing_is_created(tmp_path):
    launch.display(tmp_path / "run", "INFO", save_logs=False)
    assert not (tmp_path / "run").exists()


def test_every_run_writes_to_its_own_log(tmp_path, capsys):
    """A second display replaces the first, and ending it leaves the logger as it was."""
    for name in ("a", "b"):
        launch.display(tmp_path / name, "INFO", save_logs=True)
        logging.getLogger("hyperlax").info(name)
    launch.end_logging()
    logging.getLogger("hyperlax").info("later")
    for name in ("a", "b"):
        assert (tmp_path / name / "hyperlax.log").read_text().split()[-1] == name
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert logging.getLogger("hyperlax").handlers == []
    assert logging.getLogger("hyperlax").propagate


@pytest.mark.parametrize(("level", "live"), [("DEBUG", True), ("INFO", True), ("WARNING", False)])
def test_a_terminal_gets_a_live_display_unless_it_is_to_be_quiet(monkeypatch, tmp_path, level, live):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert isinstance(launch.display(tmp_path, level, save_logs=False), Live) == live


def test_a_terminal_shows_the_options_of_an_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("sys.stdout", io.StringIO())
    live = launch.display(tmp_path, "INFO", save_logs=False)
    assert isinstance(live, Live)
    live.console.print("brax.ant[backend=mjx]")
    assert "brax.ant[backend=mjx]" in live.console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
