"""Reacher: its goal and start laws, and that its state tells where the fingertip is and how it moves."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from goalax.envs import create_env
from tests.helpers.envs import NUM_ENVS, STEPS, angle, draw, frozen, is_uniform, keys


def test_reacher_goals_fill_the_disc():
    goals = draw(create_env("reacher").sample_goal)
    radius = np.linalg.norm(goals[:, :2], axis=-1)
    assert is_uniform(radius, 0, 0.2) and is_uniform(angle(goals), -np.pi, np.pi)
    table = np.histogram2d(radius, angle(goals), bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    np.testing.assert_allclose(goals[:, 2], 0.01)


def test_reacher_starts():
    q, qd = draw(lambda key: create_env("reacher").sample_start(key, jnp.zeros(3)))
    assert is_uniform(q, -0.1, 0.1) and is_uniform(qd, -0.005, 0.005)
    assert abs(np.corrcoef(np.concatenate([q, qd], -1).T) - np.eye(4)).max() < 0.1


REACHER_BACKENDS = [
    "generalized",
    pytest.param("spring", marks=pytest.mark.slow),
    pytest.param("positional", marks=pytest.mark.slow),
    pytest.param("mjx", marks=pytest.mark.slow),
]


def swing(env_functions, backend):
    """States [20, NUM_ENVS, S] of arms that get faster, up to some rad/s, within the limits of their joints."""
    env, reset, run = env_functions("reacher", backend)
    newton_metres = np.linspace(-1, 1, NUM_ENVS)[:, None] * np.array([6, -4])
    strength = newton_metres / np.asarray(env.sys.actuator.gear)
    actions = np.broadcast_to(strength.astype(np.float32), (STEPS, NUM_ENVS, 2))
    return env, np.asarray(run(reset(keys(3)), actions)[1].obs[:20, :, : env.state_dim])


@pytest.mark.parametrize("backend", REACHER_BACKENDS)
def test_reacher_fingertip_is_where_its_angles_say(env_functions, backend):
    _, states = swing(env_functions, backend)
    (cos1, cos2), (sin1, sin2) = states[..., :2].T, states[..., 2:4].T
    np.testing.assert_allclose(cos1**2 + sin1**2, 1, rtol=1e-5)
    x = 0.1 * cos1 + 0.11 * (cos1 * cos2 - sin1 * sin2)
    y = 0.1 * sin1 + 0.11 * (sin1 * cos2 + cos1 * sin2)
    expected = np.stack([x, y, np.full_like(x, 0.01)], -1).swapaxes(0, 1)
    drift = 6e-3 if backend in ("spring", "positional") else 1e-5  # there joints hold by springs or iterations
    np.testing.assert_allclose(states[..., 4:7], expected, atol=drift)


@pytest.mark.parametrize("backend", REACHER_BACKENDS[:3])
def test_reacher_velocity_is_the_change_of_the_fingertip(env_functions, backend):
    env, states = swing(env_functions, backend)
    tip, velocity = states[..., 4:6], states[..., 7:9]  # not z, along which spring and positional sag
    change = (tip[1:] - tip[:-1]) / float(env.dt)
    assert np.abs(velocity).max() > 0.2
    np.testing.assert_allclose(change, (velocity[1:] + velocity[:-1]) / 2, atol=0.02)


def test_reacher_dense_reward(env_functions):
    env, state = frozen(env_functions, "reacher", dense_reward=True)
    after = env.step(state, jnp.ones(2))
    np.testing.assert_allclose(after.reward, -state.metrics["dist"], rtol=1e-5)


@pytest.mark.parametrize("backend", ["generalized", "mjx", "spring", "positional"])
def test_reacher_physics(backend):
    env = create_env("reacher", backend)
    maximal = backend in ("spring", "positional")
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.02, 0.005 if maximal else 0.01], rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, 25 if maximal else 200)
    assert env.sys.num_links() == 2  # the goal is no body
