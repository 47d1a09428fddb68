"""Simple maze: a point mass on two slides through a maze. The cheapest environment that needs a detour."""

import jax
import mujoco

from goalax.envs.base import GoalEnv, set_numeric
from goalax.envs.maze import InMaze, add_mazes
from goalax.envs.stitching import Stitching, add_splits

RADIUS = 0.25  # metres
MOTOR_GEAR = 5.0  # newtons


class PointMass(GoalEnv):
    help = "a point mass to a point"
    state_dim = 4
    goal_indices = (0, 1)
    goal_reach_thresh = 0.5
    goal_easy_thresh = 2.0
    backends = ("spring", "mjx", "positional", "generalized")
    episode_length = 250
    num_timesteps = 600_000
    utd_ratio = 1 / 16

    def body(self) -> mujoco.MjSpec:
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.01
        # Engine parameters of Brax's ant; mass scale 1 makes the link weigh 1 kg on spring and positional.
        set_numeric(
            spec,
            constraint_limit_stiffness=[1000.0],
            constraint_stiffness=[4000.0],
            constraint_ang_damping=[10.0],
            constraint_vel_damping=[0.0],  # on positional it would drag on the slides, not only on the constraints
            spring_mass_scale=[1.0],
            spring_inertia_scale=[1.0],
        )
        spec.worldbody.add_light(pos=[0, 0, 10], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE, size=[40, 40, 40], contype=0, conaffinity=0, rgba=[0.8, 0.8, 0.8, 1]
        )
        ball = spec.worldbody.add_body(name="ball", pos=[0, 0, RADIUS])
        ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[RADIUS, 0, 0], density=5, conaffinity=1)
        for name, axis in (("x", [1, 0, 0]), ("y", [0, 1, 0])):
            ball.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, armature=1)
            motor = spec.add_actuator(target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, ctrlrange=[-1, 1])
            motor.ctrllimited, motor.gear[0] = True, MOTOR_GEAR
        return spec

    def physics(self, sys, backend):
        if backend in ("spring", "positional"):
            return sys.tree_replace({"opt.timestep": 0.005}), 10
        return sys, 5

    def start_position(self, key, goal):
        """Where the point mass starts [2], before noise."""
        return self.sys.init_q

    def sample_start(self, key, goal):
        position_key, q_key, qd_key = jax.random.split(key, 3)
        q = self.start_position(position_key, goal) + jax.random.uniform(q_key, (2,), minval=-0.1, maxval=0.1)
        return q, 0.1 * jax.random.normal(qd_key, (2,))


class SimpleMaze(InMaze, PointMass):
    help = "a point mass through a maze to one of its goal cells"


class SimpleStitching(Stitching, SimpleMaze):
    help = "a point mass from a cell of a corridor to one a few cells ahead"


add_mazes("simple", SimpleMaze, evals=True)
add_splits("simple", SimpleStitching)
