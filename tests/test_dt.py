"""The Decision Transformer: attention by NumPy, what it sees when it learns and when it acts, and its flags."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from goalax.agents import AGENTS
from goalax.agents.dt import DecisionTransformer, DTConfig, behind, with_state
from goalax.core import buffer
from goalax.core.relabel import RELABEL
from goalax.core.types import Batch, Path, Spec
from goalax.flags import FlagError
from goalax.learning.transformer import Transformer, attention, dropped
from tests.helpers.programs import programs
from tests.helpers.rings import filled_ring, stored_steps

SPEC = Spec(state_size=5, goal_size=2, action_size=3, goal_indices=(1, 3), discounting=0.9, goal_reach_thresh=1)
SMALL = {"context_length": 4, "n_blocks": 2, "heads": 2, "h_dim": 8, "warm_up": 1, "policy_lr": 1e-2}


def normal(i, *shape):
    return jax.random.normal(jax.random.PRNGKey(i), shape)


def agent_of(spec=SPEC, **flags):
    return AGENTS["dt"].make(DTConfig(**{**SMALL, **flags}), spec)


def small_batch(horizon=4, size=6):
    nothing = jnp.zeros((size, horizon))
    states, actions = normal(0, size, horizon + 1, 5), jnp.tanh(normal(1, size, horizon, 3))
    path = Path(states, actions, nothing, nothing + 0.9, stored_steps(size, horizon))
    first = path.state[:, 0], path.action[:, 0], path.state[:, 1], normal(2, size, 2), normal(3, size, 5)
    return Batch(*first, path.action[:, 0], *[nothing[:, 0]] * 3, path=path if horizon > 1 else None)


def louder(params):
    """Parameters far enough from those of the start for everything to matter."""
    return jax.tree.map(lambda leaf: leaf + 0.5 * normal(leaf.size, *leaf.shape), params)


# ---- The transformer -------------------------------------------------------------------------------------------------


def test_attention_by_numpy():
    query, key, value = (np.asarray(normal(i, 2, 5, 3, 4), np.float64) for i in range(3))
    read, weights = attention(*(jnp.asarray(x, jnp.float32) for x in (query, key, value)))
    for b in range(2):
        for h in range(3):
            for t in range(5):
                scores = key[b, : t + 1, h] @ query[b, t, h] / 2
                share = np.exp(scores) / np.exp(scores).sum()
                np.testing.assert_allclose(weights[b, h, t, : t + 1], share, rtol=1e-4)
                np.testing.assert_array_equal(weights[b, h, t, t + 1 :], 0)
                np.testing.assert_allclose(read[b, t, h], share @ value[b, : t + 1, h], rtol=1e-4, atol=1e-5)


def test_nothing_is_seen_before_its_time():
    net = Transformer(blocks=2, heads=2)
    x = normal(0, 3, 6, 8)
    params = louder(net.init(jax.random.PRNGKey(1), x))
    before = net.apply(params, x)
    for t in range(6):
        after = net.apply(params, x.at[:, t].add(normal(2, 8)[None]))
        np.testing.assert_allclose(after[:, :t], before[:, :t], atol=1e-6)
        assert np.min(np.max(np.abs(after[:, t:] - before[:, t:]), axis=(0, 2))) > 1e-3


def test_dropout_keeps_the_mean_and_needs_a_key():
    x, key = jnp.ones((100, 100)), jax.random.PRNGKey(0)
    some = dropped(x, 0.25, key)
    assert set(np.unique(some).round(4)) == {0.0, np.float32(1.3333)}
    np.testing.assert_allclose(jnp.mean(some), 1, atol=0.03)
    assert dropped(x, 0.25, None) is x and dropped(x, 0.0, key) is x


# ---- What it sees ----------------------------------------------------------------------------------------------------


def test_goals_lie_behind_the_window():
    law = behind(RELABEL["uniform"](0.9), 4)
    uniform = jnp.linspace(0, 0.999, 500)
    ahead = np.asarray(law(uniform, jnp.full(500, 10)))
    assert set(ahead) == set(range(4, 11))
    assert set(np.asarray(law(uniform, jnp.full(500, 4)))) == {4}
    assert set(np.asarray(law(uniform, jnp.full(500, 2)))) == {2}
    counts = np.bincount(ahead)[4:]
    assert counts.max() - counts.min() <= 1  # the law of before, from the last row of the window on


def test_batches_are_windows_of_one_episode_with_goals_behind_them():
    """The states of the ring are the numbers of their rows."""
    ring = filled_ring(0)
    capacity = ring.rows.reward.shape[0]
    count = int(ring.count)
    number = np.empty(capacity)
    number[np.arange(count - capacity, count) % capacity] = np.arange(count - capacity, count)
    states = jnp.broadcast_to(jnp.asarray(number, jnp.float32)[:, None, None], ring.rows.state.shape)
    ring = ring._replace(rows=ring.rows._replace(state=states))
    spec = SPEC._replace(state_size=3, goal_size=1, action_size=1, goal_indices=(0,))
    batch = buffer.sample(ring, jax.random.PRNGKey(0), 200, spec, 5, agent_of(spec, context_length=2).needs)
    steps, goal = np.asarray(batch.path.state[..., 0]), np.asarray(batch.future_state[:, 0])
    np.testing.assert_array_equal(steps - steps[:, :1], np.tile(np.arange(3), (200, 1)))
    np.testing.assert_array_equal(steps[:, 0] // 5, steps[:, 2] // 5)  # episodes of 5 rows
    np.testing.assert_array_equal(steps[:, 0] // 5, goal // 5)
    assert (goal >= steps[:, 2]).all() and (goal > steps[:, 2]).any()


def test_the_loss_is_that_of_every_step_of_the_window():
    """Without dropout, by acting step by step through the stored windows with the stored actions."""
    agent, batch = agent_of(dropout=0.0), small_batch()
    state = agent.init(jax.random.PRNGKey(1))
    state = state._replace(params=louder(state.params))
    _, metrics = jax.jit(agent.update)(state, batch, jax.random.PRNGKey(2))
    mode = jax.jit(agent.memory.mode)
    goal, held, errors = batch.future_state[:, jnp.array([1, 3])], agent.memory.start(state, 6), []
    for t in range(4):
        action, held = mode(state, held, batch.path.state[:, t], goal)
        np.testing.assert_array_equal(held.action[:, t], action)
        held = held._replace(action=held.action.at[:, t].set(batch.path.action[:, t]))
        error = np.sum((np.asarray(action) - np.asarray(batch.path.action[:, t])) ** 2, axis=-1)
        errors.append(error[np.asarray(batch.path.stored[:, t]) > 0])
    np.testing.assert_allclose(metrics["actor_loss"], np.mean(np.concatenate(errors)), rtol=1e-4)


def test_the_memory_holds_the_last_steps():
    agent = agent_of(context_length=3)
    state = agent.init(jax.random.PRNGKey(0))
    held, seen, taken = agent.memory.start(state, 2), [], []
    for t in range(5):
        seen.append(normal(t, 2, 5))
        action, held = agent.memory.act(state, held, seen[-1], normal(9, 2, 2), jax.random.PRNGKey(t))
        taken.append(action)
        kept = min(t + 1, 3)
        np.testing.assert_array_equal(held.length, [kept, kept])
        np.testing.assert_array_equal(held.state[:, :kept], jnp.stack(seen[-kept:], axis=1))
        np.testing.assert_array_equal(held.action[:, :kept], jnp.stack(taken[-kept:], axis=1))
        np.testing.assert_array_equal(held.state[:, kept:], 0)
    assert bool(jnp.all(jnp.abs(jnp.stack(taken)) <= 1))


@pytest.mark.slow
def test_environments_are_on_their_own():
    """One that began later sees its own steps only, at their own places."""
    agent = agent_of(context_length=3)
    state = agent.init(jax.random.PRNGKey(0))
    state, goal = state._replace(params=louder(state.params)), normal(9, 2, 2)
    held = agent.memory.start(state, 2)
    for t in range(4):
        _, held = agent.memory.mode(state, held, normal(t, 2, 5), goal)
    fresh = agent.memory.start(state, 2)
    mixed = jax.tree.map(lambda a, b: jnp.stack([a[0], b[1]]), held, fresh)
    both, _ = agent.memory.mode(state, mixed, normal(7, 2, 5), goal)
    old, _ = agent.memory.mode(state, held, normal(7, 2, 5), goal)
    new, _ = agent.memory.mode(state, fresh, normal(7, 2, 5), goal)
    np.testing.assert_allclose(both, jnp.stack([old[0], new[1]]), atol=1e-6)
    assert float(jnp.max(jnp.abs(old[1] - new[1]))) > 1e-3  # the past matters
    np.testing.assert_allclose(agent.mode(state, normal(7, 2, 5), goal), new, atol=1e-6)  # who remembers nothing
    assert agent.mode(state, jnp.ones((2, 3, 5)), jnp.ones((2, 3, 2))).shape == (2, 3, 3)
    assert agent.act(state, jnp.ones(5), jnp.ones(2), jax.random.PRNGKey(0)).shape == (3,)


@pytest.mark.slow
def test_a_full_context_loses_its_oldest_step():
    agent = agent_of(context_length=2)
    held = agent.memory.start(agent.init(jax.random.PRNGKey(0)), 1)
    places = []
    for t in range(3):
        held, place = with_state(held, jnp.full((1, 5), float(t)))
        places.append(int(place[0]))
    assert places == [0, 1, 1]
    np.testing.assert_array_equal(held.state[0, :, 0], [1, 2])


def test_no_context_is_longer_than_an_episode():
    short = agent_of(SPEC._replace(max_decisions=3))
    assert short.needs.horizon == 3 and short.memory.start(None, 2).state.shape == (2, 3, 5)


@pytest.mark.slow
def test_what_the_memory_tells_is_learned():
    """Actions that repeat the first one of their window: only who sees the past can tell them."""
    agent = agent_of(dropout=0.0)
    path = small_batch(size=64).path
    path = path._replace(action=jnp.broadcast_to(path.action[:, :1], path.action.shape))
    batch = small_batch(size=64)._replace(path=path)
    state, update = agent.init(jax.random.PRNGKey(0)), jax.jit(agent.update)
    for i in range(400):
        state, metrics = update(state, batch._replace(path=path), jax.random.PRNGKey(i))
        if not i:
            first = float(metrics["actor_loss"])
    # A quarter of the actions, the first ones, follow from nothing but by heart.
    assert float(metrics["actor_loss"]) < 0.3 * first


def test_how_far_a_goal_is_matters_from_the_start():
    """Behind the LayerNorm of the tokens, embeddings without a bias would tell its direction only."""
    net, state, action = DecisionTransformer(Transformer(1, 2), 32, 2), normal(0, 6, 2, 4), normal(1, 6, 2, 3)
    goal, apply = normal(2, 6, 2), jax.jit(net.apply)
    params = jax.jit(net.init)(jax.random.PRNGKey(0), goal, state, action)
    here, twice, there = (apply(params, each, state, action) for each in (goal, 2 * goal, -goal))
    assert float(jnp.linalg.norm(twice - here)) > 0.2 * float(jnp.linalg.norm(there - here)) > 0


def adam(optimizer, gradients, params):
    """First moments and the step of the first update, and the step of a second one with equal gradients."""
    state, steps = optimizer.init(params), []
    for _ in range(2):
        step, state = optimizer.update(gradients, state, params)
        steps.append(step)
        if len(steps) == 1:
            moments = optax.tree.get(state, "mu")
    return moments, *steps


def test_gradients_are_clipped_at_a_length_of_a_quarter():
    """Adam's first mean is a tenth of them: 0.3 and 0.4 have a length of 0.5, half of them one of 0.25."""
    optimizer, params = DTConfig().optimizer, {"a": jnp.zeros(1), "b": jnp.zeros(1)}
    for factor, kept in ((1.0, 0.5), (0.5, 1.0), (0.1, 1.0)):
        gradients = {"a": jnp.array([0.3 * factor]), "b": jnp.array([-0.4 * factor])}
        moments, *_ = adam(optimizer, gradients, params)
        for name, gradient in gradients.items():
            np.testing.assert_allclose(moments[name], 0.1 * kept * gradient, rtol=1e-5)


