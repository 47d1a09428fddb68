"""Pusher: its goal and start laws, where its state says tip and object are, and that the arm moves the object."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.base import State

from goalax.envs import create_env
from tests.helpers.envs import NUM_ENVS, STEPS, draw, frozen, is_uniform, keys

HOME = np.array([0.45, -0.05, -0.275])
GOAL_HEIGHT = -0.323  # of the marker of the goal in Brax's model, which is where JaxGCRL has it
# Name -> corners of the goal rectangle, x and y relative to the home of the object.
GOALS = {
    "pusher_easy": ((-0.2, -0.55), (0.2, -0.25)),
    "pusher_hard": ((-0.55, -0.65), (0.45, 0.35)),
    "pusher_reacher": ((-0.2, -0.3), (0.2, 0.0)),
}
every_pusher = pytest.mark.parametrize("name", GOALS)
with_object = pytest.mark.parametrize("name", ["pusher_easy", "pusher_hard"])


@every_pusher
def test_pusher_goals_fill_their_rectangle(name):
    goals = draw(create_env(name).sample_goal) - HOME
    for axis, (low, high) in enumerate(zip(*GOALS[name], strict=True)):
        assert is_uniform(goals[:, axis], low, high)
    np.testing.assert_allclose(goals[:, 2], GOAL_HEIGHT - HOME[2], atol=1e-6)
    assert abs(np.corrcoef(goals[:, :2].T)[0, 1]) < 0.1


@with_object
def test_an_object_above_its_goal_is_there(env_functions, name):
    """Goals lie 0.048 m below the middle of an object: within 0.1 m in space is within 0.088 m on the table."""
    env, state = frozen(env_functions, name)
    thing = np.asarray(state.obs[10:13])
    step = jax.jit(env.step)
    for limit, metric in ((0.1, "success"), (0.05, "success_hard")):
        radius = np.sqrt(limit**2 - (HOME[2] - GOAL_HEIGHT) ** 2)
        assert radius == pytest.approx({"success": 0.0877, "success_hard": 0.014}[metric], abs=1e-4)
        for share in (0.98, 1.02):
            goal = np.array([thing[0] + share * radius, thing[1], GOAL_HEIGHT], np.float32)
            after = step(state.replace(info={"goal": goal}), jnp.zeros(7))
            assert after.metrics[metric] == (share < 1)


@with_object
def test_pusher_object_starts_away_from_the_goal(name):
    env = create_env(name)
    goals = draw(env.sample_goal)
    q, qd = jax.jit(jax.vmap(env.sample_start))(keys(1, 4000), goals)
    start, goal = np.asarray(q[:, :6:-1]), goals[:, :2] - HOME[:2]  # x and y, relative to the home of the object
    apart = np.linalg.norm(start - goal, axis=-1)
    assert apart.min() > 0.17 - 1e-5
    moved = np.isclose(apart, 0.17, atol=1e-5)
    assert 0 < moved.mean() < 0.5
    low, high = np.array([-0.2, -0.3]), np.array([0.2, 0.0])
    assert ((start[~moved] >= low) & (start[~moved] <= high)).all()

    def first_draw(key):
        return env.sample_start(key, jnp.array([10.0, 10.0, 0.0]))[0][7:]  # far from a goal nothing is moved

    slides = draw(first_draw)
    assert is_uniform(slides[:, 0], -0.3, 0) and is_uniform(slides[:, 1], -0.2, 0.2)
    # Where the object was moved, it went straight away from the goal.
    before = np.asarray(jax.vmap(first_draw)(keys(1, 4000)))[:, ::-1]
    away, by = (before - goal)[moved], (start - before)[moved]
    np.testing.assert_allclose(away[:, 0] * by[:, 1], away[:, 1] * by[:, 0], atol=1e-5)
    assert ((away * by).sum(-1) >= -1e-6).all()
    np.testing.assert_array_equal(qd[:, 7:], 0)


@every_pusher
def test_pusher_arm_starts_at_rest(name):
    env = create_env(name)
    q, qd = draw(lambda key: env.sample_start(key, jnp.asarray(HOME, jnp.float32)))
    np.testing.assert_array_equal(q[:, :7], 0)
    assert is_uniform(qd[:, :7], -0.005, 0.005)


@every_pusher
@pytest.mark.parametrize("backend", ["generalized", "spring", "positional"])
def test_pusher_state_says_where_tip_and_object_are(name, backend):
    env = create_env(name, backend)
    model = env.sys.mj_model
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    states = jax.jit(jax.vmap(lambda q, qd: env.state_of(env.pipeline_init(q, qd))))
    q, qd = (rng.uniform(-0.5, 0.5, (5, size)).astype(np.float32) for size in (env.sys.q_size(), env.sys.qd_size()))
    for state, one_q, one_qd in zip(states(q, qd), q, qd, strict=True):
        data.qpos[:] = one_q
        mujoco.mj_kinematics(model, data)
        tip = data.body("r_wrist_flex_link").xpos  # what JaxGCRL calls the tip
        if name == "pusher_reacher":
            expected = [one_q, one_qd, tip]
        else:
            expected = [one_q[:7], tip, data.geom("object_geom").xpos, one_qd[:7]]
        np.testing.assert_allclose(state, np.concatenate(expected), atol=2e-5)


@pytest.mark.slow
def test_pusher_arm_pushes_the_object(env_functions):
    env, _, run = env_functions("pusher_easy")

    def place(slides):
        q = jnp.zeros(9).at[jnp.array([0, 1])].set(jnp.array([0.3, 0.32])).at[7:].set(slides)  # the tip 4 cm above
        physics = env.pipeline_init(q, jnp.zeros(9))
        state, goal, zero = env.state_of(physics), jnp.zeros(3), jnp.zeros(())
        return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})

    model = env.sys.mj_model
    data = mujoco.MjData(model)
    data.qpos[:] = jax.jit(place)(jnp.zeros(2)).pipeline_state.q
    mujoco.mj_kinematics(model, data)
    tip = (data.geom("tip_arml").xpos + data.geom("tip_armr").xpos) / 2
    near = np.array([0.12 * np.cos(np.pi / 2), 0.12])  # beside the arm, on the side to which it turns
    slides = (tip - HOME)[[1, 0]] + np.where(np.arange(NUM_ENVS)[:, None] < NUM_ENVS // 2, near[::-1], [-0.4, 0.4])
    start = jax.jit(jax.vmap(place))(slides.astype(np.float32))
    actions = np.zeros((STEPS, NUM_ENVS, 7), np.float32)
    actions[..., 0] = 1
    _, trace = run(start, actions)
    moved = np.linalg.norm(np.asarray(trace.obs[-1] - start.obs)[:, 10:12], axis=-1)
    assert (moved[: NUM_ENVS // 2] > 0.05).all()
    np.testing.assert_allclose(moved[NUM_ENVS // 2 :], 0, atol=1e-5)


@every_pusher
def test_pusher_dense_reward(env_functions, name):
    env, state = frozen(env_functions, name, dense_reward=True)
    after = env.step(state, jnp.array([1, -0.5, 3, 0, 0, 0, 0]))
    expected = -state.metrics["dist"] - 0.1 * (1 + 0.25 + 1)
    if name != "pusher_reacher":
        expected -= 0.5 * jnp.linalg.norm(state.obs[10:13] - state.obs[7:10])
    np.testing.assert_allclose(after.reward, expected, rtol=1e-5)


@pytest.mark.parametrize("backend", ["generalized", "mjx", "spring", "positional"])
def test_pusher_physics(backend):
    env = create_env("pusher_easy", backend)
    maximal = backend in ("spring", "positional")
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.05, 0.001 if maximal else 0.01], rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, 20 if maximal else 1)
    assert "goal" not in env.sys.link_names  # the goal is no body
