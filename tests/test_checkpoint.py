"""Packed trees are restored exactly, and any damage to them is noticed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hyperlax.storage.checkpoint import pack, read_header, structure, unpack

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", jnp.bfloat16, jnp.float8_e4m3fn),
]


def random_array(rng, dtype):
    """Draw an array of random bytes and random shape, with zero sizes, NaNs, infinities and signed zeros."""
    shape = tuple(int(n) for n in rng.integers(0, 4, rng.integers(0, 4)))
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    count = int(np.prod(shape, dtype=np.int64))
    return np.frombuffer(rng.bytes(count * kind.itemsize), kind).reshape(shape)


def example(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "weights": rng.normal(size=(3, 4)).astype(np.float32),
        "rest": [np.arange(5, dtype=np.uint32), (np.bool_(True), np.int32(7))],
    }


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (np.asarray(x).dtype, np.shape(x)) == (np.asarray(y).dtype, np.shape(y))
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_survives_bit_by_bit(dtype):
    rng = np.random.default_rng(1)
    for _ in range(10):
        tree = {"a": random_array(rng, dtype), "b": [random_array(rng, dtype), random_array(rng, "float32")]}
        assert_same(unpack(pack(tree), tree), tree)


def test_device_arrays_come_back_as_writable_host_arrays():
    tree = jax.tree.map(jnp.asarray, example())
    back = unpack(pack(tree), jax.eval_shape(lambda: tree))
    assert_same(back, tree)
    back["weights"][0, 0] = 5.0


def test_views_and_other_byte_orders_of_memory_are_stored_as_seen():
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    for view in (matrix.T, matrix[::2, ::-1], np.asfortranarray(matrix)):
        assert_same(unpack(pack([view]), [view]), [np.ascontiguousarray(view)])


def test_the_header_is_readable_alone():
    header = read_header(pack(example(), env="gymnax.pendulum", lanes=[{"lane": 0}]))
    assert header["env"] == "gymnax.pendulum"
    assert header["lanes"] == [{"lane": 0}]


def test_any_flipped_bit_is_noticed():
    data = pack(example(), note="a header of some length")
    rng = np.random.default_rng(2)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(ValueError, match="old state is damaged"):
            unpack(bytes(damaged), example(), "old state")


def test_any_truncation_is_noticed():
    data = pack(example())
    for size in range(len(data)):
        with pytest.raises(ValueError, match="damaged"):
            unpack(data[:size], example())
    with pytest.raises(ValueError, match="damaged"):
        unpack(data + b"\0", example())


@pytest.mark.parametrize(
    "other",
    [
        lambda t: t | {"more": np.zeros(1)},
        lambda t: {"weights": t["weights"]},
        lambda t: t | {"weights": t["weights"].T},
        lambda t: t | {"weights": t["weights"].astype(np.float64)},
        lambda t: {"renamed": t["weights"], "rest": t["rest"]},
    ],
    ids=["more", "fewer", "shape", "dtype", "name"],
)
def test_another_structure_is_refused(other):
    tree = example()
    assert structure(other(tree)) != structure(tree)
    with pytest.raises(ValueError, match="built differently"):
        unpack(pack(tree), other(tree))


def test_another_format_is_refused(monkeypatch):
    with monkeypatch.context() as changed:
        changed.setattr("hyperlax.storage.checkpoint.FORMAT", 2)
        data = pack(example())
    with pytest.raises(ValueError, match="format 2, this version reads 1"):
        unpack(data, example())
