"""Ant: its goal and start laws, when it ends, its dense reward, and the numbers of its physics."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from scipy import stats

from goalax.envs import create_env
from tests.helpers.envs import angle, draw, frozen, is_uniform, keys


def test_ant_goals_lie_on_a_circle():
    goals = draw(create_env("ant").sample_goal)
    np.testing.assert_allclose(np.linalg.norm(goals, axis=-1), 10, rtol=1e-5)
    assert is_uniform(angle(goals), -np.pi, np.pi)


def test_ant_starts():
    env = create_env("ant")
    q, qd = draw(lambda key: env.sample_start(key, jnp.zeros(2)))
    assert is_uniform(q - np.asarray(env.sys.init_q), -0.1, 0.1)
    assert stats.kstest(qd.ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3
    assert q.shape == (4000, 15) and qd.shape == (4000, 14)


def test_ant_random_start_is_a_random_point_ten_metres_from_the_goal():
    env = create_env("ant_random_start")
    goals = draw(env.sample_goal)
    np.testing.assert_allclose(np.linalg.norm(goals, axis=-1), 10, rtol=1e-5)
    starts = jax.jit(jax.vmap(lambda key, goal: env.sample_start(key, goal)[0]))(keys(1, 4000), goals)
    offset = np.asarray(starts)[:, :2] - goals
    np.testing.assert_allclose(np.linalg.norm(offset, axis=-1), 10, atol=0.1 * 2**0.5 + 1e-4)
    assert is_uniform(angle(offset), -np.pi, np.pi)
    assert stats.chi2_contingency(np.histogram2d(angle(offset), angle(goals), bins=4)[0]).pvalue > 1e-3


@pytest.mark.parametrize("name", ["ant", "ant_u_maze"])
def test_ant_ends_when_it_falls_or_flips(env_functions, name):
    env, state = frozen(env_functions, name)
    step = jax.jit(env.step)
    for height, ends in ((0.19, 1), (0.21, 0), (0.6, 0), (0.99, 0), (1.01, 1), (3, 1)):
        physics = state.pipeline_state
        x = physics.x.replace(pos=physics.x.pos.at[0, 2].set(height))
        after = step(state.replace(pipeline_state=physics.replace(x=x, q=physics.q.at[2].set(height))), jnp.zeros(8))
        assert after.done == ends, height


def test_ant_dense_reward(env_functions):
    env, state = frozen(env_functions, "ant", dense_reward=True)
    move = jnp.zeros(15).at[:2].set(0.02 * state.info["goal"] / 10)
    env.pipeline_step = lambda physics, action: physics.replace(q=physics.q + move)
    action = np.array([0.5, -0.5, 1, 2, 0, 0, 0, 0], np.float32)
    after = env.step(state, action)
    progress = state.metrics["dist"] - after.metrics["dist"]
    np.testing.assert_allclose(progress, 0.02, rtol=1e-2)
    np.testing.assert_allclose(after.reward, 10 * progress / 0.05 + 1 - 0.5 * (0.5 + 1 + 1), rtol=1e-4)


@pytest.mark.parametrize("backend", ["spring", "mjx", "positional", "generalized"])
def test_ant_physics(backend):
    env = create_env("ant", backend)
    maximal = backend in ("spring", "positional")
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.05, 0.005 if maximal else 0.01], rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, 200 if backend == "positional" else 150)
    if backend == "mjx":
        options = env.sys.opt
        assert (options.solver, options.iterations, options.ls_iterations) == (mujoco.mjtSolver.mjSOL_NEWTON, 1, 4)
        assert options.disableflags & mujoco.mjtDisableBit.mjDSBL_EULERDAMP
