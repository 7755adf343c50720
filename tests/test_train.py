"""The training loop of one lane: counts, continuation, divergence and metrics."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax import envs
from hyperlax.agents import PPOHyperparams
from hyperlax.hyperparams import assign, trainable
from hyperlax.programs import train

ENV = envs.load("gymnax.cartpole")
HP = assign(
    PPOHyperparams(),
    {
        "num_envs": 3,
        "rollout_length": 4,
        "epochs": 2,
        "num_minibatches": 2,
        "actor_lr": 1e-3,
        "actor.width": 4,
        "actor.depth": 1,
        "critic.width": 4,
        "critic.depth": 1,
    },
)
CAPS = HP.capacities([HP.sizes()], [1], ENV)


@jax.jit
def begun(hp, key, init_key):
    return train.start(hp, ENV, CAPS, jnp.int32(600), key=key, init_key=init_key)


@jax.jit
def trained(state, cycles):
    return train.segment(state, ENV, CAPS, cycles)


def start(key=0, init_key=1, **changes):
    hp = jax.tree.map(jnp.asarray, assign(HP, changes))
    return begun(hp, *(jr.key_data(jr.key(k)) for k in (key, init_key)))


STILL = {"actor_lr": 0.0, "critic_lr": 0.0, "decay_learning_rates": False, "epochs": 1}
"""What lets no weight move, so that all gradients of a cycle are taken at the same weights."""


def measured(cycles=1, **changes):
    """The means of the metrics over the last of so many cycles."""
    state, _ = train.read_metrics(trained(start(**changes), jnp.int32(cycles - 1)))
    return train.read_metrics(trained(state, jnp.int32(1)))[1]


def bits(tree):
    return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def after_ten():
    return trained(start(), jnp.int32(10))


def test_steps_are_counted(after_ten):
    assert (after_ten.cycles, after_ten.metric_steps) == (10, 40)
    assert after_ten.env_steps == 10 * 3 * 4
    assert after_ten.gradient_steps == 10 * 2 * 2
    assert after_ten.diverged_at == train.NEVER


def test_training_in_several_segments_equals_training_in_one(after_ten):
    state = start()
    for cycles in (1, 0, 5, 4):
        state = trained(state, jnp.int32(cycles))
    assert eqx.tree_equal(state, after_ten)


def test_weights_move_and_hyperparameters_do_not(after_ten):
    first = start()
    assert eqx.tree_equal(first.agent.hp, after_ten.agent.hp)
    weights = [eqx.filter(s.agent.actor, trainable(s.agent.actor)) for s in (first, after_ten)]
    moved = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, weights), strict=True)]
    assert all(moved)


def test_initial_weights_come_from_their_own_key():
    a, b, c = start(0, 1), start(5, 1), start(0, 2)
    assert eqx.tree_equal(a.agent, b.agent)
    assert not eqx.tree_equal(a.envs, b.envs)
    assert eqx.tree_equal(a.envs, c.envs)
    assert not eqx.tree_equal(a.agent, c.agent)


def test_a_lane_stops_in_the_cycle_in_which_it_diverges():
    state = trained(start(), jnp.int32(3))
    broken = eqx.tree_at(lambda s: s.agent.critic.head.bias, state, jnp.full(1, jnp.nan))
    after = trained(broken, jnp.int32(10))
    assert after.diverged_at == after.env_steps == 4 * 12
    assert after.cycles == 4
    assert bits(trained(after, jnp.int32(5))) == bits(after), "and never moves again"


def test_metrics_are_means_over_the_gradient_steps_since_they_were_last_read(after_ten):
    separate = []
    state = start()
    for _ in range(3):
        state, means = train.read_metrics(trained(state, jnp.int32(1)))
        separate.append(means)
    _, together = train.read_metrics(trained(start(), jnp.int32(3)))
    for name in set(together) - {"return", "length"}:
        expected = np.mean([m[name] for m in separate])
        np.testing.assert_allclose(together[name], expected, rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_cycle_with_more_gradient_steps_weighs_more(after_ten):
    """As after a checkpoint at which the passes have been changed: four steps, then two."""
    state, first = train.read_metrics(trained(start(), jnp.int32(1)))
    fewer = eqx.tree_at(lambda s: s.agent.hp.epochs, state, jnp.int32(1))
    _, second = train.read_metrics(trained(fewer, jnp.int32(1)))
    once = trained(start(), jnp.int32(1))
    _, both = train.read_metrics(
        trained(eqx.tree_at(lambda s: s.agent.hp.epochs, once, jnp.int32(1)), jnp.int32(1))
    )
    assert first["value_loss"] != second["value_loss"]
    for means in (first, second):  # of two actions, between which a young policy hardly chooses
        np.testing.assert_allclose(means["entropy"], np.log(2), rtol=0.02)
    for name in set(both) - {"return", "length"}:
        wanted = (4 * first[name] + 2 * second[name]) / 6
        np.testing.assert_allclose(both[name], wanted, rtol=1e-4, atol=1e-6, err_msg=name)


def test_step_sizes_are_those_that_are_due_at_the_start_of_a_cycle():
    """Each of the 50 cycles of the budget takes a fiftieth off, unless they are constant."""
    for cycles, share in ((1, 1.0), (2, 0.98), (50, 0.02)):
        np.testing.assert_allclose(measured(cycles)["actor_lr"], 1e-3 * share, rtol=1e-4)
    np.testing.assert_allclose(measured(2, decay_learning_rates=False)["actor_lr"], 1e-3, rtol=1e-6)


@pytest.mark.parametrize(("remainder", "sizes"), [("drop", (4, 4)), ("spread", (5, 4))])
def test_losses_are_added_or_averaged_over_minibatches_that_drop_or_spread_the_remainder(remainder, sizes):
    """Of nine samples. The gradient of a sum is that of a mean times the size of the minibatch."""
    how: dict[str, Any] = {**STILL, "rollout_length": 3, "minibatch_remainder": remainder}
    mean, total = (measured(**how, loss_reduction=by)["critic_grad_norm"] for by in ("mean", "sum"))
    assert (abs(total / mean - 4) < 1e-3) == (sizes == (4, 4))
    assert 4 - 1e-3 < total / mean < 5


def test_advantages_are_standardised_as_the_hyperparameters_say():
    losses = [
        float(measured(1, **STILL, **how)["actor_grad_norm"])
        for how in (
            {"advantage_statistics": "batch"},
            {"advantage_statistics": "time_step"},
            {"standardize_advantages": False},
        )
    ]
    assert len(set(losses)) == 3, losses


def test_a_gradient_is_clipped_before_adam():
    """Where a gradient is far below the ε of Adam, steps shrink with it."""
    heads = lambda state: (state.agent.actor.head.layer.weight, state.agent.critic.head.weight)  # noqa: E731
    first = heads(start())
    for most, moves in ((0.5, True), (1e-12, False)):
        after = heads(trained(start(max_grad_norm=most), jnp.int32(1)))
        assert [bool(jnp.abs(x - y).max() > 1e-4) for x, y in zip(after, first, strict=True)] == [moves] * 2


def test_the_rollout_that_spends_the_budget_can_be_left_unlearned():
    for cycles, how, learns in ((49, "unlearned", True), (50, "unlearned", False), (50, "learned", True)):
        found = measured(cycles, last_rollout=how)
        assert (found["actor_grad_norm"] > 0) == (found["critic_grad_norm"] > 0) == learns, (cycles, how)


def test_observations_are_normalised_as_the_hyperparameters_say():
    """Before or after they are acted on; in evaluation always, or as in training."""
    obs, valid = jnp.ones((3, ENV.obs_size)), jnp.ones(3, bool)
    for order, counts in (("after_learning", (12, 15)), ("before_acting", (15, 15))):
        agent = trained(start(normaliser_order=order), jnp.int32(1)).agent
        assert (agent.normaliser.count, agent.seen.count) == (12, 12)
        agent = agent.observe(obs, valid)
        assert (agent.normaliser.count, agent.seen.count) == counts
    for how, normalises in (("always", True), ("as_trained", False)):
        off = {"normalize_observations": False, "evaluation_normalisation": how}
        agent = trained(start(**off), jnp.int32(1)).agent
        np.testing.assert_array_equal(agent.features(obs[0]), obs[0])
        assert bool((agent.for_evaluation().features(obs[0]) != obs[0]).any()) == normalises


@pytest.mark.parametrize("meaning", ["termination", "truncation"])
def test_a_time_limit_is_what_the_hyperparameters_say(monkeypatch, meaning):
    class SeenError(Exception):
        pass

    def collect(agent, env, envs, num_envs, rollout_length, cap, terminates, active, *, key):
        raise SeenError(bool(terminates))

    monkeypatch.setattr(train, "collect", collect)
    with pytest.raises(SeenError, match=str(meaning == "termination")):
        train._cycle(start(time_limit=meaning), ENV, CAPS, jnp.bool_(True))


def test_training_episodes_are_averaged_and_absent_ones_are_not_a_number(after_ten):
    cleared, means = train.read_metrics(after_ten)
    ended = after_ten.finished
    assert ended.episodes > 0
    np.testing.assert_allclose(means["return"], ended.returns / ended.episodes, rtol=1e-6)
    assert means["length"] == means["return"], "cartpole rewards every step with one"
    assert 8 <= means["length"] <= 40
    _, nothing = train.read_metrics(cleared)
    assert all(jnp.isnan(value) for value in nothing.values())
    assert eqx.tree_equal(cleared.agent, after_ten.agent)


def test_evaluations_draw_from_streams_that_training_does_not_use():
    """Also before training and after a single step, whose numbers are those of streams of the first cycle."""
    key = jnp.asarray([3, 4], jnp.uint32)
    taken = [jr.split(jr.fold_in(jr.wrap_key_data(key), cycle + 1)) for cycle in range(8)]
    used = {tuple(np.asarray(jr.key_data(k)).tolist()) for pair in taken for k in pair}
    for steps in (0, 1, 2, 3, 64, 1_000_000, 2**31 - 1):
        own = tuple(np.asarray(jr.key_data(train.evaluation_key(key, jnp.int32(steps)))).tolist())
        assert own not in used, steps
        used.add(own)
