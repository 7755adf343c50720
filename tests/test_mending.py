"""Damaged files of the units of a sweep: named before they are merged, and trained again, bit for bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import folders
import pytest
from test_units import assert_equal

from hyperlax import searches, sweeps
from hyperlax.cluster import mending, merging, planning, records, slurm, state, submitting
from hyperlax.cluster.sweep import Sweep, Unit
from hyperlax.commands.main import main

GIVEN: dict[str, Any] = {"env": "gymnax.cartpole", "run_length_modifier": "quick", "seeds": 2}


@pytest.fixture(scope="module")
def spec():
    return sweeps.prepare(recipe="ppo_mlp", num_samples=4, **GIVEN)


def planned(spec, root: Path, recipe: str = "ppo_mlp", **more: Any) -> Sweep:
    given = {"recipe": recipe, "num_samples": 4, **GIVEN}
    found = planning.of_experiment(
        spec, root, Path("."), given, None, ["hyperlax"], "cpu", {}, wanted=4, **more
    )
    found.write()
    return found


def over(found: Sweep, unit: Unit) -> None:
    about = {"lanes": unit.lanes, "failed_lanes": 0, "env_steps": unit.env_steps, "seconds": 1.0}
    records.note_done(found, unit, about)


def flip(path: Path) -> None:
    """Change a byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def found(spec, tmp_path) -> Sweep:
    """A sweep whose units have ended, of which one has a damaged table."""
    made = planned(spec, tmp_path / "r")
    for unit in made.units:
        folders.trained(made.folder(unit))
        over(made, unit)
    flip(made.folder(made.units[2]) / "curves.parquet")
    return made


def test_units_with_damaged_files_are_not_merged_and_what_to_type_is_said(found):
    name = found.units[2].name
    with pytest.raises(ValueError, match=rf"{name} are damaged: .*curves\.parquet") as refused:
        merging.merge(found, 0)
    assert f"hyperlax unit run {found.root} {name} --retrain-damaged; then" in str(refused.value)
    assert not (found.root / "manifest.json").exists()
    assert all(found.folder(unit).exists() for unit in found.units)


def test_what_is_damaged_does_not_keep_the_other_experiments_from_being_merged(found, monkeypatch, tmp_path):
    both = replace(found, cells=(found.cells[0], replace(found.cells[0], path="other")))
    tried, told = [], []

    def merge(sweep, cell):
        tried.append(cell)
        if cell == 0:
            raise ValueError("damaged")
        return tmp_path

    monkeypatch.setattr(merging, "mergeable", lambda *_: True)
    monkeypatch.setattr(merging, "merge", merge)
    with pytest.raises(ValueError, match="damaged"):
        merging.merge_all(both, told.append)
    assert tried == [0, 1]
    assert told == [tmp_path]


def test_only_damaged_units_are_trained_again_and_their_record_comes_back(found):
    unit = found.units[2]
    before = records.outcome(found, unit)
    assert mending.ask(found, found.units) == [unit.name]
    assert [u.state for u in state.look(found).units] == ["done", "done", "lost", "done"]
    assert not merging.mergeable(found, 0)
    assert mending.ask(found, found.units) == [unit.name]  # killed, and asked again
    records.note_done(found, unit, {"lanes": 99, "env_steps": 99, "failed_lanes": 99})
    assert records.outcome(found, unit) == {**(before or {}), "lanes": 99, "failed_lanes": 99}
    assert records.mending(found, unit) is None


def test_what_is_damaged_is_sent_to_slurm_again_unless_it_is_in_the_queue(spec, tmp_path, monkeypatch):
    made = planned(spec, tmp_path / "r", slurm={"time": "1:00:00"})
    for unit in made.units:
        folders.trained(made.folder(unit))
        over(made, unit)
    for number in (1, 2):
        flip(made.folder(made.units[number]) / "curves.parquet")
    with pytest.raises(ValueError, match=rf"hyperlax submit {made.root} --retrain-damaged; then"):
        merging.merge(made, 0)
    monkeypatch.setattr(slurm, "queue", list)
    monkeypatch.setattr(slurm, "largest_array", lambda: 1000)
    monkeypatch.setattr(slurm, "send", lambda _: "7")
    monkeypatch.setattr(submitting, "live", lambda sweep, tasks: {made.units[1].name: tasks})
    assert submitting.submit(made).jobs == {}
    assert submitting.submit(made, retrain_damaged=True).jobs == {"7": [made.units[2].name]}


def test_a_single_unit_mends_a_merged_folder_whatever_the_order_of_the_units(found):
    """Units of two experiments are mixed, as they are when the longest come first."""
    first, *others = found.units
    cells = (found.cells[0], replace(found.cells[0], path="other"))
    for path in (".", "other"):
        folders.trained(found.root / path)
        flip(found.root / path / "curves.parquet")
    mixed = (replace(first, cell=1), others[0], replace(others[1], cell=1), others[2])
    both = replace(found, cells=cells, units=mixed)
    assert mending.ask(both, both.units) == [others[0].name, first.name]
    assert mending.ask(both, both.units) == [first.name, others[0].name], "the same two, asked again"


