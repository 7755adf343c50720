"""Classes of one's own: what is wrong with one is said before anything is created, with place and remedy."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from hyperlax import envs, sweeps
from hyperlax.agents import PPO, PPOHyperparams
from hyperlax.commands.main import main
from hyperlax.envs.base import AbstractEnv, ActionSpace, Discrete, Timestep
from hyperlax.experiments import feasible, foreign
from hyperlax.experiments.execution import Execution
from hyperlax.experiments.feasible import Room
from hyperlax.experiments.settings import Settings
from hyperlax.hyperparams import Choice, Count, Real, assign, hp
from hyperlax.lanes.sizes import Extent
from hyperlax.networks import AbstractStockHyperparams
from hyperlax.networks.base import AbstractNetwork, AbstractNetworkHyperparams
from hyperlax.programs import train
from hyperlax.registry import build
from hyperlax.registry.modules import load_file
from hyperlax.run.compiling import Compiler
from hyperlax.run.display import Display
from hyperlax.testing import check_env, check_network

CARTPOLE = envs.load("gymnax.cartpole")
AGENT: Any = PPO
HYPERPARAMS: Any = PPOHyperparams
"""They are final, and type checkers let tests derive from them."""


class Walk(AbstractEnv):
    """An environment that keeps a typed key in its state."""

    obs_size: int = 2
    action_space: ActionSpace = Discrete(2)
    max_episode_steps: int = 5

    def reset(self, *, key):
        return key, jnp.zeros(2)

    def step(self, state, action, *, key):
        return state, Timestep(jnp.zeros(2), jnp.zeros(()), jnp.bool_(False), jnp.bool_(True))


class Forever(Walk):
    """An environment without an end."""

    max_episode_steps: int = 2**31 - 1


class Body(eqx.Module):
    """A part of a state with a static function."""

    place: jax.Array
    force: Any = eqx.field(static=True)


class Pulled(Walk):
    """An environment whose states hold a function that is new at each reset."""

    def reset(self, *, key):
        body: Any = Body(jnp.zeros(2), lambda x: -x)
        return body, jnp.zeros(2)


class Noise(eqx.Module):
    """A layer that adds the noise of a key that it holds."""

    layer: eqx.nn.Linear
    key: jax.Array

    def __call__(self, x):
        return self.layer(x) + jr.normal(self.key, (4,))


class Noisy(AbstractStockHyperparams):
    """A network that holds a typed key."""

    def module(self, in_size, *, key):
        return Noise(eqx.nn.Linear(in_size, 4, key=key), key)


class Heads(AbstractStockHyperparams):
    """A network of which some architectures cannot be."""

    width: Count = hp(8, Choice(8, 12), doc="width")
    heads: Count = hp(2, Choice(2, 8), doc="heads")

    def module(self, in_size, *, width, heads, key):
        assert width % heads == 0, f"width {width} must be a multiple of heads {heads}"
        return eqx.nn.Linear(in_size, width, key=key)


class Dense(AbstractNetwork):
    """A matrix product whose output may have another shape or type than declared."""

    hp: Any
    batch_last: bool = eqx.field(static=True)
    weights: jax.Array
    spoilt: Any = eqx.field(static=True)

    @property
    def out_cap(self):
        return self.weights.shape[0]

    @property
    def out_size(self):
        return jnp.int32(self.weights.shape[0])

    def __call__(self, x):
        return self.spoilt(self.weights @ x)


def longer(x):
    return jnp.append(x, 0.0)


def column(x):
    return x[:, None]


class DenseHyperparams(AbstractNetworkHyperparams):
    more: ClassVar[int] = 0
    dtype: ClassVar[Any] = jnp.float32
    spoilt: ClassVar[Any] = staticmethod(jnp.tanh)

    def sizes(self):
        return {}

    def network(self, in_size, caps, *, key):
        return Dense(self, False, jnp.ones((4, in_size + self.more), self.dtype), self.spoilt)


class LongerHyperparams(DenseHyperparams):
    spoilt = staticmethod(longer)


class ColumnHyperparams(DenseHyperparams):
    spoilt = staticmethod(column)


class RoundedHyperparams(DenseHyperparams):
    spoilt = staticmethod(jnp.int32)


class WiderHyperparams(DenseHyperparams):
    more = 1


class ComplexHyperparams(DenseHyperparams):
    dtype = jnp.complex64
    spoilt = staticmethod(jnp.real)


class Wider(AbstractStockHyperparams):
    """A network that wants one number more than there are."""

    def module(self, in_size, *, key):
        return eqx.nn.Linear(in_size + 1, 4, key=key)


class Empty(AbstractStockHyperparams):
    """A network without outputs."""

    def module(self, in_size, *, key):
        return eqx.nn.Lambda(lambda x: x[:0])


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (LongerHyperparams, r"Dense maps a vector of 4 numbers to shape \(5,\), but its out_cap is 4"),
        (ColumnHyperparams, r"Dense maps a vector of 4 numbers to \(4, 1\); a network returns a vector"),
        (RoundedHyperparams, r"Dense maps .* to a vector of int32; a network returns real numbers"),
        (
            WiderHyperparams,
            r"Dense fails for its input, .* \(4,\): Dense\.__call__ \(.*foreign\.py, line \d+\)",
        ),
        (ComplexHyperparams, r"Dense\.weights is complex, and weights are real: .* two arrays"),
        (Wider, r"Wider\.module fails for its input, a float32 vector of shape \(4,\): .*\(5,\)"),
        (Empty, r"Empty\.module maps a vector of 4 numbers to an empty vector"),
    ],
)
def test_a_network_of_wrong_shape_or_type_is_refused_with_class_and_shapes(network, message):
    hyper = PPOHyperparams(actor=network())
    with pytest.raises(ValueError, match=message):
        foreign.check_classes(hyper, CARTPOLE, 1)
    with pytest.raises(ValueError, match=message), foreign.traced(hyper, CARTPOLE, "sample 0"):
        foreign.check_networks(hyper, CARTPOLE)


class Renamed(AGENT):
    """PPO with a metric that has the name of another one."""

    losses = ("return", *PPO.losses[1:])


class RenamedHyperparams(HYPERPARAMS):
    def agent(self, env, caps, *, key):
        return Renamed.create(self, env, caps, key=key)


class Unlucky(AGENT):
    """PPO that cannot be evaluated."""

    def for_evaluation(self):
        return self.temperature


class UnluckyHyperparams(HYPERPARAMS):
    def agent(self, env, caps, *, key):
        return Unlucky.create(self, env, caps, key=key)


class Whole(AGENT):
    """PPO that learns twice from each rollout, which has no parts."""

    def learn(self, trajectory, progress, *, key):
        agent, _ = super().learn(trajectory, progress, key=key)
        return super(Whole, agent).learn(trajectory, progress, key=key)


class PartsHyperparams(HYPERPARAMS):
    def agent(self, env, caps, *, key):
        return Whole.create(self, env, caps, key=key)


class WholeHyperparams(PartsHyperparams):
    learns_in_parts: ClassVar[bool] = False


class Daring(AGENT):
    """PPO whose hyperparameters forget to build it."""


class DaringHyperparams(HYPERPARAMS):
    """Hyperparameters that say nothing of an agent."""


class BonusHyperparams(HYPERPARAMS):
    bonus: Real = hp(0.1, doc="bonus")
    envs_per_core: Count = hp(4, doc="environments per core")

    @staticmethod
    def quick():
        return {"bonus": Choice(0.1, 0.2)}

    def own_sizes(self):
        return {**super().own_sizes(), "num_envs": Extent(self.num_envs * self.envs_per_core)}


class OtherDefaultsHyperparams(HYPERPARAMS):
    gamma: Real = hp(0.9, doc="discount")


class ReadHyperparams(HYPERPARAMS):
    """Hyperparameters of which one of hyperlax's methods reads one more."""

    bonus: Real = hp(0.1, doc="bonus")

    @property
    def twice(self):
        return 2 * self.bonus


