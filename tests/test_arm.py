"""Arm: its kinematics, that it stays over its table, its goal and start laws, and that scripts solve its tasks."""

import itertools
from importlib.metadata import version

import jax
import mujoco
import numpy as np
import pytest

from goalax.core.train import compile_train
from goalax.envs import create_env
from goalax.envs.arm import HIGH, LOW
from goalax.envs.panda import ARM, CUBE, GRASP_POINT
from goalax.host.config import read_flags
from goalax.host.make import make_run
from tests.helpers import toy
from tests.helpers.envs import NUM_ENVS, STEPS, draw, is_uniform, keys

CUBE_TASKS = ["arm_grasp", "arm_push_easy", "arm_push_hard", "arm_binpick_easy", "arm_binpick_hard"]
# As Franka publishes them: (a, alpha / quarter turn, d) of each joint in Craig's convention, lengths in metres.
DH = (
    *((0, 0, 0.333), (0, -1, 0), (0, 1, 0.316), (0.0825, 1, 0)),
    *((-0.0825, -1, 0.384), (0, 1, 0), (0.088, 1, 0)),
)
TOOL = 0.107 + 0.1034  # metres from joint 7 along its axis: the flange, and from there the point between the fingertips


def forward(angles):
    """Point between the fingertips [3] at angles [7], and the axis [3] along which the hand points."""
    pose = np.eye(4)
    for (a, quarters, d), angle in zip(DH, angles, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        across, along = round(np.cos(quarters * np.pi / 2)), round(np.sin(quarters * np.pi / 2))
        pose = pose @ np.array(
            [
                [cos, -sin, 0, a],
                [sin * across, cos * across, -along, -d * along],
                [sin * along, cos * along, across, d * across],
                [0, 0, 0, 1],
            ]
        )
    return pose[:3, 3] + TOOL * pose[:3, 2], pose[:3, 2]


def reach_for(points, gripper=None):
    """Actions [N, A] that bring the point between the fingertips to points [N, 3], hand down; gripper in [-1, 1]."""
    x, y, z = np.asarray(points, np.float64).T
    upper, fore = np.hypot(0.316, 0.0825), np.hypot(0.384, 0.0825)  # shoulder to elbow to wrist
    out, up = np.hypot(x, y) - 0.088, z + TOOL - 0.333  # from shoulder to wrist
    far = np.hypot(out, up)
    elbow = np.arccos((upper**2 + fore**2 - far**2) / (2 * upper * fore))
    q4 = elbow + np.arctan2(0.316, 0.0825) + np.arctan2(0.384, 0.0825) - 2 * np.pi
    shoulder = np.arccos((upper**2 + far**2 - fore**2) / (2 * upper * far))
    q2 = np.arctan2(out, up) - shoulder - np.arctan2(0.0825, 0.316)
    angles = np.stack([np.arctan2(y, x), q2, q4, q2 - q4], -1)
    low, high = np.asarray(LOW), np.asarray(HIGH)
    actions = 2 * (angles - low) / (high - low) - 1
    assert np.abs(actions).max() <= 1
    return actions if gripper is None else np.append(actions, np.full((len(points), 1), gripper), -1)


def play(env_functions, name, script):
    """Runs script: (cube [N, 3], goal [N, 3]) -> [(points [N, 3], gripper, steps)]; (first states, trace)."""
    _, reset, run = env_functions(name)
    states = first = reset(keys(0))
    cube, goal = np.asarray(first.obs[:, :3]), np.asarray(first.info["goal"][:, :3])
    actions = [np.repeat(reach_for(points, grip)[None], steps, 0) for points, grip, steps in script(cube, goal)]
    actions = np.concatenate(actions).astype(np.float32)
    traces = []
    for begin in range(0, len(actions), STEPS):
        some = actions[begin : begin + STEPS]
        some = np.append(some, np.repeat(some[-1:], STEPS - len(some), 0), 0)  # holds the last target
        states, trace = run(states, some)
        traces.append(trace)
    return first, jax.tree.map(lambda *leaves: np.concatenate(leaves), *traces)


def at(points, height):
    return np.append(points[:, :2], np.full((len(points), 1), height), -1)


def pick(cube):
    """From above, around the cube, and close."""
    return [(at(cube, 0.15), -1, 15), (at(cube, 0.03), -1, 15), (at(cube, 0.03), 1, 10)]


# ---- The arm ---------------------------------------------------------------------------------------------------------


def test_arm_kinematics_are_the_published_ones():
    model = create_env("arm_reach").body().compile()
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    low, high = np.array([link.limits for link in ARM]).T
    for angles in (np.zeros(7), low, high, *rng.uniform(low, high, (20, 7))):
        data.qpos[:] = angles
        mujoco.mj_kinematics(model, data)
        link = data.body("link7")
        point, axis = forward(angles)
        np.testing.assert_allclose(link.xpos + link.xmat.reshape(3, 3) @ GRASP_POINT, point, atol=1e-6)
        np.testing.assert_allclose(link.xmat.reshape(3, 3)[:, 2], axis, atol=1e-6)


def test_arm_mass_and_limits_are_the_published_ones():
    model = create_env("arm_grasp").body().compile()
    limits = {"joint1": 2.8973, "joint3": 2.8973, "joint5": 2.8973, "joint7": 2.8973, "joint2": 1.7628}
    for joint, limit in limits.items():
        np.testing.assert_allclose(model.joint(joint).range, [-limit, limit])
    np.testing.assert_allclose(model.joint("joint4").range, [-3.0718, -0.0698])
    np.testing.assert_allclose(model.joint("joint6").range, [-0.0175, 3.7525])
    masses = [model.body(f"link{number}").mass[0] for number in range(1, 7)]
    np.testing.assert_allclose(masses, [4.970684, 0.646926, 3.228604, 3.587895, 1.225946, 1.666555])
    np.testing.assert_allclose(model.body("link7").mass, 0.735522 + 0.73)  # with the hand
    np.testing.assert_allclose(model.actuator_forcerange[:7, 1], [87, 87, 87, 87, 12, 12, 12])
    np.testing.assert_allclose(model.geom("cube").size, 0.03)


@pytest.mark.slow
def test_arm_stays_over_its_table_and_within_its_limits(env_functions):
    _, reset, run = env_functions("arm_reach")
    corners = np.array(list(itertools.product([-1, 1], repeat=4)), np.float32).reshape(-1, NUM_ENVS, 4)
    states, tips = reset(keys(0)), []
    low, high = np.array([link.limits for link in ARM]).T
    for corner in [*corners, *corners[::-1], corners[1]]:
        states, trace = run(states, np.broadcast_to(corner, (STEPS, NUM_ENVS, 4)))
        angles, tip = np.split(np.asarray(trace.obs), [7, 10], -1)[:2]
        for excess in (low - angles, angles - high):
            np.testing.assert_array_less(excess.max((0, 1)), 0.05)  # limits are soft
        held = angles[..., [2, 4, 6]]
        np.testing.assert_allclose(held, np.broadcast_to([0, 0, np.pi / 4], held.shape), atol=0.2)
        for step, one in itertools.product((0, 3, STEPS - 1), range(NUM_ENVS)):
            np.testing.assert_allclose(tip[step, one], forward(angles[step, one])[0], atol=1e-4)
        tips.append(tip)
    x, y, z = np.concatenate(tips).reshape(-1, 3).T
    assert -0.3 < x.min() < x.max() < 1.2 and np.abs(y).max() < 0.9  # the table's edges
    assert z.min() > -0.02 and z.max() > 0.4
    assert y.min() < -0.3 and y.max() > 0.3


@pytest.mark.slow
def test_arm_velocity_is_the_change_of_the_fingertips(env_functions):
    env, reset, run = env_functions("arm_reach")
    swing = 0.5 * np.sin(0.07 * np.arange(STEPS))[:, None, None] * np.linspace(0.3, 1, NUM_ENVS)[:, None]
    actions = np.broadcast_to(swing, (STEPS, NUM_ENVS, 4)).astype(np.float32)
    state = np.asarray(run(reset(keys(1)), actions)[1].obs)[15:]  # without the jerk of the beginning
    tips, velocity = state[..., 7:10], state[..., 10:13]
    change = (tips[1:] - tips[:-1]) / float(env.dt)
    assert np.abs(velocity).max() > 0.2
    np.testing.assert_allclose(change, (velocity[1:] + velocity[:-1]) / 2, atol=0.05)


# ---- Laws ------------------------------------------------------------------------------------------------------------


def test_arm_reach_goals_fill_a_box():
    goals = draw(create_env("arm_reach").sample_goal)
    for values, low, high in zip(goals.T, (0.4, -0.25, 0.05), (0.7, 0.25, 0.4), strict=True):
        assert is_uniform(values, low, high)


def start_and_goal(env):
    """Centres of cubes [n, 3] at the start, and goals [n, G]."""

    def both(key):
        goal_key, start_key = jax.random.split(key)
        goal = env.sample_goal(goal_key)
        return env.sample_start(start_key, goal)[0][9:12], goal

    return draw(both)


@pytest.mark.parametrize("name", CUBE_TASKS)
def test_arm_cubes_start_on_the_table(name):
    cube, goal = start_and_goal(create_env(name))
    np.testing.assert_allclose(cube[:, 2], CUBE)
    assert len(np.unique(cube, axis=0)) == len(cube)
    assert len(np.unique(goal, axis=0)) == (1 if name == "arm_binpick_easy" else len(goal))


def test_arm_grasp_goal_is_the_cube_lifted_between_the_fingertips():
    cube, goal = start_and_goal(create_env("arm_grasp"))
    lifted, left, right = np.split(goal, 3, -1)
    np.testing.assert_allclose(lifted - cube, np.broadcast_to([0, 0, 0.2], cube.shape), atol=1e-6)
    np.testing.assert_allclose((left + right) / 2, lifted, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(left - right, axis=-1), 2 * CUBE, atol=1e-6)
    np.testing.assert_allclose((left - right)[:, 2], 0, atol=1e-6)
    np.testing.assert_allclose(np.sum((left - right) * lifted * [1, 1, 0], -1), 0, atol=1e-6)  # sideways to the arm


def test_arm_push_starts_and_goals():
    cube, goal = start_and_goal(create_env("arm_push_easy"))
    assert is_uniform(cube[:, 0], 0.4, 0.6) and is_uniform(cube[:, 1], -0.2, 0)
    assert is_uniform(goal[:, 0], 0.4, 0.6) and is_uniform(goal[:, 1], 0, 0.2)
    cube, goal = start_and_goal(create_env("arm_push_hard"))
    assert is_uniform(goal[:, 0], 0.39, 0.63) and is_uniform(goal[:, 1], -0.32, 0.32)
    assert is_uniform(cube[:, 0], 0.39, 0.63) and is_uniform(np.abs(cube[:, 1]), 0, 0.32)
    assert (cube[:, 1] * goal[:, 1] <= 0).all()  # on the other side of the table
    np.testing.assert_allclose(goal[:, 2], CUBE)


@pytest.mark.parametrize("name, goal_spread", [("arm_binpick_easy", 0), ("arm_binpick_hard", 0.07)])
def test_arm_binpick_starts_in_one_bin_with_the_goal_in_the_other(name, goal_spread):
    cube, goal = start_and_goal(create_env(name))
    start_spread = 0.03 if name.endswith("easy") else 0.07
    for points, side, spread in ((cube, -1, start_spread), (goal, 1, goal_spread)):
        offset = points[:, :2] - [0.5, 0.15 * side]
        assert is_uniform(offset, -spread, spread) if spread else np.abs(offset).max() < 1e-6
        # Even a cube on edge stays clear of the walls, which stand at 0.36, 0.64 and 0, 0.29 m, 1 cm thick.
        assert (0.14 - np.abs(offset[:, 0]) - 0.01 > CUBE * 2**0.5).all()
    np.testing.assert_allclose(goal[:, 2], CUBE)


# ---- Scripts that solve the tasks ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_arm_reaches(env_functions):
    def script(_, goal):
        return [(np.clip(goal, [0.4, -0.2, 0.1], [0.6, 0.2, 0.3]), None, STEPS)]

    first, trace = play(env_functions, "arm_reach", script)
    wanted = script(None, np.asarray(first.info["goal"]))[0][0]
    np.testing.assert_allclose(trace.obs[-1, :, 7:10], wanted, atol=0.01)


@pytest.mark.table
def test_arm_grasps_and_lifts(env_functions):
    def script(cube, goal):
        return [*pick(cube), (goal, 1, 25)]

    _, trace = play(env_functions, "arm_grasp", script)
    assert not trace.metrics["success"][:40].any()  # around the cube is not enough
    assert trace.metrics["success_hard"][-1].all()
    np.testing.assert_allclose(trace.obs[-1, :, 2], 0.2 + CUBE, atol=0.02)
    np.testing.assert_allclose(trace.obs[-1, :, 22], 2 * CUBE, atol=0.008)  # metres apart: contacts are soft


@pytest.mark.table
def test_arm_lifts_nothing_with_an_open_hand(env_functions):
    def script(cube, goal):
        return [*((points, -1, steps) for points, _, steps in pick(cube)), (goal, -1, 25)]

    _, trace = play(env_functions, "arm_grasp", script)
    assert not trace.metrics["success"].any()
    np.testing.assert_allclose(trace.obs[-1, :, 2], CUBE, atol=0.005)


@pytest.mark.slow
def test_arm_pushes(env_functions):
    def script(cube, goal):
        along = np.array([0, 1, 0])
        behind = cube - 0.1 * along
        return [(at(behind, 0.15), 1, 15), (behind, 1, 15), *((behind + 0.01 * k * along, 1, 2) for k in range(1, 21))]

    first, trace = play(env_functions, "arm_push_easy", script)
    moved = np.asarray(trace.obs[-1, :, :3] - first.obs[:, :3])
    assert (moved[:, 1] > 0.08).all()  # 0.2 m along y, from 0.1 m before the centre of the cube
    np.testing.assert_allclose(moved[:, 2], 0, atol=0.005)


@pytest.mark.table
def test_arm_carries_a_cube_into_the_other_bin(env_functions):
    def script(cube, goal):
        over = [(at(cube + (goal - cube) * k / 8, 0.17), 1, 2) for k in range(1, 9)]
        drop = [(at(goal, 0.17), 1, 8), (at(goal, 0.06), 1, 8), (at(goal, 0.06), -1, 8), (at(goal, 0.17), -1, 8)]
        return [*pick(cube), (at(cube, 0.17), 1, 15), *over, *drop]

    _, trace = play(env_functions, "arm_binpick_hard", script)
    assert trace.metrics["success"][-1].all()
    np.testing.assert_allclose(trace.obs[-1, :, 2], CUBE, atol=0.005)  # it lies on the floor of the bin


@pytest.mark.skipif(not version("jaxlib").startswith("0.10."), reason="only jaxlib 0.10 needs it")
@pytest.mark.parametrize("name, backend, needed", [("arm_reach", None, True), ("cheetah", "spring", False)])
def test_mjx_is_compiled_without_the_fusions_that_repeat_a_chain(name, backend, needed):
    options = create_env(name, backend).compiler_options
    assert options == ({"xla_cpu_use_fusion_emitters": False} if needed and jax.default_backend() == "cpu" else {})


def test_training_is_compiled_with_the_options_of_the_environment():
    toy.register()
    train = make_run(*read_flags(toy.TINY)).train
    assert train.compiler_options == toy.Toy.compiler_options
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        compile_train(train._replace(compiler_options={"no_such_option": True}), jax.random.PRNGKey(0))
