"""The DeepMind Control tasks of the package playground, stepped by MJX: no goals, an episode is judged by its rewards.

Tasks: arXiv 1801.00690; in MJX: MuJoCo Playground, arXiv 2502.08844. The package is loaded where a task is made.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
from brax.envs.base import State

from goalax.envs.base import ENVS, Array, Camera, GoalEnv

PREFIX = "dm_"
SUITE = (  # by the names of playground
    *("AcrobotSwingup", "AcrobotSwingupSparse", "BallInCup", "CartpoleBalance", "CartpoleBalanceSparse"),
    *("CartpoleSwingup", "CartpoleSwingupSparse", "CheetahRun", "FingerSpin", "FingerTurnEasy", "FingerTurnHard"),
    *("FishSwim", "HopperHop", "HopperStand", "HumanoidStand", "HumanoidWalk", "HumanoidRun", "PendulumSwingup"),
    *("PointMass", "ReacherEasy", "ReacherHard", "SwimmerSwimmer6", "WalkerRun", "WalkerStand", "WalkerWalk"),
)
MISSING = "it is a task of the package playground, which is not installed: pip install 'goalax[playground]'."


class Physics(NamedTuple):
    """What films and evaluations ask for, and the state of the task as playground has it."""

    q: Array  # joint positions [Q]
    qd: Array  # joint velocities [V]
    task: Any  # `mujoco_playground.State`


@contextlib.contextmanager
def made_for_this_mujoco() -> Iterator[None]:
    """Playground 0.2 takes MuJoCo 3.17 for older than 3.3, before which `body` was called `find_body`; and MuJoCo warns
    of an attribute in the model of the cheetah, on the terminal and in a file."""
    renamed = not hasattr(mujoco.MjSpec, "find_body")
    if renamed:
        mujoco.MjSpec.find_body = mujoco.MjSpec.body
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        mujoco.set_mju_user_warning(before)
        if renamed:
            del mujoco.MjSpec.find_body


class ControlTask(GoalEnv):
    """A task with rewards in [0, 1], which no state ends: with 1,000 steps an episode has a sum of up to 1,000."""

    help = "DeepMind Control: rewards, no goal"
    goal_indices = ()
    goal_reach_thresh = 0.0  # no distance is less: success, which nothing tells of, is never
    backends = ("mjx",)
    episode_length = 1000
    num_timesteps = 1_000_000
    normalize_observations = False  # before it learns, a pole only hangs: what it stands for later would be far outside
    camera = Camera(distance=4.0, elevation=-15.0, azimuth=90.0)

    def __init__(self, task: str, backend: str | None = None, dense_reward: bool = False):
        """task: a name in SUITE. ValueError without the package, and as other environments."""
        if backend not in (None, *self.backends):
            raise ValueError(f"Unsupported backend: {backend}. Choose from: {', '.join(self.backends)}.")
        if dense_reward:
            raise ValueError("This environment has no dense reward beside its own.")
        with made_for_this_mujoco():
            try:
                from mujoco_playground import dm_control_suite  # here: it is optional, and takes seconds
            except ModuleNotFoundError:
                raise ValueError(MISSING) from None
            self.task = dm_control_suite.load(task, config_overrides={"impl": "jax"})
        self.dense_reward = False
        self.state_dim = jax.eval_shape(self._reset, jax.random.PRNGKey(0)).obs.size

    @property
    def backend(self) -> str:
        return "mjx"

    @property
    def action_size(self) -> int:
        return int(self.task.action_size)

    @property
    def dt(self) -> float:
        return float(self.task.dt)

    def body(self) -> mujoco.MjSpec:
        with made_for_this_mujoco():
            return mujoco.MjSpec.from_string(Path(self.task.xml_path).read_text(), self.task.model_assets)

    def sample_goal(self, key: Array) -> Array:
        """Nothing, [0]."""
        return jnp.zeros(0)

    def goal_points(self, goal: Array) -> Array:
        return jnp.zeros((*goal.shape[:-1], 0, 3))

    def reset(self, rng: Array) -> State:
        """A fresh start. Consumes rng."""
        task, zero, nothing = self._reset(rng), jnp.zeros(()), self.sample_goal(rng)
        return State(self._physics(task), task.obs, zero, zero, self.told(task.obs, nothing), {"goal": nothing})

    def step(self, state: State, action: Array) -> State:
        """One step of the controller; action [A] is clipped to [-1, 1]. Only physics that break end an episode."""
        before = state.pipeline_state.task
        before = before.replace(metrics=dict(before.metrics), info=dict(before.info))  # which the task writes into
        with jax.numpy_rank_promotion("allow"):
            after = self.task.step(before, jnp.clip(action, -1, 1))
        broken = ~(jnp.all(jnp.isfinite(after.obs)) & jnp.isfinite(after.reward)) | (after.done > 0)
        now = jnp.where(broken, state.obs, after.obs)
        return state.replace(
            pipeline_state=self._physics(after),
            obs=now,
            reward=jnp.where(broken, 0.0, after.reward),
            done=broken.astype(jnp.float32),
            metrics=self.told(now, state.info["goal"], broken),
        )

    def _reset(self, rng: Array) -> Any:
        with jax.numpy_rank_promotion("allow"):
            return self.task.reset(rng)

    def _physics(self, task: Any) -> Physics:
        return Physics(task.data.qpos, task.data.qvel, task)


def name_of(task: str) -> str:
    """dm_walker_walk of WalkerWalk."""
    return PREFIX + re.sub("(?<!^)(?=[A-Z])", "_", task).lower()


TASKS = {name_of(task): task for task in SUITE}
for _name, _task in TASKS.items():
    ENVS.add(_name, partial(ControlTask, _task))
