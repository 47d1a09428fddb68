"""The networks against numpy, and the density of the tanh-Gaussian against scipy and against integrals."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.learning.networks import KERNEL_INIT, LOG_STD_RANGE, MLP, Actor, sample_action


def layers(params, kind):
    return [
        params["params"][f"{kind}_{i}"]
        for i in range(sum(re.match(kind, name) is not None for name in params["params"]))
    ]


def mlp_in_numpy(params, x, use_ln, use_relu, skip_connections):
    *hidden, last = layers(params, "Dense")
    skip = None
    for i, dense in enumerate(hidden):
        x = x @ np.asarray(dense["kernel"], float) + np.asarray(dense["bias"], float)
        if use_ln:
            norm = layers(params, "LayerNorm")[i]
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
            x = x * np.asarray(norm["scale"], float) + np.asarray(norm["bias"], float)
        x = np.maximum(x, 0) if use_relu else x / (1 + np.exp(-x))
        if skip_connections and i % skip_connections == 0:
            x = x if skip is None else x + skip
            skip = x
    return x @ np.asarray(last["kernel"], float) + np.asarray(last["bias"], float)


def randomized(params, seed=0):
    """Parameters without the zeros and ones of their initial values, which would hide a bias or a scale."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize(
    "n_hidden, skip_connections, use_ln, use_relu",
    [(1, 0, True, False), (2, 1, False, True), (5, 2, True, False), (5, 0, False, False), (5, 4, True, True)],
)
def test_mlp_equals_numpy(n_hidden, skip_connections, use_ln, use_relu):
    mlp = MLP(3, 16, n_hidden, use_ln, use_relu, skip_connections)
    x = np.random.default_rng(1).standard_normal((7, 6)).astype(np.float32)
    params = randomized(jax.jit(mlp.init)(jax.random.key(0), x))
    expected = mlp_in_numpy(params, x.astype(float), use_ln, use_relu, skip_connections)
    np.testing.assert_allclose(jax.jit(mlp.apply)(params, x), expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("change", [{"use_ln": False}, {"use_relu": True}, {"skip_connections": 2}])
def test_each_option_of_the_mlp_changes_the_output(change):
    options = {"outputs": 3, "h_dim": 16, "n_hidden": 3, "skip_connections": 0}
    x = jax.random.normal(jax.random.key(1), (5, 4))
    params = randomized(jax.jit(MLP(**options).init)(jax.random.key(0), x))
    plain, changed = (jax.jit(MLP(**(options | extra)).apply)(params, x) for extra in ({}, change))
    assert np.abs(plain - changed).min(axis=0).max() > 1e-3


@pytest.mark.parametrize("n_hidden", [1, 2, 4])
@pytest.mark.parametrize("use_ln", [True, False])
def test_n_hidden_counts_hidden_layers(n_hidden, use_ln):
    params = jax.eval_shape(MLP(3, 16, n_hidden, use_ln).init, jax.random.key(0), jnp.zeros(5))
    shapes = [dense["kernel"].shape for dense in layers(params, "Dense")]
    assert shapes == [(5, 16)] + [(16, 16)] * (n_hidden - 1) + [(16, 3)]
    assert len(layers(params, "LayerNorm")) == n_hidden * use_ln


def test_initial_kernels_are_uniform_up_to_the_inverse_root_of_the_inputs():
    kernel = np.asarray(KERNEL_INIT(jax.random.key(0), (100, 400)))
    assert stats.kstest(kernel.ravel() * 10, stats.uniform(-1, 2).cdf).pvalue > 1e-3


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_leading_axes_are_kept(lead):
    rng = np.random.default_rng(0)
    state, goal = (rng.standard_normal((*lead, size)).astype(np.float32) for size in (6, 2))
    actor = Actor(partial(MLP, h_dim=8), 3)
    params = jax.jit(actor.init)(jax.random.key(0), jnp.zeros(6), jnp.zeros(2))
    mean, log_std = jax.jit(actor.apply)(params, state, goal)
    action, log_density = jax.jit(sample_action)(mean, log_std, jax.random.key(1))
    assert mean.shape == log_std.shape == action.shape == (*lead, 3)
    assert log_density.shape == lead
    flat = jax.jit(actor.apply)(params, state.reshape(-1, 6), goal.reshape(-1, 2))
    np.testing.assert_allclose(mean.reshape(-1, 3), flat[0], atol=1e-6)
    np.testing.assert_allclose(log_std.reshape(-1, 3), flat[1], atol=1e-6)


def test_actor_sees_state_and_goal():
    actor = Actor(partial(MLP, h_dim=8), 2)
    state, goal = jnp.ones(3), jnp.ones(2)
    params = jax.jit(actor.init)(jax.random.key(0), state, goal)
    mean = lambda state, goal: actor.apply(params, state, goal)[0]  # noqa: E731
    jacobians = jax.jit(jax.jacobian(mean, argnums=(0, 1)))(state, goal)
    assert all((np.abs(jacobian).max(axis=0) > 1e-5).all() for jacobian in jacobians)


def test_log_std_fills_its_range_and_stays_inside():
    class Raw:
        """In place of the network: hands its input on."""

        def __call__(self, x):
            return x

    raw = np.array([[-1e6, -1.0, 0.0, 0.5, 1e6]], np.float32).T
    means = np.arange(5, dtype=np.float32).reshape(5, 1)
    mean, log_std = Actor(lambda outputs: Raw(), 1).apply({}, means, raw)
    low, high = LOG_STD_RANGE
    np.testing.assert_array_equal(mean, means)
    np.testing.assert_allclose(log_std, low + (high - low) * (np.tanh(raw) + 1) / 2, atol=1e-6)
    assert log_std[0, 0] == low and log_std[4, 0] == high
    assert (low, high) == (-5, 2)


def test_log_density_is_that_of_the_change_of_variables():
    rng = np.random.default_rng(0)
    mean, log_std = (rng.uniform(low, high, (500, 3)).astype(np.float32) for low, high in ((-1, 1), (-3, 0)))
    action, log_density = sample_action(mean, log_std, jax.random.key(0))
    action = np.asarray(action, float)
    gaussian = stats.norm(mean.astype(float), np.exp(log_std.astype(float)))
    inside = (np.abs(action) < 0.99).all(axis=-1)  # where float32 actions still tell what they were before tanh
    expected = (gaussian.logpdf(np.arctanh(action)) - np.log1p(-(action**2))).sum(-1)
    assert inside.mean() > 0.8
    np.testing.assert_allclose(log_density[inside], expected[inside], rtol=1e-3, atol=1e-3)


def test_density_integrates_to_the_size_of_the_region():
    # For samples of a density p, the mean of 1 / p over those in a region is the size of the region.
    shape = (1 << 16, 2)
    mean = jnp.broadcast_to(jnp.array([0.3, -0.5]), shape)
    action, log_density = sample_action(mean, jnp.full(shape, -0.3), jax.random.key(0))
    inside = (np.abs(action) < 0.8).all(axis=-1)
    np.testing.assert_allclose(np.mean(inside * np.exp(-np.asarray(log_density))), 1.6**2, rtol=0.02)


def test_samples_follow_the_gaussian_before_tanh():
    mean, std = 0.4, 0.7
    action, _ = sample_action(jnp.full((20_000, 1), mean), jnp.full((20_000, 1), np.log(std)), jax.random.key(3))
    before_tanh = np.arctanh(np.asarray(action, float)).ravel()
    assert stats.kstest(before_tanh, stats.norm(mean, std).cdf).pvalue > 1e-3
    other, _ = sample_action(jnp.full((20_000, 1), mean), jnp.full((20_000, 1), np.log(std)), jax.random.key(4))
    assert not np.any(action == other)


@pytest.mark.parametrize("log_std", LOG_STD_RANGE)
@pytest.mark.parametrize("mean", [-1000.0, -20.0, 0.0, 20.0, 1000.0])
def test_extreme_means_stay_finite(mean, log_std):
    def loss(mean, log_std):
        action, log_density = sample_action(mean, log_std, jax.random.key(0))
        return jnp.sum(action) + jnp.sum(log_density), (action, log_density)

    inputs = jnp.full((16, 2), mean), jnp.full((16, 2), log_std)
    gradients, (action, log_density) = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(*inputs)
    assert np.isfinite(log_density).all() and all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.abs(action).max() <= 1
    if abs(mean) >= 1000:
        # Far out 1 - tanh(u)^2 is 4 exp(-2 |u|): the density grows by 2 |u| per coordinate and never by infinity.
        np.testing.assert_allclose(log_density, 4 * 1000, rtol=0.05)
        np.testing.assert_allclose(action, np.sign(mean))
