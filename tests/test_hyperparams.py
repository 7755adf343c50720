"""Hyperparameters: strong scalar leaves with a name, a space and a kind."""

from __future__ import annotations

from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import AGENTS, PPOHyperparams
from hyperlax.hyperparams import (
    AbstractHyperparams,
    Count,
    Flag,
    Real,
    assign,
    fields,
    hp,
    nearest,
    stack,
    trainable,
    values,
)
from hyperlax.hyperparams.spaces import Choice, Uniform
from hyperlax.networks import AbstractStockHyperparams, MLPHyperparams
from hyperlax.networks.mlp import ACTIVATIONS

DTYPES = {bool: np.bool_, int: np.int32, float: np.float32, str: np.int32}


class Inner(AbstractHyperparams):
    size: Count = hp(3, Choice(1, 2, 3), doc="a size")
    kind: Count = hp("relu", Choice("tanh", "relu"), labels=("tanh", "relu"), doc="a kind")


class Outer(AbstractHyperparams):
    rate: Real = hp(0.5, Uniform(0, 1), doc="a rate")
    first: Inner = eqx.field(default_factory=Inner)
    on: Flag = hp(True, doc="a switch without a space")
    second: Inner = eqx.field(default_factory=lambda: assign(Inner(), {"size": 2, "kind": "tanh"}))


@pytest.mark.parametrize("cls", [Outer, *AGENTS.values()])
def test_leaves_are_strong_scalars_of_their_kind(cls):
    tree = cls()
    for field in fields(tree):
        leaf = tree
        for name in field.path.split("."):
            leaf = getattr(leaf, name)
        assert leaf.shape == ()
        assert leaf.dtype == DTYPES[field.kind], field.path
        assert not jnp.asarray(leaf).weak_type
    assert len(list(fields(tree))) == len(jax.tree.leaves(tree)), "every leaf has a path"


def test_values_in_every_spelling_give_the_same_leaf():
    for size in (3, np.int64(3), 3.0, "3", " 3.0 "):
        leaf = assign(Outer(), {"first.size": size}).first.size
        assert (leaf.dtype, leaf.item()) == (np.int32, 3)
    for flag in (False, np.False_, 0, "false", "False", "0"):
        leaf = assign(Outer(), {"on": flag}).on
        assert (leaf.dtype, leaf.item()) == (np.bool_, False)
    for rate in (1, np.float64(1.0), "1", "1e0"):
        leaf = assign(Outer(), {"rate": rate}).rate
        assert (leaf.dtype, leaf.item()) == (np.float32, 1.0)


def test_paths_list_networks_first_then_fields_in_order_of_declaration():
    paths = [f.path for f in fields(Outer())]
    assert paths == ["first.size", "first.kind", "second.size", "second.kind", "rate", "on"]


def test_the_published_order_of_dimensions():
    paths = [f.path for f in fields(PPOHyperparams())]
    assert paths[:4] == ["actor.width", "actor.depth", "actor.layer_norm", "actor.activation"]
    assert (
        paths.index("critic.width") < paths.index("actor_lr") < paths.index("gamma") < paths.index("num_envs")
    )


def test_assigning_what_was_read_changes_nothing():
    rng = np.random.default_rng(0)
    for cls in (Outer, MLPHyperparams, PPOHyperparams):
        tree = cls()
        drawn = {f.path: f.space.ppf(rng.random()) for f in fields(tree) if f.space is not None}
        changed = assign(tree, drawn)
        assert values(changed) == pytest.approx({**values(tree), **drawn})
        again = assign(tree, values(changed))
        assert eqx.tree_equal(again, changed)


def test_assign_touches_nothing_else():
    before = values(Outer())
    after = values(assign(Outer(), {"second.size": 1}))
    assert {k for k in before if before[k] != after[k]} == {"second.size"}
    assert jax.tree.structure(assign(Outer(), {"rate": 0.1})) == jax.tree.structure(Outer())


def test_labels_are_stored_as_their_index():
    tree = assign(MLPHyperparams(), {"activation": "silu"})
    assert tree.activation.item() == list(ACTIVATIONS).index("silu")
    assert values(tree)["activation"] == "silu"
    label: Any = "gelu"
    assert values(MLPHyperparams(activation=label))["activation"] == "gelu"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"first.size": 0}, "first.size must be at least 1, got 0"),
        ({"first.sze": 3}, r'unknown hyperparameter "first.sze"; did you mean "first.size"'),
        ({"zzz": 3}, r'unknown hyperparameter "zzz"$'),
        ({"first": 3}, "unknown hyperparameter"),
        ({"first.kind": "rleu"}, r"first.kind is one of tanh, relu; got 'rleu'; did you mean \"relu\""),
        ({"first.kind": 1}, "first.kind is one of tanh, relu"),
        ({"first.size": 1.5}, "first.size needs an int"),
        ({"first.size": True}, "first.size needs an int"),
        ({"first.size": "many"}, "first.size needs an int"),
        ({"first.size": "inf"}, "first.size needs an int"),
        ({"first.size": 2**40}, "first.size must be at most 2,147,483,647"),
        ({"on": 2}, "on needs true or false"),
        ({"on": "yes"}, "on needs true or false"),
        ({"rate": float("nan")}, "rate needs a number"),
        ({"rate": "inf"}, r"rate must be at most 3.4e\+38"),
        ({"rate": True}, "rate needs a number"),
        ({"rate": None}, "rate needs a number"),
        ({"first.size": None}, "first.size needs an int"),
        ({"rate": [1.0]}, "rate needs a number"),
        ({"rate": 1e39}, r"rate must be at most 3.4e\+38"),
        ({"rate": -1e39}, r"rate must be at least -3.4e\+38"),
        ({"on": [True]}, "on needs true or false"),
    ],
)
def test_wrong_assignments_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        assign(Outer(), changes)


