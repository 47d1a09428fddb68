"""TD-MPC2: its losses against loops, and its flags."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from goalax import flags
from goalax.agents.tdmpc2 import TDMPC2Config, model_loss, over_time, percentile_scale, policy_loss
from goalax.agents.world_model import WorldModel
from goalax.core import buffer
from goalax.core.types import Needs
from goalax.flags import FlagError
from goalax.host.config import Flags
from goalax.learning.latents import sim_norm
from goalax.learning.two_hot import cross_entropy, decode
from tests.helpers.offline import SPEC, equal
from tests.helpers.planning import SMALL, agent_of, golden, normal, small_batch
from tests.helpers.programs import programs
from tests.helpers.rings import filled_ring

# ---- Formulas --------------------------------------------------------------------------------------------------------


def test_percentile_scale():
    values = golden("percentile_scale")
    q = jnp.asarray(values["q"], jnp.float32)
    np.testing.assert_allclose(percentile_scale(jnp.float32(3), q, 0.01), values["after"], rtol=1e-5)
    assert float(percentile_scale(jnp.float32(2), 0 * q, 0.5)) == 1.5  # no less than 1


# ---- The update ------------------------------------------------------------------------------------------------------


def test_a_number_may_stand_for_a_size():
    assert flags.set_in((Flags(), TDMPC2Config()), {"model_size": 1}, {})[1].model_size == "1"
    with pytest.raises(FlagError, match="--model_size is 2; it must be text"):
        flags.set_in((Flags(), TDMPC2Config()), {"model_size": 2}, {})


def test_an_update_is_one_step_of_adam():
    """From nothing, by hand: its length is the rate; the encoder is slower, targets follow."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0})
    rate, slower, tau = config.model_lr, config.encoder_lr_scale, config.tau
    state, key = agent_of(num_q=2, dropout=0.0).init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2)
    busy = jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), state.params)
    state = state._replace(params=busy, target=busy["critic"], updates=jnp.int32(2**31 - 1))
    after, _ = jax.jit(agent_of(num_q=2, dropout=0.0).update)(state, small_batch(), key)
    assert after.updates == 2**31 - 1  # it counts no further, so that it never seems to have learned nothing yet
    moved = jax.tree.map(lambda new, old: np.abs(np.asarray(new - old)), after.params, state.params)
    largest = {name: max(leaf.max() for leaf in jax.tree.leaves(part)) for name, part in moved.items()}
    for name, size in {"encoder": slower * rate, "dynamics": rate, "reward": rate, "critic": rate}.items():
        np.testing.assert_allclose(largest[name], size, rtol=1e-2, err_msg=name)  # Adam's first step is of this length
    assert 0.5 * config.policy_lr < largest["actor"] <= 1.01 * config.policy_lr
    for slow, new, old in zip(
        *map(jax.tree.leaves, (after.target, after.params["critic"], busy["critic"])), strict=True
    ):
        np.testing.assert_allclose(slow, old + tau * (new - old), rtol=0, atol=1e-7)
        assert np.abs(new - old).max() == 0 or not np.array_equal(slow, old)