def test_the_rate_rises_along_a_line_and_weights_decay():
    """Adam's first two steps are as long as a 20th and a 10th of the rate; on the way weights lose that share of a
    ten-thousandth of their size."""
    optimizer, params = DTConfig(policy_lr=0.2, warm_up=20).optimizer, {"w": jnp.array([0.0, 3000.0])}
    _, first, second = adam(optimizer, {"w": jnp.array([0.1, -0.1])}, params)
    np.testing.assert_allclose(first["w"], [-0.01, 0.01 * (1 - 0.3)], rtol=1e-4)
    np.testing.assert_allclose(second["w"], [-0.02, 0.02 * (1 - 0.3)], rtol=1e-4)
    late = optax.tree.set(optimizer.init(params), count=jnp.int32(2**31 - 1))  # where Optax stops counting
    steps, _ = optimizer.update({"w": jnp.array([0.1, -0.1])}, late, params)
    np.testing.assert_allclose(steps["w"][0], -0.2 * 0.1 / np.sqrt(0.001), rtol=1e-4)  # moments without a correction


def test_an_update_is_a_step_of_that_optimizer():
    """Of loud networks, whose gradient is longer than what is kept of it."""
    agent = agent_of(context_length=2, n_blocks=1, heads=1, dropout=0.0, policy_lr=1e-2, warm_up=10)
    state = agent.init(jax.random.PRNGKey(0))
    state = state._replace(params=louder(state.params))
    after, _ = jax.jit(agent.update)(state, small_batch(2), jax.random.PRNGKey(1))
    moments = optax.tree.get(after.optimizer, "mu")
    np.testing.assert_allclose(optax.tree.norm(moments), 0.1 * 0.25, rtol=1e-4)
    moved = jax.tree.map(lambda new, old: float(jnp.max(jnp.abs(new - old))), after.params, state.params)
    np.testing.assert_allclose(max(jax.tree.leaves(moved)), 1e-3, rtol=1e-2)


