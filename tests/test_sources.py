"""A run is not continued with other code of one's own than it was begun with, unless that is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from hyperlax import sweeps
from hyperlax.agents import AGENTS
from hyperlax.cluster import planning, sweep
from hyperlax.experiments import experiment
from hyperlax.networks import NETWORKS
from hyperlax.registry import load_file, sources
from hyperlax.storage.store import Store

ENV = """
from toys import Walk
from {beside} import SPEED


class Mine(Walk):
    obs_size: int = 3
"""
GIVEN: dict[str, Any] = {"recipe": "ppo_mlp", "run_length_modifier": "quick", "seeds": 1}


@pytest.fixture
def mine(tmp_path) -> Path:
    """An environment in a file of its own, which takes a number from a module beside it."""
    beside = f"beside_{tmp_path.name}"
    (tmp_path / f"{beside}.py").write_text("SPEED = 1\n")
    (tmp_path / "mine.py").write_text(ENV.format(beside=beside))
    return tmp_path / "mine.py"


def prepared(mine: Path):
    return sweeps.prepare(**GIVEN, env=f"{mine}:Mine")


def edited(file: Path) -> None:
    """Change a file, and see it as a process does that is started now."""
    file.write_text(file.read_text().replace("3", "4") + "# edited\n")
    sources._digest.cache_clear()


def test_the_files_of_own_code_are_part_of_what_an_experiment_is(mine):
    before = prepared(mine).identity()
    assert set(before[experiment.CODE]) == {"mine.py", "toys.py", f"beside_{mine.parent.name}.py"}
    assert experiment.CODE not in sweeps.prepare(**GIVEN, env="gymnax.cartpole").identity()
    edited(mine.parent / f"beside_{mine.parent.name}.py")
    (said,) = experiment.difference(before, prepared(mine).identity())
    assert said.startswith(f"beside_{mine.parent.name}.py has been changed since")
    older = {name: value for name, value in before.items() if name != experiment.CODE}
    assert experiment.difference(older, prepared(mine).identity()) == []


def test_modules_of_a_package_of_which_only_numbers_are_taken_are_among_the_code(tmp_path, monkeypatch):
    package = tmp_path / f"pack_{tmp_path.name}"
    (package / "deep").mkdir(parents=True)
    texts = {
        "__init__": "",
        "numbers_": "ONE = 1\n",
        "more": "TWO = 2\n",
        "deep/__init__": "",
        "deep/inner": "from .. import more as _\nfrom ..numbers_ import ONE\n\ndel _\n",
        "main": "from .deep.inner import ONE\n\n\nclass Mine:\n    one = ONE\n",
    }
    for name, text in texts.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(f"{package.name}.main")
    found = sources.digests([], [module.Mine()])
    assert set(found) == {"__init__.py", "main.py", "inner.py", "more.py", "numbers_.py"}


@pytest.mark.parametrize(("registry", "kind"), [(NETWORKS, "networks.MLP"), (AGENTS, "agents.PPO")])
def test_classes_that_a_package_registers_are_among_the_code(registry, kind, tmp_path, monkeypatch):
    name, (room, base) = f"brought_{kind[:3]}_{tmp_path.name}", kind.split(".")
    (tmp_path / f"{name}.py").write_text(
        f"from hyperlax.{room} import {base}Hyperparams\n\n\n"
        f"class OwnHyperparams({base}Hyperparams):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(registry.built_in, name, f"{name}:OwnHyperparams")
    recipe = f"ppo+{name}" if registry is NETWORKS else f"{name}+mlp"
    before = sweeps.prepare(**{**GIVEN, "recipe": recipe}, env="gymnax.cartpole").identity()
    assert set(before[experiment.CODE]) == {f"{name}.py"}


def test_other_line_ends_are_no_other_code(mine):
    before = prepared(mine).identity()
    mine.write_bytes(mine.read_bytes().replace(b"\n", b"\r\n"))
    sources._digest.cache_clear()
    assert prepared(mine).identity() == before


def test_a_run_is_not_resumed_with_changed_code(mine, tmp_path, monkeypatch):
    spec, folder = prepared(mine), tmp_path / "r"
    Store(folder).begin(manifest := spec.manifest(["hyperlax"]), spec.samples)
    assert sweeps.check_folder(spec, folder, True) == folder
    edited(mine)
    with pytest.raises(ValueError, match=r"mine\.py has been changed .*restore it.*HYPERLAX_ANY_CODE=1"):
        sweeps.check_folder(spec, folder, True)
    monkeypatch.setenv(sources.ANY_CODE, "1")
    assert sweeps.check_folder(spec, folder, True) == folder
    told = sweeps._with_code(manifest, spec)
    assert told["identity"][experiment.CODE] == spec.identity()[experiment.CODE]
    assert "mine.py changed while this was trained" in told["notes"][-1]
    assert sweeps._with_code(told, spec) == {}


def test_units_are_not_trained_with_changed_code(mine, tmp_path):
    spec = prepared(mine)
    given = {**GIVEN, "env": f"{mine}:Mine"}
    found = planning.of_experiment(spec, tmp_path / "r", Path("."), given, None, [], "cpu", {}, wanted=1)
    found.write()
    again = sweep.needed(found.root)
    asked = planning.asked_of_experiment(spec, False, False)
    assert planning.continued(again, asked) == again
    edited(mine)
    with pytest.raises(ValueError, match=r"mine\.py has been changed since"):
        again.spec(0)
    with pytest.raises(ValueError, match=r"mine\.py has been changed since"):
        planning.continued(again, planning.asked_of_experiment(prepared(mine), False, False))
    older = {"experiment": {k: v for k, v in asked["experiment"].items() if k != experiment.CODE}}
    assert sweep.difference({**asked, **older}, asked) == []


def test_a_script_that_runs_is_not_among_the_code(monkeypatch, mine):
    module = load_file(mine)
    assert sources.digests([f"{mine}:Mine"], [])
    monkeypatch.setattr(module, "__name__", "__main__")
    assert sources.digests([f"{mine}:Mine"], []) == {}
