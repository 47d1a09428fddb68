"""Humanoid: its goal and start laws, when it ends, its dense reward, and that its state is that of Brax's humanoid."""

import functools
import warnings

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs import humanoid as brax_humanoid
from brax.envs.base import State

from goalax.envs import create_env
from tests.helpers.envs import NUM_ENVS, STEPS, angle, draw, frozen, is_uniform

BACKENDS = ["spring", "mjx", "positional", "generalized"]


def test_humanoid_goals():
    goals = draw(create_env("humanoid").sample_goal)
    distance = np.linalg.norm(goals[:, :2], axis=-1)
    assert is_uniform(distance, 1, 5) and is_uniform(angle(goals), -np.pi, np.pi)
    assert abs(np.corrcoef(distance, angle(goals))[0, 1]) < 0.1
    np.testing.assert_array_equal(goals[:, 2], 1.25)


@pytest.mark.parametrize("name", ["humanoid", "humanoid_u_maze"])
def test_humanoid_starts_upright_and_at_rest(name):
    env = create_env(name)
    q, qd = draw(lambda key: env.sample_start(key, jnp.zeros(3)), num=10)
    start = env.maze.starts[0] if "maze" in name else np.zeros(2)
    np.testing.assert_allclose(q[:, :7], [[*start, 1.4, 1, 0, 0, 0]] * 10, atol=1e-6)
    np.testing.assert_allclose(q[:, 7:], 0, atol=1e-6)
    assert not qd.any()


@functools.cache
def brax_env(backend):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return brax_humanoid.Humanoid(backend=backend)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    ["spring", "mjx", *(pytest.param(name, marks=pytest.mark.table) for name in ("positional", "generalized"))],
)
def test_humanoid_state_is_that_of_brax_with_the_position_in_front(backend):
    env, other = create_env("humanoid", backend), brax_env(backend)
    rng = np.random.default_rng(0)
    q = np.asarray(env.sys.init_q) + rng.uniform(-0.3, 0.3, (5, 24)).astype(np.float32)
    q[:, 3:7] /= np.linalg.norm(q[:, 3:7], axis=-1, keepdims=True)
    qd = rng.normal(size=(5, 23)).astype(np.float32)
    action = rng.uniform(-1, 1, (5, 17)).astype(np.float32)

    def both(q, qd, action):
        with jax.numpy_rank_promotion("allow"):
            ours = env.state_after(env.pipeline_init(q, qd), action)
            theirs = other._get_obs(other.pipeline_init(q, qd), 0.4 * action)
            return ours, theirs

    ours, theirs = jax.jit(jax.vmap(both))(q, qd, action)
    assert ours.shape == (5, 246) and theirs.shape == (5, 244)
    np.testing.assert_allclose(ours[:, :2], q[:, :2], atol=1e-5)
    np.testing.assert_allclose(ours[:, 2:], theirs, rtol=1e-4, atol=1e-4)
    assert np.abs(ours[:, -17:]).max() > 10  # torques are part of it
    at_rest = jax.jit(lambda q, qd: env.state_of(env.pipeline_init(q, qd)))(q[0], qd[0])
    assert not at_rest[-17:].any()


@pytest.mark.parametrize("name", ["humanoid", "humanoid_u_maze"])
def test_humanoid_ends_when_it_falls_or_flies(env_functions, name):
    env, state = frozen(env_functions, name)
    step = jax.jit(env.step)
    for height, ends in ((0.99, 1), (1.01, 0), (1.4, 0), (1.99, 0), (2.01, 1)):
        physics = state.pipeline_state
        x = physics.x.replace(pos=physics.x.pos.at[0, 2].set(height))
        after = step(state.replace(pipeline_state=physics.replace(x=x, q=physics.q.at[2].set(height))), jnp.zeros(17))
        assert after.done == ends, height


def test_humanoid_dense_reward(env_functions):
    env, state = frozen(env_functions, "humanoid", dense_reward=True)
    after = env.step(state, jnp.zeros(17).at[:3].set(jnp.array([1, -0.5, 3])))
    np.testing.assert_allclose(after.reward, -state.metrics["dist"] + 5 - 0.1 * (1 + 0.25 + 1), rtol=1e-5)


def test_actions_are_rescaled_to_what_the_actuators_take():
    env = create_env("humanoid")
    np.testing.assert_allclose(env.control(jnp.linspace(-1, 1, 17)), np.linspace(-0.4, 0.4, 17), atol=1e-6)


@pytest.mark.slow
def test_walls_hold_the_humanoid(env_functions):
    env, _, run = env_functions("humanoid_u_maze")

    def launch(velocity):
        q = env.sys.init_q.at[:2].set(env.maze.starts[0])
        physics = env.pipeline_init(q, jnp.zeros(env.sys.qd_size()).at[:2].set(velocity))
        state, goal, zero = env.state_of(physics), jnp.zeros(3), jnp.zeros(())
        return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})

    directions = np.array([[1, 0], [0, -1], [-1, 0], [0, 1]] * 2, np.float32)  # a wall in each but the last
    start = jax.jit(jax.vmap(launch))(directions * np.repeat([3, 5], 4)[:, None])
    _, trace = run(start, np.zeros((STEPS, NUM_ENVS, 17), np.float32))
    furthest = ((np.asarray(trace.obs[..., :2]) - env.maze.starts[0]) * directions).sum(-1).max(0)
    assert (furthest[[3, 7]] > 2.0).all(), furthest
    assert (furthest[[0, 1, 2, 4, 5, 6]] < 1.0 + 0.3).all(), furthest  # the torso leans over a wall of 1 m


@pytest.mark.parametrize("backend", BACKENDS)
def test_humanoid_physics(backend):
    env = create_env("humanoid", backend)
    maximal = backend in ("spring", "positional")
    timestep, substeps = (0.0015, 10) if maximal else (0.003, 5)
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [timestep * substeps, timestep], rtol=1e-6)
    np.testing.assert_allclose(env.sys.actuator.ctrl_range, [[-0.4, 0.4]] * 17, rtol=1e-6)
    if maximal:
        np.testing.assert_array_equal(env.sys.actuator.gear, [350] * 11 + [100] * 6)
    if backend == "mjx":
        options = env.sys.opt
        assert (options.solver, options.iterations, options.ls_iterations) == (mujoco.mjtSolver.mjSOL_NEWTON, 1, 4)
