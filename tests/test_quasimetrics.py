"""Quasimetrics against golden values, loops in float64 and the axioms; pairwise forms against elementwise forms."""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from goalax.learning import pairwise, quasimetrics

GOLDEN = np.load(Path(__file__).parent / "golden" / "quasimetrics.npz")
ALPHA_RAW = 0.3
jit = partial(jax.jit, static_argnames="num_components")
FORMS = {
    "mrn": (jit(quasimetrics.mrn), jit(quasimetrics.pairwise_mrn)),
    "mrn_max": (jit(quasimetrics.mrn_max), jit(quasimetrics.pairwise_mrn_max)),
    "iqe": tuple(jit(partial(f, alpha_raw=ALPHA_RAW)) for f in (quasimetrics.iqe, quasimetrics.pairwise_iqe)),
    "euclidean": (jit(quasimetrics.euclidean), jit(quasimetrics.pairwise_euclidean)),
}
ROOTS = ("mrn", "euclidean")  # of sums of squares, which matrix products make
SELF_DISTANCE = {"mrn_max": 0.0, "iqe": 0.0} | dict.fromkeys(ROOTS, np.sqrt(quasimetrics.EPS))
each_quasimetric = pytest.mark.parametrize("name", FORMS)


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def on_all_pairs(distance):
    return lambda x, y: jax.vmap(lambda a: jax.vmap(lambda b: distance(a, b))(y))(x)


def union_length(intervals):
    """Total length of the elementary segments between endpoints that some interval covers."""
    ends = sorted({end for interval in intervals for end in interval})
    return sum(b - a for a, b in itertools.pairwise(ends) if any(low <= a and b <= high for low, high in intervals))


def loop_mrn(x, y, num_components):
    half = len(x) // num_components // 2
    total = 0.0
    for start in range(0, len(x), 2 * half):
        gains = [x[i] - y[i] for i in range(start, start + half)]
        squares = [(x[i] - y[i]) ** 2 for i in range(start + half, start + 2 * half)]
        total += max(0.0, *gains) + np.sqrt(sum(squares) + 1e-6)
    return total / num_components


def loop_mrn_max(x, y, num_components):
    size = len(x) // num_components
    chunks = [range(start, start + size) for start in range(0, len(x), size)]
    return sum(max(0.0, *(x[i] - y[i] for i in chunk)) for chunk in chunks) / num_components


def loop_iqe(x, y, num_components):
    rows = [range(start, start + num_components) for start in range(0, len(x), num_components)]
    lengths = [union_length([(x[i], y[i]) for i in row if x[i] < y[i]]) for row in rows]
    alpha = 1 / (1 + np.exp(-ALPHA_RAW))
    return alpha * sum(lengths) / len(rows) + (1 - alpha) * max(lengths)


def loop_euclidean(x, y, num_components):
    parts = zip(np.split(x, num_components), np.split(y, num_components), strict=True)
    return sum(np.sqrt(sum((a - b) ** 2) + 1e-6) for a, b in parts) / num_components


LOOPS = {"mrn": loop_mrn, "mrn_max": loop_mrn_max, "iqe": loop_iqe, "euclidean": loop_euclidean}


@pytest.mark.parametrize("name", ["mrn", "mrn_max", "iqe"])
def test_golden_values(name):
    x, y, raw = GOLDEN["x"], GOLDEN["y"], float(GOLDEN["alpha_raw"])
    assert (int(GOLDEN["num_components"]), raw) == (8, ALPHA_RAW)
    distance, all_pairs = FORMS[name]
    np.testing.assert_allclose(distance(x, y), GOLDEN[name], rtol=1e-5)
    np.testing.assert_allclose(np.diagonal(all_pairs(x, y)), GOLDEN[name], rtol=1e-5)
    if name != "mrn_max":  # the golden file has no pairwise values of it
        np.testing.assert_allclose(all_pairs(x, y), GOLDEN[f"pairwise_{name}"], rtol=1e-5)


@each_quasimetric
@pytest.mark.parametrize(("num_features", "num_components"), [(24, 2), (24, 4), (24, 6), (8, 1)])
def test_equals_loops_in_float64(name, num_features, num_components):
    # num_components is nowhere the number of features per component, so the two cannot be taken for each other.
    distance, all_pairs = FORMS[name]
    x, y = normal(0, 5, num_features), normal(1, 3, num_features)
    expected = [[LOOPS[name](a, b, num_components) for b in y.astype(np.float64)] for a in x.astype(np.float64)]
    np.testing.assert_allclose(all_pairs(x, y, num_components=num_components), expected, rtol=1e-5, atol=1e-6)
    pairs = np.broadcast_to(x[:, None], (5, 3, num_features)), np.broadcast_to(y, (5, 3, num_features))
    np.testing.assert_allclose(distance(*pairs, num_components=num_components), expected, rtol=1e-5, atol=1e-6)


