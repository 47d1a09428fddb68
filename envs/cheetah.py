"""Cheetah: a two-legged body that lives in a plane runs to a point on its track."""

import jax
import jax.numpy as jnp
import mujoco

from goalax.envs.base import ENVS, Camera, GoalEnv, brax_body, maximal

GOAL_X = 5.0  # metres
MAXIMAL_GEAR = (120.0, 90.0, 60.0, 120.0, 100.0, 100.0)  # on spring and positional, as in Brax


@ENVS.register("cheetah")
class Cheetah(GoalEnv):
    help = "torso of the half cheetah to a point 5 m ahead"
    state_dim = 18
    goal_indices = (0,)
    goal_reach_thresh = 0.5
    goal_easy_thresh = 2.0
    backends = ("mjx", "spring", "positional", "generalized")
    camera = Camera(distance=4.5, elevation=-12.0, azimuth=45.0, marker_height=0.5)

    def body(self) -> mujoco.MjSpec:
        return brax_body("half_cheetah")

    def physics(self, sys, backend):
        if backend in ("spring", "positional"):
            return maximal(sys, timestep=0.003125, gear=MAXIMAL_GEAR), 16
        return sys, 5

    def sample_goal(self, key):
        return jnp.array([GOAL_X])

    def sample_start(self, key, goal):
        q_key, qd_key = jax.random.split(key)
        q = self.sys.init_q + jax.random.uniform(q_key, (9,), minval=-0.1, maxval=0.1)
        return q, 0.1 * jax.random.normal(qd_key, (9,))

    def shaped_reward(self, state, action, dist, last_dist):
        return -dist - 0.1 * jnp.sum(action**2)
