"""Tests of the episodes that Brax's trainers see: fresh starts and goals, terminations against time limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brax.training.agents.ppo import losses

from goalax.agents.brax.episodes import FreshEpisodes
from tests.helpers import toy

NUM_ENVS, EPISODE = 6, 10


@pytest.fixture(scope="module")
def trace():
    """action_repeat -> what environments that random actions drive to one side saw, leaves [300, NUM_ENVS, ...]."""

    def record(action_repeat):
        env = FreshEpisodes(toy.Toy(speed=0.4), EPISODE, action_repeat)

        def step(state, key):
            after = env.step(state, jax.random.uniform(key, (NUM_ENVS, 2), minval=-0.3))
            seen = {"obs": state.obs, "next": after.obs, "done": after.done, "truncation": after.info["truncation"]}
            return after, {**seen, "reward": after.reward, "goal": after.info["goal"]}

        state = jax.jit(env.reset)(jax.random.split(jax.random.PRNGKey(0), NUM_ENVS))
        return jax.device_get(jax.jit(lambda s, keys: jax.lax.scan(step, s, keys))(state, keys(300))[1])

    return {repeat: record(repeat) for repeat in (1, 2)}


def keys(number):
    return jax.random.split(jax.random.PRNGKey(1), number)


@pytest.mark.parametrize("action_repeat", [1, 2])
def test_every_episode_has_a_fresh_start_and_a_fresh_goal(trace, action_repeat):
    seen = trace[action_repeat]
    assert seen["done"].sum() > NUM_ENVS * 300 * action_repeat / EPISODE
    for e in range(NUM_ENVS):
        over = np.flatnonzero(seen["done"][:, e])
        first = np.concatenate([seen["obs"][:1, e], seen["next"][over, e]])
        assert (np.abs(first[:, :2]) <= 0.2).all()  # where the environment starts
        assert len(np.unique(first[:, :2], axis=0)) == len(np.unique(first[:, 2:], axis=0)) == len(first)
        assert first[:, 2:].std() > 0.3
        goals = np.repeat(first[:, 2:], np.diff([-1, *over, 299]), axis=0)
        np.testing.assert_array_equal(seen["obs"][:, e, 2:], goals)  # one goal per episode


@pytest.mark.parametrize("action_repeat", [1, 2])
def test_a_time_limit_truncates_and_leaving_the_field_terminates(trace, action_repeat):
    seen, lengths = trace[action_repeat], {0: set(), 1: set()}
    for e in range(NUM_ENVS):
        over = np.flatnonzero(seen["done"][:, e])
        for length, truncated in zip(np.diff([-1, *over]), seen["truncation"][over, e], strict=True):
            lengths[int(truncated)].add(length * action_repeat)
    assert lengths[1] == {EPISODE} and len(lengths[0]) > 2 and max(lengths[0]) <= EPISODE
    assert not seen["truncation"][seen["done"] == 0].any()


def test_brax_bootstraps_at_a_time_limit_and_not_at_a_termination(trace):
    """With a value of 5 everywhere, no reward and gamma 1, a state is worth 5 unless its episode terminates."""
    truncation, done = jnp.array(trace[1]["truncation"]), jnp.array(trace[1]["done"])
    values, zeros = jnp.full(done.shape, 5.0), jnp.zeros(done.shape)
    worth, _ = losses.compute_gae(truncation, done * (1 - truncation), zeros, values, values[0], 1.0, 1.0)
    for e in range(NUM_ENVS):
        ends = [*np.flatnonzero(done[:, e]), 299]
        kinds = np.repeat([*(truncation[ends[:-1], e]), 1.0], np.diff([-1, *ends]))
        np.testing.assert_allclose(worth[:, e], 5 * kinds)


def test_rewards_of_repeated_actions_are_summed(trace):
    assert set(np.unique(trace[2]["reward"])) == {0, 1, 2} and set(np.unique(trace[1]["reward"])) == {0, 1}
