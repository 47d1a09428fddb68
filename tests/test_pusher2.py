"""Pusher 2: its goal and start laws, where its state says objects are, when both are there, and its dense reward."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax.envs.base import State

from goalax.core.types import Spec
from goalax.envs import create_env
from tests.helpers.envs import draw, frozen, is_uniform, keys

HEIGHT, GOAL_HEIGHT = -0.275, -0.323  # metres
GOALS = ([-0.15, 0.375], [0.375, 0.9])  # x of each goal
STARTS = ([0.25, 0.45], [0.45, 0.65])  # x of each object


def test_goals_lie_beside_each_other(env_of):
    """As in JaxGCRL, which draws y of both from one key."""
    goals = draw(env_of("pusher2").sample_goal).reshape(-1, 2, 3)
    for index, (low, high) in enumerate(GOALS):
        assert is_uniform(goals[:, index, 0], low, high)
    assert is_uniform(goals[:, 0, 1], -0.7, 0.3)
    np.testing.assert_array_equal(goals[:, 0, 1], goals[:, 1, 1])
    np.testing.assert_allclose(goals[:, :, 2], GOAL_HEIGHT, atol=1e-6)
    x, y = goals[:, :, 0].T, goals[:, 0, 1]
    assert max(abs(np.corrcoef([*x, y])[[0, 0, 1], [1, 2, 2]])) < 0.1


def test_objects_start_away_from_their_goals(env_of):
    env = env_of("pusher2")
    goals = draw(env.sample_goal)
    q, qd = jax.jit(jax.vmap(env.sample_start))(keys(1, 4000), goals)
    places, goals = np.asarray(q[:, 7:]).reshape(-1, 2, 2)[..., ::-1], goals.reshape(-1, 2, 3)[..., :2]  # x, y
    apart = np.linalg.norm(places - goals, axis=-1)
    assert apart.min() > 0.17 - 1e-5
    moved = np.isclose(apart, 0.17, atol=1e-5)
    assert (moved.mean(axis=0) > 0).all() and (moved.mean(axis=0) < 0.5).all()
    for index, (low, high) in enumerate(STARTS):
        x, y = places[~moved[:, index], index].T
        assert low <= x.min() and x.max() <= high and y.min() >= -0.35 and y.max() <= -0.05
    np.testing.assert_array_equal(q[:, :7], 0)
    np.testing.assert_array_equal(qd[:, 7:], 0)
    assert is_uniform(qd[:, :7], -0.005, 0.005)

    def first_draw(key):
        return env.sample_start(key, jnp.full(6, 10.0))[0][7:].reshape(2, 2)  # far from a goal nothing is moved

    slides = draw(first_draw)
    for index, (low, high) in enumerate(STARTS):
        assert is_uniform(slides[:, index, 0], -0.35, -0.05) and is_uniform(slides[:, index, 1], low, high)
    # Where an object was moved, it went straight away from its goal.
    before = np.asarray(jax.vmap(first_draw)(keys(1, 4000)))[..., ::-1]
    away, by = (before - goals)[moved], (places - before)[moved]
    np.testing.assert_allclose(away[:, 0] * by[:, 1], away[:, 1] * by[:, 0], atol=1e-5)
    assert ((away * by).sum(-1) >= -1e-6).all()


@pytest.mark.parametrize("backend", ["generalized", "spring", "positional"])
def test_state_says_where_tip_and_objects_are(backend):
    env = create_env("pusher2", backend)
    model = env.sys.mj_model
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    states = jax.jit(jax.vmap(lambda q, qd: env.state_of(env.pipeline_init(q, qd))))
    q, qd = (rng.uniform(-0.5, 0.5, (5, 11)).astype(np.float32) for _ in range(2))
    for state, one_q, one_qd in zip(states(q, qd), q, qd, strict=True):
        data.qpos[:] = one_q
        mujoco.mj_kinematics(model, data)
        places = [data.geom(name).xpos for name in ("object_geom", "second_object_geom")]
        expected = [one_q[:7], data.body("r_wrist_flex_link").xpos, *places, one_qd[:7]]
        np.testing.assert_allclose(state, np.concatenate(expected), atol=2e-5)
        assert all(place[2] == pytest.approx(HEIGHT) for place in places)


def test_success_needs_both_objects(env_functions):
    env, state = frozen(env_functions, "pusher2")
    places, step = state.obs[10:16].reshape(2, 3), jax.jit(env.step)
    for near in ((0.099, 0.099), (0.099, 0.101), (0.101, 0.0), (0.5, 0.2)):
        goal = places.at[:, 1].add(jnp.array(near)).ravel()
        after = step(state.replace(info={"goal": goal}), jnp.zeros(7))
        there = sum(dist < 0.1 for dist in near)
        assert after.metrics["success"] == after.reward == (there == 2)
        assert after.metrics["success_easy"] == there
        np.testing.assert_allclose(after.metrics["dist"], sum(near), rtol=1e-4)
        assert set(after.metrics) == {"success", "success_easy", "dist", "broken"}


def test_dense_reward(env_functions):
    env, state = frozen(env_functions, "pusher2", dense_reward=True)
    after = env.step(state, jnp.array([1, -0.5, 3, 0, 0, 0, 0]))
    tip, places, goals = state.obs[7:10], state.obs[10:16].reshape(2, 3), state.info["goal"].reshape(2, 3)
    to_goals, to_tip = (np.linalg.norm(np.asarray(places) - np.asarray(other), axis=1) for other in (goals, tip[None]))
    np.testing.assert_allclose(after.reward, -to_goals.sum() - 0.1 * (1 + 0.25 + 1) - 0.5 * to_tip.mean(), rtol=1e-5)


@pytest.mark.parametrize("backend", ["generalized", "mjx", "spring", "positional"])
def test_physics_is_that_of_the_pusher(backend, env_of):
    env, pusher = create_env("pusher2", backend), create_env("pusher_easy", backend)
    maximal = backend in ("spring", "positional")
    np.testing.assert_allclose([env.dt, env.sys.opt.timestep], [0.05, 0.001 if maximal else 0.01], rtol=1e-6)
    np.testing.assert_array_equal(env.sys.actuator.gear, pusher.sys.actuator.gear)
    one, two = pusher.sys.mj_model, env.sys.mj_model
    assert two.nbody == one.nbody + 1 and two.nq == one.nq + 2 and two.ngeom == one.ngeom + 2
    for name in ("dof_damping", "dof_armature", "jnt_range", "jnt_axis", "body_mass", "body_inertia"):
        ours, theirs = getattr(two, name), getattr(one, name)
        np.testing.assert_array_equal(ours[: len(theirs)], theirs)
        again = len(ours) - len(theirs)  # the second object is the first once more
        np.testing.assert_array_equal(ours[-again:], theirs[-again:])
    for name in ("geom_size", "geom_contype", "geom_conaffinity", "geom_friction", "geom_margin"):
        np.testing.assert_array_equal(getattr(two, name)[-2:], getattr(one, name)[-2:])


def test_each_goal_is_shown_where_its_object_is_there(env_of):
    env = env_of("pusher2")
    np.testing.assert_array_equal(env.goal_points(jnp.arange(6.0)), [[0, 1, 2], [3, 4, 5]])
    assert env.camera.marker_radius == env.goal_reach_thresh


@pytest.mark.slow
def test_the_arm_pushes_one_object_and_not_the_other(env_functions):
    """The arm turns; the object beside its fingertips moves, the one beyond its reach stays."""
    env, reset, run = env_functions("pusher2")
    states = reset(keys(0))
    _, trace = run(states, np.zeros((50, 8, 7), np.float32))
    before, after = np.asarray(states.obs), np.asarray(trace.obs[-1])
    np.testing.assert_allclose(after[:, 10:16], before[:, 10:16], atol=2e-3)  # nobody pushes them
    beside = pushed(env, run)
    assert np.linalg.norm(beside[0]) > 0.05 and np.linalg.norm(beside[1]) < 1e-5


def pushed(env, run):
    """How far [2, 2] the objects go while the arm turns towards the first one."""

    def place(q):
        physics = env.pipeline_init(q, jnp.zeros(11))
        state, goal, zero = env.state_of(physics), jnp.zeros(6), jnp.zeros(())
        return State(physics, jnp.concatenate([state, goal]), zero, zero, env.told(state, goal), {"goal": goal})

    arm = np.zeros(11, np.float32)
    arm[:2] = [0.3, 0.32]
    model = env.sys.mj_model
    data = mujoco.MjData(model)
    data.qpos[:] = arm
    mujoco.mj_kinematics(model, data)
    tip = (data.geom("tip_arml").xpos + data.geom("tip_armr").xpos) / 2
    arm[7:] = [tip[1] + 0.12, tip[0], tip[1] - 0.5, tip[0]]
    start = jax.jit(jax.vmap(place))(np.tile(arm, (8, 1)))
    actions = np.zeros((50, 8, 7), np.float32)
    actions[..., 0] = 1
    _, trace = run(start, actions)
    return np.asarray(trace.obs[-1, 0] - start.obs[0])[10:16].reshape(2, 3)[:, :2]


def test_what_is_learned_of_goals_is_what_the_environment_calls_success(env_of):
    """Both objects off by less than the radius, but by more together."""
    env = env_of("pusher2")
    spec, state = Spec.of(env, 0.99), jnp.zeros(env.state_dim)
    for off in (0.03, 0.08, 0.12):
        for which in ([1, 0], [1, 1], [0, 1]):
            goal = env.goal_of(state) + off * jnp.array([[w, 0, 0] for w in which], jnp.float32).ravel()
            success = env.measures(state, goal)["success"]
            assert float(spec.reached(state, goal)) == float(success) == (off < env.goal_reach_thresh)