def test_losses_equal_loops():
    """Of one sample and one step after the other; two Q, so that which two are drawn is known."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0, "rho": 0.7})
    agent, batch = agent_of(num_q=2, dropout=0.0, rho=0.7), small_batch()
    state, key = agent.init(jax.random.PRNGKey(1)), jax.random.PRNGKey(2)
    busy = lambda tree: jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), tree)  # noqa: E731
    state = state._replace(params=busy(state.params), target=busy(busy(state.target)))
    after, metrics = jax.jit(agent.update)(state, batch, key)
    assert int(after.updates) == 1
    model, params, path = WorldModel(config.size, SPEC, 0.0), state.params, batch.path
    draw_key, _ = jax.random.split(jax.random.split(key)[0])
    after = model.encode(params, jnp.moveaxis(path.state[:, 1:], 1, 0), jnp.broadcast_to(batch.goal, (3, 6, 2)))
    action = model.draw(params, after, draw_key)  # as drawn in the update
    consistency = reward = value = mean_target = 0.0
    for b, t in itertools.product(range(6), range(3)):
        z = model.encode(params, path.state[b, 0], batch.goal[b])
        for before in range(t):
            z = model.step(params, z, path.action[b, before])
        q_next = [float(decode(logits)) for logits in model.q(state.target, after[t, b], action[t, b])]
        target = float(path.reward[b, t]) + float(path.discount[b, t]) * min(q_next)
        weight, u = float(path.stored[b, t]) * 0.7**t / 3 / 6, path.action[b, t]
        consistency += weight * float(np.mean((model.step(params, z, u) - after[t, b]) ** 2))
        reward += weight * float(cross_entropy(model.reward(params, z, u), path.reward[b, t]))
        both = model.q(params["critic"], z, u)
        value += weight * float(sum(cross_entropy(q, jnp.float32(target)) for q in both)) / 2
        mean_target += target / 18
    for name, expected in {
        "consistency_loss": consistency,
        "reward_loss": reward,
        "critic_loss": value,
        "q_target": mean_target,
    }.items():
        np.testing.assert_allclose(metrics[name], expected, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("size", [0.1, 100.0])
def test_gradients_have_their_weights_and_are_clipped(size):
    """Adam's first mean is a tenth of what it saw, of gradients below and above the length from which they are cut."""
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "dropout": 0.0})
    agent, batch, key = agent_of(num_q=2, dropout=0.0), small_batch(), jax.random.PRNGKey(2)
    state = agent.init(jax.random.PRNGKey(1))
    busy = jax.tree.map(lambda leaf: leaf + size * normal(leaf.size, *leaf.shape), state.params)
    state = state._replace(params=busy, target=busy["critic"])
    model, slices = WorldModel(config.size, SPEC, 0.0), config.slices(batch, SPEC)
    draw_key, _ = jax.random.split(jax.random.split(key)[0])
    after = model.encode(busy, slices.state[1:], slices.goal[1:])
    q = [decode(logits) for logits in model.q(busy["critic"], after, model.draw(busy, after, draw_key))]
    target = slices.reward + slices.discount * jnp.minimum(*q)

    def published(params):
        parts = model_loss(model, config.rho, params, slices, after, target, key)[1][1]
        return 20 * parts["consistency_loss"] + 0.1 * parts["reward_loss"] + 0.1 * parts["critic_loss"]

    gradient = jax.jit(jax.grad(published))(busy)
    del gradient["actor"]
    length = float(optax.tree.norm(gradient))
    assert (length > 20) == (size > 1), length
    after, _ = jax.jit(agent.update)(state, batch, key)
    seen = optax.tree.get(after.optimizer.inner_states["model"], "mu")
    for name, part in gradient.items():
        for leaf, expected in zip(*map(jax.tree.leaves, (seen[name], part)), strict=True):
            np.testing.assert_allclose(leaf, 0.1 * min(1, 20 / length) * expected, rtol=1e-3, atol=1e-4)


def test_the_prior_is_between_its_two_spreads():
    """From exp(-10) to exp(2), as published."""
    model = WorldModel(TDMPC2Config(**SMALL).size, SPEC, 0.0)
    params, z = model.init(jax.random.PRNGKey(0)), sim_norm(normal(0, 4, 16))
    last = "Dense_2"
    for bias, expected in ((-9.0, -10), (0.0, -4), (9.0, 2)):
        leaves = params["actor"]["params"]
        moved = {**leaves[last], "bias": jnp.full(6, bias), "kernel": jnp.zeros_like(leaves[last]["kernel"])}
        mean, log_std = model.policy({**params, "actor": {"params": {**leaves, last: moved}}}, z)
        np.testing.assert_allclose(mean, bias)
        np.testing.assert_allclose(log_std, expected, atol=1e-5)