def test_no_more_units_are_named_than_a_command_takes(found, monkeypatch):
    monkeypatch.setattr(mending, "MOST_NAMED", 1)
    flip(found.folder(found.units[0]) / "curves.parquet")
    first = found.units[0].name
    with pytest.raises(ValueError, match=rf"files of {first} and 1 other are damaged") as refused:
        merging.merge(found, 0)
    assert f"unit run {found.root} {first} --retrain-damaged" in str(refused.value)


def test_a_unit_of_which_nothing_can_be_read_begins_anew(found):
    unit = found.units[2]
    (found.folder(unit) / "checkpoint" / "state.bin").unlink()
    assert mending.ask(found, [unit]) == [unit.name]
    assert not found.folder(unit).exists()
    assert (found.records(unit) / "damaged-1" / "curves.parquet").exists()


def test_a_unit_whose_folder_is_gone_is_trained_again(found):
    shutil.rmtree(found.folder(found.units[1]))
    assert mending.ask(found, found.units) == [found.units[1].name, found.units[2].name]


def test_a_unit_that_another_process_trains_is_left_alone(spec, tmp_path):
    made = planned(spec, tmp_path)
    keeper = folders.new(made.folder(made.units[0]))
    folders.write(keeper, 1)
    for path in made.folder(made.units[0]).glob("parts/*"):
        path.unlink()
    assert mending.ask(made, made.units) == []
    assert keeper.claim is not None
    keeper.claim.note(host="elsewhere")
    assert mending.ask(made, made.units) == [made.units[0].name]


# With training


def trained(found: Sweep, *words: str) -> None:
    command = [sys.executable, "-m", "hyperlax", "unit", "run", str(found.root), "--trust", *words]
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    environment["HYPERLAX_CACHE_DIR"] = str(Path(__file__).parents[1] / ".jax_cache")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def curves(folder: Path) -> None:
    flip(folder / "curves.parquet")


def checkpoint(folder: Path) -> None:
    (folder / "checkpoint" / "state.bin").unlink()


def policy(folder: Path) -> None:
    next(iter((folder / "policies").iterdir())).write_bytes(b"")


def everything(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """For a recipe, a sweep whose units are trained, and what is merged from them."""
    made: dict[str, tuple[Path, Path]] = {}

    def of(recipe: str) -> tuple[Path, Path]:
        if recipe not in made:
            root = tmp_path_factory.mktemp(recipe)
            found = planned(sweeps.prepare(recipe=recipe, num_samples=4, **GIVEN), root / "units", recipe)
            trained(found)
            made[recipe] = root / "units", root / "merged"
            shutil.copytree(*made[recipe])
            merging.merge(read(root / "merged"), 0)
        return made[recipe]

    return of


def read(root: Path) -> Sweep:
    from hyperlax.cluster import sweep

    return sweep.needed(root)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", [curves, checkpoint, policy, everything])
@pytest.mark.parametrize("recipe", ["ppo_mlp", "dqn_mlp"])
def test_what_units_have_lost_is_trained_again_bit_for_bit(both, tmp_path, recipe, damage):
    units, merged = both(recipe)
    found = read(shutil.copytree(units, tmp_path / "r"))
    damage(found.folder(found.units[1]))
    with pytest.raises(ValueError, match="--retrain-damaged"):
        merging.merge(found, 0)
    trained(found, "--retrain-damaged")
    merging.merge(found, 0)
    assert_equal(found.root, merged)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("damage", [curves, policy])
@pytest.mark.parametrize("recipe", ["ppo_mlp", "dqn_mlp"])
def test_what_a_merged_folder_has_lost_is_trained_again_bit_for_bit(both, tmp_path, recipe, damage):
    merged = both(recipe)[1]
    found = read(shutil.copytree(merged, tmp_path / "r"))
    damage(found.root)
    trained(found, "--retrain-damaged")
    with pytest.raises(SystemExit) as ended:
        main(["status", str(found.root)])
    assert ended.value.code == state.ALL_DONE
    assert merging.is_merged(found, 0)
    assert_equal(found.root, merged)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("merged", [False, True])
def test_a_search_that_processes_share_has_its_trials_again(tmp_path, merged):
    given = {"recipe": "dqn_mlp", "n_trials": 6, "storage": None, "sampler": "random", **GIVEN}
    spec = searches.prepare(**given)
    found = planning.of_search(spec, tmp_path / "r", given, ["hyperlax"], "cpu", {}, wanted=2)
    found.write()
    trained(found)
    whole = read(shutil.copytree(found.root, tmp_path / "whole"))
    merging.merge(whole, 0)
    if merged:
        merging.merge(found, 0)
        curves(found.root)
    else:
        held = [u for u in found.units if (found.folder(u) / "curves.parquet").exists()]
        curves(found.folder(held[0]))
    trained(found, "--retrain-damaged")
    merging.merge(found, 0)
    assert_equal(found.root, whole.root)
