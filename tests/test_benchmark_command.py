"""What `run-benchmark` prints, and where it writes, with a benchmark that trains nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyperlax.commands.main import app

SUITES = "from hyperlax import Suite\nSUITES = {'mine': Suite(('ppo_mlp',), ('gymnax.cartpole',))}\n"
ENV = "brax.ant[backend=mjx]"


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """The folders and names of the benchmarks that were begun; the current folder is an empty one."""
    seen: list[tuple[Path, str]] = []

    class Nothing:
        def __init__(self, suite, folder, name, *_, **__):
            seen.append((folder, name))

        def plan(self, *_):
            return [{"recipe": "ppo_mlp", "environment": ENV, "why": "skipped: for a test"}]

        def run(self, how, show, command):
            return {}

        outcome = plan

        def results(self):
            return []

    monkeypatch.setattr("hyperlax.studies.benchmark.Benchmark", Nothing)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "suites.py").write_text(SUITES)
    return seen


def run(*line: str) -> int:
    return app(["run-benchmark", *line], exit_on_error=False, result_action="return_value")


def test_an_environment_with_options_is_printed_in_full(begun, capsys):
    assert run("--envs", "gymnax.cartpole") == 0
    assert f"ppo_mlp on {ENV} skipped" in capsys.readouterr().out


@pytest.mark.parametrize("absolute", [False, True])
def test_a_suite_in_a_file_elsewhere_has_its_folder_below_results(begun, tmp_path, absolute):
    file = tmp_path / "suites.py" if absolute else Path("../suites.py")
    assert run("--base-config", f"{file}:mine") == 0
    assert begun == [(Path("results/run-benchmark/mine"), "mine")]