def test_loss_of_the_policy_prior_equals_a_loop():
    config = TDMPC2Config(**{**SMALL, "num_q": 2, "entropy_weight": 0.1})
    model = WorldModel(config.size, SPEC, 0.0)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * normal(leaf.size, *leaf.shape), model.init(jax.random.PRNGKey(0)))
    z, key, old = sim_norm(normal(3, 4, 6, 16)), jax.random.PRNGKey(5), jnp.float32(2)
    stored = (np.arange(18).reshape(3, 6) % 5 > 0).astype(np.float32)
    loss, (scale, metrics) = policy_loss(config, model, params, z, jnp.asarray(stored), old, key)
    noise = normal_of(jax.random.split(key)[0], 4, 6, 3)
    q, entropy = np.zeros((4, 6)), np.zeros((4, 6))
    for t, b in itertools.product(range(4), range(6)):
        mean, log_std = (np.asarray(x, float) for x in model.policy(params, z[t, b]))
        before = mean + np.exp(log_std) * noise[t, b]
        both = model.q(params["critic"], z[t, b], jnp.tanh(jnp.asarray(before, jnp.float32)))
        q[t, b] = np.mean([float(decode(logits)) for logits in both])
        log_density = -0.5 * ((before - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)
        entropy[t, b] = -3 * np.sum(log_density)
    expected_scale = 2 + 0.01 * (max(np.percentile(q[0], 95) - np.percentile(q[0], 5), 1) - 2)
    np.testing.assert_allclose(scale, expected_scale, rtol=1e-5)
    seen = np.concatenate([np.ones((1, 6)), stored])
    expected = -np.mean([0.5**t * np.mean(seen[t] * (0.1 * entropy[t] + q[t] / expected_scale)) for t in range(4)])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["entropy"], entropy.mean() / 3, rtol=1e-4)


def normal_of(key, *shape):
    return np.asarray(jax.random.normal(key, shape), float)


def test_over_time():
    values = jnp.array([[1.0, 3.0], [4.0, 0.0], [8.0, 8.0]])
    np.testing.assert_allclose(over_time(values, 0.5), (2 + 0.5 * 2 + 0.25 * 8) / 3)


@pytest.mark.slow
def test_the_prior_does_not_train_the_model_nor_the_other_way_round():
    """What only one of the losses sees changes the networks of that one alone."""
    agent, batch, key = agent_of(), small_batch(), jax.random.PRNGKey(0)
    update, state = jax.jit(agent.update), agent.init(jax.random.PRNGKey(7))
    # Fresh values are 0 everywhere, and tell the prior nothing.
    keys = iter(jax.random.split(key, 100))
    state = state._replace(
        params=jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), state.params)
    )
    params = update(state, batch, key)[0].params
    divided = update(state._replace(scale=jnp.float32(50)), batch, key)[0].params
    rewarded = update(state, batch._replace(path=batch.path._replace(reward=batch.path.reward + 1)), key)[0].params
    for name in params:
        assert equal(params[name], divided[name]) == (name != "actor")
    assert equal(params["actor"], rewarded["actor"]) and not equal(params["reward"], rewarded["reward"])


@pytest.mark.slow
def test_losses_fall_on_a_fixed_batch():
    agent, batch = agent_of(model_lr=1e-2), small_batch()
    update, state, seen = jax.jit(agent.update), agent.init(jax.random.PRNGKey(7)), []
    for i in range(80):
        state, metrics = update(state, batch, jax.random.PRNGKey(i))
        assert all(value.shape == () and bool(jnp.isfinite(value)) for value in metrics.values())
        seen.append([float(metrics[name]) for name in ("consistency_loss", "reward_loss")])
    first, last = np.mean(seen[:5], axis=0), np.mean(seen[-5:], axis=0)
    assert last[1] < 0.7 * first[1] and np.isfinite(last[0])


def test_hindsight_replaces_the_first_goals_and_their_rewards():
    batch = small_batch()
    slices = TDMPC2Config(use_her=True, her_ratio=0.5).slices(batch, SPEC)
    assert slices.state.shape == (4, 6, 5) and slices.goal.shape == (4, 6, 2) and slices.reward.shape == (3, 6)
    for b in range(6):
        goal = batch.future_state[b, jnp.array([1, 3])] if b < 3 else batch.goal[b]
        reward = batch.path.future_reward[b] if b < 3 else batch.path.reward[b]
        np.testing.assert_array_equal(slices.reward[:, b], reward)
        for t in range(4):
            np.testing.assert_array_equal(slices.goal[t, b], goal)


