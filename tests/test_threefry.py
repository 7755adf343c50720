"""Random numbers computed without loops equal those of jax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from hyperlax.lanes.threefry import unrolled_key

DATA = jnp.asarray([7, 2**32 - 5], jnp.uint32)


@pytest.mark.parametrize(
    "draw",
    [
        lambda k: jr.bits(k, (301,)),
        lambda k: jr.bits(k, (3, 5), jnp.uint8),
        lambda k: jr.uniform(k, (4, 3)),
        lambda k: jr.normal(k, (2, 3)),
        lambda k: jr.randint(k, (9,), 0, 1000),
        lambda k: jr.key_data(jr.split(k, (2, 3))),
        lambda k: jr.key_data(jr.fold_in(k, 2**32 - 1)),
        lambda k: jax.vmap(lambda i: jr.uniform(jr.fold_in(k, i), (2,)))(jnp.arange(5)),
    ],
)
def test_the_numbers_are_those_of_jax(draw):
    np.testing.assert_array_equal(
        *(
            jax.jit(lambda data, wrap=wrap: draw(wrap(data)))(DATA)
            for wrap in (jr.wrap_key_data, unrolled_key)
        )
    )


def test_no_loop_is_left():
    program = jax.jit(lambda data: jr.normal(jr.split(unrolled_key(data))[0], (300,))).lower(DATA)
    assert "while" not in program.as_text()


def test_more_than_32_bits_are_refused():
    with jax.enable_x64(True), pytest.raises(ValueError, match="at most 32"):
        jr.bits(unrolled_key(DATA), (2,), jnp.uint64)
