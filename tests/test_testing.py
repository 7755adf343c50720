"""The checks for classes of one's own find what is wrong, and say which law, which lane and which leaf."""

from __future__ import annotations

import os
import subprocess
import sys
from copy import copy
from typing import Any, final
from unittest.mock import Mock

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
import pytest

from hyperlax import envs
from hyperlax.agents import AbstractOnPolicyAgent, OnPolicyDefaults
from hyperlax.agents.ppo import PPO, PPOHyperparams
from hyperlax.envs import AbstractEnv, Box, Discrete, Timestep
from hyperlax.hyperparams import Count, Real, fields, hp
from hyperlax.hyperparams.samplers import (
    AbstractPointDesign,
    Grid,
    Halton,
    LatinHypercube,
    OptunaSampler,
    Random,
    Sobol,
)
from hyperlax.lanes.sizes import Extent, Shape, shapes
from hyperlax.networks import AbstractNetwork, AbstractNetworkHyperparams, AbstractStockHyperparams, Linear
from hyperlax.schedules import ASHA, PBT, Schedule, Verdict
from hyperlax.testing import (
    check_agent,
    check_env,
    check_laws,
    check_learning,
    check_network,
    check_sampler,
    check_schedule,
    laws,
)
from hyperlax.testing.agents import drawn_lanes, hyperparameters_of, network_of, with_network
from hyperlax.testing.lanes import Lanes
from hyperlax.testing.samples import SMALL, draw


class Careless(OnPolicyDefaults):
    """Hyperparameters of an agent that averages over padding."""

    lr: Real = hp(1e-3, doc="step size")

    def agent(self, env, caps, *, key):
        return CarelessAgent.create(self, env, caps, key=key)


class CarelessAgent(AbstractOnPolicyAgent[Careless]):
    losses = ("policy_loss",)

    def step_sizes(self):
        return self.hp.lr, self.hp.lr

    def samples(self, trajectory, estimates):
        centred = estimates.advantage - jnp.mean(estimates.advantage)  # padding included
        return super().samples(trajectory, eqx.tree_at(lambda e: e.advantage, estimates, centred))

    def loss(self, actor, critic, sample):
        loss = -actor(sample.step.features).log_prob(sample.step.raw) * sample.advantage
        return loss + (critic(sample.step.features) - sample.target) ** 2, {"policy_loss": loss}


ALIKE = {"standardize_advantages": False, "num_minibatches": 1, "epochs": 1}


@pytest.fixture(scope="module")
def careless():
    samples = [{"num_envs": n, "rollout_length": length, **ALIKE} for n, length in ((2, 3), (6, 7))]
    return drawn_lanes(Careless, Dense, envs.load("gymnax.cartpole"), 2, samples)


def test_an_average_over_padding_breaks_the_first_law_alone(careless):
    laws.resumes(careless)
    laws.compiles_once(careless)
    with pytest.raises(
        AssertionError, match=r"alone = together, lane 0 \(.*num_envs=2.*\.actor.* differs by"
    ):
        laws.alone_equals_together(careless, 2)


def test_a_lane_that_goes_on_otherwise_breaks_the_second_law(careless):
    """By a single bit of one lane."""
    other = copy(careless)
    other.ended = eqx.tree_at(lambda s: s.key, careless.ended, careless.ended.key.at[1, 0].add(1))
    with pytest.raises(AssertionError, match=r"resume, lane 1 \(.*\.key differs by 1 "):
        laws.resumes(other)


def test_a_lane_that_depends_on_its_place_breaks_the_first_law(careless):
    laws.neighbours_do_not_matter(careless)
    other = copy(careless)
    other.keys = careless.keys[::-1]
    with pytest.raises(AssertionError, match=r"alone = together, lane 0 in reverse order \(.* differs by"):
        laws.neighbours_do_not_matter(other)


def test_a_second_trace_breaks_the_third_law(careless):
    jax.block_until_ready(careless.ended)
    once = careless.program.traces
    other = {path: aval.update(dtype=np.dtype(np.float16)) for path, aval in once["segment"][0].items()}
    twice = copy(careless)
    twice.program = copy(careless.program)
    twice.program.traces = {**once, "segment": [*once["segment"], other]}
    with pytest.raises(AssertionError, match=r"segment was traced 2 times .* is int32.*, then float16"):
        laws.compiles_once(twice)


