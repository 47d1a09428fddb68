"""Ant ball: the ant pushes a ball to a point, on a plane or in a maze."""

import jax
import jax.numpy as jnp
import mujoco

from goalax.envs.ant import Ant, circle, make_collide
from goalax.envs.base import ENVS, extend_init_q
from goalax.envs.maze import InMaze, add_mazes

GOAL_DISTANCE = 5.0  # metres
BALL_RADIUS = 0.5  # metres
ANT_Q, ANT_QD = 15, 14


def add_ball(spec: mujoco.MjSpec) -> None:
    """Adds a ball on two slides: it collides, and a shell that does not gives it most of its mass."""
    ball = spec.worldbody.add_body(name="ball", pos=[0, 0, BALL_RADIUS])
    sphere = dict(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[BALL_RADIUS, 0, 0])
    ball.add_geom(**sphere, name="ball", density=0.1, contype=1, conaffinity=0, rgba=[0.95, 0.6, 0.1, 1])
    ball.add_geom(**sphere, density=1.0, contype=0, conaffinity=0, rgba=[0, 0, 0, 0])
    for name, axis in (("ball_x", [1, 0, 0]), ("ball_y", [0, 1, 0])):
        joint = ball.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, damping=0)
        joint.limited = mujoco.mjtLimited.mjLIMITED_FALSE
    extend_init_q(spec, 0.0, 0.0)


@ENVS.register("ant_ball")
class AntBall(Ant):
    help = "a ball, pushed by the ant, to a point on a circle of 5 m"
    state_dim = 31
    goal_indices = (29, 30)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        make_collide(spec)
        add_ball(spec)
        return spec

    def sample_goal(self, key):
        return circle(key, GOAL_DISTANCE)

    def ball_position(self, key, goal):
        """Where the ball starts [2]."""
        return 0.2 * goal + circle(key, 1.0)

    def sample_start(self, key, goal):
        ant_key, ball_key = jax.random.split(key)
        q, qd = super().sample_start(ant_key, goal)
        return q.at[ANT_Q:].set(self.ball_position(ball_key, goal)), qd.at[ANT_QD:].set(0)

    def state_of(self, pipeline_state):
        q, qd = pipeline_state.q, pipeline_state.qd
        return jnp.concatenate([q[:ANT_Q], qd[:ANT_QD], q[ANT_Q:]])


class AntBallMaze(InMaze, AntBall):
    help = "a ball, pushed by the ant, through a maze to one of its goal cells"

    def ball_position(self, key, goal):
        return jax.random.choice(key, jnp.asarray(self.maze.balls))


add_mazes("ant", AntBallMaze, balls=True)
