"""What programs for accelerators compute in fewer kernels is what other programs compute."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams, SACHyperparams
from hyperlax.agents.off_policy import Experience, counted
from hyperlax.hyperparams import assign, trainable
from hyperlax.lanes.constants import tracing_a_loss, tracing_for_accelerator
from hyperlax.lanes.masking import lane_switch
from hyperlax.learning.rollout import Trajectory
from hyperlax.networks.few import FEW, largest
from hyperlax.networks.layer_norm import LayerNorm, normalised_where
from hyperlax.networks.mlp import ACTIVATIONS, activate
from hyperlax.networks.models import Actor, Critic, jointly, stacked_once
from hyperlax.networks.tensor import TensorMLPHyperparams
from hyperlax.programs import train
from hyperlax.programs.plan import Machine, plan
from hyperlax.programs.shared import Shared

ENV = envs.load("gymnax.cartpole")
CPU, GPU = Machine.planned("cpu"), Machine.planned("gpu")


def on_both(f, *arguments):
    """The results of `f` in a program for a CPU and in one for accelerators."""
    plain = jax.jit(lambda *xs: f(*xs))(*arguments)
    with tracing_for_accelerator():
        return plain, jax.jit(lambda *xs: f(*xs))(*arguments)


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("train_scale", [True, False])
@pytest.mark.parametrize("among", [frozenset({True}), frozenset({True, False})])
def test_layer_norm_of_padded_units_and_its_gradient(flag, train_scale, among):
    size, cap = jnp.int32(5), 8
    used = jnp.arange(cap) < size
    norm = LayerNorm(size, cap)
    norm = eqx.tree_at(lambda n: n.bias, norm, jnp.where(used, jnp.linspace(-1, 1, cap), 0))
    norm = eqx.tree_at(lambda n: n.scale, norm, norm.scale * jnp.linspace(0.5, 2, cap))
    x = jnp.where(used[None], 3 * jr.normal(jr.key(1), (7, cap)) + 2, 0)
    weights = jr.normal(jr.key(2), (cap,))  # not zero for padded units

    def loss(norm, x):
        flag_, train = jnp.asarray(flag), jnp.asarray(train_scale)
        out = jax.vmap(lambda x: normalised_where(among, flag_, x, norm, size, train))(x)
        return jnp.sum(jnp.where(used[None], jnp.sin(out) * weights[None], 0)), out

    def both(flag, norm, x):
        (_, out), gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(norm, x)
        return out, gradient

    plain, fast = on_both(both, flag, norm, x)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    assert not np.asarray(fast[0])[:, 5:].any()
    assert not np.asarray(fast[1][1])[:, 5:].any()


@pytest.mark.parametrize("names", [("relu", "elu"), ("tanh", "silu", "gelu"), tuple(ACTIVATIONS)])
def test_activations_and_their_slopes(names):
    x = jnp.linspace(-3, 3, 31)

    def both(index, x):
        return jax.value_and_grad(lambda x: jnp.sum(activate(names, index, x) ** 2))(x)

    for name in names:
        index = jnp.int32(list(ACTIVATIONS).index(name))
        plain, fast = on_both(both, index, x)
        expected = jax.jit(jax.value_and_grad(lambda x, f=ACTIVATIONS[name]: jnp.sum(f(x) ** 2)))(x)
        for found in (plain, fast):
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_case_is_chosen_by_its_number():
    cases = {3: lambda x: x + 1, 1: lambda x: 2 * x, 7: jnp.square}
    for number, expected in ((3, 6.0), (1, 10.0), (7, 25.0)):
        plain, fast = on_both(lambda i, x: lane_switch(i, cases, x), jnp.int32(number), jnp.float32(5))
        assert float(plain) == float(fast) == expected
        assert float(lane_switch(jnp.int32(number), cases, jnp.float32(5))) == expected


def sample(**changes):
    return assign(PPOHyperparams(), {"num_envs": 4, "rollout_length": 8, **changes})


def test_networks_of_one_kind_get_equal_capacities_on_an_accelerator():
    """So that they are evaluated together; on a CPU they cost what they are."""
    samples = [sample(**{"actor.width": 16, "critic.width": 64, "critic.activation": "relu"})]
    (program,) = plan(samples, ENV, 10_000, 1, GPU)
    ours = {k.partition(".")[2]: v for k, v in program.caps.items() if k.startswith("actor.")}
    assert ours == {k.partition(".")[2]: v for k, v in program.caps.items() if k.startswith("critic.")}
    assert program.caps["actor.width"] == 64
    (program,) = plan(samples, ENV, 10_000, 1, CPU)
    assert (program.caps["actor.width"], program.caps["critic.width"]) == (16, 64)
    own = samples[0].sizes()
    chains = [samples[0].chain(sizes, ENV).gradient for sizes in (own, samples[0].evened(own, ENV))]
    assert chains[0] > chains[1]


def test_networks_of_other_inputs_or_shapes_keep_their_sizes():
    """The critics of SAC also receive actions, and tensor networks of two shapes cannot be joined."""
    sac = assign(SACHyperparams(), {"actor.width": 16})
    env = envs.load("gymnax.pendulum")
    assert sac.evened(sac.sizes(), env) == sac.sizes()


def tensor(shape, cores):
    hp = assign(TensorMLPHyperparams(), {"shape": shape, "bond_dim": 2, "mpo_layers": 2})
    return jax.tree.map(jnp.asarray, hp), {**hp.sizes(), "batch_last": False}, jr.key(cores)


def test_tensor_networks_of_different_shapes_are_evaluated_together():
    """The same values and gradients as one by one; more matrix products of the dense part are shared."""
    (hp, caps, key), (other, other_caps, other_key) = tensor("8=2^3", 1), tensor("32=2^5", 2)

    @eqx.filter_jit
    def models():
        body = other.network(ENV.obs_size, other_caps, key=other_key)
        return Actor(hp.network(ENV.obs_size, caps, key=key), ENV.action_space, key=jr.key(5)), Critic(
            body, key=jr.key(6)
        )

    actor, critic = models()
    trained = eqx.partition((actor, critic), trainable((actor, critic)))

    def loss(weights, x):
        models = eqx.combine(weights, trained[1])
        policies, values = jax.vmap(lambda x: jointly(models, (x, x)))(x)
        return jnp.sum(jnp.sin(policies.log_probs)) + jnp.sum(values**2)

    def marked(weights, x):
        with tracing_a_loss():
            return loss(weights, x)

    x = jr.normal(jr.key(3), (5, ENV.obs_size))
    plain, fast = on_both(jax.value_and_grad(marked), trained[0], x)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    with tracing_for_accelerator():
        ready: Any = eqx.filter_eval_shape(lambda xs: type(xs[0]).alike(xs), (actor.body, critic.body))
        assert ready is not None
        assert len({x.first.bias.size for x in ready}) == 1
        same = jax.jit(lambda x: jointly((actor, critic), (x, x))[1])(x[0])
    np.testing.assert_allclose(same, jax.jit(critic.__call__)(x[0]), rtol=1e-4, atol=1e-5)


def test_only_the_matrices_of_tensor_networks_of_different_shapes_are_formed_apart():
    hp = assign(
        PPOHyperparams(actor=TensorMLPHyperparams(), critic=TensorMLPHyperparams()),
        {"actor.shape": "64=4^3", "critic.mpo_layers": 3},
    )
    evened = hp.evened(hp.sizes(), ENV)
    assert (evened["actor.mpo_layers"], evened["actor.local"], evened["critic.local"]) == (3, "4", "2")
    equal = assign(hp, {"actor.shape": "64=2^6"})
    joint = equal.chain(equal.evened(equal.sizes(), ENV), ENV).gradient
    assert joint < hp.chain(evened, ENV).gradient < hp.chain(hp.sizes(), ENV).gradient


def test_stacks_made_outside_of_a_loop_are_used_inside():
    caps = {**sample().actor.sizes(), "batch_last": False}

    def both(hps, x):
        bodies = [hp.network(ENV.obs_size, caps, key=jr.key(i)) for i, hp in enumerate(hps)]
        models = (Actor(bodies[0], ENV.action_space, key=jr.key(5)), Critic(bodies[1], key=jr.key(6)))
        plain = jointly(models, (x, x))[1]
        before = jax.make_jaxpr(lambda: jointly(models, (x, x))[1])()
        with stacked_once(models):
            assert np.shape(plain) == np.shape(jointly(models, (x, x))[1])
            inside = jax.make_jaxpr(lambda: jointly(models, (x, x))[1])()
            same = jointly(models, (x, x))[1]
        counts = [str(j).count(" = stack") for j in (before, inside)]
        assert counts[1] < counts[0]
        return plain, same

    hps = [jax.tree.map(jnp.asarray, sample().actor) for _ in range(2)]
    with tracing_for_accelerator():
        plain, same = jax.jit(lambda *xs: both(*xs))(hps, jnp.ones(ENV.obs_size))
    assert float(plain) == float(same)


def test_a_hyperparameter_that_several_networks_hold_is_read_once():
    """The critic and its target have the same; programs need not compare them."""
    hp, env = jax.tree.map(jnp.asarray, SACHyperparams()), envs.load("gymnax.pendulum")
    hp = assign(hp, {"buffer_size": 64, "batch_size": 4})
    caps = hp.capacities([hp.sizes()], [1], env)
    shared = Shared({}, once=True)

    def run(hp: Any) -> Any:
        state = train.start(
            hp, env, caps, jnp.int32(9), key=jnp.zeros(2, jnp.uint32), init_key=jnp.zeros(2, jnp.uint32)
        )
        shared.find(hp, state)
        inserted: Any = shared.insert(state)
        assert inserted.agent.hp.critic.width is inserted.agent.critics.first.body.hp.width
        back = shared.remove(inserted, state)
        assert all(a is b for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True))
        return back

    jax.eval_shape(run, jax.tree.map(jnp.asarray, hp))


@pytest.mark.parametrize(("ratio", "collected", "added"), [(0.7, 10, 1_797_550), (3.3, 10, 1_684_070)])
def test_no_more_gradient_steps_are_due_than_a_program_plans_for(ratio, collected, added):
    """Where float32 rounds the transitions of one rollout to one gradient step more."""
    changes = {"num_envs": collected, "rollout_length": 1, "update_to_data": ratio, "buffer_size": 64}
    hp, env = assign(SACHyperparams(), {**changes, "warmup_rollout_length": 0}), envs.load("gymnax.pendulum")
    planned = hp.own_sizes()["gradient_steps"]
    hp = jax.tree.map(jnp.asarray, hp)
    before, after = (counted(jnp.int32(n), hp.update_to_data) for n in (added, added + collected))
    assert int(after - before) == planned + 1, "the case says nothing any more"
    experience = Experience(hp, env, {"buffer_size": 64})
    experience = eqx.tree_at(lambda e: e.replay.added, experience, jnp.int32(added))
    obs, scalar = jnp.zeros((1, collected, env.obs_size)), jnp.zeros((1, collected))
    over = scalar > 0
    rollout = Trajectory(scalar[..., None], obs, obs, scalar, over, over, obs[0], jnp.int32(1))
    due = eqx.filter_jit(lambda experience, rollout: experience.collected(hp, rollout).steps)
    assert int(due(experience, rollout)) == planned


def test_a_buffer_of_whole_steps_is_allocated():
    """Even if it is smaller than one step of all environments."""
    hp = assign(SACHyperparams(), {"num_envs": 8, "buffer_size": 4, "buffer_rounding": "whole_steps"})
    assert hp.sizes()["buffer_size"] == int(hp.capacity()) == 8
    assert assign(hp, {"buffer_size": 20}).sizes()["buffer_size"] == 20


@pytest.mark.parametrize("n", [1, 2, 5, FEW, FEW + 1])
def test_the_largest_of_few_entries_is_the_first_of_equals(n):
    rows = jnp.asarray(np.random.default_rng(n).integers(0, 3, (50, n)), jnp.float32)
    with tracing_for_accelerator():
        found = jax.vmap(largest)(rows)
    np.testing.assert_array_equal(found, jnp.argmax(rows, axis=1))
    assert found.dtype == jnp.int32
