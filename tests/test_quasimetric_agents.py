"""Tests of TMD, CMD and QRL: loss terms against golden values, and temporal distances of a chain that are known."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from goalax.agents import AGENTS, consistency, qrl, tmd
from goalax.agents.base import QuasimetricConfig
from goalax.core.types import Spec
from goalax.learning.diagnostics import distance_metrics
from goalax.learning.losses.infonce import infonce_backward
from tests.helpers.chain import DISCOUNTING, LENGTH, chain_agent, chain_batch, chain_distances

GOLDEN = Path(__file__).parent / "golden"
SPEC = Spec(LENGTH, LENGTH, 1, tuple(range(LENGTH)), DISCOUNTING, goal_reach_thresh=0.5)  # that of the chain


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "tmd.npz")


@pytest.fixture(scope="module")
def metric(golden):
    config = tmd.TMDConfig(distance="mrn", components=int(golden["num_components"]))
    return config.metric(config.init_metric())


def test_golden_contrastive_and_invariance(golden, metric):
    d = metric.pairwise(golden["phi"], golden["psi_g"])
    np.testing.assert_allclose(d, golden["distance"], rtol=1e-4)
    temperature = np.sqrt(golden["phi"].shape[1])
    np.testing.assert_allclose(infonce_backward(-d / temperature), golden["contrastive"], rtol=1e-5)
    matched, every = (jnp.mean(form(golden["psi_s"], golden["phi"])) for form in (metric.between, metric.pairwise))
    np.testing.assert_allclose(matched, golden["invariance"], rtol=1e-5)
    np.testing.assert_allclose(every, golden["invariance_all_pairs"], rtol=1e-5)


def test_golden_backup(golden, metric):
    d, target = (metric.pairwise(golden[name], golden["psi_g"]) for name in ("phi", "psi_next"))
    backup = consistency.linex(d, target, float(golden["discount"]), float(golden["clip"]))
    np.testing.assert_allclose(
        consistency.weighted_mean(backup, float(golden["diag_backup"])), golden["backup"], rtol=1e-4
    )


def test_linex_is_least_one_step_further_than_the_next_state():
    target, steps = 2.0, jnp.linspace(-1, 2, 3001)
    best = steps[jnp.argmin(consistency.linex(target + steps, jnp.full(3001, target), 0.9, 3.0))]
    np.testing.assert_allclose(best, -np.log(0.9), atol=1e-3)


def test_linex_gradient_is_finite_far_past_the_clip():
    gradient = jax.vmap(jax.grad(lambda d: consistency.linex(d, 0.0, 0.99, 3.0)))(jnp.array([-1e4, 0.0, 2.9, 3.1, 1e4]))
    np.testing.assert_allclose(gradient, [-1.0, -0.01, 0.99 * np.exp(2.9) - 1, 1.0, 1.0], rtol=1e-4)


def test_linex_has_its_least_value_where_the_discount_is_no_number_any_more():
    """0.7 to the power of 260 is 0 as a float32: distances beyond are held back, not driven on."""
    gradient = jax.vmap(jax.grad(lambda d: consistency.linex(d, 0.0, jnp.float32(0.7) ** 260, 3.0)))
    np.testing.assert_allclose(gradient(jnp.array([60.0, 90.0, 1e3])), [-1.0, 1.0, 1.0], rtol=1e-4)


def gradients_of_consistency(terms, **flags):
    """Of its loss, and of what terms(config, metric, d_later, x, s) make of the same, in d_later, x and s."""
    weights = {"zeta": 0.0, "invariance_weight": 0.0, "step_weight": 0.0}
    config = tmd.TMDConfig(**{**weights, **flags})
    metric = config.metric(config.init_metric())
    d, later = jax.random.uniform(jax.random.PRNGKey(0), (2, 6, 6), maxval=3.0)
    x, s, s_next = jax.random.normal(jax.random.PRNGKey(1), (3, 6, 64))
    discounting = jnp.full((6, 1), DISCOUNTING)

    def loss(later, x, s):
        return consistency.consistency(config, SPEC, metric, d, later, discounting, x, s, s_next)[0]

    def by_hand(later, x, s):
        return terms(config, metric, consistency.linex(d, later, discounting, config.linex_clip), x, s)

    return jax.grad(loss, (0, 1, 2))(later, x, s), jax.grad(by_hand, (0, 1, 2))(later, x, s)


@pytest.mark.parametrize("stopped", [True, False])
def test_what_the_backup_aims_at_is_a_constant_if_that_is_asked_for(stopped):
    def backup(config, metric, divergence, x, s):
        return 2 * consistency.weighted_mean(divergence, config.diag_backup)

    found, expected = gradients_of_consistency(backup, zeta=2.0, stop_backup=stopped)
    assert np.abs(expected[0]).min() > 0
    np.testing.assert_allclose(found[0], 0 * expected[0] if stopped else expected[0], rtol=1e-5)
    assert not any(part.any() for part in (*found[1:], *expected[1:]))


@pytest.mark.parametrize("stopped", ["none", "state", "action"])
def test_invariance_moves_the_sides_that_are_not_stopped(stopped):
    def invariance(config, metric, divergence, x, s):
        return 2 * jnp.mean(metric.between(s, x))

    found, expected = gradients_of_consistency(invariance, invariance_weight=2.0, stop_invariance=stopped)
    for side, one, other in zip(("action", "state"), found[1:], expected[1:], strict=True):
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, 0 * other if side == stopped else other, rtol=1e-5, atol=1e-7)


def test_what_weighs_nothing_is_left_out():
    def loss(x):
        return consistency.weighted_sum((2.0, x), (0.0, jnp.log(x - 1)))  # log 0

    assert loss(1.0) == 2.0 and jax.grad(loss)(1.0) == 2.0


def test_weighted_mean():
    matrix = jnp.array([[1.0, 10.0], [20.0, 3.0]])
    assert [float(consistency.weighted_mean(matrix, share)) for share in (0.0, 0.5, 1.0)] == [8.5, 5.25, 2.0]


def test_golden_qrl():
    golden = np.load(GOLDEN / "qrl.npz")
    negative, positive = qrl.repulsion(golden["d_neg"], 100.0), qrl.step_excess(golden["d_pos"])
    np.testing.assert_allclose(negative, golden["negative"], rtol=1e-5)
    np.testing.assert_allclose(positive, golden["positive"], rtol=1e-5)
    np.testing.assert_allclose(negative + golden["lam"] * positive, golden["value_loss"], rtol=1e-5)
    np.testing.assert_allclose(golden["lam"] * (golden["eps"] - positive), golden["dual_loss"], rtol=1e-5)


def test_latent_dynamics_of_qrl_are_held_to_distances_or_their_squares():
    there, back = jnp.array([1.0, 2.0]), jnp.array([3.0, 0.5])
    assert float(qrl.dynamics_error(qrl.QRLConfig(), there, back)) == (1 + 4 + 9 + 0.25) / 4
    assert float(qrl.dynamics_error(qrl.QRLConfig(dynamics_error="distance"), there, back)) == 6.5 / 4


def test_networks_of_qrl_are_held_to_a_step_and_its_multiplier_sees_by_how_much_they_miss_it():
    """Each takes the other for a constant, or what they learn from the excess would cancel."""
    flags = {"distance_scale": 100.0, "dynamics_weight": 1e-9, "multiplier_init": 2.0}
    agent = chain_agent("qrl", h_dim=8, n_hidden=1, repr_dim=16, **flags)
    config = qrl.QRLConfig(h_dim=8, n_hidden=1, repr_dim=16, **flags)
    batch, state = chain_batch(jax.random.PRNGKey(1), 16), agent.init(jax.random.PRNGKey(0))
    after, metrics = agent.update(state, batch, jax.random.PRNGKey(2))
    excess, weight = (float(metrics[name]) for name in ("step_excess", "multiplier"))
    assert excess > 1 and weight == pytest.approx(2.0)

    def by_hand(params):
        between, encode = config.metric(params["metric"]).between, config.mlp(config.repr_dim).apply
        z, z_next, goal = (
            encode(params["encoder"], each) for each in (batch.state, batch.next_state, batch.future_state)
        )
        push = qrl.repulsion(between(z, jnp.roll(goal, 1, axis=0)), 100.0)
        held = weight * jnp.mean(jax.nn.relu(between(z, z_next) - 1) ** 2)
        return push + held + jax.nn.softplus(30 * params["multiplier"]) * (0.05 - excess)

    expected = jax.grad(by_hand)(state.params["critic"])
    seen = optax.tree.get(after.optimizer.inner_states["critic"], "mu")["critic"]  # after one update a tenth of it
    for leaf, gradient in zip(jax.tree.leaves(seen), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(10 * leaf, gradient, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("multiplier", ["softplus", "exp"])
def test_the_multiplier_of_qrl_begins_where_it_is_told(multiplier):
    """And moves by the learning rate of the critic: with exp, as published, its logarithm."""
    flags = {"multiplier": multiplier, "multiplier_init": 2.0, "multiplier_speed": 1.0, "critic_lr": 0.1}
    agent = chain_agent("qrl", h_dim=8, n_hidden=1, repr_dim=8, **flags)
    state, seen = agent.init(jax.random.PRNGKey(0)), []
    for i in range(2):
        state, metrics = agent.update(state, chain_batch(jax.random.PRNGKey(1), 16), jax.random.PRNGKey(i))
        seen.append(float(metrics["multiplier"]))
    assert seen[0] == pytest.approx(2.0, rel=1e-5)
    raw = np.log(seen) if multiplier == "exp" else np.log(np.expm1(seen))
    assert abs(raw[1] - raw[0]) == pytest.approx(0.1, rel=1e-3)


QUASIMETRIC_AGENTS = [name for name in AGENTS if issubclass(AGENTS[name].config, QuasimetricConfig)]


@pytest.mark.slow
@pytest.mark.parametrize("name", QUASIMETRIC_AGENTS)
def test_metrics_tell_a_quasimetric(name):
    agent = chain_agent(name, h_dim=16, action_chunk=1)
    batch = chain_batch(jax.random.PRNGKey(0), 64, agent.needs)
    metrics = jax.jit(agent.update)(agent.init(jax.random.PRNGKey(1)), batch, jax.random.PRNGKey(2))[1]
    assert metrics["distance_pos"] > 0 and metrics["distance_neg"] > 0 and metrics["distance_self"] >= 0
    assert metrics["triangle_violation"] < 1e-6


ALONE = 1e6  # a weight beside which the other terms of a loss do not count
TMD_TERMS = {"invariance_weight": 0.0, "zeta": 0.0, "step_weight": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "term", "flags"),
    [
        ("tmd", "contrastive_loss", TMD_TERMS),
        ("tmd", "invariance_loss", TMD_TERMS | {"invariance_weight": ALONE}),
        ("tmd", "backup_loss", TMD_TERMS | {"zeta": ALONE}),
        ("tmd", "step_loss", TMD_TERMS | {"step_weight": ALONE}),
        ("cmd", "critic_loss", {}),
        ("cmd2", "contrastive_loss", {"distillation_weight": 0.0}),
        ("cmd2", "distillation_loss", {"distillation_weight": ALONE}),
        ("qrl", "repulsion", {"multiplier_init": 1 / ALONE, "dynamics_weight": 1e-9}),
        ("qrl", "step_excess", {"multiplier_init": ALONE, "distance_scale": 100.0}),
        ("qrl", "dynamics_loss", {"dynamics_weight": ALONE}),
    ],
)
def test_one_update_lowers_each_term(name, term, flags):
    agent = chain_agent(name, h_dim=16, critic_lr=1e-4, **flags)
    batch = chain_batch(jax.random.PRNGKey(0), 64)
    update, key = jax.jit(agent.update), jax.random.PRNGKey(2)
    state, before = update(agent.init(jax.random.PRNGKey(1)), batch, key)
    _, after = update(state, batch, key)
    assert after[term] < before[term]


def test_distance_metrics_of_what_is_no_quasimetric():
    def between(x, y):  # squared: the way over a point between is shorter
        return jnp.sum((x - y) ** 2, axis=-1)

    x, via, y = jnp.array([[0.0], [10.0]]), jnp.array([[11.0], [1.0]]), jnp.array([[2.0], [12.0]])
    metrics = distance_metrics(between, x, y, via, (x[:1], y[:1]))
    # 0 -> 2 takes 4, by 1 it takes 2; 10 -> 12 by 11 as much; 0 -> 12 and 10 -> 2 are the negatives
    expected = {"distance_pos": 4.0, "distance_neg": (144 + 64) / 2, "distance_self": 4.0, "triangle_violation": 2.0}
    assert {name: float(value) for name, value in metrics.items()} == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "per_step"),
    [
        ("tmd", {"critic_goal": "state", "step_weight": 1.0, "invariance_weight": 1.0}, -np.log(DISCOUNTING)),
        ("cmd", {}, -np.log(DISCOUNTING)),
        ("cmd2", {}, -np.log(DISCOUNTING)),
        ("qrl", {}, 1.0),
        ("qrl", {"critic_goal": "goal"}, 1.0),
    ],
)
def test_distances_on_a_chain_are_temporal(name, flags, per_step):
    d, steps = chain_distances(name, flags)
    ahead, behind = steps > 0, steps < 0
    assert 3 * d[ahead].mean() < d[behind].mean()  # what lies behind is out of reach
    means = np.array([d[steps == k].mean() for k in range(1, LENGTH)])
    assert np.all(np.diff(means) > 0)
    slope = np.polyfit(np.arange(2, LENGTH), means[1:], 1)[0]
    np.testing.assert_allclose(slope, per_step, rtol=0.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cmd", "cmd2"])
def test_goal_coordinates_keep_the_order_on_a_chain(name):
    """Not more: where a goal is no pair of state and action, CMD knows distances up to a function of the goal."""
    d, steps = chain_distances(name, {"critic_goal": "goal"})
    means = np.array([d[steps == k].mean() for k in range(1, LENGTH)])
    assert np.all(np.diff(means) > 0) and d[steps < 0].mean() > means.mean()


OFFLINE = {"potential": False, "contrastive_loss_fn": "infonce_backward", "logsumexp_penalty": 0.0}


@pytest.mark.table  # of docs/tmd_online.md
@pytest.mark.parametrize(
    ("flags", "low", "high"),
    [
        ({"step_weight": 0.0, **OFFLINE}, 0.0, 0.8),
        ({"step_weight": 0.0}, 0.0, 0.8),
        ({"step_weight": 0.1}, 0.9, 1.0),
        ({"step_weight": 1.0, "invariance_weight": 1.0}, 0.9, 1.0),
    ],
)
def test_the_step_puts_distances_on_a_chain_in_order(flags, low, high, record_property):
    d, steps = chain_distances("tmd", {"critic_goal": "state", **flags})
    ahead = steps > 0
    correlation = stats.spearmanr(d[ahead], steps[ahead]).statistic
    record_property("table", f"{flags}: {correlation:.2f}, from the first state {d[1:LENGTH].round(2)}")
    assert low < correlation < high
