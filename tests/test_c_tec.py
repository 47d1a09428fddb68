"""C-TeC: its reward, target and contrastive loss against numpy, and that neither policy nor value knows the goal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from goalax.agents.c_tec import CTeCConfig, make
from goalax.core.types import Batch, Spec
from goalax.learning.networks import gaussian_actor, sample_action

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
SIZES = {"h_dim": 16, "repr_dim": 8}


def batch_of(size=7):
    normal = lambda i, *shape: jax.random.normal(jax.random.PRNGKey(i), (size, *shape))  # noqa: E731
    futures, ones = normal(4, 5), jnp.ones(size)
    return Batch(
        normal(0, 5), jnp.tanh(normal(1, 3)), normal(2, 5), normal(3, 2), futures, normal(5, 3), ones, ones, ones
    )


def representations(config, params, batch):
    """Unit vectors of (state, action) and of the goals of the futures, in numpy after the networks."""
    mlp = config.mlp(config.repr_dim)
    sources = mlp.apply(params["phi"], jnp.concatenate([batch.state, batch.action], axis=1))
    goals = mlp.apply(params["psi"], batch.future_state[:, np.array(SPEC.goal_indices)])
    return (np.asarray(x) / np.linalg.norm(x, axis=1)[:, None] for x in (sources, goals))


def updated(config, state=None, batch=None):
    agent = make(config, SPEC)
    state = agent.init(jax.random.PRNGKey(0)) if state is None else state
    batch = batch_of() if batch is None else batch
    return state, *agent.update(state, batch, jax.random.PRNGKey(1))


@pytest.mark.slow
def test_the_reward_is_the_distance_to_the_future_of_the_critic():
    config, batch = CTeCConfig(**SIZES), batch_of()
    before, _, metrics = updated(config)
    x, y = representations(config, before.params["critic"], batch)
    reward = np.abs(x - y).sum(axis=1)
    assert reward.std() > 0.1
    np.testing.assert_allclose(metrics["intrinsic_reward"], reward.mean(), rtol=1e-5)
    tripled = updated(CTeCConfig(reward_scaling=3.0, **SIZES))[2]
    np.testing.assert_allclose(tripled["q_target"] - metrics["q_target"], 2 * reward.mean(), rtol=1e-4)
    other = updated(config, batch=batch._replace(future_state=batch.future_state[::-1]))[2]
    np.testing.assert_allclose(other["intrinsic_reward"], np.abs(x - y[::-1]).sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.slow
def test_the_reward_of_the_environment_and_the_commanded_goal_change_nothing():
    config, batch = CTeCConfig(**SIZES), batch_of()
    _, plain, _ = updated(config)
    _, other, _ = updated(config, batch=batch._replace(reward=batch.reward * 9, goal=batch.goal + 5))
    jax.tree.map(np.testing.assert_array_equal, plain, other)
    agent = make(config, SPEC)
    actions = [agent.mode(plain, batch.state, goal) for goal in (batch.goal, batch.goal + 5)]
    np.testing.assert_array_equal(*actions)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_the_contrastive_loss_is_infonce_on_scaled_distances(scale):
    config, batch = CTeCConfig(contrastive_loss_fn="infonce", **SIZES), batch_of()
    before, _, _ = updated(config)
    critic = before.params["critic"] | {"log_scale": jnp.log(scale)}
    _, after, metrics = updated(config, before._replace(params=before.params | {"critic": critic}))
    x, y = representations(config, critic, batch)
    logits = -scale * np.abs(x[:, None] - y[None]).sum(axis=-1)
    expected = np.mean(logsumexp(logits, axis=1) - np.diag(logits))
    np.testing.assert_allclose(metrics["contrastive_loss"], expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["scale"], scale, rtol=1e-6)
    assert after.params["critic"]["log_scale"] != critic["log_scale"]  # it is learned


def acting(config, params, observed, key):
    """Of actions that the policy draws: (critics) -> their values [2, B]; their entropies, at a temperature of 1."""
    blind = jnp.zeros((len(observed), 0))
    policy = gaussian_actor(config.mlp, SPEC.action_size).apply(params["actor"], observed, blind)
    action, log_density = sample_action(*policy, key)

    def values(critics):
        return np.stack([config.mlp(1).apply(one, jnp.concatenate([observed, action], 1))[:, 0] for one in critics])

    return values, -np.asarray(log_density)


def moved(critics, seed):
    """Critics with other weights, but for biases: either is the lower one somewhere."""
    key = jax.random.PRNGKey(seed)
    other = lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.fold_in(key, leaf.size), leaf.shape)  # noqa: E731
    return jax.tree.map(lambda leaf: other(leaf) if leaf.ndim == 2 else leaf, critics)


def test_targets_are_those_of_the_slow_critics_and_the_actor_goes_by_the_lower_critic():
    config, batch = CTeCConfig(n_hidden=1, **SIZES), batch_of()
    agent = make(config, SPEC)
    state = agent.init(jax.random.PRNGKey(0))
    critic = state.params["critic"] | {"q": moved(state.target, 1)}
    state = state._replace(params=state.params | {"critic": critic}, target=moved(state.target, 2))
    _, metrics = jax.jit(agent.update)(state, batch, jax.random.PRNGKey(1))
    target_key, actor_key = jax.random.split(jax.random.PRNGKey(1))
    x, y = representations(config, critic, batch)
    values, entropy = acting(config, state.params, batch.next_state, target_key)
    slow = values(state.target).min(axis=0)
    assert np.abs(slow - values(critic["q"]).min(axis=0)).mean() > 0.1
    target = np.abs(x - y).sum(axis=1) + np.asarray(batch.discount) * (slow + entropy)
    np.testing.assert_allclose(metrics["q_target"], target.mean(), rtol=1e-4)
    values, entropy = acting(config, state.params, batch.state, actor_key)
    q = values(critic["q"])
    assert (q[0] < q[1]).any() and (q[0] > q[1]).any()
    np.testing.assert_allclose(metrics["actor_loss"], -np.mean(q.min(axis=0) + entropy), rtol=1e-4)


def test_score_is_nearness_of_the_future_to_the_policy():
    config, batch = CTeCConfig(**SIZES), batch_of()
    agent = make(config, SPEC)
    state = agent.init(jax.random.PRNGKey(0))
    acted = batch._replace(action=agent.mode(state, batch.state, batch.goal))
    x, y = representations(config, state.params["critic"], acted)
    score = agent.score(state, batch.state, batch.future_state)
    np.testing.assert_allclose(score, -np.abs(x - y).sum(axis=1), rtol=1e-5)
