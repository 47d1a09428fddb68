"""OGBench's own environments (arXiv 2410.20092): their sizes for training on a dataset, and evaluation in their tasks.

The package ogbench steps them, on the host; it is loaded where one is asked for, as `ogbench:pointmaze-medium-v0`.
"""

import contextlib
import difflib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from brax.envs.base import State

from goalax.agents.base import Algorithm
from goalax.core.rollout import Outcomes, Recording
from goalax.core.train import Train, training_means
from goalax.core.types import Agent, AgentState, Metrics, RunState
from goalax.data.names import OGBENCH
from goalax.envs import GoalEnv
from goalax.flags import FlagError
from goalax.host.config import Config

MISSING = "it is an environment of the package ogbench, which is not installed: pip install 'goalax[ogbench]'."
STEPPED = "OGBench's environments are stepped on the host: they are for training on a dataset and for evaluation only."
PER_TASK = 5  # episodes of each task in an evaluation, unless --num_eval_envs says otherwise
AT_ONCE = 50  # environments that are stepped side by side
ALONE = 25  # episodes of an evaluation in the one task of an environment that has one
# Parts of names whose states are pictures, or which have no tasks, or goals that are no states.
OTHER_KINDS = ("visual-", "powderworld", "online-", "oraclerep")
SINGLE = "singletask"  # part of names of environments with a single task, which have rewards in place of goals

Act = Callable[[Any, Any], Any]  # (states [n, S], goals [n, G]) -> actions [n, A]


def open_one(name: str) -> Any:
    """A gymnasium environment by its name in OGBench; ValueError without the package, or where it has none."""
    try:
        import gymnasium  # here: both are optional
        import ogbench  # noqa: F401 it registers its environments
    except ModuleNotFoundError:
        raise ValueError(MISSING) from None
    specs = {key: str(spec.entry_point) for key, spec in gymnasium.registry.items()}
    own = [key for key, entry in specs.items() if entry.startswith("ogbench.")]
    names = [key for key in own if not any(kind in key for kind in OTHER_KINDS)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=5, cutoff=0.0)
        raise ValueError(f"OGBench has no such environment with states and tasks; near it are {', '.join(near)}.")
    return gymnasium.make(name, disable_env_checker=True)


class OGBenchEnv(GoalEnv):
    """An environment of OGBench as far as training on a dataset asks for it; a goal is a whole state.

    With a single task there are no goals for an agent, for it is always the same one: it learns from rewards.
    No radius is known that tells of two states whether one is at the other: the environment itself judges success.
    """

    help = "OGBench"
    goal_reach_thresh = 0.0  # no distance is less
    normalize_observations = False
    num_timesteps = 0

    def __init__(self, name: str, backend: str | None = None, dense_reward: bool = False):
        """name: as --env_name has it. ValueError as `open_one`, and for what it does not have."""
        if backend not in (None, self.backend):
            raise ValueError(f"Unsupported backend: {backend}. Choose from: {self.backend}.")
        if dense_reward:
            raise ValueError("This environment has no dense reward.")
        self.name, self.dense_reward = name, False
        self.made = [open_one(name.removeprefix(OGBENCH))]
        (self.state_dim,), (self._action_size,) = (
            space.shape for space in (self.made[0].observation_space, self.made[0].action_space)
        )
        self.goal_indices = () if SINGLE in name else tuple(range(self.state_dim))
        self.episode_length = self.made[0].spec.max_episode_steps
        inner = self.made[0].unwrapped
        self.tasks = (inner._reward_task_id,) if SINGLE in name else tuple(range(1, int(inner.num_tasks) + 1))

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def backend(self) -> str:
        return "mujoco"

    @property
    def action_size(self) -> int:
        return self._action_size

    @property
    def compiler_options(self) -> dict[str, Any]:
        return {}

    @property
    def dt(self) -> float:
        inner = self.made[0].unwrapped
        return float(inner.dt if hasattr(inner, "dt") else inner._control_timestep)  # of arms

    @property
    def still(self) -> "Still":
        """What stands for it in the state of a run."""
        return Still(self)

    def reset(self, rng: Any) -> State:
        raise FlagError(STEPPED)

    def step(self, state: State, action: Any) -> State:
        raise FlagError(STEPPED)

    def several(self, number: int) -> list[Any]:
        """So many gymnasium environments, which stay for the next time."""
        self.made += [open_one(self.name.removeprefix(OGBENCH)) for _ in range(number - len(self.made))]
        return self.made[:number]


