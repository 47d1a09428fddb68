"""Losses of whole agents, put together: each by NumPy from the formulas, with the networks' outputs as they are."""

import jax
import jax.numpy as jnp
import numpy as np

from goalax.agents import AGENTS
from goalax.agents.extraction import linear_actor
from goalax.agents.pretraining import joined, uniform_latents
from goalax.agents.q_learning import TwinCritic
from goalax.learning.networks import deterministic_actor, gaussian_actor, sample_action
from tests.helpers.whole_losses import (
    BATCH,
    DISCOUNT,
    SIZE,
    SPEC,
    both,
    close,
    double,
    log_density,
    near_data,
    normal,
    updated,
)


def test_pre_training_of_fb():
    config, state, metrics = updated("fb", n_hidden=1, repr_dim=4)
    params, slow, network = state.params["critic"], state.target, config.mlp(4)
    uniform_key, order_key, share_key = jax.random.split(jax.random.PRNGKey(2), 3)  # as in the update

    def backward(states, params=params):
        x = double(network.apply(params["backward"], states))
        return 2 * x / np.linalg.norm(x, axis=-1, keepdims=True)

    stored = double(jax.random.uniform(share_key, (SIZE, 1))) < 0.5
    of_states = backward(jax.random.permutation(order_key, BATCH.state))
    z = np.where(stored, of_states, double(uniform_latents(uniform_key, SIZE, 4)))
    goal, actor = joined(BATCH.goal, jnp.asarray(z, jnp.float32)), linear_actor(config.mlp, 3)

    def forward(states, action, params=params):
        return np.stack([double(network.apply(one, both(states, goal, action))) for one in params["forward"]])

    after = backward(BATCH.next_state)
    next_action = jnp.clip(actor.apply(state.params["actor"], BATCH.next_state, goal), -1, 1)
    target = (forward(BATCH.next_state, next_action, slow) @ backward(BATCH.next_state, slow).T).mean(axis=0)
    measure = forward(BATCH.state, BATCH.action) @ after.T
    others = ~np.eye(SIZE, dtype=bool)

    def off_diagonal(matrix):
        return (matrix * others).sum(axis=-1) / (SIZE - 1)

    errors = (measure - DISCOUNT[:, None] * target) ** 2
    loss = np.mean([0.5 * off_diagonal(error) - np.diag(one) for one, error in zip(measure, errors, strict=True)])
    products = after @ after.T
    orthonormal = np.mean(off_diagonal(products**2) - 2 * np.diag(products))
    mean = actor.apply(state.params["actor"], BATCH.state, goal)
    value = (forward(BATCH.state, jnp.clip(mean, -1, 1)) * z).sum(axis=-1).min(axis=0)
    close(metrics, critic_loss=loss + orthonormal, actor_loss=-value.mean() - 10 * log_density(mean).mean())


def test_fine_tuning_of_crl_infonce():
    config = AGENTS["crl_infonce"].config(h_dim=8, n_hidden=1, repr_dim=4)
    agent = AGENTS["crl_infonce"].make(config, SPEC)
    assert agent.switch is not None
    state = agent.init(jax.random.PRNGKey(0))
    tuned = agent.switch(state, BATCH, jax.random.PRNGKey(1))
    _, metrics = jax.jit(agent.update)(tuned, BATCH, jax.random.PRNGKey(2))
    params, network = state.params["critic"], config.mlp(4)

    def phi(action):
        return [double(network.apply(one, both(BATCH.state, action))) for one in params["phi"]]

    def psi(states):
        return [double(network.apply(one, states)) for one in params["psi"]]

    def rewards(states):
        return double(config.mlp(1).apply(params["reward"], both(states, BATCH.goal)))[:, 0]

    contrastive = []
    for x, y in zip(phi(BATCH.action), psi(BATCH.future_state), strict=True):
        logits = x @ y.T / 2
        total = np.log(np.exp(logits).sum(axis=1))
        contrastive.append((total - np.diag(logits)).mean() + 0.01 * (total**2).mean())
    error = np.mean((rewards(BATCH.next_state) - double(BATCH.reward)) ** 2)
    close(metrics, critic_loss=np.mean(contrastive) + error)
    mean = linear_actor(config.mlp, 3).apply(state.params["actor"], BATCH.state, BATCH.goal)
    pairs = zip(phi(jnp.clip(mean, -1, 1)), psi(BATCH.actor_state), strict=True)
    logits = np.min([np.maximum(x @ y.T / 2, np.log(1e-6)) for x, y in pairs], axis=0)
    ratio = np.exp(np.diag(logits) - np.log(np.exp(logits).sum(axis=1)) + np.log(SIZE))
    close(metrics, actor_loss=near_data(ratio * rewards(BATCH.actor_state), mean, 0.1))


