"""Hazards of first visits: golden values of SRL and ChronoSRL, and what holds for any distribution over times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.learning import survival
from goalax.learning.networks import fuse
from tests.helpers.frontier import floats, section


@pytest.mark.parametrize("name", ["srl/unit", "srl/geometric"])
def test_likelihood_and_value(name):
    g = section(name)
    edges = tuple(int(edge) for edge in g["edges"])
    now, logits = floats(g["logit0"]), floats(g["logits"])
    np.testing.assert_allclose(survival.bin_weights(edges, float(g["gamma"])), g["weights"], rtol=1e-12)
    table = survival.log_survival(now, logits)
    np.testing.assert_allclose(table[:, :-1], g["log_survival_start"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(table[:, -1], g["log_survival_end"], rtol=1e-5, atol=1e-6)
    steps, censor = jnp.asarray(g["tau"], jnp.int32), jnp.asarray(g["censor"], jnp.int32)
    found = survival.negative_log_likelihood(now, logits, edges, steps, floats(g["event"]), censor)
    np.testing.assert_allclose(found, g["nll"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(survival.masked_mean(found, floats(g["valid"])), g["loss"], rtol=1e-5)
    np.testing.assert_allclose(survival.value(now, logits, edges, float(g["gamma"])), g["value"], rtol=1e-5)


@pytest.mark.parametrize("bins", [0, 7])
def test_times_around_a_median(bins):
    """Against a loop over whole steps in float64: P(T <= n + 1/2) of the log-logistic distribution."""
    edges, medians, shape = survival.time_edges(40, bins), np.array([0.05, 0.4, 3.0, 17.0, 500.0]), 2.5
    now, logits = survival.of_median(floats(medians), shape, edges)
    found = np.exp(survival.log_survival(now, logits))
    for row, median in zip(found, medians, strict=True):
        more = [1 / (1 + ((max(edge, 1) - 0.5) / median) ** shape) for edge in edges]
        np.testing.assert_allclose(row, more, rtol=1e-4, atol=2e-6)
    # Half of the time it takes as long as the median, and what takes longer is worth less.
    at_17 = 1 / (1 + np.exp(-survival.of_median(floats([16.5]), shape, (0, 17, 40))[1][0, 0]))
    there = 1 / (1 + 33**shape)
    assert at_17 == pytest.approx((0.5 - there) / (1 - there), rel=1e-4)
    assert np.all(np.diff(survival.value(now, logits, edges, 0.9)) < 0)
    slope = jax.grad(lambda m: survival.value(*survival.of_median(m, shape, edges), edges, 0.9).sum())(floats(medians))
    assert np.all(np.isfinite(slope)) and np.all(slope < 0)


def test_a_goal_that_was_reached_soon_pulls_on_any_distance():
    edges, medians = survival.time_edges(250, 0), floats([3.0, 60.0, 1500.0, 1e5])
    one, reached = jnp.ones(4, jnp.int32), jnp.ones(4)

    def loss(medians, shape):
        seen = one, reached, 250 * one
        return survival.negative_log_likelihood(*survival.of_median(medians, shape, edges), edges, *seen).sum()

    for shape in (2.0, 6.0):
        slopes = jax.grad(lambda log_median: loss(jnp.exp(log_median), shape))(jnp.log(medians))  # noqa: B023
        np.testing.assert_allclose(slopes[1:], shape, rtol=0.05)  # of log(m^-shape), the share of so early times


def test_edges():
    g = section("srl/edges")
    assert survival.time_edges(int(g["horizon"]), int(g["bins"])) == tuple(g["edges"])
    assert survival.time_edges(6, 0) == survival.time_edges(6, 6) == tuple(range(7))


def test_head():
    g = section("srl/head")
    film = g["z_g"] @ g["film_kernel"] + g["film_bias"]
    size = g["z_sa"].shape[1]
    np.testing.assert_allclose(fuse(g["z_sa"], g["z_g"], film[:, :size], film[:, size:]), g["fused"], rtol=1e-5)


def test_geometry():
    g = section("chronosrl/geometry")
    step, reached = -np.log(float(g["gamma"])), floats(g["event"] * g["valid"])
    distance = floats(g["distance"])
    own, steps = jnp.diagonal(distance), jnp.asarray(g["tau"], jnp.int32)
    np.testing.assert_allclose(survival.time_loss(own, steps, reached, step), g["time_loss"], rtol=1e-5)
    unreached = floats((1 - g["event"]) * g["valid"])
    found = survival.separation_loss(distance, floats(g["pairs"]), unreached, step * int(g["window"]))
    np.testing.assert_allclose(found, g["separation_loss"], rtol=1e-5)


def test_occupancy():
    g = section("chronosrl/occupancy")
    edges = tuple(int(edge) for edge in g["edges"])
    observed = floats(g["mask"] * g["valid"][:, None])
    loss = survival.occupancy_loss(floats(g["logits"]), floats(g["occupancy"]), observed)
    np.testing.assert_allclose(loss, g["occupancy_loss"], rtol=1e-5)
    hazards = survival.value(floats(g["logit0"]), floats(g["hazard_logits"]), tuple(range(9)), float(g["gamma"]))
    share = survival.occupancy_value(floats(g["logits"]), edges, float(g["gamma"]))
    np.testing.assert_allclose(hazards + g["beta"] * share, g["actor_value"], rtol=1e-5)


@pytest.mark.parametrize("size", [1, 7, 40, 41, 200])
def test_sums_before(size):
    x = np.random.default_rng(size).standard_normal((5, size)).astype(np.float32)
    expected = np.concatenate([np.zeros((5, 1)), np.cumsum(x, axis=1, dtype=np.float64)], axis=1)
    np.testing.assert_allclose(survival.sums_before(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_far_out():
    edges = survival.time_edges(50, 10)
    steps, reached = jnp.array([0, 3, 50, 50]), jnp.array([1.0, 1, 0, 1])

    def loss(now, logits):
        nll = survival.negative_log_likelihood(now, logits, edges, steps, reached, jnp.full(4, 50))
        return jnp.sum(nll) + jnp.sum(survival.value(now, logits, edges, 0.99))

    for scale in (0.0, 100.0, -100.0):
        logits = jnp.full((4, len(edges) - 1), scale)
        assert all(np.isfinite(part).all() for part in jax.grad(loss, (0, 1))(jnp.full(4, scale), logits))
