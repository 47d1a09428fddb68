"""Ant ball: where goal and ball start, that the ball is what counts, and that it rolls, bounces and stays in a maze."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.base import State
from scipy import stats

from goalax.envs import create_env
from tests.helpers.envs import NUM_ENVS, STEPS, angle, draw, frozen, is_uniform, keys


def test_ball_goals_lie_on_a_circle():
    goals = draw(create_env("ant_ball").sample_goal)
    np.testing.assert_allclose(np.linalg.norm(goals, axis=-1), 5, rtol=1e-5)
    assert is_uniform(angle(goals), -np.pi, np.pi)


def test_ball_starts_on_a_unit_circle_a_fifth_of_the_way_to_the_goal():
    env = create_env("ant_ball")
    goals = draw(env.sample_goal)
    q, qd = jax.jit(jax.vmap(env.sample_start))(keys(1, 4000), goals)
    offset = np.asarray(q)[:, 15:] - 0.2 * goals
    np.testing.assert_allclose(np.linalg.norm(offset, axis=-1), 1, rtol=1e-4)
    assert is_uniform(angle(offset), -np.pi, np.pi)
    assert stats.chi2_contingency(np.histogram2d(angle(offset), angle(goals), bins=4)[0]).pvalue > 1e-3
    np.testing.assert_array_equal(qd[:, 14:], 0)
    ant = np.asarray(create_env("ant").sys.init_q)
    assert is_uniform(np.asarray(q)[:, :15] - ant, -0.1, 0.1)
    assert stats.kstest(np.asarray(qd)[:, :14].ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", ["ant_ball_u_maze", "ant_ball_big_maze"])
def test_ball_starts_on_a_ball_cell(name):
    env = create_env(name)
    q, _ = draw(lambda key: env.sample_start(key, jnp.zeros(2)))
    cells, counts = np.unique(q[:, 15:], axis=0, return_counts=True)
    np.testing.assert_allclose(cells, np.unique(env.maze.balls, axis=0))
    assert len(cells) == 1 or stats.chisquare(counts).pvalue > 1e-3


def launch(env, ant, ball, velocity):
    """A state with the ant and the ball at points [2], moving at velocities [4]: x and y of ant and ball."""
    q = env.sys.init_q.at[:2].set(ant).at[15:].set(ball)
    qd = jnp.zeros(env.sys.qd_size()).at[jnp.array([0, 1, 14, 15])].set(velocity)
    physics = env.pipeline_init(q, qd)
    state, goal, zero = env.state_of(physics), jnp.zeros(2), jnp.zeros(())
    return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})


def directions(number):
    turn = np.linspace(0, 2 * np.pi, number, endpoint=False) + 0.3
    return np.stack([np.cos(turn), np.sin(turn)], axis=-1).astype(np.float32)


@pytest.mark.slow
def test_ball_rolls_when_the_ant_runs_into_it(env_functions):
    env, _, run = env_functions("ant_ball")
    way = directions(NUM_ENVS)
    pushed = np.arange(NUM_ENVS) < NUM_ENVS // 2
    velocity = np.concatenate([np.where(pushed[:, None], 6 * way, 0), 0 * way], axis=-1)
    start = jax.jit(jax.vmap(lambda *args: launch(env, *args)))(0 * way, 1.5 * way, velocity)
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 8), np.float32))
    moved = ((np.asarray(trace.obs[-1, :, 29:31]) - 1.5 * way) * way).sum(-1)
    assert (moved[pushed] > 0.3).all(), moved
    np.testing.assert_allclose(moved[~pushed], 0, atol=0.1)


@pytest.mark.slow
def test_walls_hold_the_ball(env_functions):
    env, _, run = env_functions("ant_ball_u_maze")
    way = directions(NUM_ENVS)
    ball = np.broadcast_to(env.maze.balls[0], way.shape).astype(np.float32)
    ant = np.broadcast_to(env.maze.starts[0], way.shape).astype(np.float32)
    start = jax.jit(jax.vmap(lambda *args: launch(env, *args)))(ant, ball, np.concatenate([0 * way, 10 * way], -1))
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 8), np.float32))
    positions = np.asarray(trace.obs[..., 29:31])
    beside = np.abs(positions - env.maze.walls[:, None, None]).max(-1)  # of each wall
    assert (beside > env.cell_size / 2).all()
    np.testing.assert_allclose([positions.min(), positions.max()], [2 + 0.5, 14 - 0.5], atol=0.1)  # they reach both


def test_success_is_about_the_ball(env_functions):
    env, state = frozen(env_functions, "ant_ball")
    goal = state.obs[29:31] + jnp.array([0.3, 0.0])
    after = env.step(state.replace(info={"goal": goal}), jnp.zeros(8))
    assert after.reward == 1
    np.testing.assert_allclose(after.metrics["dist"], 0.3, rtol=1e-4)
    assert env.step(state.replace(info={"goal": state.obs[:2]}), jnp.zeros(8)).metrics["dist"] > 0.3


def test_ball_dense_reward_is_the_progress_of_the_ball(env_functions):
    env, state = frozen(env_functions, "ant_ball", dense_reward=True)
    away = state.info["goal"] - state.obs[29:31]
    move = jnp.zeros(17).at[15:].set(0.02 * away / jnp.linalg.norm(away)).at[:2].set(0.5)
    env.pipeline_step = lambda physics, action: physics.replace(q=physics.q + move)
    after = env.step(state, jnp.array([0.5, -0.5, 1, 2, 0, 0, 0, 0]))
    np.testing.assert_allclose(after.reward, 10 * 0.02 / 0.05 + 1 - 0.5 * (0.5 + 1 + 1), rtol=1e-3)


@pytest.mark.parametrize("name", ["ant_ball", "ant_ball_big_maze"])
def test_ball_physics(name):
    env = create_env(name)
    model = env.sys.mj_model
    ball = model.body("ball").id
    np.testing.assert_allclose(model.body_mass[ball], 4 / 3 * np.pi * 0.5**3 * 1.1, rtol=1e-6)
    spheres = model.geom_bodyid == ball
    np.testing.assert_allclose(model.geom_size[spheres, 0], 0.5)
    assert sorted(model.geom_contype[spheres]) == [0, 1]
    assert (model.jnt_type[model.jnt_bodyid == ball] == mujoco.mjtJoint.mjJNT_SLIDE).all()
    np.testing.assert_array_equal(env.sys.actuator.gear, 150)
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.05, 0.005], rtol=1e-6)
