"""Ant push: where goal, ant and block start, that the block moves and the walls hold, and its physics."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.base import State
from scipy import stats

from goalax.envs import create_env
from goalax.envs.ant_push import WALLS
from tests.helpers.envs import NUM_ENVS, STEPS, draw, is_uniform


def test_push_goals_fill_two_squares():
    goals = draw(create_env("ant_push").sample_goal)
    right = goals[:, 0] > goals[:, 1]
    assert stats.chisquare(np.bincount(right)).pvalue > 1e-3
    for squares, corner in ((right, (16, 8)), (~right, (8, 16))):
        offset = goals[squares] - corner
        assert is_uniform(offset, 0, 2) and abs(np.corrcoef(offset.T)[0, 1]) < 0.1


def test_push_starts():
    env = create_env("ant_push")
    q, qd = draw(lambda key: env.sample_start(key, jnp.zeros(2)))
    upright = np.array(env.sys.init_q)[:15]
    upright[2] = 0.75
    assert is_uniform(q[:, :15] - upright, -0.1, 0.1)
    assert stats.kstest(qd[:, :14].ravel(), stats.norm(0, 0.1).cdf).pvalue > 1e-3
    assert not q[:, 15:].any() and not qd[:, 14:].any()  # the block


@pytest.mark.slow
def test_block_moves_and_walls_hold(env_functions):
    env, _, run = env_functions("ant_push")

    def launch(position, velocity):
        q = env.sys.init_q.at[:2].set(position).at[2].set(0.75)
        physics = env.pipeline_init(q, jnp.zeros(env.sys.qd_size()).at[:2].set(velocity))
        state, goal, zero = env.state_of(physics), jnp.zeros(2), jnp.zeros(())
        return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})

    # Towards the block, whose sides are at 4.4, and towards the walls with their sides at -4, each along both axes.
    position = np.array([[3.2, 8], [8, 3.2], [-1.5, 6], [6, -1.5]] * 2, np.float32)
    way = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]] * 2, np.float32)
    start = jax.jit(jax.vmap(launch))(position, way * np.repeat([5, 7], 4)[:, None])
    np.testing.assert_array_equal(start.obs[:, 29:31], 8)
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 8), np.float32))
    ant, block = (np.asarray(trace.obs[..., axes]) for axes in (slice(0, 2), slice(29, 31)))
    at_block = np.arange(NUM_ENVS) % 4 < 2
    moved = ((block[-1] - 8) * way).sum(-1)
    assert (moved[at_block] > 0.2).all(), moved
    np.testing.assert_allclose(moved[~at_block], 0, atol=0.02)
    assert (np.abs(((block[-1] - 8) * way[:, ::-1]).sum(-1)) < 0.1).all()  # it does not slip sideways
    furthest = (ant * way).sum(-1).max(0)[~at_block]
    assert (furthest < 4 - 0.25 + 0.1).all() and (furthest > 2).all(), furthest


@pytest.mark.slow
def test_walls_hold_the_block(env_functions):
    env, _, run = env_functions("ant_push")

    def slide(velocity):
        physics = env.pipeline_init(env.sys.init_q, jnp.zeros(env.sys.qd_size()).at[14:16].set(velocity))
        state, goal, zero = env.state_of(physics), jnp.zeros(2), jnp.zeros(())
        return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})

    way = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]] * 2, np.float32)
    start = jax.jit(jax.vmap(slide))(way * np.repeat([10, 14], 4)[:, None])
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 8), np.float32))
    furthest = ((np.asarray(trace.obs[..., 29:31]) - 8) * way).sum(-1).max(0)
    assert (furthest > 1).all(), furthest
    # Along +x and +y there is room up to 20 - 3.6, along -x and -y to -4 + 3.6 and beyond the ant.
    assert (furthest[[0, 1, 4, 5]] < 8.4 + 0.2).all() and (furthest[[2, 3, 6, 7]] < 8.4 + 0.2).all(), furthest


def test_push_physics():
    env = create_env("ant_push")
    model = env.sys.mj_model
    boxes = model.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    walls = boxes & (model.geom_bodyid == 0)
    np.testing.assert_allclose(np.c_[model.geom_pos, model.geom_size][walls][:, [0, 1, 3, 4]], WALLS)
    np.testing.assert_allclose(np.c_[model.geom_pos, model.geom_size][walls][:, [2, 5]], 2)
    assert not model.geom_contype[walls].any() and (model.geom_conaffinity[walls] == 1).all()
    block = model.body("block").id
    np.testing.assert_allclose(model.body_mass[block], 2e-4)
    np.testing.assert_allclose(model.body_pos[block], [8, 8, 2])
    np.testing.assert_allclose(model.geom_size[boxes & ~walls], [[3.6, 3.6, 1.8]])
    assert not model.dof_armature[-3:].any() and not model.dof_damping[-3:].any()
    np.testing.assert_allclose(model.geom_solimp[:, :3], [[0.995, 0.995, 0.01]] * model.ngeom)
    torso = 4 / 3 * np.pi * 0.25**3
    assert model.body_mass[1] > 40 * torso
    np.testing.assert_allclose(model.body_mass[1] / create_env("ant").sys.mj_model.body_mass[1], 40 / 5, rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, 150)
    options = env.sys.opt
    assert (options.solver, options.iterations, options.ls_iterations) == (mujoco.mjtSolver.mjSOL_NEWTON, 4, 8)
    np.testing.assert_allclose([env.dt, options.timestep], [0.05, 0.01], rtol=1e-6)
    with pytest.raises(ValueError, match="Choose from: mjx\\.$"):
        create_env("ant_push", "spring")