def test_rewards_of_achieved_goals_on_the_way():
    spec = SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,), goal_reach_thresh=0.5)
    ring, needs = filled_ring(0), Needs(horizon=3)
    batch = buffer.sample(ring, jax.random.PRNGKey(0), 64, spec, 5, needs)
    way, goal = np.asarray(batch.path.state[:, 1:, 0]), np.asarray(batch.future_state[:, 0])
    np.testing.assert_array_equal(batch.path.future_reward, np.abs(way - goal[:, None]) < 0.5)
    assert 0 < float(jnp.mean(batch.path.future_reward)) < 1
    np.testing.assert_array_equal(batch.path.future_reward[:, 0], batch.future_reward)


@pytest.mark.slow
def test_without_goals():
    spec = SPEC._replace(goal_size=0, goal_indices=())
    agent, batch = agent_of(spec), small_batch(goal_size=0)
    state, metrics = jax.jit(agent.update)(agent.init(jax.random.PRNGKey(0)), batch, jax.random.PRNGKey(1))
    assert agent.score is None and all(bool(jnp.isfinite(value)) for value in metrics.values())
    action, _ = agent.memory.mode(state, agent.memory.start(state, 4), jnp.ones((4, 5)), jnp.zeros((4, 0)))
    assert action.shape == (4, 3)
    assert agent.mode(state, jnp.ones(5), jnp.zeros(0)).shape == (3,)
    with pytest.raises(FlagError, match="--use_her learns from achieved goals"):
        agent_of(spec, use_her=True)


# ---- Flags -----------------------------------------------------------------------------------------------------------


CHANGES = {"num_q": 4, "latent_dim": 8, "h_dim": 9, "encoder_dim": 9, "policy_lr": 0.1, "model_lr": 0.1, "tau": 0.5}
CHANGES |= {"her_ratio": 0.2, "horizon": 4, "min_std": 1.0, "max_std": 0.3, "temperature": 50.0, "dropout": 0.5}
CHANGES |= {"entropy_weight": 0.5, "rho": 0.9, "encoder_lr_scale": 30.0, "her_strategy": "goal_law"}
CHANGES |= {"num_samples": 17, "num_prior": 5, "num_elites": 5, "iterations": 3, "use_her": True, "model_size": "1"}
CHANGES |= {"plan_horizon": 4, "exec_horizon": 4, "mismatch": 100.0, "replans": 0.5}
NEEDED = {
    "mismatch": {"exec_horizon": 2},
    "exec_horizon": {"exec_horizon": 2, "mismatch": 100.0},
    "her_ratio": {"use_her": True},
    "her_strategy": {"use_her": True},
    "model_size": {"latent_dim": 0},
}


def program(**flags):
    agent = agent_of(**flags)
    return programs(agent, small_batch(agent.needs.horizon), SPEC.discounting)


@pytest.fixture(scope="module")
def unchanged():
    """(other flags) -> the program with them; kept."""
    return functools.cache(lambda flags: program(**dict(flags)))


@pytest.mark.slow
def test_equal_flags_make_equal_programs(unchanged):
    assert program() == unchanged(())


@pytest.mark.slow
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(TDMPC2Config)])
def test_every_flag_changes_something(name, unchanged):
    needed = NEEDED.get(name, {})
    assert program(**{**needed, name: CHANGES[name]}) != unchanged(tuple(needed.items()))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"num_elites": 17}, "--num_elites is 17; it must be at most --num_samples 16."),
        ({"num_prior": 17}, "--num_prior is 17; it must be at most --num_samples 16."),
        ({"min_std": 3.0}, "--min_std is 3; it must be at most --max_std 2."),
        ({"latent_dim": 12}, "--latent_dim is 12; it must be a multiple of 8, for example 16."),
        ({"num_q": 1}, "--num_q is 1; it must be at least 2, or 0."),
    ],
)
def test_what_does_not_fit_is_one_sentence(flags, words):
    with pytest.raises(FlagError) as error:
        agent_of(**flags)
    assert str(error.value) == words
