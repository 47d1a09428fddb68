"""Humanoid: a two-legged body walks to a point, on a plane or in a maze."""

import jax
import jax.numpy as jnp
import mujoco
from brax import actuator, math

from goalax.envs.base import ENVS, Camera, GoalEnv, add_ends, brax_body, few_iterations, maximal
from goalax.envs.maze import InMaze, add_mazes
from goalax.envs.stitching import Stitching, add_splits

GOAL_HEIGHT = 1.25  # metres, about that of the torso of a standing humanoid
GOAL_DISTANCE = (1.0, 5.0)  # metres
HEALTHY_Z = (1.0, 2.0)  # metres
MAXIMAL_GEAR = (350.0,) * 11 + (100.0,) * 6  # on spring and positional, as in Brax
SPHERES = ("head", "right_hand", "left_hand")  # that touch walls, besides the feet
CAPSULES = {"torso1": (0, 1), "butt": (0, 1), "right_shin1": (0,), "left_shin1": (0,)}  # and those ends of capsules


@ENVS.register("humanoid")
class Humanoid(GoalEnv):
    help = "torso of the humanoid to a point 1 m to 5 m away"
    state_dim = 246
    goal_indices = (0, 1, 2)
    goal_reach_thresh = 0.5
    goal_easy_thresh = 2.0
    backends = ("spring", "mjx", "positional", "generalized")
    camera = Camera(distance=6.0, elevation=-20.0)

    def body(self) -> mujoco.MjSpec:
        return brax_body("humanoid")

    def physics(self, sys, backend):
        if backend == "mjx":
            return few_iterations(sys, 1, 4), 5
        if backend in ("spring", "positional"):
            return maximal(sys, timestep=0.0015, gear=MAXIMAL_GEAR), 10
        return sys, 5

    def sample_goal(self, key):
        distance_key, angle_key = jax.random.split(key)
        distance = jax.random.uniform(distance_key, minval=GOAL_DISTANCE[0], maxval=GOAL_DISTANCE[1])
        angle = jax.random.uniform(angle_key, maxval=2 * jnp.pi)
        return jnp.stack([distance * jnp.cos(angle), distance * jnp.sin(angle), jnp.array(GOAL_HEIGHT)])

    def start_position(self, key, goal):
        """Where the torso starts [2]."""
        return jnp.zeros(2)

    def sample_start(self, key, goal):
        return self.sys.init_q.at[:2].set(self.start_position(key, goal)), jnp.zeros(self.sys.qd_size())

    def control(self, action):
        """Actions [A] in [-1, 1] as what the actuators take."""
        low, high = self.sys.actuator.ctrl_range.T
        return low + (action + 1) * (high - low) / 2

    def pipeline_step(self, pipeline_state, action):
        return super().pipeline_step(pipeline_state, self.control(action))

    def state_of(self, pipeline_state):
        return self.state_after(pipeline_state, jnp.zeros(self.action_size))

    def state_after(self, pipeline_state, action):
        """q, qd, and per link its inertia about the centre of mass [3, 3], mass, share of momentum / mass [3] and
        angular velocity [3], then joint torques: the observation of Brax's humanoid, with the position in front."""
        link, x, xd = self.sys.link.inertia, pipeline_state.x, pipeline_state.xd
        mass, inertia = link.mass, link.i
        if self.backend in ("spring", "positional"):  # these engines scale them
            mass = mass ** (1 - self.sys.spring_mass_scale)
            diagonal = jnp.diagonal(inertia, axis1=1, axis2=2) ** (1 - self.sys.spring_inertia_scale)
            inertia = jax.vmap(jnp.diag)(diagonal)
        lever = jax.vmap(math.rotate)(link.transform.pos, x.rot)  # from the origin of a link to its centre of mass
        turn = jax.vmap(lambda a, b: math.quat_to_3x3(math.quat_mul(a, b)))(x.rot, link.transform.rot)
        centres, total = x.pos + lever, jnp.sum(mass)
        offset = centres - (mass @ centres / total)[None]
        steiner = jax.vmap(lambda r: r @ r * jnp.eye(3) - jnp.outer(r, r))(offset)
        about_com = turn @ inertia @ turn.swapaxes(1, 2) + mass[:, None, None] * steiner
        velocity = mass[:, None] * (xd.vel + jnp.cross(xd.ang, lever)) / total
        q, qd = pipeline_state.q, pipeline_state.qd
        links = [about_com.reshape(-1, 9), mass[:, None]], [velocity, xd.ang]
        torques = actuator.to_tau(self.sys, self.control(action), q, qd)
        return jnp.concatenate([q, qd, *(jnp.hstack(parts).ravel() for parts in links), torques])

    def is_terminal(self, pipeline_state):
        height = pipeline_state.x.pos[0, 2]
        return (height < HEALTHY_Z[0]) | (height > HEALTHY_Z[1])

    def shaped_reward(self, state, action, dist, last_dist):
        return -dist + 5 - 0.1 * jnp.sum(action**2)


class HumanoidMaze(InMaze, Humanoid):
    help = "torso of the humanoid through a maze to one of its goal cells"
    cell_size = 2.0

    def collide(self, spec: mujoco.MjSpec) -> None:
        for name in SPHERES:
            spec.geom(name).contype = 1
        for name, ends in CAPSULES.items():
            add_ends(spec, name, *ends, contype=1)

    def sample_goal(self, key):
        return jnp.append(super().sample_goal(key), GOAL_HEIGHT)


class HumanoidStitching(Stitching, HumanoidMaze):
    help = "torso of the humanoid from a cell of a corridor to one a few cells ahead"


add_mazes("humanoid", HumanoidMaze, evals=True)
add_splits("humanoid", HumanoidStitching)
