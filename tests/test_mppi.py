"""The planner of TD-MPC2: golden values, against the best of all plans, where a search begins and what it finds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.agents.mppi import Plan, Search, World, elite_statistics, plan, returns, rollout_prior
from goalax.agents.plans import Planner, replanning
from goalax.agents.tdmpc2 import TDMPC2Config
from tests.helpers.offline import SPEC
from tests.helpers.planning import agent_of, golden, normal


def test_an_iteration_of_the_planner():
    values = golden("mppi")
    actions = jnp.asarray(values["actions"], jnp.float32)[:, None]  # [H, 1, N, A]
    rewards, last = (jnp.asarray(values[name], jnp.float32) for name in ("rewards", "terminal_value"))
    clock = jnp.zeros((1, 16, 1))
    world = World(
        step=lambda z, action: z + 1,
        reward=lambda z, action: rewards[z[0, 0, 0].astype(int)][None],
        value=lambda z, key: last[None],
        prior=lambda z, key: z,
    )
    value = returns(world, float(values["gamma"]), clock, actions, jax.random.PRNGKey(0))
    np.testing.assert_allclose(value[0], values["value"], rtol=1e-5)
    numbers = {name: float(values[name]) for name in ("temperature", "min_std", "max_std")}
    search = Search(3, 16, 0, int(values["num_elites"]), 1, discounting=0.95, **numbers)
    mean, std, elites, weight = elite_statistics(value, actions, search)
    np.testing.assert_allclose(weight[0], values["score"], rtol=1e-5)
    np.testing.assert_array_equal(elites[:, 0], actions[:, 0, values["elite"]])
    np.testing.assert_allclose(mean[:, 0], values["mean"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std[:, 0], values["std"], rtol=1e-4)


def valley(goal):
    """A point in the plane that moves by 0.3 of its action, around a hill between it and its goal."""

    def reward(z, action):
        near = jnp.sum((z + 0.3 * action - goal) ** 2, axis=-1)
        hill = jnp.exp(-20 * jnp.sum((z + 0.3 * action - 0.5 * goal) ** 2, axis=-1))
        return -near - hill - 0.05 * jnp.sum(action**2, axis=-1)

    return World(
        step=lambda z, action: z + 0.3 * action,
        reward=reward,
        value=lambda z, key: -jnp.sum((z - goal) ** 2, axis=-1),
        prior=lambda z, key: jnp.zeros_like(z),
    )


def test_plans_are_as_good_as_the_best_of_all():
    world = valley(jnp.array([0.6, 0.1]).reshape(1, 1, 2))
    search = Search(2, 512, 8, 32, 8, temperature=10.0, min_std=0.02, max_std=2.0, discounting=0.9)
    z = jnp.array([[0.0, 0.0], [0.5, -0.4], [-0.3, 0.3]])
    found = jax.jit(lambda z, mean, key: plan(world, search, z, mean, key, False))(
        z, jnp.zeros((3, 2, 2)), jax.random.PRNGKey(0)
    )
    grid = np.linspace(-1, 1, 15)
    every = np.array(list(itertools.product(grid, repeat=4)), np.float32).reshape(-1, 2, 2)  # [K, H, A]
    every = jnp.asarray(np.repeat(np.moveaxis(every, 1, 0)[:, None], 3, axis=1))
    value = lambda actions: returns(  # noqa: E731
        world, 0.9, jnp.repeat(z[:, None], actions.shape[2], axis=1), actions, jax.random.PRNGKey(0)
    )
    best = jnp.max(value(every), axis=1)
    reached = value(jnp.moveaxis(found.actions, 1, 0)[:, :, None])[:, 0]
    nothing = value(jnp.zeros((2, 3, 1, 2)))[:, 0]
    assert bool(jnp.all(reached > best - 0.02)) and bool(jnp.all(best - nothing > 0.1))
    assert float(jnp.max(jnp.abs(found.actions))) <= 1


def test_values_that_are_no_numbers_count_as_nothing():
    world = valley(jnp.zeros((1, 1, 2)))._replace(value=lambda z, key: jnp.full(z.shape[:2], jnp.nan))
    value = returns(world, 0.9, jnp.ones((2, 4, 2)), jnp.ones((3, 2, 4, 2)), jax.random.PRNGKey(0))
    np.testing.assert_array_equal(value, np.zeros((2, 4)))


def test_a_search_begins_where_the_last_one_ended_one_step_later():
    """A made-up planner that finds what it was given plus 1."""

    def found(agent, z, mean, key, explore):
        return Plan(mean + 10 * explore, mean + 1)

    planner = Planner(3, 1, 1, lambda agent, state, goal: state, found, None, None)
    held = replanning(planner)
    warm, seen = held.start(None, 2), []
    for _ in range(3):
        action, warm = held.mode(None, warm, jnp.zeros((2, 1)), jnp.zeros((2, 0)))
        seen.append(warm.mean[0, :, 0])
        np.testing.assert_array_equal(action[:, 0], [len(seen) - 1] * 2)  # what was given, without noise
    np.testing.assert_array_equal(seen, [[1, 1, 1], [2, 2, 1], [3, 2, 1]])
    np.testing.assert_array_equal(warm.decisions, [3, 3])
    assert float(held.act(None, warm, jnp.zeros((2, 1)), jnp.zeros((2, 0)), None)[0][0, 0]) == 12


def searched(prior=0.0, explore=False, start=0.0, num=1, **changes):
    """A plan of one step for `num` points at the origin that want to go right as far as they can."""
    world = valley(jnp.zeros((1, 1, 1)))._replace(
        reward=lambda z, action: action[..., 0],
        value=lambda z, key: jnp.zeros(z.shape[:-1]),
        prior=lambda z, key: jnp.full_like(z, prior),
    )
    numbers = {"temperature": 10.0, "min_std": 0.05, "max_std": 0.05} | changes
    search = Search(1, 64, 1, 8, 1, discounting=0.9, **numbers)
    mean = jnp.full((num, 1, 1), start)
    return plan(world, search, jnp.zeros((num, 1)), mean, jax.random.PRNGKey(0), explore)


def test_a_search_begins_around_its_mean():
    """With a standard deviation of 0.05 the best of 64 are 0.06 to 0.2 farther right, wherever that is."""
    for start in (0.0, -0.5):
        found = float(searched(prior=-1.0, start=start).mean[0, 0, 0]) - start
        assert 0.06 < found < 0.2


def test_sequences_of_the_prior_are_among_those_that_are_compared():
    assert float(searched(prior=0.9, temperature=100.0).actions[0, 0, 0]) == pytest.approx(0.9)
    assert float(searched(prior=-0.9, temperature=100.0).actions[0, 0, 0]) < 0.3


def test_the_prior_chooses_from_where_its_last_action_led():
    """A world that moves by its action, and a policy that acts as it stands: every action is twice the one before."""
    world = valley(jnp.zeros((1, 1, 2)))._replace(step=lambda z, action: z + action, prior=lambda z, key: z)
    search = Search(3, 16, 2, 4, 1, temperature=1.0, min_std=0.1, max_std=2.0, discounting=0.9)
    z = normal(0, 4, 2)
    actions = rollout_prior(world, search, z, jax.random.PRNGKey(0))
    assert actions.shape == (3, 4, 2, 2)
    for t, factor in enumerate((1, 2, 4)):
        for k in range(2):
            np.testing.assert_allclose(actions[t, :, k], factor * z, rtol=1e-6)


def test_what_is_found_is_drawn_from_the_elites_by_their_weights():
    """With much weight on values it is the best of 8 elites, with none any of them."""
    best, any_of_them = (searched(num=200, temperature=each).actions[:, 0, 0] for each in (1e4, 0.0))
    behind = np.asarray(best - any_of_them)
    assert behind.min() > -1e-6 and 0.02 < behind.mean() < 0.2
    assert 0.05 < np.mean(behind < 1e-6) < 0.25  # one in eight is the best one


def test_exploration_adds_noise_of_the_last_standard_deviation():
    sizes = {"num": 500, "min_std": 0.01, "max_std": 0.01}
    calm, noisy = (np.asarray(searched(explore=explore, **sizes).actions[:, 0, 0]) for explore in (False, True))
    assert 0.009 < np.std(noisy - calm) < 0.011 and abs(np.mean(noisy - calm)) < 0.002


def test_until_the_first_update_actions_are_uniform():
    agent = agent_of()
    state, num = agent.init(jax.random.PRNGKey(0)), 300
    held = agent.memory.start(state, num)
    args = held, normal(1, num, 5), normal(2, num, 2), jax.random.PRNGKey(3)
    action, after = agent.memory.act(state, *args)
    assert stats.kstest(np.asarray(action).ravel(), stats.uniform(-1, 2).cdf).pvalue > 1e-3
    jax.tree.map(np.testing.assert_array_equal, after, held)
    action, after = agent.memory.act(state._replace(updates=jnp.int32(1)), *args)
    assert action.shape == (num, 3) and int(after.decisions[0]) == 1
    assert stats.kstest(np.asarray(action).ravel(), stats.uniform(-1, 2).cdf).pvalue < 1e-6


def test_a_search_may_have_no_sequences_of_the_prior():
    agent = agent_of(num_prior=0)
    state = agent.init(jax.random.PRNGKey(0))
    assert jnp.all(jnp.isfinite(jax.jit(agent.mode)(state, normal(0, 4, 5), normal(1, 4, 2))))


def test_what_comes_later_counts_less():
    """A step costs what it goes, and where it led is worth 1.5 of that: more, but not with a discount of a half."""
    world = World(
        step=lambda z, action: z + action,
        reward=lambda z, action: -action[..., 0],
        value=lambda z, key: 1.5 * z[..., 0],
        prior=lambda z, key: jnp.zeros_like(z),
    )
    for discounting, sign in ((0.5, -1), (1.0, 1)):
        search = Search(1, 64, 1, 8, 2, temperature=10.0, min_std=0.05, max_std=2.0, discounting=discounting)
        found = plan(world, search, jnp.zeros((1, 1)), jnp.zeros((1, 1, 1)), jax.random.PRNGKey(0), False)
        assert sign * found.mean[0, 0, 0] > 0.5
    assert TDMPC2Config().search(SPEC, 3).discounting == SPEC.discounting


def test_long_actions_take_two_more_iterations():
    iterations = [TDMPC2Config().search(SPEC._replace(action_size=size), 3).iterations for size in (19, 20)]
    assert iterations == [6, 8]
