"""Reacher: a two-link planar arm brings its fingertip to a target in a disc."""

import jax
import jax.numpy as jnp
import mujoco
from brax import math

from goalax.envs.base import ENVS, Camera, GoalEnv, brax_body, maximal, set_numeric

FINGERTIP = (0.11, 0.0, 0.0)  # metres, in the frame of the second link
TARGET_HEIGHT = 0.01  # metres, the height of the target body in Brax's model


@ENVS.register("reacher")
class Reacher(GoalEnv):
    help = "fingertip of a two-link arm to a point in a disc"
    state_dim = 10
    goal_indices = (4, 5, 6)
    goal_reach_thresh = 0.05
    backends = ("generalized", "mjx", "spring", "positional")
    episode_length = 250
    num_timesteps = 300_000
    utd_ratio = 1 / 16
    camera = Camera(distance=0.75, elevation=-60.0, azimuth=90.0, lookat=(0.0, 0.0, 0.0))

    def body(self) -> mujoco.MjSpec:
        spec = brax_body("reacher")
        spec.delete(spec.body("target"))  # the goal is no body: it would only cost dynamics
        set_numeric(spec, init_qpos=[0.0, 0.0], constraint_stiffness=[1000.0], constraint_vel_damping=[3.0])
        return spec

    def physics(self, sys, backend):
        if backend in ("spring", "positional"):
            return maximal(sys, timestep=0.005, gear=25.0), 4
        return sys, 2

    def sample_goal(self, key):
        radius_key, angle_key = jax.random.split(key)
        radius = 0.2 * jax.random.uniform(radius_key)
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
        return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle), jnp.array(TARGET_HEIGHT)])

    def sample_start(self, key, goal):
        q_key, qd_key = jax.random.split(key)
        q = self.sys.init_q + jax.random.uniform(q_key, (2,), minval=-0.1, maxval=0.1)
        return q, jax.random.uniform(qd_key, (2,), minval=-0.005, maxval=0.005)

    def state_of(self, pipeline_state):
        link, motion, angles = pipeline_state.x.take(1), pipeline_state.xd.take(1), pipeline_state.q
        lever = math.rotate(jnp.array(FINGERTIP), link.rot)
        velocity = motion.vel + jnp.cross(motion.ang, lever)
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles), link.pos + lever, velocity])

    def shaped_reward(self, state, action, dist, last_dist):
        return -dist
