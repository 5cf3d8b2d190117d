"""Copying tensors into params: any strides, any floats, without spare memory."""

import itertools

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxheads.weights.convert import aligned_empty, all_finite, copy_into
from jaxheads.weights.digest import params_sha256

FLOATS = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]


@pytest.mark.parametrize("stored", FLOATS)
@pytest.mark.parametrize("wanted", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_a_copy_equals_numpys_in_every_order_of_axes(stored, wanted):
    rng = np.random.default_rng(0)
    source = rng.normal(size=(290, 3, 261)).astype(stored)  # tiles do not divide it
    for order in itertools.permutations(range(3)):
        view = source.transpose(order)
        target = aligned_empty(view.shape, np.dtype(wanted))
        assert copy_into(target, view)
        np.testing.assert_array_equal(target, view.astype(wanted))


@pytest.mark.parametrize("shape", [(), (0,), (7,), (1, 200_001), (200_001, 1), (3, 0)])
def test_odd_shapes_are_copied(shape):
    source = np.random.default_rng(0).normal(size=shape).astype(ml_dtypes.bfloat16)
    target = aligned_empty(shape, np.dtype(np.float32))
    assert copy_into(target, source)
    np.testing.assert_array_equal(target, source.astype(np.float32))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_element_is_seen(dtype, bad):
    largest = ml_dtypes.finfo(dtype).max
    values = np.full((3, 50_000), largest, dtype)
    values[0, 0] = ml_dtypes.finfo(dtype).smallest_subnormal
    assert all_finite(values)
    values[2, 49_999] = bad
    assert not all_finite(values)
    wide = aligned_empty(values.shape, np.dtype(np.float64))
    assert not copy_into(wide, values)
    assert not copy_into(wide.T, values.T)  # by tiles


def test_a_leaf_becomes_a_parameter_without_a_copy():
    values = aligned_empty((1000, 33), np.dtype(np.float32))
    values[...] = 1
    placed = jax.device_put(values)
    assert placed.unsafe_buffer_pointer() == values.ctypes.data


def test_the_hash_sees_names_shapes_dtypes_and_bytes():
    base = {"a": np.arange(6, dtype=np.float32), "b": np.zeros(2, np.float32)}
    others = [
        {"a": base["b"], "b": base["a"]},
        {"a": base["a"].reshape(2, 3), "b": base["b"]},
        {"a": base["a"], "b": np.zeros(2, np.int32)},
        {"a": base["a"] + np.float32(1e-6), "b": base["b"]},
        {"a": base["a"]},
    ]
    hashes = [params_sha256(tree) for tree in [base, *others]]
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == params_sha256(dict(reversed(base.items())))
