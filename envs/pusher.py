"""Pusher: a seven-joint arm pushes an object over a table to a point, or brings its own tip there."""

import jax
import jax.numpy as jnp
import mujoco
from brax import math

from goalax.envs.base import ENVS, Camera, GoalEnv, brax_body, maximal

JOINTS = 7
# Brax's model has the object on two slides, the first along y and the second along x, from this point (metres). The
# laws of its start and of goals are given along the slides, in their order.
OBJECT_HOME = (0.45, -0.05, -0.275)
MIN_OBJECT_TO_GOAL = 0.17  # metres at the start
TIP = (0.1, 0.0, 0.0)  # metres, the point between the two fingertips in the frame of the last link


def on_table(slides: jax.Array) -> jax.Array:
    """The point [3] of an object at joint positions (slide along y, slide along x) [2]."""
    return jnp.array(OBJECT_HOME) + jnp.stack([slides[1], slides[0], jnp.zeros(())])


class ArmOnTable(GoalEnv):
    """What the pushers share: the arm, and goals in a rectangle, at the height of the object."""

    goal_reach_thresh = 0.1
    goal_hard_thresh = 0.05
    backends = ("generalized", "mjx", "spring", "positional")
    camera = Camera(distance=2.1, elevation=-40.0, azimuth=-145.0, lookat=(0.3, -0.25, -0.3))
    goal_low: tuple[float, float]  # metres, along the slides of the object
    goal_high: tuple[float, float]

    def body(self) -> mujoco.MjSpec:
        spec = brax_body("pusher")
        spec.delete(spec.body("goal"))  # the goal is no body: it would only cost dynamics
        spec.geom("table").rgba = [0.75, 0.72, 0.68, 1.0]
        return spec

    def physics(self, sys, backend):
        if backend in ("spring", "positional"):
            return maximal(sys, timestep=0.001, gear=20.0), 50
        return sys, 5

    def sample_goal(self, key):
        low, high = jnp.array(self.goal_low), jnp.array(self.goal_high)
        return on_table(jax.random.uniform(key, (2,), minval=low, maxval=high))

    def sample_start(self, key, goal):
        qd = jax.random.uniform(key, (self.sys.qd_size(),), minval=-0.005, maxval=0.005)
        return self.sys.init_q, qd.at[JOINTS:].set(0)

    def tip(self, pipeline_state) -> jax.Array:
        """Where the point between the fingertips is [3]."""
        link = pipeline_state.x.take(JOINTS - 1)
        return link.pos + math.rotate(jnp.array(TIP), link.rot)


class Pusher(ArmOnTable):
    help = "an object, pushed by an arm, to a point on the table"
    state_dim = 20
    goal_indices = (10, 11, 12)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        spec.geom("object_geom").rgba = [0.95, 0.6, 0.1, 1.0]
        return spec

    def sample_start(self, key, goal):
        arm_key, object_key = jax.random.split(key)
        q, qd = super().sample_start(arm_key, goal)
        low, high = jnp.array([-0.3, -0.2]), jnp.array([0.0, 0.2])
        start = jax.random.uniform(object_key, (2,), minval=low, maxval=high)
        goal_slides = (goal - jnp.array(OBJECT_HOME))[jnp.array([1, 0])]
        offset = start - goal_slides
        apart = jnp.maximum(jnp.linalg.norm(offset), 1e-6)
        start = goal_slides + offset * jnp.maximum(1.0, MIN_OBJECT_TO_GOAL / apart)
        return q.at[JOINTS:].set(start), qd

    def state_of(self, pipeline_state):
        q, qd = pipeline_state.q, pipeline_state.qd
        return jnp.concatenate([q[:JOINTS], self.tip(pipeline_state), on_table(q[JOINTS:]), qd[:JOINTS]])

    def shaped_reward(self, state, action, dist, last_dist):
        tip_to_object = jnp.linalg.norm(state[10:13] - state[7:10])
        return -dist - 0.1 * jnp.sum(action**2) - 0.5 * tip_to_object


@ENVS.register("pusher_easy")
class PusherEasy(Pusher):
    goal_low, goal_high = (-0.55, -0.2), (-0.25, 0.2)


@ENVS.register("pusher_hard")
class PusherHard(Pusher):
    goal_low, goal_high = (-0.65, -0.55), (0.35, 0.45)


@ENVS.register("pusher_reacher")
class PusherReacher(ArmOnTable):
    help = "tip of the pusher's arm to a point above the table"
    state_dim = 17
    goal_indices = (14, 15, 16)
    goal_low, goal_high = (-0.3, -0.2), (0.0, 0.2)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        spec.delete(spec.body("object"))  # out of reach it would only cost dynamics
        return spec

    def state_of(self, pipeline_state):
        return jnp.concatenate([pipeline_state.q, pipeline_state.qd, self.tip(pipeline_state)])

    def shaped_reward(self, state, action, dist, last_dist):
        return -dist - 0.1 * jnp.sum(action**2)
