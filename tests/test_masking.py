"""Lane-uniform control flow, masked statistics, and shuffling without a sort."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.extend.core import ClosedJaxpr
from lanes import quick
from scipy import stats

from hyperlax.lanes.constants import tracing_for_accelerator
from hyperlax.lanes.masking import (
    LANES,
    batched,
    freeze,
    lane_any,
    lane_cond,
    lane_loop,
    lane_loop_with_scratch,
    lane_max,
    lane_while,
    masked_mean,
    masked_moments,
    masked_sum,
    row_keys,
    standard_normal,
)
from hyperlax.lanes.shuffling import permuted

COUNTS = jnp.asarray([3, 0, 7, 1], jnp.int32)
STARTS = jnp.asarray([1.0, -2.0, 0.5, 3.0])


def lanes(f):
    return jax.vmap(f, axis_name=LANES)


def equations(jaxpr):
    """Every equation of a jaxpr, including those inside loops and branches."""
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr)):
            if isinstance(inner, ClosedJaxpr):
                yield from equations(inner.jaxpr)


def traced(f, *args):
    return list(equations(jax.make_jaxpr(f)(*args).jaxpr))


def selected_shapes(eqns):
    return {eqn.outvars[0].aval.shape for eqn in eqns if eqn.primitive.name == "select_n"}


def step(i, x):
    return x * 0.5 + i


def plain_loop(n, x):
    for i in range(int(n)):
        x = np.float32(x) * np.float32(0.5) + np.float32(i)
    return x


@jax.jit
def looped(n, x):
    return lane_loop(n, lambda i, c: step(i.astype(jnp.float32), c), x)


def test_a_loop_runs_as_often_as_each_lane_asks():
    together = quick(lanes(looped))(COUNTS, STARTS)
    for i in range(4):
        np.testing.assert_allclose(together[i], plain_loop(COUNTS[i], STARTS[i]), rtol=1e-6)
        assert looped(COUNTS[i], STARTS[i]) == together[i]


def test_a_loop_with_scratch_keeps_the_carry_of_lanes_that_are_done():
    def run(n, x):
        def body(i, carry, scratch):
            carry = step(i.astype(jnp.float32), carry)
            return carry, scratch.at[i].set(carry)

        return lane_loop_with_scratch(n, body, x, jnp.zeros(8))

    final, written = quick(lanes(run))(COUNTS, STARTS)
    np.testing.assert_array_equal(final, quick(lanes(looped))(COUNTS, STARTS))
    alone = quick(run)
    for i, n in enumerate(COUNTS):
        alone_final, alone_written = alone(n, STARTS[i])
        assert alone_final == final[i]
        np.testing.assert_array_equal(written[i, : int(n)], alone_written[: int(n)])


def collatz(x):
    return jnp.where(x % 2 == 0, x // 2, 3 * x + 1)


def test_a_while_loop_stops_for_each_lane_on_its_own():
    def run(x):
        return lane_while(lambda c: c[0] != 1, lambda c: (collatz(c[0]), c[1] + 1), (x, jnp.int32(0)))

    starts = jnp.asarray([1, 6, 27, 97], jnp.int32)
    final, steps = quick(lanes(run))(starts)
    assert final.tolist() == [1] * 4
    assert steps.tolist() == [0, 8, 111, 118]
    alone = quick(run)
    assert [int(alone(x)[1]) for x in starts] == [0, 8, 111, 118]


def test_a_branch_is_taken_by_the_lanes_that_want_it():
    def run(pred, x):
        return lane_cond(pred, lambda y: y * 10, lambda y: y - 1, x)

    every, alone = quick(lanes(run)), quick(run)
    for wanted in ([False] * 4, [True] * 4, [True, False, False, True]):
        together = every(jnp.asarray(wanted), STARTS)
        expected = [x * 10 if w else x - 1 for w, x in zip(wanted, np.asarray(STARTS), strict=True)]
        np.testing.assert_array_equal(together, expected)
        assert [alone(jnp.asarray(w), x) for w, x in zip(wanted, STARTS, strict=True)] == list(together)


def test_iterations_past_its_count_do_not_change_a_lane():
    """Squaring overflows in the longer lane; the lane that stopped earlier keeps its value."""
    run = quick(lanes(lambda n, x: lane_loop(n, lambda i, c: c * c, x)))
    kept, broken = run(jnp.asarray([1, 9], jnp.int32), jnp.full(2, 1e5))
    assert kept == jnp.float32(1e5) ** 2
    assert jnp.isinf(broken)


def test_bounds_and_predicates_stay_scalars_under_vmap():
    """With a batched bound, `vmap` would select the predicate and the carry of the loop per lane."""

    def run(n, pred, x):
        y = lane_loop(n, lambda i, c: c * 0.5, x)
        y = lane_while(lambda c: jnp.sum(c) > 1, lambda c: c * 0.5, y)
        return lane_cond(pred, lambda z: jnp.sort(z), lambda z: z, y)

    x = jnp.ones((4, 1000))
    eqns = traced(lanes(run), COUNTS, COUNTS > 2, x)
    loops = [e for e in eqns if e.primitive.name == "while"]
    assert len(loops) == 2
    for loop in loops:
        assert [v.aval.shape for v in loop.params["cond_jaxpr"].jaxpr.outvars] == [()]
    branches = [e for e in eqns if e.primitive.name == "cond"]
    assert [e.invars[0].aval.shape for e in branches] == [()]
    assert "sort" not in {e.primitive.name for e in equations(branches[0].params["branches"][0].jaxpr)}


def test_the_scalar_predicate_check_notices_an_ordinary_branch():
    def run(pred, x):
        return jax.lax.cond(pred, jnp.sort, lambda z: z, x)

    eqns = traced(lanes(run), COUNTS > 2, jnp.ones((4, 1000)))
    assert "cond" not in {e.primitive.name for e in eqns}
    assert (4, 1000) in selected_shapes(eqns)


def test_scratch_is_never_copied_to_undo_writes():
    def run(n, x):
        body = lambda i, c, s: (c + 1, s.at[i].set(c))  # noqa: E731
        return lane_loop_with_scratch(n, body, x, jnp.zeros(1000))

    assert (4, 1000) not in selected_shapes(traced(lanes(run), COUNTS, STARTS))

    def frozen(n, x):
        return lane_loop(n, lambda i, cs: (cs[0] + 1, cs[1].at[i].set(cs[0])), (x, jnp.zeros(1000)))

    assert (4, 1000) in selected_shapes(traced(lanes(frozen), COUNTS, STARTS))


def test_a_single_lane_is_traced_without_masks():
    eqns = traced(looped, COUNTS[0], STARTS[0]) + traced(
        lambda p, x: lane_cond(p, jnp.sin, jnp.cos, x), COUNTS[0] > 0, STARTS[0]
    )
    assert "select_n" not in {e.primitive.name for e in eqns}


def test_reductions_over_lanes():
    maxima = lanes(lane_max)(COUNTS)
    assert maxima.tolist() == [7] * 4
    assert lanes(lambda n: lane_any(n > 6))(COUNTS).tolist() == [True] * 4
    assert lanes(lambda n: lane_any(n > 7))(COUNTS).tolist() == [False] * 4
    assert lane_max(jnp.int32(5)) == 5
    assert not lane_any(jnp.bool_(False))


def test_batched_knows_where_it_is():
    seen = []
    lanes(lambda x: seen.append(batched()) or x)(STARTS)
    jax.vmap(lambda x: seen.append(batched()) or x)(STARTS)
    seen.append(batched())
    assert seen == [True, False, False]


def test_freeze_keeps_leaves_that_did_not_change():
    kept, old, new = jnp.ones(3), jnp.zeros(2), jnp.ones(2)
    for active in (True, False):
        frozen = freeze(jnp.bool_(active), (kept, new), (kept, old))
        assert frozen[0] is kept
        np.testing.assert_array_equal(frozen[1], new if active else old)


def moments_on_accelerators(x, valid):
    with tracing_for_accelerator():
        return masked_moments(x, valid)


MOMENTS = pytest.mark.parametrize(
    "moments", [masked_moments, moments_on_accelerators], ids=["cpu", "accelerator"]
)


@MOMENTS
def test_masked_statistics_equal_those_of_the_valid_rows_alone(moments):
    rng = np.random.default_rng(0)
    statistics = quick(lambda x, valid: (masked_sum(x, valid), masked_mean(x, valid), moments(x, valid)))
    for _ in range(5):
        n = int(rng.integers(1, 40))
        shape = (n, *rng.integers(1, 4, rng.integers(0, 3)))
        x = rng.normal(3, 2, shape).astype(np.float32)
        valid = rng.random(n) < 0.6
        valid[rng.integers(n)] = True
        x[~valid] = np.nan
        good = x[valid].astype(np.float64)
        total, average, (mean, variance) = statistics(x, valid)
        np.testing.assert_allclose(total, good.sum(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(average, good.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mean, good.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(variance, good.var(0), rtol=1e-4, atol=1e-6)


@MOMENTS
def test_masked_statistics_without_valid_rows_are_zero(moments):
    x, none = jnp.full((3, 2), jnp.nan), jnp.zeros(3, bool)
    for result in (masked_sum(x, none), masked_mean(x, none), *moments(x, none)):
        np.testing.assert_array_equal(result, np.zeros(2))


@MOMENTS
def test_variance_survives_a_large_mean(moments):
    x = np.random.default_rng(0).normal(1e4, 1, 500).astype(np.float32)
    _, variance = moments(jnp.asarray(x), jnp.ones(500, bool))
    np.testing.assert_allclose(variance, x.astype(np.float64).var(), rtol=1e-3)
    _, none = moments(jnp.full(500, 0.1), jnp.ones(500, bool))
    np.testing.assert_allclose(none, 0, atol=1e-12)


def test_moments_on_accelerators_are_taken_in_one_pass_in_every_lane():
    x = np.random.default_rng(0).normal(3, 2, (4, 7)).astype(np.float32)
    lanes = jax.vmap(moments_on_accelerators, (0, None))
    reductions = [e for e in jax.make_jaxpr(lanes)(x, jnp.ones(7, bool)).eqns if "reduce" in e.primitive.name]
    assert len(reductions) == 1
    mean, variance = lanes(x, jnp.arange(7) < 5)
    np.testing.assert_allclose(mean, x[:, :5].mean(1), rtol=1e-5)
    np.testing.assert_allclose(variance, x[:, :5].var(1), rtol=1e-4)


def test_normal_numbers_of_random_words_are_those_of_jax():
    key = jr.key(3)
    drawn = jax.jit(lambda k: (standard_normal(jr.bits(k, (1000,))), jr.normal(k, (1000,))))(key)
    np.testing.assert_array_equal(*drawn)


def test_row_keys_do_not_depend_on_how_many_there_are():
    key = jr.key(3)
    few, many = jr.key_data(row_keys(key, 5)), jr.key_data(row_keys(key, 17))
    np.testing.assert_array_equal(few, many[:5])
    assert len({tuple(k) for k in many.tolist()}) == 17


def words(seed, count):
    return jr.bits(jr.key(seed), (count, 8), jnp.uint32)


shuffle = jax.jit(permuted)
shuffles = jax.jit(jax.vmap(permuted, in_axes=(None, None, 0)))
shuffles_of_many_sizes = jax.jit(jax.vmap(permuted, in_axes=(None, 0, 0)))


def test_every_size_gives_a_bijection():
    sizes = jnp.arange(1, 301, dtype=jnp.int32)
    images = np.asarray(shuffles_of_many_sizes(jnp.arange(300), sizes, words(0, 300)))
    for n, row in zip(range(1, 301), images, strict=True):
        np.testing.assert_array_equal(np.sort(row[:n]), np.arange(n))
        assert ((row >= 0) & (row < n)).all(), "places that do not exist still map inside"


@pytest.mark.parametrize("n", [2**15, 2**17 + 1, 1_000_003])
def test_large_sizes_give_a_bijection_that_moves_almost_everything(n):
    index = jnp.arange(n, dtype=jnp.int32)
    image = np.asarray(shuffle(index, jnp.int32(n), words(n, 1)[0]))
    assert (np.bincount(image, minlength=n) == 1).all()
    assert (image == np.arange(n)).sum() < 20, "about one place is expected to stay"
    assert abs(np.corrcoef(image, np.arange(n))[0, 1]) < 5 / np.sqrt(n)


def test_a_shuffle_does_not_depend_on_how_it_is_read():
    """Padding, blocks and the order of the indices do not change the permutation."""
    rng = np.random.default_rng(0)
    n, key = 777, words(1, 1)[0]
    whole = np.asarray(shuffle(jnp.arange(777), jnp.int32(n), key))
    for _ in range(2):
        size = int(rng.integers(1, 300))
        blocks = [shuffle(jnp.arange(i, i + size), jnp.int32(n), key) for i in range(0, n, size)]
        np.testing.assert_array_equal(np.concatenate(blocks)[:n], whole)
    mixed = rng.permutation(n)[:100]
    np.testing.assert_array_equal(shuffle(jnp.asarray(mixed), jnp.int32(n), key), whole[mixed])


def test_different_words_give_different_shuffles():
    images = np.asarray(shuffles(jnp.arange(50), jnp.int32(50), words(2, 200)))
    assert len({tuple(row) for row in images.tolist()}) == 200


def significance(counts):
    return stats.chisquare(np.asarray(counts).reshape(-1)).pvalue


@pytest.mark.parametrize("n", [5, 13, 64, pytest.param(100, marks=pytest.mark.slow)])
def test_every_index_is_equally_likely_to_be_sent_anywhere(n):
    draws = 400 * n
    images = np.asarray(shuffles(jnp.arange(n), jnp.int32(n), words(n, draws)))
    for place in (0, n // 2, n - 1):
        assert significance(np.bincount(images[:, place], minlength=n)) > 1e-3


@pytest.mark.parametrize("n", [3, 7, 16, 23])
def test_every_pair_of_indices_is_equally_likely_to_be_sent_to_any_pair(n):
    images = np.asarray(shuffles(jnp.arange(n), jnp.int32(n), words(100 + n, 60 * n * n)))
    for a, b in ((0, 1), (0, n - 1), (n // 2, n - 1)):
        counts = np.bincount(images[:, a] * n + images[:, b], minlength=n * n).reshape(n, n)
        assert significance(counts[~np.eye(n, dtype=bool)]) > 1e-3