def test_rebrac():
    config, state, metrics = updated("rebrac", policy_delay=1, critic_lr=1e-12, actor_bc=0.3, critic_bc=0.7)
    network, critic, slow = deterministic_actor(config.actor_mlp, 3), TwinCritic(config, SPEC), state.target
    wanted = np.tanh(double(network.apply(slow["actor"], BATCH.next_state, BATCH.goal)))
    noise = np.clip(config.target_noise * double(normal(2, SIZE, 3)), -config.noise_clip, config.noise_clip)  # its key
    action = np.clip(wanted + noise, -1, 1)
    inputs = BATCH.next_state, BATCH.goal, jnp.asarray(action, jnp.float32)
    worth = np.min([double(q) for q in critic.values(slow["critic"], *inputs)], axis=0)
    far = ((action - double(BATCH.next_action)) ** 2).sum(axis=-1)
    target = double(BATCH.reward) + DISCOUNT * (worth - 0.7 * far)
    q = critic.values(state.params["critic"], BATCH.state, BATCH.goal, BATCH.action)
    close(metrics, critic_loss=sum(np.mean((double(each) - target) ** 2) for each in q))
    chosen = jnp.tanh(network.apply(state.params["actor"], BATCH.state, BATCH.goal))
    value = np.min([double(q) for q in critic.values(state.params["critic"], BATCH.state, BATCH.goal, chosen)], axis=0)
    far = ((double(chosen) - double(BATCH.action)) ** 2).sum(axis=-1)
    close(metrics, actor_loss=0.3 * far.mean() - value.mean() / np.abs(value).mean())


def test_cql():
    config, state, metrics = updated("cql", cql_alpha=3.0, cql_samples=2)
    network, critic, params = gaussian_actor(config.actor_mlp, 3), TwinCritic(config, SPEC), state.params
    target_key, key = jax.random.split(jax.random.PRNGKey(2))  # as in the update, and below
    random_key, now_key, next_key = jax.random.split(jax.random.split(key)[0], 3)

    def drawn(states, number, key):
        parts = (jnp.stack([part] * number) for part in network.apply(params["actor"], states, BATCH.goal))
        return sample_action(*parts, key)

    def values(of, states, action):
        many = (jnp.stack([part] * len(action)) for part in (states, BATCH.goal))
        return np.stack([double(q) for q in critic.values(of, *many, action)])

    (following,), _ = drawn(BATCH.next_state, 1, target_key)
    target = double(BATCH.reward) + DISCOUNT * values(state.target, BATCH.next_state, following[None]).min(axis=0)[0]
    stored = values(params["critic"], BATCH.state, BATCH.action[None])[:, 0]
    close(metrics, bellman_loss=((stored - target) ** 2).mean(axis=1).sum())
    random = jax.random.uniform(random_key, (2, SIZE, 3), minval=-1, maxval=1)
    now, density = drawn(BATCH.state, 2, now_key)
    later, next_density = drawn(BATCH.next_state, 2, next_key)
    parts = (random, 3 * np.log(0.5)), (now, double(density)[None]), (later, double(next_density)[None])
    ratios = [np.exp(values(params["critic"], BATCH.state, action) - log) for action, log in parts]  # all seen in s
    penalty = (np.log(np.concatenate(ratios, axis=1).sum(axis=1)) - stored).mean(axis=1)
    close(
        metrics, cql_penalty=penalty.mean(), critic_loss=((stored - target) ** 2).mean(axis=1).sum() + 3 * penalty.sum()
    )