@final
class Unlisted(OnPolicyDefaults):
    """A hyperparameter that is no leaf."""

    lr: float = eqx.field(static=True, default=1e-3)

    def agent(self, env, caps, *, key):
        raise NotImplementedError


def test_a_value_outside_the_leaves_breaks_the_third_law():
    env = envs.load("gymnax.cartpole")
    held = Lanes(env, [PPOHyperparams()], [PPOHyperparams()], 0)
    one, other = Unlisted(lr=1e-3), Unlisted(lr=1e-2)
    held.hps[:] = [one]
    held.others[:] = [other]
    with pytest.raises(
        AssertionError, match="one program: samples of Unlisted differ in more than array leaves"
    ):
        laws.compiles_once(held)


def test_an_algorithm_that_does_not_learn_is_told_from_one_that_does():
    with pytest.raises(
        AssertionError,
        match=r"it learns, an action that (pays|must match what is seen) \(discrete actions\), seeds 5 to 5",
    ):
        check_learning("dqn", settings={"critic_lr": 0.0}, cycles=20, seeds=1)


class Stock(AbstractStockHyperparams):
    """One layer."""

    width: Count = hp(4, doc="units")

    def module(self, in_size, *, width, key):
        return eqx.nn.Linear(in_size, width, key=key)


def test_what_is_meant_is_found():
    assert hyperparameters_of(PPO) is hyperparameters_of(PPOHyperparams) is hyperparameters_of("ppo")
    assert hyperparameters_of(CarelessAgent) is Careless


class Unfinished(AbstractStockHyperparams):
    pass