def test_iqe_counts_overlaps_once_and_gaps_not_at_all():
    x, y = jnp.array([0.0, 1.0, 5.0, 9.0]), jnp.array([2.0, 3.0, 6.0, 7.0])  # [0, 2] u [1, 3] u [5, 6]; 9 > 7 is empty
    np.testing.assert_allclose(quasimetrics.iqe(x, y, 0.0, num_components=4), 4.0)


def test_iqe_mixing_scalar_moves_from_maximum_to_mean():
    x, y = jnp.zeros(4), jnp.array([1.0, 2.0, 3.0, 3.0])  # row lengths 2 and 3
    iqe = jit(quasimetrics.iqe)
    mixed = [iqe(x, y, raw, num_components=2) for raw in (-30.0, 0.0, 30.0)]
    np.testing.assert_allclose(mixed, [3.0, 2.75, 2.5], rtol=1e-6)


@each_quasimetric
def test_distance_to_itself_is_zero_up_to_eps(name):
    distance, all_pairs = FORMS[name]
    x = normal(2, 20, 64)
    np.testing.assert_allclose(distance(x, x), np.full(20, SELF_DISTANCE[name]), atol=1e-7)
    # The matrix product of mrn leaves roundings of the squared distance: sqrt(1e-6 |x|^2) per chunk at most.
    np.testing.assert_allclose(np.diagonal(all_pairs(x, x)), np.full(20, SELF_DISTANCE[name]), atol=5e-3)


# Zeros, equal entries, equal points and wide ranges among them; hypothesis shrinks a counterexample to a simple one.
POINTS = arrays(np.float32, (5, 16), elements=st.floats(-100, 100, width=32, allow_subnormal=False))


@each_quasimetric
@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(points=POINTS, scale=st.sampled_from([1e-3, 1.0, 1e3]))
def test_axioms(name, points, scale):
    distance, all_pairs = (partial(form, num_components=4) for form in FORMS[name])
    points = scale * points
    x, y = np.repeat(points, 5, axis=0), np.tile(points, (5, 1))
    d = np.asarray(distance(x, y)).reshape(5, 5)
    size = np.abs(points).max()
    assert np.all(d >= 0)
    np.testing.assert_allclose(np.diagonal(d), SELF_DISTANCE[name], rtol=1e-6)
    detours = np.min(d[:, :, None] + d[None, :, :], axis=1)  # over the point in the middle
    assert np.all(d <= detours + 1e-6 * size)
    # A matrix product makes the squares of mrn, so what is left of a small distance is sqrt(1e-6 |x|^2) of rounding.
    np.testing.assert_allclose(
        all_pairs(points, points), d, rtol=1e-4, atol=1e-5 * size + 5e-3 * size * (name in ROOTS)
    )


@each_quasimetric
def test_different_points_have_a_distance(name):
    points = normal(3, 30, 64)
    assert np.all(np.asarray(FORMS[name][1](points, points))[~np.eye(30, dtype=bool)] > 0)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "euclidean"])
def test_asymmetry(name):
    distance, _ = FORMS[name]
    x, y = normal(4, 20, 64), normal(5, 20, 64)
    assert np.all(np.abs(distance(x, y) - distance(y, x)) > 1e-5)
    assert distance(jnp.ones(64), jnp.zeros(64)) != distance(jnp.zeros(64), jnp.ones(64))


def test_asymmetric_part_is_free_in_one_direction():
    low, high = jnp.zeros(64), jnp.ones(64)
    assert quasimetrics.mrn_max(low, high) == 0 and quasimetrics.mrn_max(high, low) == 1
    assert quasimetrics.iqe(high, low, 0.0) == 0 and quasimetrics.iqe(low, high, 0.0) == 1


@pytest.mark.slow
@each_quasimetric
@pytest.mark.parametrize("num_components", [1, 4, 8, 16])
def test_pairwise_gradient_equals_elementwise_gradient(name, num_components):
    distance, all_pairs = (partial(form, num_components=num_components) for form in FORMS[name])
    x, y, weights = normal(6, 12, 32), normal(7, 9, 32), normal(8, 12, 9)
    forms = (all_pairs, on_all_pairs(distance))
    (gx, gy), (nx, ny) = (jax.jit(jax.grad(lambda x, y, f=f: jnp.sum(weights * f(x, y)), (0, 1)))(x, y) for f in forms)
    assert np.abs(nx).max() > 0.1
    np.testing.assert_allclose(gx, nx, atol=1e-4)
    np.testing.assert_allclose(gy, ny, atol=1e-4)


