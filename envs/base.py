"""GoalEnv: what every environment shares. A new one states its body, its goal and start laws, and a few numbers."""

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

with contextlib.redirect_stdout(io.StringIO()):  # MJX prints that the optional warp package is missing
    from brax import kinematics
    from brax.envs.base import PipelineEnv, State
    from brax.io import mjcf
from etils import epath

from goalax.core import goals
from goalax.envs.checks import require_goal, require_measures, require_shape
from goalax.registry import Registry

Array = jax.Array
# Name -> constructor (backend=None, dense_reward=False).
ENVS: "Registry[Callable[..., GoalEnv]]" = Registry("environment")
BACKENDS = ("mjx", "spring", "positional", "generalized")


def brax_body(name: str) -> mujoco.MjSpec:
    """Editable copy of a body that Brax ships (envs/assets/NAME.xml), jointless bodies fused as Brax's engines need."""
    path = epath.resource_path("brax") / "envs" / "assets" / f"{name}.xml"
    text, total_mass = mjcf.fuse_bodies(path.read_text()), 'settotalmass="([^"]*)"'
    spec = mujoco.MjSpec.from_string(re.sub(total_mass, "", text))
    if found := re.search(total_mass, text):  # deprecated: MuJoCo would warn, and leave a log file
        scale = float(found[1]) / spec.compile().body_mass.sum()
        for geom in spec.geoms:
            geom.density *= scale
    return spec


def set_numeric(spec: mujoco.MjSpec, **values: list[float]) -> None:
    """Replaces or adds custom numerics: the engine parameters (and init_qpos) that Brax and MJX read from the model."""
    values = {numeric.name: list(numeric.data) for numeric in spec.numerics} | values
    for numeric in list(spec.numerics):
        spec.delete(numeric)
    # MJX takes the value at the index of the name, as though each name before it had one value: longer ones go last.
    for name, value in sorted(values.items(), key=lambda item: len(item[1])):
        spec.add_numeric(name=name, data=value, size=len(value))


def extend_init_q(spec: mujoco.MjSpec, *more: float) -> None:
    """Gives joints that were added to a body their initial positions."""
    init_q = next(numeric for numeric in spec.numerics if numeric.name == "init_qpos")
    set_numeric(spec, init_qpos=[*init_q.data, *more])


def add_ends(spec: mujoco.MjSpec, capsule: str, *ends: int, **collides: int) -> None:
    """Adds massless spheres at ends (0, 1) of a capsule, to touch boxes in its place.

    On a flat side a capsule touches with its ends anyway, and MJX needs a fourth of the time for a sphere.
    """
    geom = spec.geom(capsule)
    for end in ends:
        pos, size = geom.fromto.reshape(2, 3)[end], [geom.size[0], 0, 0]
        geom.parent.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, pos=pos, size=size, mass=0, **collides)


def maximal(sys, timestep: float, gear):
    """A system as spring and positional need it: a shorter timestep [s], other strengths of its actuators [A] or []."""
    gear = jnp.broadcast_to(jnp.asarray(gear, jnp.float32), sys.actuator.gear.shape)
    return sys.tree_replace({"opt.timestep": timestep}).replace(actuator=sys.actuator.replace(gear=gear))


def few_iterations(sys, iterations: int, ls_iterations: int):
    """A system that MJX steps as fast as it can: Newton's solver with a fixed number of iterations."""
    options = {
        "opt.solver": mujoco.mjtSolver.mjSOL_NEWTON,
        "opt.disableflags": mujoco.mjtDisableBit.mjDSBL_EULERDAMP,
        "opt.iterations": iterations,
        "opt.ls_iterations": ls_iterations,
    }
    return sys.tree_replace(options)


class Camera(NamedTuple):
    """How an environment is filmed; distances in metres, angles in degrees."""

    distance: float
    elevation: float = -35.0
    azimuth: float = 30.0  # 0 looks along x; where the camera follows, from the body to its goal
    lookat: tuple[float, float, float] | None = None  # None: the camera follows the first body
    marker_height: float = 0.0  # where goals that have no height are shown
    marker_radius: float | None = None  # of each point of a goal; None: its share of the threshold
    wall_height: float | None = None  # walls are drawn up to here only, so that they hide nothing; None: as they are


