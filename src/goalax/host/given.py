"""Goals and starts by hand: from flags or from Python, checked, and put into an environment in place of its own."""

import copy
import dataclasses
import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from goalax.core import rollout
from goalax.core.goals import in_cells
from goalax.envs import GoalEnv
from goalax.flags import FlagError, flag

Array = jax.Array
PLACE = 2  # coordinates of where a body that walks starts


@dataclasses.dataclass(frozen=True)
class GivenFlags:
    """Flags of a goal and a start by hand."""

    goal: str | None = flag(None, "the goal of every episode, as in 4,8: its coordinates, in metres")
    goal_cell: str | None = flag(None, "in a maze, the cell of that goal, as in 1,2: row and column of its picture")
    start: str | None = flag(None, "where every episode starts, as in 4,4, in metres; or all joint positions")


def numbers(name: str, text: str) -> list[float]:
    """The numbers of `4,8`; FlagError that begins with the name where they are none."""
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise FlagError(f"{name} is {text!r}; it must be numbers with commas between, as in 4,8.") from None


def written(values: np.ndarray) -> str:
    """Coordinates as flags take them: 4,8."""
    return ",".join(f"{value:g}" for value in np.ravel(values))


def _finite(name: str, values: ArrayLike) -> np.ndarray:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise FlagError(f"{name} is {values!r}; it must be numbers.") from None
    if not np.isfinite(array).all() or (np.abs(array) > np.finfo(np.float32).max).any():
        raise FlagError(f"{name} is {written(array)}; its numbers must be finite.")
    return array.astype(np.float32)


def _require_free(env: GoalEnv, name: str, points: np.ndarray) -> None:
    """FlagError where one of the points [..., 2 or more] lies in a wall of a maze, or outside of it."""
    cells = getattr(env, "cells", None)
    if cells is None:
        return
    for point in points.reshape(-1, points.shape[-1]):
        if not bool(in_cells(cells, jnp.asarray(point)).any()):
            near = cells.centres[np.argmin(np.linalg.norm(cells.centres - point[:2], axis=1))]
            raise FlagError(
                f"{name} is {written(point)}; that is in a wall of the maze or outside of it, and the free cell nearest"
                f" to it has its centre at {written(near)}."
            )


def check_goal(env: GoalEnv, name: str, values: ArrayLike) -> np.ndarray:
    """Goals float32 [..., G] of an environment; FlagError, which begins with the name, where they cannot be.

    Args:
      name: what the caller calls them.
    """
    goal = _finite(name, values)
    if goal.ndim < 1 or goal.shape[-1] != env.goal_dim:
        size = goal.shape[-1] if goal.ndim else 1
        raise FlagError(
            f"{name} is {written(goal)}; a goal of this environment has {env.goal_dim} numbers, and this one {size}."
        )
    _require_free(env, name, goal)
    return goal


def check_cell(env: GoalEnv, name: str, values: ArrayLike) -> np.ndarray:
    """The goal float32 [G] in the middle of a cell (row, column) of a maze; FlagError where there is none."""
    cell = _finite(name, values)
    cells = getattr(env, "cells", None)
    if cells is None or not hasattr(env, "goal_position"):
        raise FlagError(f"{name} is {written(cell)}; it is for mazes, and this environment is none.")
    if cell.shape != (2,) or (cell != np.rint(cell)).any():
        raise FlagError(f"{name} is {written(cell)}; it must be a row and a column, two whole numbers as in 1,2.")
    if not (cells.places == cell).all(axis=1).any():
        rows, columns = cells.places.max(axis=0)
        raise FlagError(
            f"{name} is {written(cell)}; that cell is a wall of the maze or outside of it, whose free cells lie in rows"
            f" 1 to {rows} and columns 1 to {columns}."
        )
    there = copy.copy(env)
    there.__dict__["goal_position"] = lambda key: jnp.asarray(cell * cells.size, jnp.float32)
    # The cell says where on the plane; heights are those of the environment's own goals.
    return np.asarray(there.sample_goal(jax.random.PRNGKey(0)))


def check_start(env: GoalEnv, name: str, values: ArrayLike) -> np.ndarray:
    """Starts float32 [..., 2 or Q] of an environment; FlagError, which begins with the name, where they cannot be.

    A start is where the body stands, in metres, for bodies that walk or slide; or all joint positions, at rest.
    """
    start = _finite(name, values)
    if env.goal_dim == 0:
        raise FlagError(f"{name} is {written(start)}; this environment draws its own starts.")
    sizes = {env.sys.q_size(): "all joint positions"}
    if hasattr(env, "start_position"):
        sizes = {PLACE: "where the body stands", **sizes} if env.sys.q_size() != PLACE else {PLACE: "where it stands"}
    size = start.shape[-1] if start.ndim else 1
    if start.ndim < 1 or size not in sizes:
        valid = " or ".join(f"{number} numbers ({words})" for number, words in sizes.items())
        raise FlagError(f"{name} is {written(start)}; a start of this environment has {valid}, and this one {size}.")
    _require_free(env, name, start)
    return start


def from_flags(env: GoalEnv, flags: GivenFlags) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The goal [G] and the start [2 or Q] that flags ask for; None where they do not. FlagError as above."""
    if flags.goal is not None and flags.goal_cell is not None:
        raise FlagError(f"--goal is {flags.goal!r} and --goal_cell {flags.goal_cell!r}; only one of them can be given.")
    goal = start = None
    if flags.goal is not None:
        goal = check_goal(env, "--goal", numbers("--goal", flags.goal))
    if flags.goal_cell is not None:
        goal = check_cell(env, "--goal_cell", numbers("--goal_cell", flags.goal_cell))
    if flags.start is not None:
        start = check_start(env, "--start", numbers("--start", flags.start))
    return goal, start


def begin(env: GoalEnv, rng: Array, goal: Array | None = None, start: Array | None = None) -> Any:
    """A fresh episode as of `env.reset`, with a goal [G] or a start [2 or Q] by hand. Consumes rng.

    The rest is drawn as ever, given what is by hand: where starts depend on goals, this one depends on this goal.
    """
    chosen = copy.copy(env)
    if goal is not None:
        chosen.__dict__["sample_goal"] = lambda key: goal
    if start is not None:
        start = jnp.asarray(start)
        if start.shape[-1] == PLACE and hasattr(env, "start_position"):
            chosen.__dict__["start_position"] = lambda key, goal: start
        else:
            chosen.__dict__["sample_start"] = lambda key, goal: (start, jnp.zeros(env.sys.qd_size()))
    state = type(env).reset(chosen, rng)
    return state if goal is None else env.command(state, goal)


def fix(env: GoalEnv, goal: ArrayLike | None, start: ArrayLike | None) -> None:
    """From now on every episode of an environment has this goal [G] and this start [2 or Q]; None leaves it as it is.

    For environments of the caller's own. What was traced of an evaluation before does not see it.
    """
    if goal is None and start is None:
        return
    by_hand = {name: jnp.asarray(value) for name, value in (("goal", goal), ("start", start)) if value is not None}
    env.__dict__["reset"] = functools.partial(begin, env, **by_hand)
    cast(Any, rollout.reset_all).clear_cache()  # else as many environments as were reset before begin as they did
