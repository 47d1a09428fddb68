"""Cheetah: its goal and start laws, its dense reward, and the numbers of its physics."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.envs import create_env
from tests.helpers.envs import draw, frozen, is_uniform


def test_cheetah_goal_lies_five_metres_ahead():
    np.testing.assert_array_equal(draw(create_env("cheetah").sample_goal, num=10), 5)


def test_cheetah_starts():
    env = create_env("cheetah")
    q, qd = draw(lambda key: env.sample_start(key, jnp.array([5.0])))
    assert q.shape == qd.shape == (4000, 9)
    assert is_uniform(q - np.asarray(env.sys.init_q), -0.1, 0.1)
    assert stats.kstest(qd.ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3


@pytest.mark.slow
def test_cheetah_state_begins_with_where_its_torso_is(env_functions):
    env, state = frozen(env_functions, "cheetah")
    np.testing.assert_allclose(state.obs[0], state.pipeline_state.x.pos[0, 0], atol=1e-6)
    np.testing.assert_allclose(state.metrics["dist"], 5 - state.obs[0], rtol=1e-6)
    assert not env.step(state, jnp.zeros(6)).done


def test_cheetah_dense_reward(env_functions):
    env, state = frozen(env_functions, "cheetah", dense_reward=True)
    after = env.step(state, jnp.array([1, -0.5, 3, 0, 0, 0]))
    np.testing.assert_allclose(after.reward, -state.metrics["dist"] - 0.1 * (1 + 0.25 + 1), rtol=1e-5)


@pytest.mark.parametrize("backend", ["mjx", "spring", "positional", "generalized"])
def test_cheetah_physics(backend):
    env = create_env("cheetah", backend)
    maximal = backend in ("spring", "positional")
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.05, 0.003125 if maximal else 0.01], rtol=1e-6)
    gear = [120, 90, 60, 120, 100, 100] if maximal else [120, 90, 60, 120, 60, 30]
    np.testing.assert_array_equal(env.sys.actuator.gear, gear)
    np.testing.assert_allclose(env.sys.mj_model.body_mass.sum(), 14, rtol=1e-6)  # as Brax has it
