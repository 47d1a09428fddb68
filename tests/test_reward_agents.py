"""Offline agents that learn from rewards: golden loss terms, losses of whole agents, and what each makes of data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from goalax.agents import AGENTS, cql, rebrac
from goalax.agents.bc import squared_error
from goalax.agents.delayed import smoothed
from goalax.agents.extraction import expectile
from goalax.agents.iql import gaussian_log_density
from goalax.agents.q_learning import TwinCritic
from goalax.core import buffer
from goalax.core.types import Needs
from tests.helpers.offline import NO_GOALS, OF_REWARDS, SPEC, batch_of, close, config_of, golden
from tests.helpers.rings import filled_ring


def make(name, spec=SPEC, **flags):
    return AGENTS[name].make(config_of(name, **flags), spec)


# ---- Golden values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [True, False])
def test_golden_cql_penalty(weighted):
    g = golden("cql")
    densities = (np.log(0.5 ** g["action_size"]), g["log_density_current"].T, g["log_density_next"].T)
    for i in range(2):
        values = g["q_random"][i].T, g["q_current"][i].T, g["q_next"][i].T
        found = cql.penalty(g["q_data"][i], *values, densities if weighted else None, float(g["temperature"]))
        close(found, g["penalty_weighted" if weighted else "penalty_plain"][i])
    with pytest.raises(ValueError, match="equal shapes"):
        cql.penalty(g["q_data"][0], *values, (0.0, densities[1].T, densities[2]))


def test_golden_cql_multiplier():
    g = golden("cql")
    means = [jnp.mean(each) for each in g["penalty_weighted"]]
    close(g["alpha"] * sum(means), g["fixed_loss"])
    gaps, multiplier = [mean - g["gap"] for mean in means], jnp.float32(g["log_lagrange"])
    of_critics, own = cql.multiplier_losses(gaps, float(g["alpha"]), multiplier)
    close(of_critics, g["lagrange_critic_loss"])
    close(own, g["lagrange_own_loss"])
    (rising,) = jax.grad(lambda x: cql.multiplier_losses(gaps, 5.0, x)[1], argnums=(0,))(multiplier)
    assert rising < 0  # penalties above the gap to keep: descent makes the multiplier larger
    assert jax.grad(lambda x: cql.multiplier_losses(gaps, 5.0, x)[0])(multiplier) == 0


def test_golden_cql_backup_has_no_entropy_and_ends_at_terminations():
    g = golden("cql")
    batch = batch_of()._replace(reward=g["reward"], discount=0.99 * (1 - g["terminal"]))
    close(config_of("cql").backup(batch, np.min(g["q_target_next"], axis=0)), g["target"])
    scaled = config_of("cql", reward_scaling=10.0, reward_shift=-0.5).backup(batch, jnp.zeros(8))
    close(scaled, 10 * g["reward"] - 5)


def test_golden_rebrac():
    g = golden("rebrac")
    action = smoothed(g["policy_next"], g["noise"], g["sigma"], g["clip"])
    close(action, g["smoothed"])
    lower = np.min(g["q_next_target"], axis=0)
    value = rebrac.penalised(lower, action, g["data_next_action"], g["critic_bc"])
    batch = batch_of()._replace(reward=g["reward"], discount=g["gamma"] * g["mask"])
    target = config_of("rebrac").backup(batch, value)
    close(target, g["target"])
    close(jnp.sum(jnp.mean((g["q"] - target[None]) ** 2, axis=1)), g["critic_loss_sum"])
    close(squared_error(g["policy"], g["data_action"]), g["bc"])
    lower = np.min(g["q_policy"], axis=0)
    loss = rebrac.improvement_loss(lower, g["policy"], g["data_action"], g["actor_bc"])
    close(loss, g["actor_loss"])
    with pytest.raises(ValueError, match="equal shapes"):
        rebrac.penalised(lower[:, None], action, g["data_next_action"], 0.1)


def test_density_of_the_policy_of_iql():
    action, mean = np.random.default_rng(0).uniform(-1, 1, (2, 6, 3))
    log_std = np.broadcast_to(np.array([-1.0, 0.0, 0.5]), (6, 3))
    close(gaussian_log_density(action, mean, log_std), stats.norm(mean, np.exp(log_std)).logpdf(action).sum(-1))


# ---- Whole agents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, NO_GOALS], ids=["goals", "none"])
def test_losses_of_iql(spec):
    config, batch = config_of("iql", expectile=0.8, awr_alpha=2.0), batch_of(spec)
    agent = AGENTS["iql"].make(config, spec)
    state = agent.init(jax.random.PRNGKey(0))
    shifted = state._replace(target=jax.tree.map(lambda leaf: leaf + 0.1, state.target))
    _, metrics = agent.update(shifted, batch, jax.random.PRNGKey(1))
    params, critic = state.params["critic"], TwinCritic(config, spec)

    def value(observed):
        return np.asarray(config.mlp(1).apply(params["value"], jnp.concatenate([observed, batch.goal], -1))[:, 0])

    above = np.asarray(critic.lower(shifted.target, batch.state, batch.goal, batch.action)) - value(batch.state)
    close(metrics["value_loss"], np.mean(np.where(above < 0, 0.2, 0.8) * above**2), 1e-4)
    backup = batch.reward + batch.discount * value(batch.next_state)
    q = critic.values(params["q"], batch.state, batch.goal, batch.action)
    close(metrics["q_loss"], sum(np.mean((np.asarray(each) - backup) ** 2) for each in q), 1e-4)
    mean = np.asarray(agent.mode(state, batch.state, batch.goal))
    likelihood = stats.norm(mean, 1.0).logpdf(batch.action).sum(-1)
    close(metrics["actor_loss"], -np.mean(np.minimum(np.exp(2 * above), 100) * likelihood), 1e-4)


def test_values_of_iql_learn_from_the_target_of_its_critics_alone():
    """What critics are backed up with is a constant: Adam's first mean is a tenth of the gradients without it."""
    config, batch = config_of("iql"), batch_of()
    agent = AGENTS["iql"].make(config, SPEC)
    state, critic = agent.init(jax.random.PRNGKey(0)), TwinCritic(config, SPEC)
    after, _ = agent.update(state, batch, jax.random.PRNGKey(1))

    def value(params, observed):
        return config.mlp(1).apply(params["value"], jnp.concatenate([observed, batch.goal], -1))[:, 0]

    backup = batch.reward + batch.discount * value(state.params["critic"], batch.next_state)

    def by_hand(params):
        above = critic.lower(state.target, batch.state, batch.goal, batch.action) - value(params, batch.state)
        errors = [q - backup for q in critic.values(params["q"], batch.state, batch.goal, batch.action)]
        return expectile(above, above, 0.7) + sum(jnp.mean(error**2) for error in errors)

    expected = jax.grad(by_hand)(state.params["critic"])
    seen = optax.tree.get(after.optimizer.inner_states["critic"], "mu")["critic"]
    for leaf, gradient in zip(jax.tree.leaves(seen), jax.tree.leaves(expected), strict=True):
        close(10 * leaf, gradient, 1e-4)


