"""Mutated manifests and policies: read as they are, or refused in one line that names the file."""

from __future__ import annotations

import copy
import json
import os
import random
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import report_data
from folders import commit, new, phase, point
from test_security import agent  # noqa: F401
from test_tables_in import mutated

import hyperlax
from hyperlax import policies, sweeps
from hyperlax.experiments.execution import Execution
from hyperlax.report.batch import begun, readable
from hyperlax.storage import store
from hyperlax.storage.checkpoint import pack
from hyperlax.storage.integrity import json_text

CASES = int(os.environ.get("HYPERLAX_MUTATIONS", "3000"))
"""How many files of each kind the long tests try."""
VALUES = (
    None,
    True,
    0,
    -1,
    10**30,
    1e300,
    "",
    "x",
    "\x1b[2J\n",
    "../../x",
    [],
    [1],
    {},
    {"a": 1},
    [[]],
    [None],
)
"""What entries are replaced by."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to everything in a value of JSON."""
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def changed(content: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """`content` with one to three of its values replaced, removed or doubled."""
    content = copy.deepcopy(content)
    for _ in range(draw.randint(1, 3)):
        *way, last = draw.choice([p for p in places(content) if p] or [("x",)])
        inside: Any = content
        for key in way:
            inside = inside[key]
        if draw.random() < 0.2:
            del inside[last]
        else:
            inside[last] = copy.deepcopy(draw.choice(VALUES))
    return content


def fault(action: Callable[[], Any], name: str, lists: bool = False) -> str | None:
    """What is wrong with how an action ends; None if it ends well, or says which file and what to do.

    That is one line, unless the action `lists` what differs.
    """
    try:
        action()
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        if name not in said or not (lists or ("\n" not in said and "; " in said)):
            return said
    except BaseException:
        return traceback.format_exc()
    return None


def described(folder: Path) -> None:
    """Reads the results, and says what is in them."""
    results = hyperlax.read(folder)
    assert repr(results)


@pytest.fixture(scope="module")
def spec() -> Any:
    return sweeps.prepare("ppo_mlp", "gymnax.cartpole", num_samples=1, seeds=1, total_timesteps=5_000)


def experiment(folder: Path, spec: Any) -> dict[str, Any]:
    """A complete run whose manifest has everything that one may have; returns the manifest."""
    keeper = new(folder)
    keeper.append("curves", [point(1)])
    keeper.append("timeline", [phase(1)])
    commit(keeper, 1)
    about = {**report_data.manifest(1, 1, 1, 512), **spec.manifest(["hyperlax", "sweep-hp-samples"])}
    about |= {"plan": [], "shapes": [{"device": "cpu"}], "metric": "final", "resumed": ["2026"]}
    about["timings"] = {
        "wall_seconds": 1.0,
        "compile_seconds": 1.0,
        "programs": [],
        "errors": {},
        "causes": {},
    }
    keeper.complete(about)
    return json.loads((folder / "manifest.json").read_text())


def manifests(folder: Path, spec: Any, cases: int, seed: int) -> dict[str, str]:
    """The mutated manifests that were answered badly, and how."""
    manifest, draw, found = experiment(folder, spec), random.Random(seed), dict[str, str]()
    path, how = folder / "manifest.json", Execution(folder=folder, resume=True)
    actions = {
        "read": lambda: described(folder),
        "check": lambda: hyperlax.check(folder),
        "resume": lambda: sweeps.check(spec, how),
    }
    (folder / "checkpoint" / "manifest-copy.json").unlink()
    for _ in range(cases):
        text = json_text(changed(manifest, draw))
        if draw.random() < 0.2:
            text = mutated(path.read_bytes(), draw).decode(errors="replace")
        path.write_text(text)
        for name, action in actions.items():
            if (wrong := fault(action, str(folder), lists=name == "resume")) is not None:
                found[f"{name} {wrong}"] = text
        readable(begun(store.find(folder))[0])
    return found


def policy_files(path: Path, parts: Any, cases: int, seed: int) -> dict[str, str]:
    """The mutated policies that were answered badly, and how."""
    (tree, header), draw, found = parts, random.Random(seed), dict[str, str]()
    whole = pack(tree, **header)
    for _ in range(cases):
        about = changed(header, draw)
        content = mutated(whole, draw) if draw.random() < 0.3 else pack(tree, **about)
        path.write_bytes(content)
        if (wrong := fault(lambda: policies.load(path), path.name)) is not None:
            found[wrong] = json.dumps(about)
    return found


def report(found: dict[str, str]) -> str:
    """The first faults, shortened."""
    return "\n".join(wrong[-600:] for wrong in list(found)[:12])


def test_mutated_manifests_are_refused_in_a_line(tmp_path, spec, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr("hyperlax.storage.reading._PAUSE", 0.0)
    assert not (found := manifests(tmp_path, spec, 100, 0)), report(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_mutated_manifests(tmp_path, spec, monkeypatch):
    monkeypatch.setattr("hyperlax.storage.reading._PAUSE", 0.0)
    assert not (found := manifests(tmp_path, spec, CASES, 1)), report(found)


def test_mutated_policies_are_refused_in_a_line(tmp_path, agent):  # noqa: F811
    assert not (found := policy_files(tmp_path / "it.policy", agent, 60, 0)), report(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_mutated_policies(tmp_path, agent):  # noqa: F811
    assert not (found := policy_files(tmp_path / "it.policy", agent, CASES, 1)), report(found)
