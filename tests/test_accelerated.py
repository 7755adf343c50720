"""What programs for accelerators are made of: known loops, few branches, shared constants, packed states."""

from __future__ import annotations

import json
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params
from scipy import stats

from hyperlax import envs
from hyperlax.agents import DQNHyperparams, PPOHyperparams, SACHyperparams
from hyperlax.agents.costs import whole
from hyperlax.hyperparams import assign
from hyperlax.lanes import shuffling
from hyperlax.lanes.constants import (
    accelerated,
    constant,
    folded,
    known,
    surely,
    tracing_a_loss,
    tracing_for_accelerator,
)
from hyperlax.lanes.masking import LANES, lane_cond, lane_loop, lane_rows, select
from hyperlax.lanes.sizes import merge
from hyperlax.learning.packing import Packing
from hyperlax.learning.rollout import collect
from hyperlax.networks import Actor, Critic, jointly
from hyperlax.networks.mlp import MLPHyperparams
from hyperlax.networks.tensor import TensorMLPHyperparams
from hyperlax.programs import compiled, lockstep, train
from hyperlax.programs.plan import Machine, Program, plan
from hyperlax.programs.shared import Shared, shared_values

SMALL = {
    "ppo": (PPOHyperparams, {"num_envs": 4, "rollout_length": 6, "num_minibatches": 2, "epochs": 2}),
    "dqn": (DQNHyperparams, {"num_envs": 2, "rollout_length": 2, "buffer_size": 32, "batch_size": 4}),
    "sac": (SACHyperparams, {"num_envs": 2, "rollout_length": 2, "buffer_size": 32, "batch_size": 4}),
}
ACCELERATOR, CPU = Machine.of("gpu", 1), Machine.of("cpu", 1)


def sample(algorithm, **changes):
    kind, small = SMALL[algorithm]
    networks = [f"{n}.{k}" for n in ("actor", "critic") for k in ("width", "depth") if hasattr(kind(), n)]
    return assign(kind(), {**dict.fromkeys(networks, 3), **small, **changes})


def primitives(jaxpr, names):
    """Every equation of `names` in a jaxpr and in all that it contains."""
    found = [e for e in jaxpr.eqns if e.primitive.name in names]
    return found + [e for q in jaxpr.eqns for j in jaxprs_in_params(q.params) for e in primitives(j, names)]


def segment_of(hps, env, lanes):
    """The jaxpr of a segment of the program for accelerators of `hps`."""
    caps = whole(hps[0].capacities([hp.sizes() for hp in hps], [1] * len(hps), env))
    shared = Shared(shared_values(hps))

    def run(hp, key, cycles):
        with tracing_for_accelerator():
            state = train.start(hp, env, caps, jnp.int32(100), key=key, init_key=key)
            shared.find(hp, state)
            return train.segment(state, env, caps, cycles, shared)

    one = (jax.tree.map(jnp.asarray, hps[0]), jnp.zeros(2, jnp.uint32), jnp.int32(3))
    if lanes == 1:
        return jax.make_jaxpr(run)(*one)
    many = jax.tree.map(lambda x: jnp.stack([x] * lanes), one)
    return jax.make_jaxpr(jax.vmap(run, axis_name=LANES))(*many)


MIXED = {"rollout_length": 5, "num_envs": 3, "num_minibatches": 3, "epochs": 1, "actor.width": 2}
CHOICES = {"actor.activation": "relu", "actor.layer_norm": True, "critic.layer_norm": True}


@pytest.mark.parametrize(
    ("algorithm", "changes", "lanes"),
    [
        ("ppo", {}, 2),
        ("ppo", MIXED, 1),
        ("ppo", MIXED, 2),
        ("ppo", CHOICES, 1),
        ("dqn", {"batch_size": 3, "num_envs": 1, "update_to_data": 0.25}, 2),
        ("sac", {"batch_size": 3, "num_envs": 1, "update_to_data": 0.25}, 2),
    ],
    ids=["ppo", "ppo-mixed-alone", "ppo-mixed", "ppo-choices-alone", "dqn-mixed", "sac-mixed"],
)
def test_a_cycle_has_no_loop_of_unknown_length_and_no_branch(algorithm, changes, lanes):
    """Whether sizes are shared or not; the loop over cycles is the only one whose length is not known."""
    hps = [sample(algorithm), sample(algorithm, **changes)]
    segment = segment_of(hps, envs.load("gymnax.cartpole"), lanes)
    loops = [e for e in primitives(segment.jaxpr, {"while"}) if primitives_of_learning(e)]
    assert len(loops) == 1
    assert not primitives(loops[0].params["body_jaxpr"].jaxpr, {"while", "cond"})