@pytest.mark.slow
def test_cql_lets_the_best_of_several_actions_count():
    targets = []
    for flags in ({}, {"max_backup": True, "cql_samples": 1}, {"max_backup": True}):
        agent = make("cql", **flags)
        state = agent.init(jax.random.PRNGKey(0))
        targets.append(float(agent.update(state, batch_of(), jax.random.PRNGKey(1))[1]["q_target"]))
    assert targets[0] == pytest.approx(targets[1], rel=1e-5) and targets[2] > targets[0] + 1e-3


@pytest.mark.slow
def test_cql_penalties_have_a_floor():
    penalties = []
    for flags in ({}, {"cql_floor": -20.0}):  # as a floor of 20 above 0, which all penalties are below
        agent = make("cql", **flags)
        metrics = agent.update(agent.init(jax.random.PRNGKey(0)), batch_of(), jax.random.PRNGKey(1))[1]
        penalties.append(float(metrics["cql_penalty"]))
    assert penalties[0] < 20 and penalties[1] == 20


def test_cql_multiplier_moves_the_penalty_to_its_gap():
    for gap, sign in ((0.0, 1), (50.0, -1)):
        agent = make("cql", cql_lagrange=True, cql_gap=gap)
        state = agent.init(jax.random.PRNGKey(0))
        state, _ = agent.update(state, batch_of(), jax.random.PRNGKey(1))
        assert sign * (state.params["log_multiplier"] - 1) > 1e-5  # it begins at 1


