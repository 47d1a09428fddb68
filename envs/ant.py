"""Ant: a four-legged body walks to a point, on a plane or in a maze."""

import jax
import jax.numpy as jnp
import mujoco

from envs.base import ENVS, Camera, GoalEnv, brax_body
from envs.maze import InMaze, add_mazes

GOAL_DISTANCE = 10.0  # metres
HEALTHY_Z = (0.2, 1.0)  # metres
TORSO_COLLIDERS = ("torso_geom", "aux_1_geom", "aux_2_geom", "aux_3_geom", "aux_4_geom")
FEET = ("left_foot_geom", "right_foot_geom", "third_foot_geom", "fourth_foot_geom")


def circle(key: jax.Array, radius: float) -> jax.Array:
    """A point [2] uniform on a circle around the origin."""
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


@ENVS.register("ant")
class Ant(GoalEnv):
    help = "torso of the ant to a point on a circle of 10 m"
    state_dim = 29
    goal_indices = (0, 1)
    goal_reach_thresh = 0.5
    goal_easy_thresh = 2.0
    backends = ("spring", "mjx", "positional", "generalized")
    normalize_observations = False
    camera = Camera(distance=9.0, marker_height=0.5)

    def body(self) -> mujoco.MjSpec:
        return brax_body("ant")

    def physics(self, sys, backend):
        if backend == "mjx":
            options = {
                "opt.solver": mujoco.mjtSolver.mjSOL_NEWTON,
                "opt.disableflags": mujoco.mjtDisableBit.mjDSBL_EULERDAMP,
                "opt.iterations": 1,
                "opt.ls_iterations": 4,
            }
            return sys.tree_replace(options), 5
        if backend == "positional":
            sys = sys.replace(actuator=sys.actuator.replace(gear=jnp.full_like(sys.actuator.gear, 200.0)))
        if backend in ("spring", "positional"):
            return sys.tree_replace({"opt.timestep": 0.005}), 10
        return sys, 5

    def sample_goal(self, key):
        return circle(key, GOAL_DISTANCE)

    def start_position(self, key, goal):
        """Where the torso starts [2], before noise."""
        return jnp.zeros(2)

    def sample_start(self, key, goal):
        position_key, q_key, qd_key = jax.random.split(key, 3)
        q = self.sys.init_q.at[:2].set(self.start_position(position_key, goal))
        q = q + jax.random.uniform(q_key, q.shape, minval=-0.1, maxval=0.1)
        return q, 0.1 * jax.random.normal(qd_key, (self.sys.qd_size(),))

    def is_terminal(self, pipeline_state):
        height = pipeline_state.x.pos[0, 2]
        return (height < HEALTHY_Z[0]) | (height > HEALTHY_Z[1])

    def shaped_reward(self, state, action, dist, last_dist):
        return 10 * (last_dist - dist) / self.dt + 1 - 0.5 * jnp.sum(action**2)


@ENVS.register("ant_random_start")
class AntRandomStart(Ant):
    help = "as ant, from a random point 10 m away from the goal"

    def start_position(self, key, goal):
        return goal + circle(key, GOAL_DISTANCE)


class AntMaze(InMaze, Ant):
    help = "torso of the ant through a maze to one of its goal cells"

    def body(self):
        spec = super().body()
        for name in TORSO_COLLIDERS + FEET:
            spec.geom(name).conaffinity = 1
        return spec


add_mazes("ant", AntMaze, "u_maze", "u_maze_eval", "big_maze", "big_maze_eval", "hardest_maze")