class InheritedHyperparams(RenamedHyperparams):
    bonus: Real = hp(0.1, doc="bonus")


def test_hyperparameters_that_forget_their_agent_are_refused():
    message = r"DaringHyperparams builds the agent PPO, not the Daring beside it; .*Daring\(self, env"
    with pytest.raises(ValueError, match=message):
        foreign.refuse_overlooked(DaringHyperparams, PPO)
    message = r"BonusHyperparams adds the hyperparameter bonus, which nothing reads: .*PPO of hyperlax"
    with pytest.raises(ValueError, match=message):
        foreign.refuse_overlooked(BonusHyperparams, PPO)


@pytest.mark.parametrize(
    ("kind", "built"),
    [
        (PPOHyperparams, PPO),
        (OtherDefaultsHyperparams, PPO),
        (ReadHyperparams, PPO),
        (RenamedHyperparams, Renamed),
        (InheritedHyperparams, Renamed),
    ],
)
def test_hyperparameters_that_build_their_agent_are_accepted(kind, built):
    foreign.refuse_overlooked(kind, built)


@pytest.mark.parametrize(
    ("algorithm", "env", "message"),
    [
        (PPOHyperparams(), Walk(), r"holds a random key.* store jax\.random\.key_data.*check_env\(Walk\)"),
        (PPOHyperparams(), Pulled(), r"Body has another structure each time.*equal.*check_env\(Pulled\)"),
        (PPOHyperparams(actor=Noisy()), CARTPOLE, r"actor.*\.key: it cannot be saved.*check_network"),
        (RenamedHyperparams(), CARTPOLE, 'Renamed has a metric "return" .*: return, length, value_loss'),
        (
            UnluckyHyperparams(),
            CARTPOLE,
            r"Unlucky\.for_evaluation \(.*test_foreign\.py, line \d+\): AttributeError: .*temperature.*; "
            r"hyperlax\.testing\.check_agent\(UnluckyHyperparams\) checks it alone",
        ),
        (DaringHyperparams(), CARTPOLE, r"not the Daring beside it.*check_agent\(DaringHyperparams\)"),
        (PartsHyperparams(), CARTPOLE, r"Whole has a learn of its own.*: ClassVar\[bool\] = False"),
    ],
)
def test_a_class_that_cannot_be_trained_is_refused_with_the_place(algorithm, env, message, monkeypatch):
    monkeypatch.setattr(train, "segment", lambda state, *_: state)  # slow, and not what is wrong
    with pytest.raises(ValueError, match=message):
        foreign.check_classes(algorithm, env, 1)


