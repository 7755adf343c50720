"""`hyperlax new` writes files that work as written, and never over others."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import pytest

from hyperlax.commands import new
from hyperlax.commands.main import main

KINDS = get_args(new.Kind)
NAMES = {
    "agent": "A2C",
    "network": "Residual",
    "env": "DoubleIntegrator",
    "sampler": "Golden",
    "schedule": "Median",
    "recipe": "mine",
}
FILES = {
    "agent": "a2c",
    "network": "residual",
    "env": "double_integrator",
    "sampler": "golden",
    "schedule": "median",
    "recipe": "mine",
}
FAST = ("env", "sampler", "recipe", "schedule")
"""Kinds whose tests, as written, are in every test run; those of the others compile several programs."""


def written(kind, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stopped:
        main(["new", kind, NAMES[kind]])
    assert stopped.value.code == 0
    return folder / f"{FILES[kind]}.py", folder / f"test_{FILES[kind]}.py"


class Outcomes:
    """A plugin of pytest that notes the outcome of every test, by the name of its file."""

    def __init__(self):
        self.of: dict[str, set[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.of.setdefault(report.nodeid.partition("::")[0], set()).add(report.outcome)


def test_the_tests_pass_as_written(tmp_path, monkeypatch):
    """Side by side in one folder; in this process, which has the programs that some of them train."""
    tests = [written(kind, tmp_path, monkeypatch)[1].name for kind in FAST]
    monkeypatch.setattr(sys, "path", [*sys.path])
    modules, outcomes = set(sys.modules), Outcomes()
    off = [word for name in ("cacheprovider", "xdist", "timeout") for word in ("-p", f"no:{name}")]
    code = pytest.main(["-q", "-s", "-c", os.devnull, "--rootdir", ".", *off, *tests], plugins=[outcomes])
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    assert code == 0
    assert outcomes.of == {test: {"passed"} for test in tests}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_tests_pass_as_written_in_a_process_of_their_own(kind, tmp_path, monkeypatch):
    """As the command says that they are run."""
    test = written(kind, tmp_path, monkeypatch)[1].name
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", test],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert f"PASSED {test}::" in ran.stdout, ran.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_small_and_clean_and_the_next_command_is_named(kind, tmp_path, monkeypatch, capsys):
    file, test = written(kind, tmp_path, monkeypatch)
    assert len(file.read_text().splitlines()) < 100
    printed = capsys.readouterr().out
    assert f"python -m pytest test_{FILES[kind]}.py" in printed
    assert f"{FILES[kind]}.py:" in printed.partition("train it: hyperlax ")[2]
    for path in (file, test):
        assert "$" not in path.read_text()
    ruff = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,UP,B",
        "--line-length",
        "110",
    ]
    subprocess.run([*ruff, "--ignore", "F722", "."], cwd=tmp_path, check=True, capture_output=True)


def test_nothing_is_overwritten(tmp_path, monkeypatch, capsys):
    file, test = written("env", tmp_path, monkeypatch)
    file.unlink()
    before = test.read_text()
    with pytest.raises(SystemExit) as stopped:
        main(["new", "env", "double_integrator"])
    assert stopped.value.code == 2
    assert "test_double_integrator.py exists" in capsys.readouterr().err
    assert (test.read_text(), file.exists()) == (before, False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("2fast", "cannot be the name of a Python module"),
        ("class", "cannot be the name of a Python module"),
        ("../up", "cannot be the name of a Python module"),
        ("random", "random is the name of an installed module"),
        ("jax", "jax is the name of an installed module"),
        ("TestMine", "would be taken for a test"),
    ],
)
def test_names_that_would_not_work_are_refused(name, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["new", "env", name])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "module", "title"),
    [
        ("A2C", "a2c", "A2C"),
        ("DoubleIntegrator", "double_integrator", "DoubleIntegrator"),
        ("double_integrator", "double_integrator", "DoubleIntegrator"),
        ("my-net", "my_net", "MyNet"),
        ("MyMLP", "my_mlp", "MyMLP"),
    ],
)
def test_files_and_classes_are_named_by_the_conventions(name, module, title):
    assert (new.module_name(name), new.class_name(name)) == (module, title)
