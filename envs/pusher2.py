"""Pusher 2: the arm of the pushers pushes two objects over a table, each to a point of its own.

Sizes and laws are those of JaxGCRL (arXiv 2408.11052).
"""

import jax
import jax.numpy as jnp
import mujoco

from goalax.core import goals
from goalax.envs.base import ENVS, Camera
from goalax.envs.pusher import GOAL_HEIGHT, JOINTS, ArmOnTable, apart, on_slides, on_table

OBJECTS = 2
HOME = (0.0, 0.0, -0.275)  # metres, where the slides of both objects are zero
# Per object, metres along its slides, the first along y and the second along x.
START_LOW, START_HIGH = ((-0.35, 0.25), (-0.35, 0.45)), ((-0.05, 0.45), (-0.05, 0.65))
GOAL_Y = (-0.7, 0.3)  # of both goals: they lie beside each other
GOAL_X = ((-0.15, 0.375), (0.375, 0.9))


def each(points: jax.Array) -> jax.Array:
    """Goals [..., 6] as a point for each object, [..., 2, 3]."""
    return points.reshape(*points.shape[:-1], OBJECTS, 3)


@ENVS.register("pusher2")
class Pusher2(ArmOnTable):
    help = "two objects, pushed by an arm, each to a point of its own; easy: how many are there"
    state_dim = 23
    goal_indices = (10, 11, 12, 13, 14, 15)
    goal_hard_thresh = None
    camera = Camera(2.4, elevation=-40.0, azimuth=-145.0, lookat=(0.3, -0.2, -0.3), marker_radius=0.1)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        first = spec.body("object")
        first.pos = HOME
        spec.copy_during_attach = True
        spec.worldbody.add_frame().attach_body(first, "second_", "")
        for name in ("object_geom", "second_object_geom"):
            spec.geom(name).rgba = [0.95, 0.6, 0.1, 1.0]
        return spec

    def sample_goal(self, key):
        y_key, x_key = jax.random.split(key)
        y = jax.random.uniform(y_key, minval=GOAL_Y[0], maxval=GOAL_Y[1])
        low, high = jnp.array(GOAL_X).T
        x = jax.random.uniform(x_key, (OBJECTS,), minval=low, maxval=high)
        slides = jnp.stack([jnp.broadcast_to(y, x.shape), x], axis=-1)
        return on_table(slides, HOME, GOAL_HEIGHT).ravel()

    def sample_start(self, key, goal):
        arm_key, object_key = jax.random.split(key)
        q, qd = super().sample_start(arm_key, goal)
        low, high = jnp.array(START_LOW), jnp.array(START_HIGH)
        start = jax.random.uniform(object_key, (OBJECTS, 2), minval=low, maxval=high)
        return q.at[JOINTS:].set(jax.vmap(apart)(start, on_slides(each(goal), HOME)).ravel()), qd

    def state_of(self, pipeline_state):
        q, qd = pipeline_state.q, pipeline_state.qd
        things = on_table(q[JOINTS:].reshape(OBJECTS, 2), HOME).ravel()
        return jnp.concatenate([q[:JOINTS], self.tip(pipeline_state), things, qd[:JOINTS]])

    goal_parts = OBJECTS

    def measures(self, state, goal):
        """Success is both objects at their goals; `success_easy` is how many are, `dist` the sum of their distances."""
        dist = goals.distance(each(self.goal_of(state)), each(goal))
        there = goals.reached(dist, self.goal_reach_thresh)
        return {"success": jnp.min(there), "success_easy": jnp.sum(there), "dist": jnp.sum(dist)}

    def shaped_reward(self, state, action, dist, last_dist):
        tip_to_objects = goals.distance(each(self.goal_of(state)), state[None, 7:10])
        return -dist - 0.1 * jnp.sum(action**2) - 0.5 * jnp.mean(tip_to_objects)
