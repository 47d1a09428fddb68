"""Goals: which one a state achieves, how far it is from another one, and in which cell of a maze it lies."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


def goal_of(state: Array, goal_indices: tuple[int, ...]) -> Array:
    """The goal [..., G] that a state [..., S] achieves."""
    return state[..., jnp.array(goal_indices, jnp.int32)]


def achieving(state: Array, goal: Array, goal_indices: tuple[int, ...]) -> Array:
    """The states [..., S], with the coordinates of goals [..., G] in place of those that they achieve."""
    return state.at[..., jnp.array(goal_indices, jnp.int32)].set(goal)


def distance(achieved: Array, goal: Array, parts: int = 1) -> Array:
    """How far a goal [..., G] is from an achieved one [..., G], in the units of the environment, [...]; of goals that
    are several points, the farthest of these."""
    between = achieved - goal
    if parts == 1:
        return jnp.linalg.norm(between, axis=-1)
    return jnp.max(jnp.linalg.norm(between.reshape(*between.shape[:-1], parts, -1), axis=-1), axis=-1)


def reached(dist: Array, threshold: float) -> Array:
    """1 where the goal is nearer than the threshold, else 0; [...] -> float32 [...]."""
    return (dist < threshold).astype(jnp.float32)


class Cells(NamedTuple):
    """The free cells of a maze, in metres. A goal lies in the cell of its first two coordinates."""

    centres: np.ndarray  # [C, 2] whole multiples of the size
    size: float

    @property
    def places(self) -> np.ndarray:
        """Row and column of each cell in the picture of the maze, [C, 2] int."""
        return np.rint(self.centres / self.size).astype(int)


MOST = 4096  # rows and columns of a maze


def cell_number(cells: Cells, goal: Array) -> Array:
    """The number of the place where a goal [..., G] lies, free or not, [...] int32: one number to compare."""
    place = jnp.clip(jnp.floor(goal[..., :2] / cells.size + 0.5), -1, MOST - 2).astype(jnp.int32)
    return place[..., 0] * MOST + place[..., 1]


def cell_numbers(cells: Cells) -> Array:
    """The numbers of the free cells, [C] int32."""
    return jnp.asarray(cells.places @ np.array([MOST, 1]), jnp.int32)


def in_cells(cells: Cells, goal: Array) -> Array:
    """Whether a goal [..., G] lies in each of the cells, [..., C] bool; in none of them where it is in a wall."""
    number = cell_number(cells, goal)
    return number[..., None] == cell_numbers(cells).reshape(*(1,) * number.ndim, -1)
