"""Arm: a Franka Panda reaches, grasps, pushes a cube, and moves it from one bin into another. On mjx only.

The arm stands at the origin and looks along x. Actions are targets of joints 1, 2, 4 and 6; the others are held, so
that the fingers open sideways to the arm. The last action closes the gripper where it is positive.

State entries, in metres, radians and seconds (sizes as in the arm tasks of JaxGCRL, Bortkiewicz et al. 2025):

| entries                          | reach | push, binpick | grasp |
|----------------------------------|-------|---------------|-------|
| centre of the cube               |       | 0-2           | 0-2   |
| joint angles                     | 0-6   | 3-9           | 3-9   |
| point between the fingertips     | 7-9   | 10-12         | 10-12 |
| its velocity                     | 10-12 | 13-15         | 13-15 |
| left and right fingertip         |       |               | 16-21 |
| distance between the fingertips  |       | 16            | 22    |
| share of the closing force       |       | 17            | 23    |
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from brax import math

from goalax.envs.base import ENVS, Camera, GoalEnv
from goalax.envs.panda import CUBE, FINGER_FORCE, FINGER_LENGTH, FINGER_TRAVEL, GRASP_POINT, add_bins, add_cube, panda

CONTROLLED = np.array([0, 1, 3, 5])
LOW, HIGH = np.array([[-0.9, -0.5, -2.85, 1.6], [0.9, 0.9, -1.0, 3.2]], np.float32)  # radians, targets for -1 and 1
HOME = np.array([0, 0.05, 0, -2.3, 0, 2.35, np.pi / 4], np.float32)  # radians, hand down, 0.2 m above the table
LIFT = 0.2  # metres


class Region(NamedTuple):
    """A rectangle on the table between two corners, metres."""

    low: tuple[float, float]
    high: tuple[float, float]

    def sample(self, key: jax.Array) -> jax.Array:
        """Centre [3] of a cube that lies there, uniform. Consumes key."""
        point = jax.random.uniform(key, (2,), minval=jnp.array(self.low), maxval=jnp.array(self.high))
        return jnp.append(point, CUBE)


def around(y: float, spread: float) -> Region:
    """The square of points at most spread from (0.5, y) along either axis."""
    return Region((0.5 - spread, y - spread), (0.5 + spread, y + spread))


def sideways(point: jax.Array) -> jax.Array:
    """Unit vector [3], horizontal and square to the arm that reaches for a point [3]: along it the fingers open."""
    return jnp.stack([-point[1], point[0], jnp.zeros(())]) / jnp.linalg.norm(point[:2])


class Arm(GoalEnv):
    gripper = True
    goal_reach_thresh = 0.1
    goal_easy_thresh = 0.3
    goal_hard_thresh = 0.03
    backends = ("mjx",)
    episode_length = 100
    camera = Camera(distance=1.7, elevation=-25.0, azimuth=140.0, lookat=(0.35, 0.0, 0.25))

    def body(self) -> mujoco.MjSpec:
        return panda(self.gripper)

    def physics(self, sys, backend):
        return sys, 3

    @property
    def action_size(self) -> int:
        return len(CONTROLLED) + self.gripper

    def pipeline_init(self, q, qd):
        return super().pipeline_init(q, qd, ctrl=q[: self.sys.nu])  # at rest: every joint has the angle it is told

    def pipeline_step(self, pipeline_state, action):
        angles = LOW + (HIGH - LOW) * (action[: len(CONTROLLED)] + 1) / 2
        targets = jnp.asarray(HOME).at[CONTROLLED].set(angles)
        if self.gripper:
            fingers = jnp.where(action[-1] > 0, 0.0, FINGER_TRAVEL)
            targets = jnp.concatenate([targets, jnp.full(2, fingers)])
        return super().pipeline_step(pipeline_state, targets)

    def sample_start(self, key, goal):
        noise = jax.random.uniform(key, CONTROLLED.shape, minval=-0.1, maxval=0.1)
        return jnp.asarray(HOME).at[CONTROLLED].add(noise), jnp.zeros(len(HOME))

    def state_of(self, pipeline_state):
        hand, motion = pipeline_state.x.take(6), pipeline_state.xd.take(6)
        lever = math.rotate(jnp.array(GRASP_POINT), hand.rot)
        velocity = motion.vel + jnp.cross(motion.ang, lever)
        return jnp.concatenate([pipeline_state.q[:7], hand.pos + lever, velocity])


@ENVS.register("arm_reach")
class ArmReach(Arm):
    help = "point between the fingertips of an arm to a point over the table"
    gripper = False
    state_dim = 13
    goal_indices = (7, 8, 9)
    num_timesteps = 200_000
    utd_ratio = 1 / 16

    def sample_goal(self, key):
        return jax.random.uniform(key, (3,), minval=jnp.array([0.4, -0.25, 0.05]), maxval=jnp.array([0.7, 0.25, 0.4]))


class ArmWithCube(Arm):
    state_dim = 18
    goal_indices = (0, 1, 2)

    def body(self):
        spec = super().body()
        add_cube(spec)
        return spec

    def cube_start(self, key, goal):
        """Where the cube starts, the centre [3]."""
        raise NotImplementedError

    def sample_start(self, key, goal):
        arm_key, cube_key = jax.random.split(key)
        arm, _ = super().sample_start(arm_key, goal)
        cube = self.cube_start(cube_key, goal)
        half_yaw = jnp.arctan2(cube[1], cube[0]) / 2
        facing = jnp.array([1.0, 0, 0, 0]) * jnp.cos(half_yaw) + jnp.array([0, 0, 0, 1.0]) * jnp.sin(half_yaw)
        q = jnp.concatenate([arm, jnp.full(2, FINGER_TRAVEL), cube, facing])  # the hand cannot turn: the cube does
        return q, jnp.zeros(self.sys.qd_size())

    def state_of(self, pipeline_state):
        distance = pipeline_state.q[7:9].sum()
        force = -pipeline_state.qfrc_actuator[7:9].mean() / FINGER_FORCE
        arm = super().state_of(pipeline_state)
        return jnp.concatenate([pipeline_state.q[9:12], arm, jnp.stack([distance, force])])


@ENVS.register("arm_grasp")
class ArmGrasp(ArmWithCube):
    """The goal is the cube between the fingertips, LIFT above its start: nearer than LIFT / 2, it is off the table."""

    help = "a cube held between the fingertips of an arm, lifted by 0.2 m"
    pairs_of_ends = True
    state_dim = 24
    goal_indices = (0, 1, 2, *range(16, 22))
    episode_length = 150
    region = Region((0.42, -0.2), (0.62, 0.2))

    def sample_goal(self, key):
        cube = self.region.sample(key).at[2].add(LIFT)
        half = CUBE * sideways(cube)
        return jnp.concatenate([cube, cube - half, cube + half])

    def cube_start(self, key, goal):
        return goal[:3].at[2].add(-LIFT)

    def state_of(self, pipeline_state):
        state = super().state_of(pipeline_state)
        links = pipeline_state.x.take(jnp.array([7, 8]))
        tips = links.pos + jax.vmap(math.rotate, (None, 0))(jnp.array([0, 0, FINGER_LENGTH]), links.rot)
        return jnp.concatenate([state[:16], tips.ravel(), state[16:]])


class ArmPush(ArmWithCube):
    """The cube starts in a region on the right, or in its mirror image on the left where the goal is on the right."""

    help = "a cube on the table to another place on the table"

    def __init__(self, starts: Region, goals: Region, **kwargs):
        self.starts, self.goals = starts, goals
        super().__init__(**kwargs)

    def sample_goal(self, key):
        return self.goals.sample(key)

    def cube_start(self, key, goal):
        return self.starts.sample(key) * jnp.where(goal[1] < 0, jnp.array([1, -1, 1]), 1)


class ArmBinpick(ArmPush):
    help = "a cube from one bin into the other"
    episode_length = 150

    def body(self):
        spec = super().body()
        add_bins(spec)
        return spec


near, table = Region((0.4, -0.2), (0.6, 0.0)), Region((0.39, -0.32), (0.63, 0.32))
ENVS.add("arm_push_easy", partial(ArmPush, starts=near, goals=Region((0.4, 0.0), (0.6, 0.2))))
ENVS.add("arm_push_hard", partial(ArmPush, starts=Region((0.39, -0.32), (0.63, 0.0)), goals=table))
ENVS.add("arm_binpick_easy", partial(ArmBinpick, starts=around(-0.15, 0.03), goals=around(0.15, 0)))
ENVS.add("arm_binpick_hard", partial(ArmBinpick, starts=around(-0.15, 0.07), goals=around(0.15, 0.07)))