def primitives_of_learning(loop):
    """Whether a loop holds gradient steps: other loops draw the initial weights."""
    return bool(primitives(loop.params["body_jaxpr"].jaxpr, {"scan", "erf_inv", "tanh"}))


def test_only_counts_flags_and_choices_that_all_samples_share_are_constants():
    found = shared_values([sample("ppo"), sample("ppo", num_envs=3, gamma=0.9)], varying={"epochs"})
    assert found["rollout_length"] == 6
    assert found["normalize_observations"] is True
    assert found["actor.width"] == 3
    assert not {"num_envs", "epochs", "gamma", "clip_eps"} & set(found)
    assert "clip_eps" not in shared_values([sample("ppo")] * 2)


def test_constants_are_inserted_in_agent_and_networks_and_removed_again():
    hp, env = jax.tree.map(jnp.asarray, sample("ppo")), envs.load("gymnax.cartpole")
    caps = whole(hp.capacities([hp.sizes()], [1], env))
    shared, seen = Shared({"num_envs": 4, "actor.width": 3, "critic.depth": 3}), []

    def run(hp):
        state = train.start(
            hp, env, caps, jnp.int32(9), key=jnp.zeros(2, jnp.uint32), init_key=jr.key_data(jr.key(0))
        )
        shared.find(hp, state)
        agent: Any = shared.insert(state).agent
        seen.append(
            (agent.hp.num_envs, agent.hp.actor.width, agent.actor.body.hp.width, agent.critic.body.hp.depth)
        )
        seen.append((agent.hp.epochs, agent.critic.body.hp.width, agent.hp.gamma))
        back = shared.remove(shared.insert(state), state)
        assert all(a is b for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True))
        return back

    jax.eval_shape(run, hp)
    assert [int(x) for x in seen[0]] == [4, 3, 3, 3]
    assert not any(map(known, seen[1]))


@pytest.mark.parametrize("algorithm", ["dqn", pytest.param("sac", marks=pytest.mark.slow)])
def test_they_learn_what_programs_for_cpus_learn(algorithm):
    """Off-policy agents see the same random numbers in both; on-policy ones shuffle in another way.

    LayerNorm over three units leaves a gradient that is all rounding, so there are more.
    """
    changes = {"warmup_rollout_length": 2, "critic.width": 16}
    hp, env = jax.tree.map(jnp.asarray, sample(algorithm, **changes)), envs.load("gymnax.cartpole")
    caps = hp.capacities([hp.sizes()], [1], env)

    def run(fast):
        shared = Shared(shared_values([hp]) if fast else {})

        def lane(hp, key):
            with tracing_for_accelerator(fast):
                state = train.start(
                    hp, env, whole(caps) if fast else caps, jnp.int32(99), key=key, init_key=key
                )
                shared.find(hp, state)
                return train.segment(state, env, whole(caps) if fast else caps, jnp.int32(8), shared)

        return jax.jit(lane)(hp, jr.key_data(jr.key(3)))

    plain, fast = run(False), run(True)
    assert int(fast.gradient_steps) == int(plain.gradient_steps) > 2
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_lanes_that_observe_in_every_step_collect_what_they_do_on_cpus():
    """The loop has their weights apart from the agent, and carries the part of it that observes."""
    changes = {"normalize_observations": True, "normaliser_order": "before_acting", "rollout_length": 8}
    hp, env = jax.tree.map(jnp.asarray, sample("ppo", **changes)), envs.load("gymnax.cartpole")
    plain = hp.capacities([hp.sizes()], [1], env)

    def collected(fast):
        caps = whole(plain) if fast else plain

        def lane(key):
            with tracing_for_accelerator(fast):
                state = train.start(hp, env, caps, jnp.int32(99), key=key, init_key=key)
                assert not state.agent.observes_late()
                args = state.envs, hp.num_envs, hp.rollout_length, caps["rollout_length"], jnp.bool_(False)
                agent, _, out, _ = collect(state.agent, env, *args, key=jr.key(4))
                return agent, out.obs, out.aux, out.reward

        return jax.jit(jax.vmap(lane, axis_name=LANES))(jax.vmap(jr.key_data)(jr.split(jr.key(3), 2)))

    found, expected = collected(True), collected(False)
    assert np.asarray(found[0].seen.mean).any()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_known_values_fold_and_traced_ones_do_not():
    def traced(x):
        assert not known(x)
        assert known(folded(lambda xp, a, b: xp.minimum(a, b), constant(np.int32(3)), constant(np.int32(2))))
        assert not known(folded(lambda xp, a, b: xp.minimum(a, b), x, constant(np.int32(2))))
        assert surely(constant(True))
        assert not surely(constant(False))
        assert not surely(x, 1)
        assert select(constant(True), x, None) is x
        return folded(lambda xp, a, b: xp.minimum(a, b), x, constant(np.int32(2)))

    assert int(jax.jit(traced)(jnp.int32(1))) == 1
    assert not accelerated()
    with tracing_for_accelerator():
        assert accelerated()


