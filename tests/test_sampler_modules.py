"""Samplers as modules: what changes is in their leaves, so that one is saved, restored and continued."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from jaxtyping import Int64

import hyperlax
from hyperlax.hyperparams.samplers import (
    METHODS,
    SAMPLERS,
    AbstractPointDesign,
    AbstractSampler,
    Grid,
    LatinHypercube,
    Saltelli,
    SamplesFile,
    Sobol,
    design,
    rest,
)
from hyperlax.hyperparams.spaces import Choice, Integers, Joint, LogUniform, Uniform
from hyperlax.storage.checkpoint import pack, unpack

SPACE = {
    "net": Joint(("width", "depth"), (32, 1), (64, 2), (128, 3)),
    "lr": LogUniform(1e-5, 1e-1),
    "steps": Integers(1, 4),
    "norm": Choice(True, False),
}
RECIPE = hyperlax.Recipe("ppo", "mlp", {"gamma": Uniform(0.9, 0.99), "epochs": Choice(1, 2)}, only=True)
DESIGNS = (*METHODS, "sobol_matrices_A_B_AB", "file")


@pytest.fixture
def make(tmp_path):
    """Makes the design of a name, for 64 samples."""
    path = tmp_path / "samples.csv"
    path.write_text("lr\n" + "\n".join(str(i / 1000) for i in range(64)))

    def made(name, seed=3):
        return SamplesFile(path, ["lr"]) if name == "file" else SAMPLERS[name].sized(SPACE, seed, 64)

    return made


def test_every_sampler_of_the_registry_is_tried_here():
    assert set(DESIGNS) == set(SAMPLERS) - {"optuna"}, "optuna has tests of its own"


@pytest.mark.parametrize("name", DESIGNS)
def test_drawing_twice_gives_the_samples_of_drawing_once(make, name):
    whole, once = make(name), rest(make(name))
    first, second = whole.ask(16), whole.ask(16)[0].ask(len(once) - 16)
    assert first[1] + second[1] == once
    assert len({str(sample) for sample in once}) > 32
    assert whole.ask(16)[1] == first[1], "asking changes no sampler, it returns another"


@pytest.mark.parametrize("name", ["qmc_sobol", "random", "halton"])
def test_sequences_need_no_size(name):
    kind: Any = SAMPLERS[name]
    sampler = kind(SPACE, 3)
    assert sampler.remaining is None
    sampler, first = sampler.ask(16)
    assert first + sampler.ask(48)[1] == design(SPACE, 64, name, 3)


@pytest.mark.parametrize("name", DESIGNS)
def test_what_changes_is_an_array_and_nothing_else_does(make, name):
    before = make(name)
    asked, _ = before.ask(5)
    told = asked.tell([1.0, float("nan"), 3.0])
    for sampler in (before, asked, told):
        leaves = jax.tree.leaves(sampler)
        assert [(type(leaf), leaf.dtype, leaf.shape) for leaf in leaves] == [(np.ndarray, np.int64, ())] * 3
        assert jax.tree.structure(sampler) == jax.tree.structure(before)
    assert (int(told.drawn), int(told.told)) == (5, 3)


@pytest.mark.parametrize("name", DESIGNS)
def test_a_restored_sampler_continues_where_the_saved_one_would(make, name):
    sampler = make(name, seed=3).ask(7)[0].tell([0.5] * 4)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, sampler)
    file.seek(0)
    fresh = make(name, seed=8)
    for restored in (eqx.tree_deserialise_leaves(file, fresh), unpack(pack(sampler), fresh)):
        assert eqx.tree_equal(restored, sampler)
        assert restored.ask(20)[1] == sampler.ask(20)[1]
        restored.tell([1.0] * 3)
        with pytest.raises(ValueError, match="4 scores are told and 3 samples wait for one"):
            restored.tell([1.0] * 4)


@pytest.mark.parametrize("name", DESIGNS)
def test_more_samples_than_a_design_has_are_refused(make, name):
    sampler = make(name)
    total = sampler.remaining
    with pytest.raises(ValueError, match=f"{total - 1} samples are asked for and {total - 2} of {total} are"):
        sampler.ask(2)[0].ask(total - 1)
    with pytest.raises(ValueError, match="at least one sample"):
        sampler.ask(0)


def test_the_size_of_a_design_that_hangs_on_it_has_to_be_given():
    for kind in (LatinHypercube, Grid, Saltelli):
        with pytest.raises(ValueError, match=rf"known in advance: {kind.__name__}\(space, seed, size\)"):
            kind(SPACE, 0)
    with pytest.raises(ValueError, match="at least one sample"):
        Grid(SPACE, 0, 0)
    with pytest.raises(ValueError, match="do not end"):
        rest(Sobol(SPACE))
    with pytest.raises(ValueError, match="chosen by its path"):
        design(SPACE, 4, "file", 0)


def test_scores_need_a_row_per_sample():
    sampler = Sobol(SPACE).ask(4)[0]
    assert int(sampler.tell(np.ones((3, 2))).told) == 3
    assert int(sampler.tell([[1.0, 2.0]]).told) == 1
    with pytest.raises(ValueError, match="one row per sample"):
        sampler.tell(np.ones((1, 2, 3)))


def test_wrong_types_are_refused_and_nothing_heavy_is_imported():
    """Without the runtime checks of the tests."""
    code = """