class GoalEnv(PipelineEnv):
    """A Brax environment whose observation is [state, goal]; the goal lives in info["goal"], outside the physics.

    A subclass sets the attributes below and overrides the hooks under them; `help` is one line for the tables.
    """

    help: str = ""
    state_dim: int
    goal_indices: tuple[int, ...]  # the state entries that make up the goal
    goal_reach_thresh: float  # metres; at the goal when nearer than this
    goal_easy_thresh: float | None = None  # adds the metric success_easy
    goal_hard_thresh: float | None = None  # adds the metric success_hard
    backends: tuple[str, ...] = BACKENDS  # the first one is the default
    # Presets of the run flags of the same names.
    episode_length: int = 1000
    num_timesteps: int = 10_000_000
    utd_ratio: float | None = None  # what was measured to learn best; None: `derived_utd_ratio`
    normalize_observations: bool = True
    camera: Camera = Camera(distance=6.0)
    cells: goals.Cells | None = None  # of a maze: success is told for each, and how many have been visited
    pairs_of_ends: bool = False  # starts and goals come in pairs, which a commanded goal would part

    # ---- hooks -------------------------------------------------------------------------------------------------------

    def body(self) -> mujoco.MjSpec:
        """The model, without goal marker."""
        raise NotImplementedError

    def physics(self, sys, backend: str):
        """(sys, substeps per environment step) for a backend."""
        return sys, 5

    def sample_goal(self, key: Array) -> Array:
        """A commanded goal [G]."""
        raise NotImplementedError

    def sample_start(self, key: Array, goal: Array) -> tuple[Array, Array]:
        """Joint positions and velocities (q, qd) of a fresh start."""
        raise NotImplementedError

    def state_of(self, pipeline_state) -> Array:
        """The state [S] that agents see."""
        return jnp.concatenate([pipeline_state.q, pipeline_state.qd])

    def state_after(self, pipeline_state, action: Array) -> Array:
        """The state [S] after an action [A] in [-1, 1]; to be overridden where the state tells of the action."""
        return self.state_of(pipeline_state)

    def is_terminal(self, pipeline_state) -> Array:
        """True where the episode ends for good."""
        return jnp.array(False)

    def measures(self, state: Array, goal: Array) -> dict[str, Array]:
        """What every step tells of a state [S] and its goal [G], scalars []: `eval/episode_NAME` is the sum of each.

        An override adds to these; success and dist must stay.
        """
        dist = goals.distance(self.goal_of(state), goal)
        thresholds = {
            "success": self.goal_reach_thresh,
            "success_easy": self.goal_easy_thresh,
            "success_hard": self.goal_hard_thresh,
        }
        return {name: goals.reached(dist, limit) for name, limit in thresholds.items() if limit is not None} | {
            "dist": dist
        }

    # Where the environment has a dense reward: method (state [S], action [A], dist [], last_dist []) -> [].
    shaped_reward: Callable[[Array, Array, Array, Array], Array] | None = None

    # ---- the common law ----------------------------------------------------------------------------------------------

    def __init__(self, backend: str | None = None, dense_reward: bool = False):
        require_goal(self, BACKENDS)
        backend = backend or self.backends[0]
        if backend not in self.backends:
            raise ValueError(f"Unsupported backend: {backend}. Choose from: {', '.join(self.backends)}.")
        if dense_reward and self.shaped_reward is None:
            raise ValueError("This environment has no dense reward.")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Brax says on every load that its engines are in maintenance
            # Jitted, because Brax copies every array on its own: one program starts sooner than dozens.
            sys = jax.jit(partial(mjcf.load_model, self.body().compile()))()
        sys, substeps = self.physics(sys, backend)
        super().__init__(sys=sys, backend=backend, n_frames=substeps)
        self.dense_reward = dense_reward

    @property
    def compiler_options(self) -> dict[str, Any]:
        """What XLA must be told when it compiles a program that steps this environment."""
        # On a CPU, jaxlib 0.10 computes all bodies before it anew for each link of a chain: arms are 900 times slower.
        broken = self.backend == "mjx" and jax.default_backend() == "cpu" and version("jaxlib").startswith("0.10.")
        return {"xla_cpu_use_fusion_emitters": False} if broken else {}

    # A goal of several points is reached where each of them is; `measures` must then say so, too.
    goal_parts: ClassVar[int] = 1

    @property
    def goal_dim(self) -> int:
        return len(self.goal_indices)

    @property
    def observation_size(self) -> int:
        return self.state_dim + self.goal_dim

    def goal_of(self, state: Array) -> Array:
        """The goal [..., G] that a state [..., S] achieves."""
        return goals.goal_of(state, self.goal_indices)

    def goal_points(self, goal: Array) -> Array:
        """Where films show goals [..., G]: points [..., K, 3] in metres. Overridden where goals are no points."""
        missing = jnp.array([0.0, self.camera.marker_height][self.goal_dim - 1 :])
        goal = jnp.concatenate([goal, jnp.broadcast_to(missing, (*goal.shape[:-1], missing.size))], axis=-1)
        return goal.reshape(*goal.shape[:-1], -1, 3)

    def reset(self, rng: Array) -> State:
        """A fresh start and a fresh goal. Consumes rng."""
        goal_key, start_key = jax.random.split(rng)
        goal = self.sample_goal(goal_key)
        require_shape(self, "sample_goal", goal, self.goal_dim)
        pipeline_state = self.pipeline_init(*self.sample_start(start_key, goal))
        state = self.state_of(pipeline_state)
        require_shape(self, "state_of", state, self.state_dim)
        zero = jnp.zeros(())
        return State(
            pipeline_state,
            jnp.concatenate([state, goal]),
            zero,
            zero,
            self.told(state, goal),
            {"goal": goal},
        )

    def command(self, state: State, goal: Array) -> State:
        """A fresh start with another goal [G]."""
        now = state.obs[: self.state_dim]
        return state.replace(
            obs=jnp.concatenate([now, goal]), metrics=self.told(now, goal), info={**state.info, "goal": goal}
        )

    def step(self, state: State, action: Array) -> State:
        """One environment step; action [A] is clipped to [-1, 1]."""
        goal = state.info["goal"]
        action = jnp.clip(action, -1, 1)
        pipeline_state = self.pipeline_step(state.pipeline_state, action)
        now = self.state_after(pipeline_state, action)
        # A body that explodes would end the whole run: its episode ends here, in the last state that was one.
        broken = ~jnp.all(jnp.isfinite(now))
        now = jnp.where(broken, state.obs[: self.state_dim], now)
        metrics = self.told(now, goal, broken)
        reward = metrics["success"]
        if self.dense_reward:
            assert self.shaped_reward is not None  # as `__init__` requires
            reward = self.shaped_reward(now, action, metrics["dist"], state.metrics["dist"])
        return state.replace(
            pipeline_state=pipeline_state,
            obs=jnp.concatenate([now, goal]),
            reward=reward,
            done=(self.is_terminal(pipeline_state) | broken).astype(jnp.float32),
            metrics=metrics,
        )

    def told(self, state: Array, goal: Array, broken: Array | bool = False) -> dict[str, Array]:
        """The metrics of a step: `measures`, and 1 where the physics gave no numbers any more."""
        measures = self.measures(state, goal)
        require_measures(self, measures)
        return {**measures, "broken": jnp.asarray(broken, jnp.float32)}

    # Brax's engines add vectors to matrices in a few places, which strict rank promotion would refuse.
    def pipeline_init(self, *args, **kwargs):
        with jax.numpy_rank_promotion("allow"):
            return super().pipeline_init(*args, **kwargs)

    def pipeline_step(self, *args, **kwargs):
        with jax.numpy_rank_promotion("allow"):
            after = super().pipeline_step(*args, **kwargs)
            if self.backend != "mjx":
                return after
            # MJX leaves link poses of the substep before beside joint positions of now.
            x, xd = kinematics.forward(self.sys, after.q, after.qd)
            return after.replace(x=x, xd=xd)