def test_an_agent_with_a_learn_of_its_own_takes_whole_cycles():
    foreign.check_classes(WholeHyperparams(), CARTPOLE, 1)


def test_an_architecture_that_cannot_be_is_named_with_its_sample():
    hyper = PPOHyperparams(actor=Heads())
    with foreign.traced(hyper, CARTPOLE, "sample 0"):
        foreign.check_networks(hyper, CARTPOLE)
    other = assign(hyper, {"actor.width": 12, "actor.heads": 8})
    message = r"^sample 1 cannot be trained: Heads\.module \(.*AssertionError: width 12 must be a mult"
    with pytest.raises(ValueError, match=message), foreign.traced(other, CARTPOLE, "sample 1"):
        foreign.check_networks(other, CARTPOLE)


def test_programs_of_a_notebooks_own_classes_are_compiled_in_every_run(monkeypatch):
    """They may refer to a constant of another cell, which has another value in the next run."""
    assert not foreign.changeable(PPOHyperparams(actor=Heads()), Walk())
    for kind in (Heads, Walk):
        with monkeypatch.context() as changed:
            changed.setattr(kind, "__module__", "__main__")
            assert foreign.changeable(PPOHyperparams(actor=Heads()), Walk())
    spec = sweeps.prepare("ppo_mlp", "gymnax.cartpole", run_length_modifier="quick")
    compiler = partial(Compiler, devices=jax.devices(), programs=[], how=Execution(), progress=Display())
    assert compiler(spec).cache is compiler(spec).cache
    spec.env = Walk()
    monkeypatch.setattr(Walk, "__module__", "__main__")
    assert compiler(spec).cache is not compiler(spec).cache


class Careless(Walk):
    """An environment that cannot be built with some options."""

    def __init__(self, size: int = 3):
        self.obs_size = {3: 2}[size]


def test_an_error_in_a_constructor_is_one_line_with_class_file_and_line():
    message = r"careless cannot be built: Careless\.__init__ \(.*test_foreign\.py, line \d+\): KeyError: 4$"
    with pytest.raises(ValueError, match=message):
        build("careless", Careless, {"size": "4"})


@pytest.mark.parametrize(
    ("declaration", "message"),
    [
        ("hp(8, [8, 16], doc='width')", r"space.*\[8, 16\]"),
        ("hp('relu', doc='function')", r'"function" is a text, .relu.; say what it may be: labels='),
    ],
)
def test_a_hyperparameter_that_cannot_be_is_refused_with_its_line(declaration, message, tmp_path):
    file = tmp_path / "body.py"
    file.write_text(f"from hyperlax.hyperparams import hp\n\nclass A:\n    x = {declaration}\n")
    with pytest.raises(ValueError, match=rf"{message}.* \(.*body\.py, line 4\)"):
        load_file(file)


def test_a_class_body_that_cannot_be_run_is_named_with_its_own_line(tmp_path):
    file = tmp_path / "body.py"
    file.write_text("from dataclasses import dataclass, field\n\n@dataclass\nclass A:\n    x = field()\n")
    with pytest.raises(ValueError, match=r"no type annotation \(.*body\.py, line [34]\)"):
        load_file(file)


def test_the_command_line_shows_an_error_of_foreign_code_in_one_line(tmp_path, monkeypatch, capsys):
    file = tmp_path / "thrower.py"
    file.write_text("def write(runs, destination):\n    return {}['no']\n")
    write = load_file(file).write
    monkeypatch.setattr("hyperlax.commands.continuing.completed", lambda tokens: write(tokens, ""))
    with pytest.raises(SystemExit) as left:
        main(["list"])
    shown = capsys.readouterr().err
    assert left.value.code == 2
    assert re.fullmatch(r"error: write \(.*thrower\.py, line 2\): KeyError: 'no'; HYPERLAX_.*\n", shown)
    monkeypatch.setenv("HYPERLAX_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["list"])


def test_typed_keys_are_found_by_the_checks():
    with pytest.raises(AssertionError, match=r"Walk\.reset: the state holds a random key.*key_data"):
        check_env(Walk)
    with pytest.raises(AssertionError, match=r"Noisy builds a network that holds a random key.*key_data"):
        check_network(Noisy, count=1)


def test_an_evaluation_that_may_never_end_is_refused_with_its_cost():
    hyper, settings, room = PPOHyperparams(), Settings(eval_episodes=16), Room.here()
    message = r"32 whole episodes, .* 2,147,483,647 steps each \(max_episode_steps of Forever\): about .* h"
    refusal = feasible._never_ending(hyper, Forever(), settings, room.machine)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(refusal)
    assert feasible._never_ending(hyper, Walk(), settings, room.machine) is None
