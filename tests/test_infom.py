"""Tests of InFOM: losses against NumPy, and flows that learn known distributions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from goalax.agents import AGENTS, infom
from goalax.agents.extraction import expectile
from goalax.agents.q_learning import TwinCritic
from goalax.learning.flow import MARGIN, Bounds, carried, matching_error, on_the_line
from goalax.learning.networks import MLP
from tests.helpers.infom import KEY, config, learner_of
from tests.helpers.offline import NO_GOALS, SPEC, batch_of, close, golden

# ---- Flows -----------------------------------------------------------------------------------------------------------


def linear(weights, *given):
    """The field of the golden values."""
    return lambda x, time: jnp.concatenate([x, time[..., None], *given], axis=-1) @ weights.T


def test_golden_infom():
    g = golden("infom")
    field = linear(g["W"], g["s"], g["a"], g["z"])
    slow = linear(g["W_target"], g["next_s"], g["next_a"], g["z"])
    present = infom.present_error(field, g["s"], g["current_noise"], g["t"])
    close(present, g["current_loss"])
    bounds, never, nowhere = Bounds(g["low"], g["high"]), np.zeros(6, bool), np.full((6, 3), np.nan)
    steps, noise = int(g["steps"]), g["future_noise"]
    later, sample = infom.later_error(field, slow, noise, g["t"], never, nowhere, steps, bounds)
    close(sample, g["future_state"])
    close(later, g["future_loss"])
    close(jnp.mean((1 - g["gamma"]) * present + g["gamma"] * later), g["flow_loss"])
    close(infom.divergence(g["mean"], g["log_std"]), g["kl"])
    aim = infom.values_of(g["reward_of_goals"], float(g["gamma"]))
    close(aim, g["q_target"])
    close(np.mean([expectile(aim - q, aim - q, 0.9) for q in g["q"]]), g["critic_loss"])


def test_an_episode_that_ended_stays_where_it_is():
    g = golden("infom")
    field, slow = linear(g["W"], g["s"], g["a"], g["z"]), linear(np.nan * g["W"], g["s"], g["a"], g["z"])
    ended, bounds = np.ones(6, bool), Bounds(g["low"], g["high"])
    later, sample = infom.later_error(field, slow, g["future_noise"], g["t"], ended, g["next_s"], 10, bounds)
    np.testing.assert_array_equal(sample, g["next_s"].astype(np.float32))
    close(later, infom.present_error(field, g["next_s"], g["future_noise"], g["t"]))


def test_bounds_are_of_all_that_was_seen():
    points = np.random.default_rng(0).normal(size=(3, 20, 2)).astype(np.float32)
    bounds = Bounds.of_nothing(2)
    assert np.isfinite(bounds).all()  # which runs require of an agent's state
    for some in points:
        bounds = bounds.widened(some)
    np.testing.assert_array_equal(bounds, [points.min((0, 1)), points.max((0, 1))])
    inside = bounds.clip(jnp.array([[-9.0, 9.0], [0.0, 0.0]]))
    close(inside, [[bounds.low[0] + MARGIN, bounds.high[1] - MARGIN], [0, 0]])


def test_eulers_method_asks_at_the_start_of_every_step():
    noise, wide = jnp.zeros((2, 3, 1)), Bounds(jnp.full(1, -9.0), jnp.full(1, 9.0))
    close(carried(lambda x, time: time[..., None], noise, 4, wide), np.full((2, 3, 1), (0 + 0.25 + 0.5 + 0.75) / 4))
    close(carried(lambda x, time: x + 1, noise, 3, wide), np.full((2, 3, 1), (4 / 3) ** 3 - 1))


def learned_flow(samples, updates=800):
    """A field that has learned to carry noise to samples [N, 1], from batches that are drawn of them."""
    network, adam = MLP(1, h_dim=32), optax.adam(optax.cosine_decay_schedule(1e-2, updates))
    params = network.init(KEY, jnp.zeros((1, 2)))

    def field_of(params):
        return lambda point, time: network.apply(params, jnp.concatenate([point, time[..., None]], axis=-1))

    def loss(params, key):
        sample_key, noise_key, time_key = jax.random.split(key, 3)
        sample = jax.random.choice(sample_key, samples, (128,))
        noise, time = jax.random.normal(noise_key, sample.shape), jax.random.uniform(time_key, (128,))
        point = on_the_line(noise, sample, time)
        return jnp.mean(matching_error(field_of(params), point, time, sample - noise))

    def update(carry, key):
        params, state = carry
        steps, state = adam.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, steps), state), None

    keys = jax.random.split(KEY, updates)
    (params, _), _ = jax.jit(lambda *args: jax.lax.scan(update, *args))((params, adam.init(params)), keys)
    return field_of(params)


def test_a_flow_learns_two_points():
    field = learned_flow(jnp.array([[-1.0], [1.0], [1.0], [1.0]]))
    noise, bounds = jax.random.normal(jax.random.PRNGKey(1), (1000, 1)), Bounds(jnp.full(1, -2.0), jnp.full(1, 2.0))
    found = np.asarray(jax.jit(lambda noise: carried(field, noise, 20, bounds))(noise))[:, 0]
    assert np.mean(np.abs(np.abs(found) - 1) < 0.2) > 0.9
    assert np.mean(found > 0) == pytest.approx(0.75, abs=0.06)


@pytest.mark.slow
def test_infom_learns_which_states_come_later():
    """One action from 0 to 1 or to -1, where episodes end: half of what comes is 0, and half is where they end."""
    spec = NO_GOALS._replace(state_size=1, action_size=1, discounting=0.5)
    small = config("infom", h_dim=32, n_hidden=2, flow_steps=10, flow_samples=500, critic_lr=3e-3, tau=0.05)
    agent, action = AGENTS["infom"].make(small, spec), jnp.tile(jnp.array([[-1.0], [1.0]]), (64, 1))
    some = batch_of(spec, 128)._replace(
        state=jnp.zeros((128, 1)), action=action, next_state=action, next_action=0 * action, discount=jnp.zeros(128)
    )
    update = lambda state, key: (agent.update(state, some, key)[0], None)  # noqa: E731
    learn = jax.jit(lambda state, keys: jax.lax.scan(update, state, keys)[0])
    state = learn(jax.jit(agent.init)(KEY), jax.random.split(KEY, 1000))
    few = jax.tree.map(lambda leaf: leaf[:2], some)
    found = infom.Occupancy(small, spec).samples(state.params["critic"], state.target["bounds"], few, KEY)
    for number, end in enumerate((-1.0, 1.0)):
        along = end * np.asarray(found)[:, number, 0]  # from 0 to 1
        assert np.mean(along > 0.5) == pytest.approx(0.5, abs=0.12)
        assert np.mean(np.minimum(np.abs(along), np.abs(along - 1)) < 0.25) > 0.85


# ---- Losses of whole agents ------------------------------------------------------------------------------------------


def flow_terms(small, params, target, some, key):
    """Losses of the flow and of the intentions in NumPy: a loop over samples, and one over steps."""
    occupancy = infom.Occupancy(small, SPEC)
    latent_key, time_key, now_key, later_key = jax.random.split(key, 4)
    inputs = jnp.concatenate([some.next_state, some.next_action], -1)
    mean, log_std = np.split(np.asarray(occupancy.intention.apply(params["intention"], inputs), np.float64), 2, -1)
    z = mean + np.exp(log_std) * np.asarray(jax.random.normal(latent_key, mean.shape))
    times = np.asarray(jax.random.uniform(time_key, (64,)), np.float64)
    noises = [np.asarray(jax.random.normal(one, (64, 5)), np.float64) for one in (now_key, later_key)]
    here, there, action, after, discount = (
        np.asarray(x, np.float64) for x in (some.state, some.next_state, some.action, some.next_action, some.discount)
    )
    seen = np.concatenate([here, there])

    def velocity(weights, points, times, state, action):
        inputs = np.concatenate([points, times[:, None], state, action, z], -1).astype(np.float32)
        return np.asarray(occupancy.flow.apply(weights, inputs), np.float64)

    later = noises[1]
    for step in range(small.flow_steps):
        later = later + velocity(target, later, np.full(64, step / small.flow_steps), there, after) / small.flow_steps
        later = np.clip(later, seen.min(0) + 1e-5, seen.max(0) - 1e-5)
    later = np.where(discount[:, None] == 0, there, later)
    points = [times[:, None] * x + (1 - times[:, None]) * n for x, n in zip((here, later), noises, strict=True)]
    aims = [here - noises[0], velocity(target, points[1], times, there, after)]
    found = [velocity(params["flow"], point, times, here, action) for point in points]
    flow = kl = 0.0
    for i in range(64):
        aim = there[i] - noises[1][i] if discount[i] == 0 else aims[1][i]
        flow += 0.1 * np.mean((aims[0][i] - found[0][i]) ** 2) + 0.9 * np.mean((aim - found[1][i]) ** 2)
        kl += np.mean(0.5 * (mean[i] ** 2 + np.exp(2 * log_std[i]) - 1) - log_std[i])
    return flow / 64, kl / 64


def test_losses_of_infom_in_both_phases():
    small, agent, update, some, state, *_ = learner_of("infom")
    state = state._replace(target=state.target | {"flow": jax.tree.map(lambda x: x + 0.1, state.target["flow"])})
    _, metrics = update(state, some, KEY)
    networks = state.params["critic"]
    flow, kl = flow_terms(small, networks, state.target["flow"], some, KEY)
    close(metrics["flow_loss"], flow, 1e-4)
    close(metrics["kl"], kl, 1e-4)
    close(metrics["critic_loss"], flow + 0.3 * kl, 1e-4)
    mean = np.asarray(agent.mode(state, some.state, some.goal))
    likelihood = np.mean(stats.norm(mean, 1.0).logpdf(some.action).sum(-1))
    close(metrics["actor_loss"], -likelihood, 1e-4)

    tuned, critic = agent.switch(state, some, KEY), TwinCritic(small, SPEC)
    _, metrics = update(tuned, some, KEY)
    flow_key, value_key = jax.random.split(KEY)
    flow, kl = flow_terms(small, networks, networks["flow"], some, flow_key)  # where the target has begun anew
    reward = functools.partial(small.mlp(1, use_ln=True).apply, networks["reward"])
    predicted = np.asarray(reward(jnp.concatenate([some.next_state, some.goal], -1)))[:, 0]
    bounds = Bounds.of_nothing(5).widened(some.state).widened(some.next_state)
    later = np.asarray(infom.Occupancy(small, SPEC).samples(networks, bounds, some, value_key))
    rewards = [np.asarray(reward(jnp.concatenate([each, some.goal], -1)))[:, 0] for each in later]
    aim = sum(rewards) / 2 / (1 - 0.9)
    errors = aim - np.stack(critic.values(networks["q"], some.state, some.goal, some.action))
    value_loss = np.mean(np.where(errors < 0, 0.1, 0.9) * errors**2)
    reward_loss = np.mean((predicted - np.asarray(some.reward)) ** 2)
    close(metrics["critic_loss"], flow + 0.3 * kl + reward_loss + value_loss, 1e-4)
    worth = np.min(critic.values(networks["q"], some.state, some.goal, mean), axis=0)
    close(metrics["actor_loss"], -np.mean(worth) - 2 * likelihood, 1e-4)


def test_intentions_learn_from_the_present_alone():
    """And from their divergence, which has no weight here; the flow learns from what comes later, too."""
    small, _, _, some, state, *_ = learner_of("infom")
    small = dataclasses.replace(small, kl_weight=0.0)

    @jax.jit
    def gradients(gamma):
        occupancy = infom.Occupancy(small, SPEC._replace(discounting=gamma))
        bounds = Bounds(jnp.full(5, -9.0), jnp.full(5, 9.0))
        loss = lambda params: occupancy.loss(params, state.target["flow"], bounds, some, KEY)[0]  # noqa: E731
        return jax.grad(loss)(state.params["critic"])

    for gamma in (1.0, 0.0):
        found = {name: max(np.abs(x).max() for x in jax.tree.leaves(g)) for name, g in gradients(gamma).items()}
        assert found["flow"] > 1e-3 and (found["intention"] > 1e-3) == (gamma == 0.0)


def test_bounds_are_kept():
    _, agent, update, some, state, *_ = learner_of("infom")
    other = some._replace(state=some.state + 3, next_state=some.next_state - 3)
    for each in (some, other):
        state, _ = update(state, each, KEY)
    state, _ = update(agent.switch(state, some, KEY), some, KEY)
    seen = np.concatenate([x for each in (some, other) for x in (each.state, each.next_state)])
    np.testing.assert_array_equal(state.target["bounds"], [seen.min(0), seen.max(0)])