def test_stacking_makes_a_batch_of_samples():
    rng = np.random.default_rng(0)
    trees = [assign(Outer(), {"rate": float(rng.random()), "on": bool(rng.integers(2))}) for _ in range(5)]
    batch = stack(trees)
    for i, tree in enumerate(trees):
        assert eqx.tree_equal(
            jax.tree.map(lambda x, i=i: np.asarray(x[i]), batch), jax.tree.map(np.asarray, tree)
        )


def test_hyperparameters_are_not_trained():
    """Everything inexact is trained, save what sits under a hyperparameter node: γ is not."""
    hps, env = PPOHyperparams(), envs.load("gymnax.pendulum")
    agent: Any = hps.agent(env, hps.capacities([hps.sizes()], [1], env), key=jr.key(0))
    kept = jax.tree_util.tree_leaves_with_path(eqx.filter(agent, trainable(agent)))
    names = [jax.tree_util.keystr(path) for path, _ in kept]
    assert not [n for n in names if ".hp" in n]
    assert any(n.endswith(".weight") for n in names)
    frozen = eqx.partition(agent, trainable(agent))[1]
    assert frozen.hp.gamma is agent.hp.gamma
    assert frozen.actor.body.hp.width is agent.actor.body.hp.width
    inexact = len(jax.tree.leaves(eqx.filter(agent, eqx.is_inexact_array)))
    below = len(jax.tree.leaves(eqx.filter(agent.hp, eqx.is_inexact_array)))
    assert len(names) == inexact - below


def test_gradients_of_a_whole_agent_leave_hyperparameters_out():
    class Scaled(eqx.Module):
        hp: Outer
        weight: jax.Array

    model = Scaled(Outer(), jnp.float32(2.0))
    weights, rest = eqx.partition(model, trainable(model))
    gradient = jax.grad(lambda w: (lambda m: m.weight * m.hp.rate)(eqx.combine(w, rest)))(weights)
    assert jax.tree.leaves(gradient) == [0.5]


def test_nearest_suggests_only_what_is_close():
    assert nearest("actor.widht", ["actor.width", "critic.width"]) == '; did you mean "actor.width"?'
    assert nearest("zzz", ["actor.width"]) == ""


def test_what_follows_a_suggestion_is_a_sentence_of_its_own():
    assert nearest("lng", ["long"], "known: long") == '; did you mean "long"? Known: long'
    assert nearest("zzz", ["long"], "known: long") == "; known: long"


@pytest.mark.parametrize("cls", AGENTS.values())
def test_every_default_lies_in_its_space_or_has_none(cls):
    for f in fields(cls()):
        if f.space is None:
            continue
        drawn = f.space.grid(3)
        assert {type(v) for v in drawn} == {f.kind}, f"{f.path} draws {drawn}, holds {f.kind}"
        chosen = f.encode(f.default) in [f.encode(v) for v in drawn]  # as float32, which cannot hold 0.2
        assert chosen or f.space.contains(f.default), f"{f.path}: {f.default} is not in {f.space}"


class Plain:
    """An ordinary class, of whose fields no dataclass is made."""

    share: Real = hp(0.5, doc="a share")


class Mixed(Inner, Plain):
    """Hyperparameters that derive from it, too."""


class Sharing(AbstractHyperparams):
    share: Real = hp(0.5, doc="a share")


class Both(Inner, Sharing):
    """Hyperparameters of two classes."""


def test_a_hyperparameter_of_an_ordinary_class_is_refused_with_the_remedy():
    with pytest.raises(TypeError, match=r"Mixed does not have .* share, because Plain, .* derive Plain from"):
        Mixed()
    assert {f.path for f in fields(Both())} == {"size", "kind", "share"}


class MatrixHyperparams(cast(Any, PPOHyperparams)):
    matrix: Real = hp(0.5, doc="the name of a column of samples")


class ScoreHyperparams(cast(Any, PPOHyperparams)):
    score: Real = hp(0.5, doc="the name of a column of leaderboards")


class BatchHyperparams(cast(Any, PPOHyperparams)):
    batch: Count = hp(8, doc="the name of a method of PPOHyperparams")


class ValueHyperparams(cast(Any, PPOHyperparams)):
    gamma = 0.5  # neither annotated nor declared: it would change nothing


class KeyHyperparams(AbstractStockHyperparams):
    key: Count = hp(8, doc="the name of a parameter of module")

    def module(self, in_size, *, key):
        return eqx.nn.Linear(in_size, 4, key=key)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            MatrixHyperparams,
            "declares the hyperparameter matrix, a name with a meaning of its own; choose",
        ),
        (
            BatchHyperparams,
            "hyperparameter batch, which AbstractOnPolicyHyperparams defines as something else",
        ),
        (
            ValueHyperparams,
            r"gamma, which ValueHyperparams defines .* declare it anew by hp\(\) to change its",
        ),
        (KeyHyperparams, "declares the hyperparameter key, a name with a meaning of its own"),
    ],
)
def test_a_name_that_means_something_else_is_refused(kind, message):
    with pytest.raises(TypeError, match=f"{kind.__name__} .*{message}"):
        kind()
