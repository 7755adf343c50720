"""The public names."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

import hyperlax
from hyperlax import searches, sweeps
from hyperlax.experiments.settings import Settings
from hyperlax.registry.moved import MOVED


def test_every_public_name_exists_and_is_documented():
    for name in hyperlax.__all__:
        thing = getattr(hyperlax, name)
        assert thing is not None
        if name != "__version__":
            assert thing.__doc__, name


def test_unknown_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'swep'"):
        _ = hyperlax.swep


def test_importing_the_package_starts_nothing_heavy():
    code = "import sys, hyperlax, hyperlax.commands.main as _; heavy = {'jax', 'gymnax', 'altair'}"
    code += "; assert not heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "/usr/bin"})


def test_completion_shows_the_public_names_and_no_others():
    assert dir(hyperlax) == sorted(hyperlax.__all__)


@pytest.mark.parametrize("name", ["sweep", "search", "confirm", "load", "prepare", "export"])
def test_every_parameter_is_explicit_and_documented(name):
    function = getattr(hyperlax, name)
    parameters = inspect.signature(function).parameters
    assert not [p for p in parameters.values() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    text = inspect.getdoc(function if name != "prepare" else hyperlax.sweep) or ""
    missing = {
        p for p in parameters if f"`{p}`" not in text and p not in ("path", "results", "best", "top_k")
    }
    assert not missing
    with pytest.raises(TypeError, match=rf'{name}\(\) has no parameter "no_such_thing"'):
        function(no_such_thing=1)


def test_what_runs_an_experiment_takes_all_that_describes_one():
    described = set(inspect.signature(hyperlax.sweep).parameters) - set(sweeps.RUNNING)
    assert described == set(inspect.signature(hyperlax.prepare).parameters)
    searched = set(inspect.signature(hyperlax.search).parameters) - set(sweeps.RUNNING)
    assert searched == set(inspect.signature(searches.prepare).parameters)
    for function in (hyperlax.sweep, hyperlax.search):
        assert set(Settings.__dataclass_fields__) <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_is_the_module_itself(old):
    new = importlib.import_module(f"hyperlax.{MOVED[old]}")
    assert importlib.import_module(f"hyperlax.{old}") is new
    assert new.__spec__ is not None
    assert new.__name__ == new.__spec__.name == f"hyperlax.{MOVED[old]}"
