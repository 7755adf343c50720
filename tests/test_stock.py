"""Stock Equinox modules as networks: function leaves, shared architecture, sizes from the structure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams
from hyperlax.agents.dqn import DQNHyperparams
from hyperlax.agents.ppo import PPO
from hyperlax.hyperparams import Choice, Count, Flag, Real, assign, hp, trainable
from hyperlax.lanes.sizes import Shape, merge
from hyperlax.networks import MLPHyperparams
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams, operations
from hyperlax.networks.plain import PlainLayer
from hyperlax.networks.pqc import PQCHyperparams
from hyperlax.networks.stock import AbstractStockHyperparams, Rest, _encloses
from hyperlax.policies.plain import plain
from hyperlax.programs.compiled import state_like


class Scaling(eqx.Module):
    """A module whose output is scaled."""

    layer: Callable
    scale: jax.Array = eqx.field(converter=jnp.asarray)

    def __call__(self, x):
        return self.scale * self.layer(x)


class Stock(AbstractStockHyperparams):
    """An `eqx.nn.MLP`, whose activation is a leaf, made anew by every call."""

    width: Count = hp(5, Choice(5, 7), doc="units")
    activation: Count = hp("tanh", labels=("tanh", "relu"), doc="activation")
    bias: Flag = hp(True, doc="biases")
    gain: Real = hp(2.0, doc="factor of the output")

    def module(self, in_size, *, width, activation, bias, key):
        inside = lambda x: getattr(jax.nn, activation)(x)  # noqa: E731
        layers = eqx.nn.MLP(in_size, 3, width, 1, inside, use_bias=bias, key=key)
        return Scaling(layers, self.gain)


class Plain(AbstractStockHyperparams):
    """One layer."""

    width: Count = hp(4, doc="units")

    def module(self, in_size, *, width, key):
        return eqx.nn.Linear(in_size, width, key=key)


class Scaled(AbstractStockHyperparams):
    """A network that holds its hyperparameter."""

    scale: Real = hp(0.5, doc="factor of the output")

    def module(self, in_size, *, key):
        return Scaling(eqx.nn.Linear(in_size, 4, key=key), self.scale)


class Enclosing(AbstractStockHyperparams):
    """A network with a function that encloses its hyperparameter."""

    scale: Real = hp(0.5, doc="factor of the output")

    def module(self, in_size, *, key):
        layer = eqx.nn.Linear(in_size, 4, key=key)
        return eqx.nn.Sequential([layer, eqx.nn.Lambda(lambda x: self.scale * x)])


class Matrix(AbstractStockHyperparams):
    """No network: it returns a matrix."""

    def module(self, in_size, *, key):
        return eqx.nn.Lambda(lambda x: x[None])


def test_a_network_computes_what_its_module_does():
    hyper = Plain()
    network = hyper.network(6, hyper.sizes(), key=jr.key(0))
    x = jnp.arange(6.0)
    np.testing.assert_array_equal(network(x), eqx.nn.Linear(6, 4, key=jr.key(0))(x))
    assert (network.out_cap, int(network.out_size), hyper.out(6)) == (4, 4, 4)


def test_a_hyperparameter_that_a_module_holds_is_no_weight_and_has_its_present_value():
    def built(hyper):
        return hyper.network(6, {}, key=jr.key(0))

    hyper = assign(Scaled(), {"scale": 0.25})
    for network in (built(hyper), eqx.filter_eval_shape(built, hyper)):  # a leaf may be an array or a tracer
        weights = jax.tree.leaves(eqx.filter(network, trainable(network)))
        assert sorted(x.shape for x in weights) == [(4,), (4, 6)]
    assert hyper.parameter_count(6) == 6 * 4 + 4
    network, x = built(hyper), jnp.arange(6.0)
    exploring = eqx.tree_at(lambda n: n.hp, network, assign(hyper, {"scale": 0.75}))
    np.testing.assert_allclose(exploring(x), 3 * network(x), rtol=1e-6)


def test_a_function_that_encloses_a_hyperparameter_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"Enclosing\.module\.<locals>\.<lambda>, which encloses an array;"):
        eqx.filter_eval_shape(lambda hyper: hyper.network(6, {}, key=jr.key(0)), Enclosing())


class Copying(AbstractNetwork):
    """A network that copies its hyperparameter into a field."""

    hp: Scaled
    scale: jax.Array
    batch_last: bool = eqx.field(static=True)

    @property
    def out_cap(self):
        return 4

    @property
    def out_size(self):
        return jnp.int32(4)

    def __call__(self, x):
        return self.scale * x[:4]


def test_a_network_that_would_train_its_hyperparameter_is_refused():
    with pytest.raises(ValueError, match=r"Copying\.scale is a hyperparameter, and would be trained"):
        Copying(hp=(hyper := Scaled()), scale=hyper.scale, batch_last=False)


class Dense(Plain):
    """One layer, which says so."""

    def plain(self, module) -> tuple[PlainLayer, ...]:
        return (PlainLayer(np.asarray(module.weight), np.asarray(module.bias)),)


def test_a_stock_network_is_exported_if_its_class_says_what_it_is():
    network = Dense().network(6, Dense().sizes(), key=jr.key(0))
    x = jnp.arange(6.0)
    (layer,) = network.plain()
    np.testing.assert_allclose(layer.weight @ x + layer.bias, network(x), rtol=1e-6)
    with pytest.raises(ValueError, match=r"define plain\(self, module\) on Plain, or use Policy\.act"):
        Plain().network(6, Plain().sizes(), key=jr.key(0)).plain()


class Turned(Dense):
    def plain(self, module):
        return (PlainLayer(np.asarray(module.weight).T[: module.weight.shape[0]], np.asarray(module.bias)),)


class Bent(Dense):
    def plain(self, module):
        return tuple(layer._replace(activation="tanh") for layer in super().plain(module))


class Unknown(Dense):
    def plain(self, module):
        return tuple(layer._replace(activation="rleu") for layer in super().plain(module))


class Nothing(Dense):
    def plain(self, module):
        return ()


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Turned, "the layers that plain of Turned returns (do not fit|compute something else)"),
        (Bent, "plain of Bent returns compute something else than the network: .* in place of"),
        (Unknown, "plain of Unknown names the activation 'rleu'; did you mean \"relu\""),
        (Nothing, "plain of Nothing must return one or more"),
    ],
)
def test_layers_that_are_not_those_of_the_network_are_not_exported(network, message):
    env = envs.load("gymnax.cartpole")
    hyper = PPOHyperparams(actor=network(), critic=Dense())
    agent = hyper.agent(env, hyper.capacities([hyper.sizes()], [1], env), key=jr.key(0))
    with pytest.raises(ValueError, match=message):
        plain(agent, env)
    sound = PPOHyperparams(actor=Dense(), critic=Dense())
    agent = sound.agent(env, sound.capacities([sound.sizes()], [1], env), key=jr.key(0))
    assert len(plain(agent, env).layers) == 1


Agent: Any = PPO


class Reversed(Agent):
    """Takes the negative of the features that the networks were trained with."""

    def features(self, obs):
        return -super().features(obs)


class Contrary(Agent):
    """Takes the action of the smallest output."""

    def act(self, obs, *, key, explore):
        _, step = super().act(obs, key=key, explore=explore)
        return jnp.argmin(self.actor(self.features(obs)).logits), step


@pytest.mark.parametrize(("agent", "env"), [(Reversed, "gymnax.pendulum"), (Contrary, "gymnax.cartpole")])
def test_an_agent_that_acts_otherwise_than_its_model_is_not_exported(agent, env):
    env, hyper = envs.load(env), PPOHyperparams(actor=Dense(), critic=Dense())
    caps = hyper.capacities([hyper.sizes()], [1], env)
    assert len(plain(Agent(hyper, env, caps, key=jr.key(0)), env).layers) == 1
    with pytest.raises(ValueError, match=f"{agent.__name__} chooses another action than the layers of its"):
        plain(agent(hyper, env, caps, key=jr.key(0)), env)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_an_agent_whose_evaluations_are_random_is_exported(epsilon):
    env, hyper = envs.load("gymnax.cartpole"), DQNHyperparams(critic=Dense())
    hyper = assign(hyper, {"evaluation_epsilon": epsilon, "buffer_size": 100, "batch_size": 4})
    agent = hyper.agent(env, hyper.capacities([hyper.sizes()], [1], env), key=jr.key(0))
    assert len(plain(agent, env).layers) == 1


def test_counts_follow_from_the_structure():
    assert Plain().parameter_count(6) == 6 * 4 + 4
    assert Plain.flops(6, Plain().sizes()) == 2 * 6 * 4 + 4
    assert (
        assign(Stock(), {"bias": False}).parameter_count(6) == 6 * 5 + 5 * 3 + 3
    )  # the last layer keeps its own


@pytest.mark.parametrize("hyper", [MLPHyperparams(), PQCHyperparams()])
def test_defaults_agree_with_what_networks_say_of_themselves(hyper):
    assert AbstractNetworkHyperparams.out(hyper, 5) == hyper.out(5)
    allocated = AbstractNetworkHyperparams.weights.__func__(type(hyper), 5, hyper.sizes())
    assert allocated == sum(x.size for x in jax.tree.leaves(_weights(hyper)))
    assert allocated >= hyper.parameter_count(5)


def _weights(hyper):
    network = hyper.network(5, hyper.sizes(), key=jr.key(0))
    return eqx.filter(network, trainable(network))


def test_architectures_cannot_share_a_program_and_reals_can():
    one, other = Stock().sizes(), assign(Stock(), {"width": 7}).sizes()
    assert one == {"width": Shape("5"), "activation": Shape("tanh"), "bias": Shape("True")}
    with pytest.raises(ValueError, match="width cannot differ within a program: 5, 7"):
        merge([one, other])
    assert merge([one, assign(Stock(), {"gain": 1.0}).sizes()]) == one


def test_functions_of_the_same_lines_and_values_are_the_same():
    make = lambda n: lambda x: n * x  # noqa: E731
    assert Rest(make(1)) == Rest(make(1))
    assert hash(Rest(make(1))) == hash(Rest(make(1)))
    assert Rest(make(1)) != Rest(make(2))
    assert Rest(jnp.tanh) != Rest(jnp.sin)


def test_methods_and_named_defaults_are_part_of_what_a_function_does():
    class Scaler:
        def __init__(self, by: float):
            self.by = by

        def apply(self, x: float) -> float:
            return self.by * x

    one, other = Scaler(1.0), Scaler(2.0)
    assert Rest(one.apply) == Rest(one.apply)
    assert Rest(one.apply) != Rest(other.apply)
    make = lambda n: lambda x, *, by=n: by * x  # noqa: E731
    assert Rest(make(1)) == Rest(make(1))
    assert Rest(make(1)) != Rest(make(2))


class Tied(eqx.Module):
    """Layers that share their weights, and a static function that is new in every module."""

    layers: eqx.nn.Shared
    power: Callable[[Any], Any] = eqx.field(static=True)

    def __init__(self, in_size: int, width: int, power: Any, *, key: Any):
        keys = jr.split(key)
        pair = (eqx.nn.Linear(in_size, width, key=keys[0]), eqx.nn.Linear(in_size, width, key=keys[1]))
        self.layers = eqx.nn.Shared(pair, lambda pair: pair[1].weight, lambda pair: pair[0].weight)
        self.power = lambda x: x**power

    def __call__(self, x: jax.Array) -> jax.Array:
        one, other = self.layers()
        return self.power(one(x)) + other(x)


class TiedHyperparams(AbstractStockHyperparams):
    power: Count = hp(2, doc="of the first layer")
    scale: Real = hp(3.0, doc="of nothing")

    def module(self, in_size: int, *, power: int, key: Any) -> eqx.Module:
        return Tied(in_size, 4, power, key=key)


class EnclosingStatically(TiedHyperparams):
    def module(self, in_size: int, *, power: int, key: Any) -> eqx.Module:
        return Tied(in_size, 4, self.scale, key=key)


def test_networks_with_shared_weights_and_static_functions_have_one_structure_each():
    def built(hyper: Any) -> Any:
        return jax.eval_shape(lambda key: hyper.network(3, hyper.sizes(), key=key), jr.key(0))

    structure = jax.tree.structure
    assert structure(built(TiedHyperparams())) == structure(built(TiedHyperparams()))
    assert structure(built(TiedHyperparams())) != structure(built(assign(TiedHyperparams(), {"power": 3})))
    network = TiedHyperparams().network(3, TiedHyperparams().sizes(), key=jr.key(0))
    assert sum(x.size for x in jax.tree.leaves(eqx.filter(network, trainable(network)))) == 4 * 3 + 2 * 4
    x = jnp.arange(3.0)
    expected = Tied(3, 4, 2, key=jr.key(0))(x)
    np.testing.assert_allclose(network(x), expected, rtol=1e-6)


def test_a_static_function_that_encloses_a_hyperparameter_is_refused():
    traced = TiedHyperparams().sizes()
    with pytest.raises(ValueError, match=r"function Tied\.__init__\.<locals>\.<lambda>, which encloses"):
        jax.eval_shape(lambda h: h.network(3, traced, key=jr.key(0)).arrays, EnclosingStatically())


def test_objects_that_refer_to_themselves_have_an_identity():
    class Node:
        def __init__(self, number: int):
            self.number, self.own = number, self

    assert Rest(Node(1)) == Rest(Node(1))
    assert Rest(Node(1)) != Rest(Node(2))
    assert Rest(1) != Rest(True)


def test_a_traced_array_is_found_in_the_object_of_a_method_and_in_named_defaults():
    untraced = Stock()

    def found(x: jax.Array) -> jax.Array:
        assert _encloses(eqx.tree_at(lambda s: s.gain, untraced, x).module, set())
        assert _encloses(lambda *, by=x: by, set())
        assert not _encloses(untraced.module, set())
        return x

    jax.jit(found)(jnp.float32(3))


def test_a_module_that_returns_no_vector_is_refused():
    with pytest.raises(ValueError, match=r"Matrix\.module maps a vector of 3 numbers to \(1, 3\)"):
        Matrix().network(3, {}, key=jr.key(0))


MLP = MLPHyperparams()
MLP_SIZES = MLP.sizes()


class Holder(AbstractNetworkHyperparams):
    """A network that holds a function as a leaf."""

    def sizes(self):
        return {}

    def network(self, in_size, caps, *, key):
        network = MLP.network(in_size, MLP_SIZES, key=key)
        return eqx.tree_at(lambda n: n.layers[0].bias, network, jnp.tanh)

    @classmethod
    def flops(cls, in_size, sizes):
        return 1.0

    @classmethod
    def weights(cls, in_size, sizes):
        return 1


def test_a_function_leaf_is_named():
    env = envs.load("gymnax.cartpole")
    hyper = PPOHyperparams(actor=Holder())
    caps = hyper.capacities([hyper.sizes()], [1], env)
    with pytest.raises(TypeError, match=r"agent\.actor\.body\.layers\[0\]\.bias \(tanh\), which is not an"):
        state_like(hyper, env, caps)


def test_loops_count_as_often_as_they_run_and_branches_at_their_largest():
    matrix = jnp.ones((4, 4))
    loop = lambda x: jax.lax.scan(lambda c, _: (matrix @ c, None), x, length=3)[0]  # noqa: E731
    branch = lambda x: jax.lax.cond(x[0] > 0, lambda x: matrix @ x, lambda x: x, x)  # noqa: E731
    assert operations(jax.make_jaxpr(loop)(jnp.ones(4)).jaxpr) == 3 * 2 * 16
    assert 2 * 16 <= operations(jax.make_jaxpr(branch)(jnp.ones(4)).jaxpr) < 3 * 16