DICT: Any = dict
"""It makes what is neither a sampler nor a schedule, and type checkers let it."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: check_agent("pppo"), 'unknown algorithm "pppo"; did you mean "ppo"?'),
        (
            lambda: check_agent(Stock),
            "check_agent takes .* a subclass of AbstractAgentHyperparams; got Stock",
        ),
        (lambda: check_agent(AbstractOnPolicyAgent), "does not say what its hyperparameters are"),
        (lambda: check_agent(OnPolicyDefaults), "OnPolicyDefaults is abstract: it does not define agent"),
        (lambda: check_network(Unfinished), "Unfinished is abstract: it does not define module"),
        (lambda: check_network(PPO), "a subclass of AbstractNetworkHyperparams; got PPO"),
        (lambda: check_env(AbstractEnv), "AbstractEnv is abstract: it does not define reset, step"),
        (lambda: check_env(Stock), "check_env takes an environment, a subclass of AbstractEnv; got Stock"),
        (lambda: check_sampler(lambda space, seed: DICT()), "makes an AbstractSampler; it has made a dict"),
        (lambda: check_schedule(DICT), "a class or function that makes a Schedule; it has made a dict"),
        (lambda: check_laws("dqn", envs=["gymnax.pendulum"]), "supports none of .* a 1-dimensional box"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_what_lacks(call, message):
    with pytest.raises(TypeError, match=message):
        call()


@pytest.mark.parametrize("network", ["mlp", "tmlp", "drpqc", Stock])
def test_samples_differ_in_everything_and_share_a_program(network):
    base = with_network(PPOHyperparams, network_of(network))
    samples = draw(base, 12, np.random.default_rng(1), lambda hp: 0.0)
    assert len({shapes(sample.sizes()) for sample in samples}) == 1
    for field in fields(base):
        drawn = {next(f.default for f in fields(sample) if f.path == field.path) for sample in samples}
        pinned = any(name == field.path for name, _ in shapes(base.sizes()))
        assert (len(drawn) == 1) == pinned, field.path
        assert field.path not in SMALL or drawn <= set(SMALL[field.path])


def test_given_samples_are_taken_in_turn():
    given = [{"num_envs": 3}, {"num_envs": 5, "gamma": 0.5}]
    samples = draw(PPOHyperparams(), 3, np.random.default_rng(0), lambda hp: 0.0, given)
    assert [int(sample.num_envs) for sample in samples] == [3, 5, 3]
    assert float(samples[1].gamma) == 0.5


class Layer(AbstractNetwork):
    """A dense layer that can be spoilt."""

    hp: Dense
    layer: Linear
    batch_last: bool = eqx.field(static=True)

    def __init__(self, hp, in_size, caps, *, key):
        self.hp, self.batch_last = hp, caps.get("batch_last", True)
        self.layer = Linear(in_size, hp.width, in_size, caps["width"], 1.0, self.batch_last, key=key)

    @property
    def out_cap(self):
        return self.layer.bias.shape[0]

    @property
    def out_size(self):
        return self.hp.width

    def __call__(self, x):
        return self.layer(x)


class Dense(AbstractNetworkHyperparams):
    """Its hyperparameters."""

    width: Count = hp(64, doc="units")

    def sizes(self):
        return {"width": Extent(self.width)}

    def network(self, in_size, caps, *, key):
        return Layer(self, in_size, caps, key=key)


class Leaking(Dense):
    """Its padded outputs are one."""

    def network(self, in_size, caps, *, key):
        network = Layer(self, in_size, caps, key=key)
        return eqx.tree_at(lambda n: n.layer.bias, network, network.layer.bias + 1)


class Scaled(Dense):
    """Its weights depend on what is allocated."""

    def network(self, in_size, caps, *, key):
        network = Layer(self, in_size, caps, key=key)
        factor = 1 / jnp.sqrt(jnp.float32(caps["width"]))
        return eqx.tree_at(lambda n: n.layer.weight, network, network.layer.weight * factor)


class Weakly(Dense):
    """Its biases have no dtype of their own."""

    def network(self, in_size, caps, *, key):
        network = Layer(self, in_size, caps, key=key)
        return eqx.tree_at(lambda n: n.layer.bias, network, jnp.where(network.layer.bias > 0, 1.0, 0.0))


class Unprepared(Dense):
    """Prepared for many inputs, it has other weights."""

    def network(self, in_size, caps, *, key):
        layer: Any = OtherLayer
        return layer(self, in_size, caps, key=key)


class OtherLayer(Layer):
    def prepared(self):
        return eqx.tree_at(lambda n: n.layer.weight, self, self.layer.weight * 2)


class Unextended(Dense):
    """Its extended output ends in no one."""

    def network(self, in_size, caps, *, key):
        layer: Any = ShortLayer
        return layer(self, in_size, caps, key=key)


class ShortLayer(Layer):
    def extended(self, x):
        return super().extended(x).at[self.out_cap].set(0)


class Miscounted(Dense):
    """It counts its biases twice."""

    def parameter_count(self, in_size):
        return super().parameter_count(in_size) + int(self.width)


class Holding(Dense):
    """It holds a function."""

    def network(self, in_size, caps, *, key):
        return eqx.tree_at(lambda n: n.layer.bias, Layer(self, in_size, caps, key=key), jnp.tanh)


class Sizeless(Dense):
    """It says a number for a size."""

    def sizes(self) -> dict[str, Any]:
        return {"width": int(self.width)}


class Deep(Miscounted):
    """Its count is wrong where a program of its own is needed."""

    depth: Count = hp(1, doc="a size that is part of the program")

    def sizes(self):
        return {**super().sizes(), "depth": Shape(self.depth)}

    def parameter_count(self, in_size):
        return super().parameter_count(in_size) - (0 if int(self.depth) == 2 else int(self.width))


def test_samples_that_need_a_program_of_their_own_are_checked():
    with pytest.raises(AssertionError, match=r"sample 1 of Deep .*depth=2.*parameter_count says"):
        check_network(Deep, count=2, samples=({"depth": 1}, {"depth": 2}))


class Bounded(Dense):
    """Its numbers have lower bounds above half of their defaults."""

    rate: Real = hp(1.0, doc="rate", least=1.0)
    shift: Real = hp(0.0, doc="shift", least=0.0, most=0.01)


def test_drawn_values_are_within_their_bounds():
    for sample in draw(Bounded(), 8, np.random.default_rng(0), lambda _: 1.0):
        assert float(sample.rate) >= 1.0
        assert 0.0 <= float(sample.shift) <= np.float32(0.01)


def test_a_dense_layer_is_a_network():
    check_network(Dense)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Leaking, r"sample \d of Leaking \(width=\d\): the padding of the output is not zero"),
        (Scaled, r"sample \d of Scaled .*: the output inside larger capacities differs by"),
        (Unprepared, r"sample \d of Unprepared .*: the output of prepared\(\) differs by"),
        (Unextended, r"sample \d of Unextended .*: extended\(\) differs by 1 "),
        (Miscounted, r"parameter_count says \d+; \d+ weights are allocated at its own sizes and \d+ of them"),
        (Holding, r"Holding builds a network that holds layer\.bias \(tanh\), no array"),
        (Sizeless, r"Sizeless\.sizes\(\)\['width'\] is 64; say how it combines"),
    ],
)
def test_a_spoilt_network_is_named(network, message):
    with pytest.raises(AssertionError, match=message):
        check_network(network)


def test_a_weak_type_breaks_the_third_law():
    """A loop makes it strong, and so does saving: both would be compiled anew."""
    held = drawn_lanes(PPOHyperparams, Weakly, envs.load("gymnax.cartpole"), 2)
    with pytest.raises(
        AssertionError, match=r"lanes whose \.agent\.actor\.body\.layer\.bias is weakly typed"
    ):
        laws.compiles_once(held)
    with pytest.raises(AssertionError, match=r"a network whose \.layer\.bias is weakly typed"):
        check_network(Weakly)


class Corridor(AbstractEnv):
    """Counts its steps, and ends at its time limit or, with luck, before."""

    obs_size: int = 2
    action_space: Box | Discrete = Discrete(3)
    max_episode_steps: int = 6

    def reset(self, *, key):
        place = jr.uniform(key)
        return (jnp.int32(0), place), jnp.stack([place, jnp.float32(0)])

    def step(self, state, action, *, key):
        time, place = state[0] + 1, state[1] + 0.1 * action.astype(jnp.float32)
        terminated = place > 1.5
        seen = jnp.stack([place, time.astype(jnp.float32)])
        return (time, place), Timestep(
            seen, place, terminated, (time >= self.max_episode_steps) & ~terminated
        )


class Resetting(Corridor):
    def step(self, state, action, *, key):
        after, seen = super().step(state, action, key=key)
        over = seen.terminated | seen.truncated
        fresh = self.reset(key=key)[0]
        return jax.tree.map(lambda f, s: jnp.where(over, f, s), fresh, after), seen


class Endless(Corridor):
    def step(self, state, action, *, key):
        after, seen = super().step(state, action, key=key)
        return after, eqx.tree_at(lambda s: (s.terminated, s.truncated), seen, (jnp.bool_(False),) * 2)


class Both(Corridor):
    def step(self, state, action, *, key):
        after, seen = super().step(state, action, key=key)
        over = seen.terminated | seen.truncated
        return after, eqx.tree_at(lambda s: (s.terminated, s.truncated), seen, (over, over))


class Weak(Corridor):
    def reset(self, *, key):
        return (jnp.asarray(0), jr.uniform(key)), jnp.zeros(2)


class Impure(Corridor):
    def reset(self, *, key):
        return super().reset(key=jr.key(np.random.default_rng().integers(2**31)))


class Deciding(Corridor):
    def step(self, state, action, *, key):
        return super().step(state, action if state[1] > 0.5 else -action, key=key)


class Wide(Corridor):
    obs_size: int = 3


class Unbounded(Corridor):
    action_space: Box | Discrete = Box((-np.inf,), (np.inf,))


class Nan(Corridor):
    def step(self, state, action, *, key):
        after, seen = super().step(state, action, key=key)
        return after, eqx.tree_at(lambda s: s.reward, seen, jnp.log(-1.0 - seen.reward))


def test_a_corridor_is_an_environment():
    check_env(Corridor)
    check_env(Corridor())
    check_env("gymnax.pendulum")


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Resetting, r"Resetting, episode \d of random actions: the step that ends it begins a new one"),
        (Endless, r"Endless, episode 0 of random actions goes on after max_episode_steps \(6\)"),
        (Both, r"Both, episode \d of random actions: step \d is both terminated and truncated"),
        (Weak, r"Weak\.reset: the state\[0\] is weakly typed"),
        (Impure, r"Impure\.reset computes something else each time it is traced"),
        (Deciding, r"Deciding\.step cannot be traced: it takes a Python decision on an array"),
        (Wide, r"Wide\.reset: the observation is float32 of shape \(3,\), got float32 of shape \(2,\)"),
        (Unbounded, r"Unbounded\.action_space has the bounds -inf, inf; they must be finite"),
        (Nan, r"Nan, episode \d of random actions: reward is not finite in step 1"),
    ],
)
def test_a_spoilt_environment_is_named(env, message):
    with pytest.raises(AssertionError, match=message):
        check_env(env)


def test_importing_it_needs_neither_jax_nor_a_test_framework():
    code = (
        "import sys, hyperlax.testing as t; assert not {'jax', 'pytest'} & set(sys.modules); t.check_agent; "
    )
    code += "assert 'pytest' not in sys.modules; import hyperlax; assert 'check_agent' in dir(t)"
    environment = {k: v for k, v in os.environ.items() if k != "HYPERLAX_TYPECHECK"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


class Forgetful(Schedule):
    """Prunes from its fourth judgement on, and forgets how many there have been."""

    def __init__(self):
        self.judged = 0

    def judge(self, runner, lane, value):
        self.judged += 1
        return Verdict.PRUNE if self.judged == 6 else Verdict.GO_ON


class Unwritable(Forgetful):
    """Its state is no JSON."""

    def state(self):
        return {"judged": {self.judged}}


class Merciless(Schedule):
    """Prunes every lane."""

    def judge(self, runner, lane, value):
        return Verdict.PRUNE


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Forgetful, r"Forgetful: interrupted and resumed, the run has other lanes"),
        (Unwritable, r"Unwritable\.state\(\) is not JSON-ready"),
        (Merciless, r"Merciless: no lane has been trained to its end"),
    ],
)
def test_a_spoilt_schedule_is_named(schedule, message):
    with pytest.raises(AssertionError, match=message):
        check_schedule(schedule)


class Once(Schedule):
    """Judges in one sweep, and never again."""

    def judge(self, runner, lane, value):
        return Verdict.GO_ON


def test_a_schedule_that_judges_once_is_interrupted(monkeypatch):
    """The last time it judges is the first one too."""
    runs = []

    def swept(schedule, rows, folder, resume=False):
        runs.append(resume)
        if not resume:
            schedule.judge(None, None, None)
        return Mock(lanes={"status": pl.Series(["done"])})

    monkeypatch.setattr("hyperlax.testing.schedules._swept", swept)
    monkeypatch.setattr("hyperlax.testing.schedules._same", lambda *_: None)
    check_schedule(Once)
    assert runs == [False, False, True]
    silent = lambda schedule, rows, folder, resume=False: (  # noqa: E731
        schedule.judge(None, None, None) if folder.name == "whole" else None,
        Mock(lanes={"status": pl.Series(["done"])}),
    )[1]
    monkeypatch.setattr("hyperlax.testing.schedules._swept", silent)
    with pytest.raises(AssertionError, match="Once: the run was not interrupted"):
        check_schedule(Once)


@pytest.mark.parametrize("schedule", [Schedule, ASHA, lambda: PBT(interval=1)], ids=["plain", "asha", "pbt"])
def test_schedules_are_what_a_run_counts_on(schedule):
    check_schedule(schedule)


class Points(AbstractPointDesign):
    """Independent points."""

    def points(self, first, last):
        return np.random.default_rng(int(self.seed)).random((last, len(self.space)))[first:]


class Colder(Points):
    """Draws values outside the space."""

    def rows(self, first, last):
        return [{**row, "gamma": 2.0} for row in super().rows(first, last)]


class Unrepeatable(Points):
    """Draws from the clock, so to say."""

    def points(self, first, last):
        return np.random.default_rng().random((last - first, len(self.space)))


class Restarting(Points):
    """Always draws its first samples."""

    def points(self, first, last):
        return super().points(0, last - first)


class Accepting(Points):
    """Takes any number of scores."""

    def tell(self, scores):
        return self


class Naming(Points):
    """Notes its samples where no array is."""

    def ask(self, n):
        after, samples = super().ask(n)
        return eqx.tree_at(lambda s: s.told, after, (after.told, after.told)), samples


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Colder, r"Colder, sample 0: gamma=2\.0 is not in Uniform"),
        (Unrepeatable, r"Unrepeatable: saved and loaded .* it goes on otherwise"),
        (Restarting, r"Restarting: 4 and then 3 samples are not those of asking once"),
        (Accepting, r"Accepting accepts three scores for two samples"),
        (Naming, r"Naming\.ask returns another structure"),
    ],
)
def test_a_spoilt_sampler_is_named(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_sampler(sampler)


SIZED = [
    lambda space, seed, n=n, kind=kind: kind(space, seed, n) for kind, n in ((LatinHypercube, 8), (Grid, 40))
]


@pytest.mark.parametrize("sampler", [Sobol, Random, Halton, *SIZED, OptunaSampler])
def test_samplers_are_what_sweeps_and_searches_count_on(sampler):
    check_sampler(sampler)