def test_branches_are_computed_on_both_sides_unless_they_are_costly():
    def run(costly):
        with tracing_for_accelerator():
            f = lambda p, x: lane_cond(p, lambda x: x + 1, lambda x: x * 3, x, costly=costly)  # noqa: E731
            found = jax.make_jaxpr(f)(jnp.bool_(True), jnp.float32(2))
            assert [float(jax.jit(f)(jnp.bool_(p), jnp.float32(2))) for p in (True, False)] == [3, 6]
        return len(primitives(found.jaxpr, {"cond"}))

    assert run(costly=False) == 0
    assert run(costly=True) == 1


def test_a_loop_with_a_bound_stops_each_lane_at_its_own_count():
    def run(n):
        with tracing_for_accelerator():
            return lane_loop(n, lambda i, c: c + i + 1, jnp.int32(0), most=5)

    counts = jnp.arange(6, dtype=jnp.int32)
    np.testing.assert_array_equal(jax.vmap(run, axis_name=LANES)(counts), counts * (counts + 1) // 2)


@pytest.mark.parametrize(("trips", "iterations"), [(8, 2), (6, 2), (5, 5), (0, None)])
def test_steps_form_one_iteration_where_they_divide_their_number(trips, iterations):
    """Lanes keep their counts and their rows, whether these are known or not."""

    def run(n, rows=9):
        with tracing_for_accelerator():
            step = lambda i, c, read: (2 * c + i, jnp.stack([c, i - read[0]]))  # noqa: E731
            like = jax.ShapeDtypeStruct((rows, 2), jnp.int32)
            return lane_rows(n, step, jnp.int32(1), like, at_once=4, read=[jnp.int32(3)])

    def expected(n):
        carry, rows = 1, []
        for i in range(n):
            rows.append([carry, i - 3])
            carry = 2 * carry + i
        return carry, np.reshape(rows, (n, 2))

    counts = np.arange(trips + 1)
    carries, tables = jax.vmap(lambda n: run(n, max(trips, 1)), axis_name=LANES)(jnp.asarray(counts))
    for n, carry, table in zip(counts, carries, tables, strict=True):
        np.testing.assert_array_equal(carry, expected(n)[0])
        np.testing.assert_array_equal(table[:n], expected(n)[1])
    carry, table = run(constant(trips))
    np.testing.assert_array_equal(carry, expected(trips)[0])
    np.testing.assert_array_equal(table, np.pad(expected(trips)[1], ((0, 9 - trips), (0, 0))))
    if iterations is not None:
        loops = primitives(jax.make_jaxpr(lambda: run(constant(trips)))().jaxpr, {"scan"})
        assert [e.params["length"] for e in loops] == [iterations]


def test_a_tensor_network_acts_with_matrices_that_are_formed_once():
    """Not in every env step, of which four are one iteration."""
    network = assign(TensorMLPHyperparams(), {"shape": "8=2^3", "bond_dim": 2, "mpo_layers": 1})
    hp: Any = PPOHyperparams(actor=network, critic=network)
    hp = assign(hp, {"num_envs": 2, "rollout_length": 8, "num_minibatches": 1, "epochs": 1})
    segment = segment_of([hp], envs.load("gymnax.pendulum"), 1)
    loops = primitives(segment.jaxpr, {"scan"})
    (rollout,) = [e for e in loops if e.params["length"] == 2]
    assert primitives(segment.jaxpr, {"custom_vjp_call"})
    assert not primitives(rollout.params["jaxpr"].jaxpr, {"custom_vjp_call"})


def test_packing_keeps_every_bit():
    tree = {
        "float": jnp.asarray([[1.5, -0.0], [np.inf, np.nan]]),
        "int": jnp.asarray([2**31 - 1, -(2**31)], jnp.int32),
        "word": jnp.asarray([[0xFFFFFFFF], [1]], jnp.uint32),
        "flag": jnp.asarray([True, False]),
        "small": jnp.asarray([200, 3], jnp.uint8),
        "key": jr.split(jr.key(7), 2),
        "complex": jnp.asarray([1 - 2j, -0.5j], jnp.complex64),
    }
    packing = Packing(tree, axes=1)
    packed = jax.jit(packing.pack)(tree)
    assert packed.shape == (2, packing.columns)
    back = jax.jit(packing.unpack)(packed)
    for name, x in tree.items():
        assert back[name].dtype == x.dtype
        data = (lambda k: jr.key_data(k)) if name == "key" else (lambda k: k)
        assert np.asarray(data(back[name])).tobytes() == np.asarray(data(x)).tobytes()


words = lambda seed, n: np.random.default_rng(seed).integers(0, 2**32, (n, 8), np.uint32)  # noqa: E731
swapped = jax.jit(jax.vmap(shuffling._swapped_or_not, in_axes=(None, None, 0)))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100])
def test_swap_or_not_permutes_every_number_of_indices(n):
    images = np.asarray(swapped(jnp.arange(n, dtype=jnp.uint32), jnp.int32(n), words(n, 50)))
    np.testing.assert_array_equal(np.sort(images, axis=1), np.tile(np.arange(n), (50, 1)))