# ---- Flags -----------------------------------------------------------------------------------------------------------


CHANGES = {"context_length": 1, "n_blocks": 1, "heads": 1, "h_dim": 6, "dropout": 0.5, "policy_lr": 0.1}
CHANGES |= {"warm_up": 10, "exploration_noise": 0.1, "her_strategy": "goal_law"}
WITHOUT_GOALS = {"target_return": 500.0, "return_scale": 10.0}  # flags that mean something there, and there only


def program(goals, **flags):
    spec = SPEC if goals else SPEC._replace(goal_size=0, goal_indices=())
    agent = agent_of(spec, **flags)
    batch = small_batch(agent.needs.horizon)
    if not goals:
        batch = batch._replace(goal=batch.goal[:, :0], to_go=batch.reward)
    return programs(agent, batch, SPEC.discounting)


@pytest.fixture(scope="module")
def unchanged():
    return functools.cache(program)


@pytest.mark.slow
@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(DTConfig)])
def test_every_flag_changes_something(name, unchanged):
    goals = name not in WITHOUT_GOALS
    assert program(goals, **{name: (CHANGES | WITHOUT_GOALS)[name]}) != unchanged(goals)


@pytest.mark.slow
@pytest.mark.parametrize("goals", [True, False])
def test_equal_flags_make_equal_programs(goals, unchanged):
    assert program(goals) == unchanged(goals)


def test_heads_that_do_not_fit_are_one_sentence():
    with pytest.raises(FlagError) as error:
        agent_of(heads=3)
    assert str(error.value) == "--h_dim is 8; it must be a multiple of --heads 3, for example 9."
