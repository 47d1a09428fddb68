"""Pusher: a seven-joint arm pushes an object over a table to a point, or brings its own tip there."""

import jax
import jax.numpy as jnp
import mujoco

from goalax.envs.base import ENVS, Camera, GoalEnv, brax_body, maximal

JOINTS = 7
# Brax's model has the object on two slides, the first along y and the second along x, from this point (metres). The
# laws of its start and of goals are given along the slides, in their order.
OBJECT_HOME = (0.45, -0.05, -0.275)
# Metres. Goals are where Brax's marker of the goal lies, on the table and below the middle of the object, as JaxGCRL
# has it: an object above its goal is still 0.048 m away.
GOAL_HEIGHT = -0.323
MIN_OBJECT_TO_GOAL = 0.17  # metres at the start, along the slides


def on_table(slides: jax.Array, home: tuple[float, float, float], height: float | None = None) -> jax.Array:
    """The point [..., 3] of an object at joint positions (slide along y, slide along x) [..., 2]; at its own height."""
    x, y, z = home
    z = z if height is None else height
    return jnp.stack([x + slides[..., 1], y + slides[..., 0], jnp.full(slides.shape[:-1], z)], axis=-1)


def on_slides(point: jax.Array, home: tuple[float, float, float]) -> jax.Array:
    """Joint positions [..., 2] of an object above or below a point [..., 3]."""
    return jnp.stack([point[..., 1] - home[1], point[..., 0] - home[0]], axis=-1)


def apart(start: jax.Array, goal: jax.Array) -> jax.Array:
    """A start [2], moved straight away from a goal [2] where it is nearer than an object may be."""
    offset = start - goal
    distance = jnp.maximum(jnp.linalg.norm(offset), 1e-6)
    return goal + offset * jnp.maximum(1.0, MIN_OBJECT_TO_GOAL / distance)


class ArmOnTable(GoalEnv):
    """What the pushers share: the arm, and goals in a rectangle on the table."""

    goal_reach_thresh = 0.1
    goal_hard_thresh: float | None = 0.05
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
        return on_table(jax.random.uniform(key, (2,), minval=low, maxval=high), OBJECT_HOME, GOAL_HEIGHT)

    def sample_start(self, key, goal):
        qd = jax.random.uniform(key, (self.sys.qd_size(),), minval=-0.005, maxval=0.005)
        return self.sys.init_q, qd.at[JOINTS:].set(0)

    def tip(self, pipeline_state) -> jax.Array:
        """The point of the arm that states tell [3]: its wrist, as in JaxGCRL, 0.1 m behind the fingertips."""
        return pipeline_state.x.pos[JOINTS - 1]


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
        return q.at[JOINTS:].set(apart(start, on_slides(goal, OBJECT_HOME))), qd

    def state_of(self, pipeline_state):
        q, qd = pipeline_state.q, pipeline_state.qd
        thing = on_table(q[JOINTS:], OBJECT_HOME)
        return jnp.concatenate([q[:JOINTS], self.tip(pipeline_state), thing, qd[:JOINTS]])

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
    help = "wrist of the pusher's arm to a point on the table"
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