@pytest.mark.parametrize("n", [3, 7, 16, 23])
def test_swap_or_not_sends_every_pair_to_any_pair_alike(n):
    index = jnp.arange(n, dtype=jnp.uint32)
    images = np.asarray(swapped(index, jnp.int32(n), words(n, 60 * n * n))).astype(int)
    for a, b in ((0, 1), (0, n - 1), (n // 2, n - 1)):
        counts = np.bincount(images[:, a] * n + images[:, b], minlength=n * n).reshape(n, n)
        assert stats.chisquare(counts[~np.eye(n, dtype=bool)]).pvalue > 1e-3


def sized(width):
    return jax.tree.map(jnp.asarray, assign(MLPHyperparams(), {"width": width, "depth": 2}))


def test_networks_of_one_structure_are_evaluated_together():
    """The same values as one by one, with a third of the matrix products; others are left apart.

    Apart, there are two products for each layer. Together there is one, and none for the four inputs.
    """
    env, hp, wider = envs.load("gymnax.cartpole"), sized(20), sized(24)

    @eqx.filter_jit
    def models():
        body = lambda k, h: h.network(env.obs_size, {**h.sizes(), "batch_last": False}, key=jr.key(k))  # noqa: E731
        critics = [Critic(body(2, h), key=jr.key(3)) for h in (hp, wider)]
        return Actor(body(0, hp), env.action_space, key=jr.key(1)), *critics

    actor, critic, other = models()
    x = jnp.linspace(-1, 1, env.obs_size)

    def both(actor, critic, x):
        policy, value = jointly((actor, critic), (x, x))
        return policy.log_probs, value

    apart = jax.make_jaxpr(both)(actor, critic, x)
    with tracing_for_accelerator():
        together = jax.make_jaxpr(lambda *args: both(*args))(actor, critic, x)
        found, left = eqx.filter_jit(lambda *m: [both(actor, c, x) for c in m])(critic, other)
        np.testing.assert_allclose(left[1], other(x), rtol=1e-5, atol=1e-6)
    named = {"dot_general", "hyperlax_affine_map"}
    assert [len(primitives(j.jaxpr, named)) for j in (apart, together)] == [6, 2]
    policy: Any = actor(x)
    np.testing.assert_allclose(found[0], policy.log_probs, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[1], critic(x), rtol=1e-5, atol=1e-6)


def test_biases_as_columns_of_weights_change_neither_values_nor_gradients():
    hp = sized(3)
    caps = {**merge([hp.sizes(), sized(6).sizes()]), "depth": 3, "batch_last": False}
    critic = Critic(hp.network(2, caps, key=jr.key(0)), key=jr.key(1))
    bias = jnp.where(jnp.arange(6) < hp.width, 0.1 * jnp.arange(1.0, 7.0), 0)
    critic = eqx.tree_at(lambda c: [x.bias for x in c.body.layers[:2]], critic, [bias] * 2)
    x = jr.normal(jr.key(2), (4, 2))

    @eqx.filter_value_and_grad
    def loss(critic):
        with tracing_a_loss():
            return jnp.sum(jnp.sin(jax.vmap(critic)(x)))

    plain = eqx.filter_jit(loss)(critic)
    with tracing_for_accelerator():
        fast = eqx.filter_jit(lambda critic: loss(critic))(critic)
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_fewest_slots_are_taken_that_keep_up_with_the_longest_lane():
    assert lockstep.makespan([5, 3, 2, 2], 2) == 7
    assert lockstep.slots_for([100] + [1] * 50) == 2
    assert lockstep.slots_for([10] * 6) == 6
    rng = np.random.default_rng(0)
    for _ in range(20):
        cycles = rng.integers(1, 1000, int(rng.integers(1, 60))).tolist()
        slots = lockstep.slots_for(cycles)
        assert lockstep.makespan(cycles, slots) <= lockstep.LONGER * max(cycles)
        assert slots == 1 or lockstep.makespan(cycles, slots - 1) > lockstep.LONGER * max(cycles)


def test_lanes_of_few_and_of_many_gradient_steps_do_not_wait_for_one_another():
    """On an accelerator they are in programs of their own, whose lanes fill fewer slots."""
    env = envs.load("gymnax.cartpole")
    few = [sample("ppo", num_envs=n, num_minibatches=1, epochs=1) for n in (16, 32, 64)]
    many = [sample("ppo", num_envs=n, num_minibatches=256, epochs=8, rollout_length=64) for n in (16, 32, 64)]
    programs = plan([*few, *many], env, 20_000_000, 4, ACCELERATOR)
    assert sorted(p.samples for p in programs) == [(0, 1, 2), (3, 4, 5)]
    for program in programs:
        assert program.accelerator
        assert 4 <= program.slots < 12
        assert program.useful_share > 0.6
        assert program.caps["env_blocks"] == 1
        assert len(program.caps["minibatch_chunks"]) == 1
        about = json.loads(json.dumps(program.describe()))
        assert Program.restored(about).key == program.key
        assert (program.slots, dict(program.shared)) == (about["slots"], about["shared"])
        assert Program.restored({**about, "shared": {}}).key != program.key
    assert not plan(few, env, 1000, 1, CPU)[0].shared


def test_a_plan_without_these_entries_is_restored_as_one_for_a_cpu():
    env = envs.load("gymnax.cartpole")
    about = json.loads(json.dumps(plan([sample("ppo")], env, 1000, 1, CPU)[0].describe()))
    for name in ("accelerator", "shared", "slots"):
        del about[name]
    program = Program.restored(about)
    assert (program.accelerator, dict(program.shared), program.slots) == (False, {}, 0)
    assert program.samples == (0,)


@pytest.mark.parametrize("largest", [0, compiled.SMALL_STATE], ids=["one lane moves", "all move"])
def test_a_lane_is_placed_and_taken_without_touching_the_others(largest, monkeypatch):
    """On several devices, each of which keeps its part of the state."""
    monkeypatch.setattr(compiled, "SMALL_STATE", largest)
    devices, rng = jax.devices()[:2], np.random.default_rng(0)
    hp, env = jax.tree.map(jnp.asarray, sample("ppo")), envs.load("gymnax.cartpole")
    like = compiled.state_like(hp, env, hp.capacities([hp.sizes()], [1], env))
    fill = lambda *lead: jax.tree.map(  # noqa: E731
        lambda x: rng.integers(0, 99, (*lead, *x.shape)).astype(x.dtype), like
    )
    unused: Any = pytest.fail
    copies = [compiled.Copy(d, unused, unused, unused) for d in devices]
    program = compiled.Compiled(4, copies, like, 0.0, 0.0, 0)
    before, lane = [fill(2), fill(2)], fill()
    after = program.place([jax.device_put(s, d) for s, d in zip(before, devices, strict=True)], 2, lane)
    for state, device in zip(after, devices, strict=True):
        assert all(x.devices() == {device} for x in jax.tree.leaves(state))
    found = jax.tree.map(np.asarray, after)
    for x, old, new in zip(*map(jax.tree.leaves, (found[1], before[1], lane)), strict=True):
        np.testing.assert_array_equal(x, np.concatenate([new[None], old[1:]]))
    for x, old in zip(jax.tree.leaves(found[0]), jax.tree.leaves(before[0]), strict=True):
        np.testing.assert_array_equal(x, old)
    for slot in range(4):
        for x, y in zip(*map(jax.tree.leaves, (program.lane(after, slot), found[slot // 2])), strict=True):
            assert isinstance(x, np.ndarray)
            np.testing.assert_array_equal(x, y[slot % 2])
