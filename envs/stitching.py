"""The stitching split of scaling-crl (arXiv 2503.14858, section 4.5): near pairs of a corridor's cells are trained.

`u_maze_gen_1f2f3f` starts on any cell of the way through u_maze, and its goal lies 1, 2 or 3 cells ahead. Whoever gets
from the start of `u_maze_eval` to its goals, 4 to 6 cells ahead, has put together ways that were trained apart.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from goalax.envs.base import GoalEnv
from goalax.envs.maze import InMaze, add_maze, grid_of, picture_of

MARK = "_gen_"  # between the maze and the distances
SPLITS = {  # maze -> distances that are trained
    "u_maze": ("1f", "1f2f", "1f2f3f", "1f2f3f4f"),
    "u2_maze": ("1f2f3f",),
    "u3_maze": ("1f2f3f",),
    "u4_maze": ("1f2f3f",),
    "u5_maze": ("1f2f3f",),
}


def way_through(grid: np.ndarray, name: str) -> np.ndarray:
    """The cells [n + 1, 2] (row, column) of a corridor in their order, from R to its other end.

    Raises:
      ValueError: the maze branches, starts elsewhere than at one end, or has more than one way.
    """
    free = {(int(row), int(column)) for row, column in np.argwhere(grid != "#")}
    beside = {(i, j): free & {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} for i, j in free}
    for (row, column), others in sorted(beside.items()):
        if len(others) > 2:
            raise ValueError(
                f"The maze {name} cannot be split: it is no corridor, but branches at cell {column + 1} of its row"
                f" {row + 1}, {''.join(grid[row])!r}."
            )
    starts = [(int(row), int(column)) for row, column in np.argwhere(grid == "R")]
    if len(starts) != 1 or len(beside[starts[0]]) != 1:
        raise ValueError(f"The maze {name} cannot be split: it needs one cell R, at one end of its corridor.")
    way = starts
    while ahead := beside[way[-1]] - set(way):
        way = [*way, *ahead]
    if len(way) < len(free):
        row, column = min(free - set(way))
        raise ValueError(
            f"The maze {name} cannot be split: no way leads to cell {column + 1} of its row {row + 1},"
            f" {''.join(grid[row])!r}."
        )
    return np.array(way)


def distances_in(split: str, steps: int, layout: str) -> tuple[int, ...]:
    """The distances (1, 2, 3) of a split `1f2f3f`, in cells; ValueError if a way of so many steps has none of them."""
    distances = tuple(int(word) for word in re.findall(r"(\d+)f", split))
    if not re.fullmatch(r"([1-9]\d*f)+", split) or len(set(distances)) < len(distances):
        raise ValueError(
            f"The split {layout} is not understood: after {MARK} come different distances in cells, as in 1f2f3f."
        )
    if max(distances) > steps:
        raise ValueError(
            f"The split {layout} is impossible: no goal lies {max(distances)} cells ahead on a way of {steps} cells."
        )
    return distances


def pairs_of(steps: int, distances: tuple[int, ...]) -> np.ndarray:
    """Probabilities [n + 1, n + 1] of a start at cell i (row) and a goal at cell j (column) of a way of n steps.

    The law of the paper's code: the distance j - i is uniform over `distances`, then i over 0 .. n - (j - i).
    """
    law = np.zeros((steps + 1, steps + 1))
    for distance in distances:
        start = np.arange(steps + 1 - distance)
        law[start, start + distance] = 1 / len(distances) / len(start)
    return law


def split_of(layout: str) -> tuple[str, np.ndarray, np.ndarray]:
    """A layout `MAZE_gen_DISTANCES` as the maze, its way [n + 1, 2] in cells and the law of pairs [n + 1, n + 1].

    Raises:
      ValueError: there is no such maze, it is no corridor, or it has no such distances.
    """
    maze, _, split = layout.partition(MARK)
    way = way_through(grid_of(picture_of(maze), maze), maze)
    return maze, way, pairs_of(len(way) - 1, distances_in(split, len(way) - 1, layout))


class Stitching(InMaze):
    """Puts a body into a split: `class AntStitching(Stitching, AntMaze)`. Start and goal lie exactly on their cells."""

    pairs_of_ends = True

    def __init__(self, layout: str, **kwargs):
        maze, way, self.pairs = split_of(layout)
        super().__init__(maze, **kwargs)
        self.way = way * self.cell_size  # [n + 1, 2] metres
        occurs = [self.way[self.pairs.any(axis=axis)] for axis in (1, 0)]
        self.maze = self.maze._replace(starts=occurs[0], goals=occurs[1])

    def goal_position(self, key: jax.Array) -> jax.Array:
        return jax.random.choice(key, jnp.asarray(self.way), p=jnp.asarray(self.pairs.sum(axis=0)))

    def start_position(self, key: jax.Array, goal: jax.Array) -> jax.Array:
        """The cell of a start [2], drawn given the goal [G], so that both together have the law of pairs.

        No pair leads to the first cell: a goal by hand there has the start of any pair but its own.
        """
        reached = jnp.argmin(jnp.sum((jnp.asarray(self.way) - goal[None, :2]) ** 2, axis=1))
        others = jnp.asarray(self.pairs.sum(axis=1)).at[reached].set(0)
        to_goal = jnp.asarray(self.pairs)[:, reached]
        return jax.random.choice(key, jnp.asarray(self.way), p=jnp.where(to_goal.any(), to_goal, others))

    def sample_start(self, key: jax.Array, goal: jax.Array) -> tuple[jax.Array, jax.Array]:
        position_key, key = jax.random.split(key)
        q, qd = super().sample_start(key, goal)
        return q.at[:2].set(self.start_position(position_key, goal)), qd


def add_splits(body: str, constructor: Callable[..., GoalEnv]) -> None:
    """Registers BODY_MAZE_gen_DISTANCES of every split; the constructor takes `layout` besides the usual arguments."""
    for maze, splits in SPLITS.items():
        for split in splits:
            add_maze(body, f"{maze}{MARK}{split}", constructor)