class Still(GoalEnv):
    """The shapes of an environment whose states are all 0, for a training loop that never steps it."""

    def __init__(self, env: OGBenchEnv):
        self.state_dim, self.goal_indices, self._action_size = env.state_dim, env.goal_indices, env.action_size
        self.goal_reach_thresh, self.dense_reward = env.goal_reach_thresh, False

    backend, compiler_options, action_size = OGBenchEnv.backend, OGBenchEnv.compiler_options, OGBenchEnv.action_size

    def reset(self, rng: Any) -> State:
        zero, goal = jnp.zeros(()), jnp.zeros(self.goal_dim)
        metrics = {"success": zero, "dist": zero}
        return State(None, jnp.zeros(self.observation_size), zero, zero, metrics, {"goal": goal})

    def step(self, state: State, action: Any) -> State:
        raise FlagError(STEPPED)


class Played(NamedTuple):
    """What became of E episodes."""

    task: np.ndarray  # [E] from 1
    goal: np.ndarray  # [E, S]
    success: np.ndarray  # [E] 1 where the last step was at the goal, as the environment judges it
    at_goal: np.ndarray  # [E] steps at the goal
    reward: np.ndarray  # [E] sum
    length: np.ndarray  # [E] steps
    final_dist: np.ndarray  # [E] from the last state to the goal, over all their entries


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """NumPy's global generator, from which OGBench draws starts and goals, seeded, and afterwards as it was."""
    before = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(before)


def play(env: OGBenchEnv, act: Act, episodes: int, seed: int) -> Played:
    """Episodes of all tasks in turn, at most `AT_ONCE` side by side; equal seeds give equal starts and goals."""
    task, most = np.resize(env.tasks, episodes), min(episodes, AT_ONCE)
    with seeded(seed):
        parts = [play_some(env, act, task[i : i + most], most, seed + i) for i in range(0, episodes, most)]
    return Played(*map(np.concatenate, zip(*parts, strict=True)))


def play_some(env: OGBenchEnv, act: Act, task: np.ndarray, most: int, seed: int) -> Played:
    """An episode of each task; the policy always acts in `most` states, so that it is compiled once."""
    envs, (state, goal) = env.several(len(task)), np.zeros((2, most, env.state_dim))
    for i, one in enumerate(envs):
        one.unwrapped.action_space.seed(seed + i)
        state[i], info = one.reset(seed=seed + i, options={"task_id": int(task[i]), "render_goal": False})
        goal[i] = info["goal"]
    commanded = np.float32(goal[:, list(env.goal_indices)])
    success, at_goal, reward, length = np.zeros((4, len(task)))
    running = np.ones(len(task), bool)
    while running.any():
        action = np.clip(np.asarray(act(np.float32(state), commanded)), -1, 1)
        for i in map(int, np.flatnonzero(running)):
            state[i], gained, terminated, truncated, info = envs[i].step(action[i])
            success[i] = info["success"]
            at_goal[i] += success[i]
            reward[i] += gained
            length[i] += 1
            running[i] = not (terminated or truncated)
    state, goal = state[: len(task)], goal[: len(task)]
    return Played(task, goal, success, at_goal, reward, length, np.linalg.norm(state - goal, axis=1))


def by_episode(played: Played, limit: int) -> dict[str, np.ndarray]:
    """Metrics of single episodes, [E] each, under the names of `core.rollout.evaluate`; limit: steps of the longest."""
    return {
        "eval/success": played.success,
        "eval/episode_reward": played.reward,
        "eval/episode_success": played.at_goal,
        "eval/episode_success_any": (played.at_goal > 0).astype(float),
        "eval/time_at_goal": played.at_goal / limit,
        "eval/final_dist": played.final_dist,
        "eval/avg_episode_length": played.length,
    }


def by_task(played: Played) -> dict[str, np.ndarray]:
    """The successes of each task."""
    return {f"eval/task{task}_success": played.success[played.task == task] for task in np.unique(played.task)}


