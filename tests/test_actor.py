"""The actor that many agents share: its goals, random ones too, its entropy and its temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from goalax.agents.actor_critic import Critic, actor_critic, actor_goals, entropy_actor_loss
from goalax.agents.base import ActorConfig
from goalax.core.types import Needs
from goalax.learning.networks import gaussian_actor, sample_action
from tests.helpers.agents import SPEC, small_batch


def test_actor_goals():
    goal = jnp.arange(10.0).reshape(5, 2)
    np.testing.assert_array_equal(actor_goals(goal, 0.0), goal)
    np.testing.assert_array_equal(actor_goals(goal, 0.4), goal[jnp.array([1, 2, 2, 3, 4])])
    np.testing.assert_array_equal(actor_goals(goal, 1.0), jnp.roll(goal, -1, axis=0))


def test_random_goals_are_those_of_the_policy_and_of_its_value():
    """By a critic that likes actions near goals: half of the batch acts for its neighbours' goals, and is valued so."""
    spec, batch = SPEC._replace(action_size=2), small_batch(Needs())
    config = ActorConfig(h_dim=8, n_hidden=1, random_goals=0.5, disable_entropy_actor=True)

    def nearness(params, state, action, goal):
        return -jnp.sum(jnp.abs(action - goal), axis=-1)

    critic = Critic(
        init=lambda keys: jnp.zeros(()),
        loss=lambda params, batch: (params, spec.goal_of(batch.future_state), {}),
        goals=lambda params, future_state, future_action: spec.goal_of(future_state),
        value=nearness,
    )
    agent, key = actor_critic(config, spec, critic), jax.random.PRNGKey(3)
    state = agent.init(jax.random.PRNGKey(0))
    _, metrics = agent.update(state, batch, key)
    goal = np.asarray(batch.future_state)[:, [1, 3]][[1, 2, 3, 3, 4, 5]]
    policy = gaussian_actor(config.mlp, 2).apply(state.params["actor"], batch.state, jnp.asarray(goal))
    action = np.asarray(sample_action(*policy, key)[0])
    np.testing.assert_allclose(metrics["actor_loss"], np.abs(action - goal).sum(axis=1).mean(), rtol=1e-5)


@pytest.mark.parametrize(("log_std", "sign"), [(-4.0, -1), (0.0, 1)])
def test_temperature_moves_entropy_to_its_target(log_std, sign):
    policy = (jnp.zeros((64, 3)), jnp.full((64, 3), log_std))
    loss = lambda log_alpha: entropy_actor_loss(  # noqa: E731
        ActorConfig(), policy, lambda action: jnp.sum(action, axis=-1), log_alpha, jax.random.PRNGKey(0)
    )[0]
    # Too little entropy: the loss falls with a higher temperature.
    assert jnp.sign(jax.grad(loss)(jnp.zeros(()))) == sign


def test_entropy_actor_loss_value():
    policy = (jnp.zeros((4, 3)), jnp.full((4, 3), -1.0))
    value = lambda action: jnp.sum(action, axis=-1)  # noqa: E731
    loss, metrics = entropy_actor_loss(ActorConfig(), policy, value, jnp.log(0.5), jax.random.PRNGKey(0))
    plain, _ = entropy_actor_loss(
        ActorConfig(disable_entropy_actor=True), policy, value, jnp.log(0.5), jax.random.PRNGKey(0)
    )
    entropy = metrics["entropy"]
    np.testing.assert_allclose(loss, plain - 0.5 * entropy + 0.5 * (entropy + 1.5), rtol=1e-5)
    np.testing.assert_allclose(metrics["alpha_loss"], 0.5 * (entropy + 1.5), rtol=1e-5)
