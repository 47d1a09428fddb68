"""Environments for Gymnasium: importing this registers `goalax/NAME-v0` for `gymnasium.make` and `make_vec`."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from goalax.envs import ENVS, create_env
from goalax.films import render as films
from goalax.films import scene
from goalax.host import given
from goalax.interop import stepping
from goalax.interop.stepping import NO_LIMIT, PARTS

try:
    import gymnasium
    from gymnasium import spaces
    from gymnasium.utils import seeding
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ModuleNotFoundError:
    raise ModuleNotFoundError("goalax.interop.gym needs Gymnasium: pip install gymnasium") from None

Array = jax.Array
NAMESPACE, VERSION = "goalax", 0
KINDS = ("numpy", "jax")


def box(size: int, limit: float) -> spaces.Box:
    return spaces.Box(-limit, limit, (size,), np.float32)


class GoalaxVectorEnv(VectorEnv):
    """N environments that step in one program on the device, each with a goal of its own.

    Observations are dicts of `observation` [N, S], `achieved_goal` [N, G], `desired_goal` [N, G]. Autoreset is that of
    the next step: the step after the end of an episode ignores its action and is the start of the next episode.
    Environment i of seed s goes through what a single one with seed s + i does.

    Args:
      env_name: a name of `goalax.ENVS`.
      max_episode_steps: the time limit; None takes the environment's own, -1 none.
      arrays: "numpy", or "jax" for arrays that stay on the device.
      height, width: of pictures, in pixels.

    Raises:
      ValueError: as `create_env`, and for other values of `render_mode` and `arrays`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        env_name: str,
        num_envs: int = 1,
        max_episode_steps: int | None = None,
        backend: str | None = None,
        dense_reward: bool = False,
        render_mode: str | None = None,
        arrays: str = "numpy",
        height: int = films.SIZE[0],
        width: int = films.SIZE[1],
    ):
        for name, value, valid in (("render_mode", render_mode, (None, "rgb_array")), ("arrays", arrays, KINDS)):
            if value not in valid:
                raise ValueError(f"{name} is {value!r}; choose from: {', '.join(map(str, valid))}.")
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; it must be at least 1.")
        if max_episode_steps is not None and max_episode_steps < 1 and max_episode_steps != NO_LIMIT:
            raise ValueError(
                f"max_episode_steps is {max_episode_steps}; it must be at least 1, or {NO_LIMIT} for none."
            )
        self.env, self.num_envs = create_env(env_name, backend, dense_reward), num_envs
        self.render_mode, self.arrays, self.size = render_mode, arrays, (height, width)
        self.metadata = {**self.metadata, "render_fps": max(1, round(1 / float(self.env.dt))), "jax": arrays == "jax"}
        limit = self.env.episode_length if max_episode_steps is None else max_episode_steps
        sizes = self.env.state_dim, self.env.goal_dim, self.env.goal_dim
        parts: dict[str, spaces.Space] = {name: box(size, np.inf) for name, size in zip(PARTS, sizes, strict=True)}
        self.single_observation_space = spaces.Dict(parts)
        self.single_action_space = box(self.env.action_size, 1.0)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        options = self.env.compiler_options
        self._reset = jax.jit(lambda *args: stepping.reset_all(self.env, *args), compiler_options=options)
        self._step = jax.jit(lambda *args: stepping.step_all(self.env, limit, *args), compiler_options=options)
        self._success = jax.jit(jax.vmap(self._success_at))
        self._held: stepping.Held | None = None
        self._key: Array | None = None
        self._painter: films.Painter | None = None
        self._headings: dict[int, tuple[int, float]] = {}  # environment -> steps when it was drawn last, and heading

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Fresh episodes in all environments.

        Args:
          seed: decides everything that is drawn from now on; None goes on with what was drawn before.
          options: "goal" [G] or [N, G] and "start" [2 or Q] or [N, 2 or Q], of these episodes only: the goal's
            coordinates, and where the body stands or all joint positions.

        Raises:
          FlagError (a ValueError): goals or starts that cannot be, or other options.
        """
        super().reset(seed=seed)
        if seed is not None or self._key is None:
            first = int(self.np_random.integers(2**31)) if seed is None else seed
            draws = (seeding.np_random(first + number)[0] for number in range(self.num_envs))
            self._key = jnp.asarray(np.stack([draw.integers(2**32, size=2, dtype=np.uint32) for draw in draws]))
        elif self._held is not None:
            self._key = self._held.key
        by_hand = self._by_hand(dict(options or {}))
        self._held, seen = self._reset(self._key, by_hand.get("goal"), by_hand.get("start"))
        self._headings.clear()
        return self._out((seen.observation, seen.info))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step with actions [N, A], which are clipped to [-1, 1]."""
        if self._held is None:
            raise gymnasium.error.ResetNeeded("The environments step after a reset only.")
        if np.shape(actions) != (wanted := (self.num_envs, self.env.action_size)):
            raise ValueError(f"Expected actions {list(wanted)}, got {list(np.shape(actions))}.")
        self._held, seen = self._step(self._held, jnp.asarray(actions, jnp.float32))
        return self._out(tuple(seen))

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        """Rewards [...] of achieved goals [..., G] for desired ones [..., G]: 1 at the goal, else 0.

        Raises:
          ValueError: shapes that do not fit, or a dense reward, which depends on more than these.
        """
        if self.env.dense_reward:
            raise ValueError("A dense reward is no function of the two goals; relabelling needs dense_reward=False.")
        achieved, desired = (jnp.asarray(goal, jnp.float32) for goal in (achieved_goal, desired_goal))
        if achieved.shape != desired.shape or achieved.shape[-1:] != (self.env.goal_dim,):
            shapes = f"{list(achieved.shape)} and {list(desired.shape)}"
            raise ValueError(f"Expected two arrays of goals [..., {self.env.goal_dim}], got {shapes}.")
        flat = (goal.reshape(-1, self.env.goal_dim) for goal in (achieved, desired))
        return self._out(self._success(*flat).reshape(achieved.shape[:-1]))

    def compute_terminated(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """Whether the step ended the episode for good, which no goal changes: info["terminated"] [...].

        Args:
          info: that of the step, or a sequence of those of many steps.
        """
        if isinstance(info, Mapping):
            return info["terminated"]
        return np.array([one["terminated"] for one in info])

    def compute_truncated(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        """False [...]: only the time limit cuts an episode short, whatever the goal."""
        return self._out(jnp.zeros(np.shape(achieved_goal)[:-1], bool))

    def render(self) -> tuple[np.ndarray, ...] | None:
        """A picture of every environment, uint8 [height, width, 3]; RenderError where nothing can be drawn."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs render_mode='rgb_array' when the environment is made.")
            return None
        if self._held is None:
            raise gymnasium.error.ResetNeeded("The environments are drawn after a reset only.")
        self._painter = self._painter or films.Painter(self.env, self.size)
        state = self._held.env
        shown = (state.pipeline_state.q, self.env.goal_points(state.info["goal"]), state.metrics["success"])
        rows = zip(*jax.device_get((*shown, self._held.steps)), strict=True)
        return tuple(self._picture(self._painter, number, *row) for number, row in enumerate(rows))

    def _picture(self, paint: films.Painter, number: int, q, points, success, steps) -> np.ndarray:
        film = scene.Film(q[None], points[None], success[None] > 0, np.zeros(1, int), steps[None], 1.0, "")
        (view,) = scene.views(self.env, paint.model, film)
        drawn, heading = self._headings.get(number, (int(steps) + 1, 0.0))
        if steps < drawn:  # a new episode: the camera looks along its way, and stays so
            heading = view.heading
        self._headings[number] = int(steps), heading
        return paint(view._replace(heading=heading), bool(success > 0))

    def close_extras(self, **kwargs: Any) -> None:
        if self._painter is not None:
            self._painter.close()

    def _success_at(self, achieved: Array, desired: Array) -> Array:
        """Success [] of an achieved goal [G]: `measures` of a state of which only the goal is known."""
        state = jnp.zeros(self.env.state_dim).at[jnp.array(self.env.goal_indices)].set(achieved)
        return self.env.measures(state, desired)["success"]

    def _by_hand(self, options: dict[str, Any]) -> dict[str, Array]:
        result = {}
        for name, check in (("goal", given.check_goal), ("start", given.check_start)):
            if (value := options.pop(name, None)) is not None:
                array = check(self.env, f"options[{name!r}]", value)
                if array.shape[:-1] not in ((), (self.num_envs,)):
                    raise given.FlagError(
                        f"options[{name!r}] has shape {list(array.shape)}; it must be one for all environments or"
                        f" [{self.num_envs}, {array.shape[-1]}]."
                    )
                result[name] = jnp.broadcast_to(array, (self.num_envs, array.shape[-1]))
        if options:
            raise given.FlagError(f"Unknown option {min(options)!r} of reset; choose from: goal, start.")
        return result

    def _out(self, arrays: Any) -> Any:
        """Arrays as the caller wants them; those of NumPy are the caller's own."""
        return arrays if self.arrays == "jax" else jax.tree.map(np.array, jax.device_get(arrays))


class GoalaxEnv(gymnasium.Env):
    """One environment with a goal; arguments and errors as those of GoalaxVectorEnv.

    The time limit is the wrapper's that `gymnasium.make` puts around it.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, env_name: str, render_mode: str | None = None, **kwargs: Any):
        self.many = GoalaxVectorEnv(env_name, 1, max_episode_steps=NO_LIMIT, render_mode=render_mode, **kwargs)
        self.render_mode = render_mode
        self.metadata = {**self.metadata, **{name: self.many.metadata[name] for name in ("render_fps", "jax")}}
        self.observation_space, self.action_space = self.many.single_observation_space, self.many.single_action_space
        self.compute_terminated, self.compute_truncated = self.many.compute_terminated, self.many.compute_truncated
        self._over = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """A fresh episode; seed and options as those of GoalaxVectorEnv."""
        super().reset(seed=seed)
        self._over = False
        observation, info = self.many.reset(seed=seed, options=options)
        return jax.tree.map(lambda leaf: leaf[0], (observation, info))

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step with an action [A], which is clipped to [-1, 1]."""
        if np.shape(action) != (self.many.env.action_size,):
            raise ValueError(f"Expected an action [{self.many.env.action_size}], got {list(np.shape(action))}.")
        if self._over:
            raise gymnasium.error.ResetNeeded("The episode has terminated; reset starts the next one.")
        seen = self.many.step(jnp.asarray(action)[None])
        observation, reward, terminated, truncated, info = jax.tree.map(lambda leaf: leaf[0], seen)
        self._over = bool(terminated)
        return observation, float(reward), self._over, bool(truncated), info

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any = None) -> Any:
        """Rewards as those of GoalaxVectorEnv; a float for one pair of goals."""
        reward = self.many.compute_reward(achieved_goal, desired_goal)
        return reward if np.ndim(reward) else float(reward)

    def render(self) -> Any:
        """A picture, uint8 [height, width, 3]; RenderError where nothing can be drawn."""
        pictures = self.many.render()
        return pictures and pictures[0]

    def close(self) -> None:
        self.many.close()


def time_limit(name: str) -> int:
    """The time limit of an environment, in steps; made only where its constructor does not tell."""
    constructor = ENVS[name]
    told = getattr(getattr(constructor, "func", constructor), "episode_length", None)
    return constructor().episode_length if told is None else told


def register() -> None:
    """Registers every environment of `goalax.ENVS` that is not registered yet."""
    for name in ENVS:
        env_id = f"{NAMESPACE}/{name}-v{VERSION}"
        if env_id not in gymnasium.registry:
            gymnasium.register(
                env_id,
                entry_point=f"{__name__}:GoalaxEnv",
                vector_entry_point=f"{__name__}:GoalaxVectorEnv",
                max_episode_steps=time_limit(name),
                kwargs={"env_name": name},
            )


register()