def on_host(train: Train, env: OGBenchEnv, episodes: int, num_seeds: int) -> Train:
    """The functions of a run, evaluated by OGBench's protocol: in each of its tasks, by the policy's mode.

    Args:
      episodes: of an evaluation, all tasks together.
    """
    mode, means = jax.jit(train.mode), jax.jit(training_means)

    def of_seed(tree: Any, index: int) -> Any:
        return tree if num_seeds == 1 else jax.tree.map(lambda leaf: leaf[index], tree)

    def evaluate(state: RunState) -> tuple[Metrics, Recording, Outcomes]:
        if isinstance(state.key, jax.core.Tracer):
            raise FlagError(STEPPED)
        found, outcomes = [], []
        for index in range(num_seeds):
            agent, key = of_seed(state.agent, index), np.asarray(of_seed(state.key, index))
            played = play(env, acting(mode, agent), episodes, int(key[-1]))
            each = by_episode(played, env.episode_length) | by_task(played)
            found.append({name: np.float32(np.mean(values)) for name, values in each.items()})
            outcomes.append((played.goal, np.float32(played.at_goal > 0), played.at_goal / env.episode_length))
        together = [np.stack(values) for values in zip(*outcomes, strict=True)]
        metrics = {name: np.stack([one[name] for one in found]) for name in found[0]}
        if num_seeds == 1:
            together, metrics = [values[0] for values in together], {name: metrics[name][0] for name in metrics}
        nothing: Any = np.zeros((num_seeds, 0))
        return {**means(state), **metrics}, Recording(*[nothing] * 4), Outcomes(*together)  # type: ignore

    return train._replace(evaluate=evaluate, ahead=False)


def acting(mode: Callable[[AgentState, Any, Any], Any], agent: AgentState) -> Act:
    return lambda state, goal: mode(agent, state, goal)


def episodes(env: GoalEnv) -> int:
    """Episodes of an evaluation, all tasks together, where --num_eval_envs says nothing; 0 for other environments."""
    if not isinstance(env, OGBenchEnv):
        return 0
    return PER_TASK * env.num_tasks if env.goal_dim else ALONE


def check(config: Config, env: GoalEnv, eval_env: GoalEnv) -> None:
    """FlagError if the flags do not fit an environment of OGBench, where there is one."""
    kinds = [isinstance(each, OGBenchEnv) for each in (env, eval_env)]
    if not any(kinds):
        return
    if not all(kinds):
        raise FlagError(
            f"--eval_env is {config.eval_env!r} with --env_name {config.env_name}; either both are OGBench's, or none."
        )
    assert isinstance(eval_env, OGBenchEnv)
    if config.num_timesteps > 0:
        raise FlagError(f"--num_timesteps is {config.num_timesteps}; with --env_name {config.env_name} it must be 0.")
    if config.dataset is None:
        raise FlagError(f"--env_name is {config.env_name!r}; --dataset must name the file to learn from.")
    own = {"episode_length": eval_env.episode_length, "action_repeat": 1, "num_processes": None}
    for name, value in own.items():
        if getattr(config, name) != value:
            words = "leave it out" if value is None else f"with --env_name {config.env_name} it must be {value}"
            raise FlagError(f"--{name} is {getattr(config, name)}; {words}.")
    if config.num_eval_envs % eval_env.num_tasks:
        raise FlagError(
            f"--num_eval_envs is {config.num_eval_envs}; it must be a multiple of {eval_env.num_tasks}, the tasks of"
            f" {config.eval_env}."
        )


def check_agent(config: Config, algorithm: Algorithm, agent: Agent) -> None:
    """FlagError for agents that ask for what is not there: rewards, a radius of goals, a memory between actions.

    That agents which learn from goals have none with a single task, `resolve` has told.
    """
    single = SINGLE in config.env_name
    fitting = "rewards, such as iql or rebrac" if single else "goals only, such as gcivl, hiql or crl"
    why = {
        "remembers between actions": agent.memory is not None,
        "learns from rewards": not algorithm.goals and not single,
        "asks when a goal is reached": agent.needs.within > 0,
    }
    for words in (words for words, holds in why.items() if holds):
        raise FlagError(
            f"--agent is {config.agent!r}, which {words} with these flags; environments of OGBench"
            f"{' with a single task' if single else ''} are for agents that learn from {fitting}."
        )