import sys
from hyperlax.hyperparams.samplers import OptunaSampler, Saltelli, SamplesFile, Sobol, design
from hyperlax.hyperparams.spaces import Uniform
assert not {"optuna", "scipy.stats", "torch"} & set(sys.modules)
space = {"a": Uniform(0, 1)}
wrong = [
    lambda: Sobol("a"), lambda: Sobol({"a": 1}), lambda: Sobol(space, "1"), lambda: Sobol(space, 1.5),
    lambda: Sobol(space, 1, 2.0), lambda: Saltelli(space, 1, 2, "yes"), lambda: SamplesFile("x.csv", ["a"]),
    lambda: OptunaSampler(space, algorithm=3), lambda: OptunaSampler([space]),
]
for case, make in enumerate(wrong):
    try:
        make()
    except TypeError as error:
        assert "ype-check error" in str(error) or "it must be" in str(error), error
    else:
        raise AssertionError(case)
try:
    design(space, 2, dict, 0)
except ValueError as error:
    assert "a class derived from AbstractSampler, or such a sampler; got <class 'dict'>" in str(error)
else:
    raise AssertionError("a class of another kind")
"""
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class Halving(AbstractSampler):
    """A user's own: gamma comes closer to 0.99 with every sample, starting from the seed."""

    drawn: Int64[np.ndarray, ""]
    start: float = eqx.field(static=True)

    def __init__(self, space: Any, seed: int):
        assert set(space) >= {"gamma", "epochs"}
        self.drawn, self.start = np.asarray(0), seed / 1000

    def ask(self, n):
        at = np.arange(int(self.drawn), int(self.drawn) + n)
        rows = [{"gamma": 0.99 - self.start * 0.5**i, "epochs": 1} for i in at]
        return eqx.tree_at(lambda s: s.drawn, self, self.drawn + n), rows

    def tell(self, scores):
        return self


class Corner(AbstractPointDesign):
    """A user's own, of points: all in the lowest corner."""

    def points(self, first, last):
        return np.zeros((last - first, len(self.space)))


def prepared(**how):
    return hyperlax.prepare(RECIPE, "gymnax.cartpole", run_length_modifier="quick", **how).samples


def test_a_sweep_trains_the_samples_of_a_sampler_of_ones_own():
    drawn = prepared(num_samples=3, sampling_method=Halving, seed=40)
    assert drawn["gamma"].to_list() == pytest.approx([0.95, 0.97, 0.98])
    begun = Halving(RECIPE.search_space(), 40).ask(1)[0]
    assert prepared(num_samples=2, sampling_method=begun)["gamma"].to_list() == pytest.approx([0.97, 0.98])
    low = prepared(num_samples=2, sampling_method=Corner)
    assert low["gamma"].to_list() == pytest.approx([0.9, 0.9])
    assert prepared(sampling_method=Grid(RECIPE.search_space(), 0, 6)).height == 6


def test_a_sweep_names_what_is_wrong_with_a_sampler_of_ones_own():
    space = RECIPE.search_space()
    with pytest.raises(ValueError, match=r"samples of Halving do not end: say how many, as num_samples="):
        prepared(sampling_method=Halving(space, 1))
    with pytest.raises(ValueError, match="number of samples to draw is missing"):
        prepared(sampling_method=Halving)
    with pytest.raises(ValueError, match="5 samples are asked for and 4 of 4 are left"):
        prepared(num_samples=5, sampling_method=Grid(space, 0, 4))
    with pytest.raises(ValueError, match=r'unknown hyperparameter "width"; did you mean "actor\.width"'):
        prepared(num_samples=2, sampling_method=Sobol(SPACE))

    class Short(Corner):
        def rows(self, first, last):
            return super().rows(first, last)[:-1]

    with pytest.raises(ValueError, match="Short was asked for 3 samples and drew 2"):
        prepared(num_samples=3, sampling_method=Short)


class Outside(AbstractPointDesign):
    """A design with points outside the unit cube."""

    def points(self, first, last):
        return np.full((last - first, len(self.space)), 1.5)


class Empty(Outside):
    """A design whose samples lack their hyperparameters."""

    def rows(self, first, last):
        return [{} for _ in range(first, last)]


def test_samples_that_are_none_are_refused_with_class_and_method():
    with pytest.raises(ValueError, match=r"Outside\.points returns point 0 with the coordinate 1\.5"):
        design(SPACE, 2, Outside, 0)
    with pytest.raises(ValueError, match=r"Empty\.ask returns sample 0 without width; a sample is a dict"):
        design(SPACE, 2, Empty, 0)
