"""Ant: a four-legged body walks to a point, on a plane or in a maze."""

import itertools

import jax
import jax.numpy as jnp
import mujoco

from goalax.envs.base import ENVS, Camera, GoalEnv, add_ends, brax_body, few_iterations, maximal
from goalax.envs.maze import InMaze, add_mazes
from goalax.envs.stitching import Stitching, add_splits

GOAL_DISTANCE = 10.0  # metres
HEALTHY_Z = (0.2, 1.0)  # metres
HIPS = ("aux_1_geom", "aux_2_geom", "aux_3_geom", "aux_4_geom")
FEET = ("left_foot_geom", "right_foot_geom", "third_foot_geom", "fourth_foot_geom")


def circle(key: jax.Array, radius: float) -> jax.Array:
    """A point [2] uniform on a circle around the origin."""
    angle = jax.random.uniform(key, maxval=2 * jnp.pi)
    return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])


def make_collide(spec: mujoco.MjSpec) -> None:
    """Lets torso, hips and feet touch what is around the ant; they cannot reach each other, so that is left out."""
    for name in ("torso_geom", *FEET):
        spec.geom(name).conaffinity = 1
    for name in HIPS:
        add_ends(spec, name, 1, conaffinity=1)
    parts = spec.bodies[1:]
    for index, part in enumerate(parts):
        part.name = part.name or f"part_{index}"
    for one, other in itertools.combinations(parts, 2):
        spec.add_exclude(bodyname1=one.name, bodyname2=other.name)


@ENVS.register("ant")
class Ant(GoalEnv):
    help = "torso of the ant to a point on a circle of 10 m"
    state_dim = 29
    goal_indices = (0, 1)
    goal_reach_thresh = 0.5
    goal_easy_thresh = 2.0
    backends: tuple[str, ...] = ("spring", "mjx", "positional", "generalized")
    normalize_observations = False
    camera = Camera(distance=9.0, marker_height=0.5)

    def body(self) -> mujoco.MjSpec:
        return brax_body("ant")

    def physics(self, sys, backend):
        if backend == "mjx":
            return few_iterations(sys, 1, 4), 5
        if backend in ("spring", "positional"):
            return maximal(sys, timestep=0.005, gear=200.0 if backend == "positional" else 150.0), 10
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
    pairs_of_ends = True

    def start_position(self, key, goal):
        return goal + circle(key, GOAL_DISTANCE)


class AntMaze(InMaze, Ant):
    help = "torso of the ant through a maze to one of its goal cells"
    parts_at_walls = 4  # of nine: no more of them come near walls at once

    def collide(self, spec):
        make_collide(spec)


class AntStitching(Stitching, AntMaze):
    help = "torso of the ant from a cell of a corridor to one a few cells ahead"


add_mazes("ant", AntMaze, evals=True)
add_splits("ant", AntStitching)
