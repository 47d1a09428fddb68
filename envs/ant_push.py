"""Ant push: the ant moves a block out of its way to reach a point beyond it.

The task is that of Nachum et al. 2018, "Data-Efficient Hierarchical Reinforcement Learning".
"""

import jax
import jax.numpy as jnp
import mujoco

from goalax.envs.ant import FEET, Ant
from goalax.envs.base import ENVS, Camera, extend_init_q, few_iterations

WALLS = (  # metres: x, y of the centre, then half-sizes
    (-4, 20, 8, 8),
    (8, 24, 4, 4),
    (20, 20, 8, 8),
    (-8, 4, 4, 8),
    (24, 8, 4, 4),
    (20, -4, 8, 8),
    (0, -8, 12, 4),
)
WALL_HEIGHT = 4.0  # metres
BLOCK_START, BLOCK_SIZE = (8.0, 8.0, 2.0), (3.6, 3.6, 1.8)  # metres, half-sizes
BLOCK_MASS = 2e-4  # kg
DENSITY = 40.0  # of the ant, kg/m^3
START_Z = 0.75  # metres
SOLIMP = (0.995, 0.995, 0.01)
GOALS = ((16.0, 8.0), (8.0, 16.0))  # metres, the near corners of two squares
ANT_Q, ANT_QD = 15, 14


@ENVS.register("ant_push")
class AntPush(Ant):
    help = "torso of the ant to a point behind a block that it must push aside"
    state_dim = 31
    backends = ("mjx",)  # the others hold the block by springs or without friction
    camera = Camera(46.0, elevation=-78.0, azimuth=0.0, lookat=(7.0, 7.0, 0.0), marker_height=0.5, wall_height=1.0)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        for geom in spec.geoms:
            geom.density = DENSITY
        for name in ("torso_geom", *FEET):
            spec.geom(name).contype = 1
        for x, y, half_x, half_y in WALLS:
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=[x, y, WALL_HEIGHT / 2],
                size=[half_x, half_y, WALL_HEIGHT / 2],
                contype=0,
                conaffinity=1,
                rgba=[0.78, 0.68, 0.56, 1.0],
            )
        block = spec.worldbody.add_body(name="block", pos=BLOCK_START)
        block.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=BLOCK_SIZE,
            mass=BLOCK_MASS,
            contype=1,
            conaffinity=1,
            rgba=[0.95, 0.6, 0.1, 1],
        )
        for name, axis in (("block_x", [1, 0, 0]), ("block_y", [0, 1, 0]), ("block_z", [0, 0, 1])):
            joint = block.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, armature=0, damping=0)
            joint.limited = mujoco.mjtLimited.mjLIMITED_FALSE
        for geom in spec.geoms:
            geom.solimp[:3] = SOLIMP
        extend_init_q(spec, 0.0, 0.0, 0.0)
        return spec

    def physics(self, sys, backend):
        return few_iterations(sys, 4, 8), 5

    def sample_goal(self, key):
        which_key, offset_key = jax.random.split(key)
        return jax.random.choice(which_key, jnp.array(GOALS)) + jax.random.uniform(offset_key, (2,), maxval=2.0)

    def sample_start(self, key, goal):
        q, qd = super().sample_start(key, goal)
        return q.at[2].add(START_Z - self.sys.init_q[2]).at[ANT_Q:].set(0), qd.at[ANT_QD:].set(0)

    def state_of(self, pipeline_state):
        q, qd = pipeline_state.q, pipeline_state.qd
        block = jnp.array(BLOCK_START[:2]) + q[ANT_Q : ANT_Q + 2]
        return jnp.concatenate([q[:ANT_Q], qd[:ANT_QD], block])