def test_iqe_mixing_scalar_has_the_same_gradient_in_both_forms():
    x, y = normal(9, 7, 64), normal(10, 5, 64)
    grad = jax.jit(jax.grad(lambda raw: jnp.sum(quasimetrics.pairwise_iqe(x, y, raw))))(ALPHA_RAW)
    naive = jax.jit(jax.grad(lambda raw: jnp.sum(on_all_pairs(partial(quasimetrics.iqe, alpha_raw=raw))(x, y))))(
        ALPHA_RAW
    )
    np.testing.assert_allclose(grad, naive, rtol=1e-5)
    assert grad < 0  # more of the mean, less of the maximum


@each_quasimetric
@pytest.mark.parametrize("form", [0, 1], ids=["elementwise", "pairwise"])
def test_gradient_is_finite_at_equal_points_and_at_extremes(name, form):
    distance = partial(FORMS[name][form], num_components=4)
    value_and_grads = jax.jit(jax.value_and_grad(lambda x, y: jnp.sum(distance(x, y)), (0, 1)))
    for scale in (0.0, 1.0, 1e4):
        x = scale * normal(11, 6, 32)
        for y in (x, -x):
            assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(value_and_grads(x, y)))


@each_quasimetric
def test_pairwise_does_not_hide_what_is_no_number(name):
    x = normal(12, 4, 64)
    x[1, 5] = -np.nan
    for distances in (FORMS[name][1](x, x), FORMS[name][1](x, normal(13, 3, 64)).T):
        assert np.isnan(distances[:, 1]).all() and np.isfinite(distances[:, 2:]).any()


@each_quasimetric
def test_pairwise_forward_holds_no_tensor_of_all_pairs_and_features(name):
    x = jnp.zeros((128, 64))
    memory = jax.jit(FORMS[name][1]).lower(x, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 128 * 128 * 64 / 2


def test_pairwise_iqe_says_how_many_components_it_takes():
    x = jnp.zeros((2, 34))
    assert quasimetrics.iqe(x, x, 0.0, num_components=17).shape == (2,)
    with pytest.raises(ValueError, match="num_components of at most 16, got 17"):
        quasimetrics.pairwise_iqe(x, x, 0.0, num_components=17)


def test_pairwise_dot_asks_for_full_precision():
    # What the matrix form of squared distances needs on GPUs, where tests do not run.
    x = jnp.zeros((2, 3))
    assert "HIGHEST" in str(jax.make_jaxpr(pairwise.pairwise_squared_distance)(x, x))


def test_pairwise_squared_distance_is_as_accurate_as_documented():
    x = 10 + normal(12, 50, 64)
    y = x + 1e-2 * normal(13, 50, 64)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    exact = np.sum((x64[:, None] - y64[None]) ** 2, axis=-1)
    bound = 1e-6 * (np.sum(x64**2, axis=-1)[:, None] + np.sum(y64**2, axis=-1)[None])
    squared = np.asarray(pairwise.pairwise_squared_distance(x, y))
    assert np.all(squared >= 0) and np.all(np.abs(squared - exact) < bound)


@each_quasimetric
@pytest.mark.parametrize("shapes", [((4, 64), (64,)), ((4, 64), (1, 64)), ((4, 1, 64), (1, 4, 64)), ((4, 64), (4, 32))])
def test_elementwise_refuses_different_shapes(name, shapes):
    with pytest.raises(ValueError, match="one shape"):
        FORMS[name][0](*map(jnp.zeros, shapes))


@each_quasimetric
@pytest.mark.parametrize("shapes", [((64,), (64,)), ((4, 64), (64,)), ((2, 4, 64), (2, 4, 64)), ((4, 64), (4, 32))])
def test_pairwise_refuses_other_than_two_matrices(name, shapes):
    with pytest.raises(ValueError, match=r"x \[B, D\] and y \[C, D\]"):
        FORMS[name][1](*map(jnp.zeros, shapes))


@each_quasimetric
@pytest.mark.parametrize("form", [0, 1], ids=["elementwise", "pairwise"])
def test_refuses_indivisible_features(name, form):
    with pytest.raises(ValueError, match="multiple of .*, got 60"):
        FORMS[name][form](jnp.zeros((2, 60)), jnp.zeros((2, 60)))
    # For iqe, 6 features in 6 // 4 = 1 row could be reshaped without an error.
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        FORMS[name][form](jnp.zeros((2, 6)), jnp.zeros((2, 6)), num_components=2 if name == "mrn" else 4)


def test_mrn_needs_chunks_of_even_size_and_mrn_max_does_not():
    x, y = jnp.ones((2, 24)), jnp.zeros((2, 24))
    with pytest.raises(ValueError, match="multiple of 16, got 24"):
        quasimetrics.mrn(x, y)
    np.testing.assert_allclose(quasimetrics.mrn_max(x, y), [1.0, 1.0])