def stored_and_other(name, **flags):
    """Values [] of the stored action, and of other ones, after learning from one action without rewards."""
    config = config_of(name, h_dim=32, critic_lr=1e-2, **flags)
    agent = AGENTS[name].make(config, NO_GOALS)
    batch = batch_of(NO_GOALS)
    batch = batch._replace(action=jnp.full_like(batch.action, 0.5), reward=jnp.zeros(64))
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
    for i in range(150):
        state, metrics = update(state, batch, jax.random.PRNGKey(i))
        assert np.isfinite(float(metrics["critic_loss"]))
    critic = TwinCritic(config, NO_GOALS)
    other = jax.random.uniform(jax.random.PRNGKey(9), (64, 3), minval=-1, maxval=0)
    values = [critic.lower(state.params["critic"], batch.state, batch.goal, a) for a in (batch.action, other)]
    return [float(jnp.mean(value)) for value in values]


@pytest.mark.slow
def test_cql_pushes_down_what_is_not_stored():
    stored, other = stored_and_other("cql", cql_alpha=1.0)
    assert stored > other + 1
    stored, other = stored_and_other("cql", cql_alpha=0.0)
    assert stored < other + 0.5


def test_rebrac_stays_with_stored_actions():
    """The critic prefers actions of -1; the heavier the penalty, the nearer the policy is to the stored 0.5."""
    errors = []
    for weight in (0.0, 10.0):
        agent = make("rebrac", NO_GOALS, h_dim=32, actor_bc=weight, policy_lr=1e-2)
        batch = batch_of(NO_GOALS)
        action = jax.random.uniform(jax.random.PRNGKey(3), (64, 3), minval=0.3, maxval=0.7)
        batch = batch._replace(action=action, reward=-10 * jnp.sum(action, -1), discount=jnp.zeros(64))
        update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
        for i in range(300):
            state, _ = update(state, batch, jax.random.PRNGKey(i))
        errors.append(float(jnp.mean(jnp.abs(agent.mode(state, batch.state, batch.goal) - 0.5))))
    assert errors[1] < 0.25 < errors[0] / 2


def test_rebrac_updates_its_actor_every_other_time():
    agent = make("rebrac")
    state = agent.init(jax.random.PRNGKey(0))
    once, _ = agent.update(state, batch_of(), jax.random.PRNGKey(1))
    twice, _ = agent.update(once, batch_of(), jax.random.PRNGKey(2))
    same = lambda a, b: all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))  # noqa: E731
    assert same(once.params["actor"], state.params["actor"]) and same(once.target, state.target)
    assert not same(once.params["critic"], state.params["critic"])
    assert not same(twice.params["actor"], state.params["actor"]) and not same(twice.target, state.target)


def test_bc_imitates():
    agent = make("bc", h_dim=64, policy_lr=1e-2)
    batch = batch_of()
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(0))
    for i in range(500):
        state, metrics = update(state, batch, jax.random.PRNGKey(i))
    mean = np.asarray(agent.mode(state, batch.state, batch.goal))
    close(metrics["actor_loss"], np.mean(np.sum((mean - batch.action) ** 2, -1)), 0.2)
    assert metrics["actor_loss"] < 0.2


@pytest.mark.parametrize("name", OF_REWARDS)
def test_a_goal_is_an_input_where_there_is_one(name):
    agent, batch = make(name), batch_of()
    state = agent.init(jax.random.PRNGKey(0))
    other = agent.mode(state, batch.state, batch.goal + 1)
    assert not np.allclose(agent.mode(state, batch.state, batch.goal), other)
    agent = make(name, NO_GOALS)
    state = agent.init(jax.random.PRNGKey(0))
    after, metrics = agent.update(state, batch_of(NO_GOALS), jax.random.PRNGKey(1))
    assert agent.mode(after, batch.state, jnp.zeros((64, 0))).shape == (64, 3)
    assert all(np.isfinite(float(value)) for value in metrics.values())


def test_the_next_action_is_that_of_the_next_row():
    ring, spec = filled_ring(0), SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,))
    needs = Needs(next_action=True)
    batch = buffer.sample(ring, jax.random.PRNGKey(0), 64, spec, 4, needs)
    states, actions = (np.asarray(leaf).reshape(24, -1) for leaf in (ring.rows.state, ring.rows.action))
    for state, action in zip(np.asarray(batch.next_state), np.asarray(batch.next_action), strict=True):
        (row,) = np.flatnonzero((states == state).all(axis=1))
        np.testing.assert_array_equal(action, actions[row])
    assert buffer.sample(ring, jax.random.PRNGKey(0), 64, spec, 4).next_action is None
