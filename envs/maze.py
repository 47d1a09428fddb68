"""Maze layouts as pictures, and what turns a picture into walls, starts and goals. A new maze is a new picture."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs.base import ENVS, Camera

MAZES: dict[str, tuple[str, ...]] = {}  # body -> its layouts

# Walls `#`, starts `R`, goals `G`, ball starts `B`, free cells `.`; rows run along x, columns along y.
LAYOUTS = {
    "u_maze": """
        #####
        #RGG#
        ###G#
        #GGG#
        #####""",
    "u_maze_eval": """
        #####
        #R..#
        ###.#
        #GGG#
        #####""",
    "big_maze": """
        ########
        #RG##GG#
        #GG#GGG#
        ##GGG###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########""",
    "big_maze_eval": """
        ########
        #R.##GG#
        #..#.GG#
        ##...###
        #..#...#
        #.#G.G##
        #.GG#GG#
        ########""",
    "hardest_maze": """
        ############
        #RGGG#GGGGG#
        #G##G#G#G#G#
        #GGGGGG#GGG#
        #G####G###G#
        #GG#G#GGGGG#
        ##G#G#G#G###
        #GG#GGG#GGG#
        ############""",
}


class Maze(NamedTuple):
    """A layout in metres; cell (i, j) has its centre at (i, j) * cell_size."""

    starts: np.ndarray  # [n, 2] centres of R cells
    goals: np.ndarray  # [n, 2] centres of G cells
    balls: np.ndarray  # [n, 2] centres of B cells
    walls: np.ndarray  # [n, 4] rectangles: x, y of the centre, then half-sizes
    height: float


def rectangles(solid: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Covers the True cells of a grid by few disjoint rectangles (i, j, rows, columns): fewer boxes, fewer contacts."""
    left, found = solid.copy(), []
    while left.any():
        i, j = np.argwhere(left)[0]
        shapes = []
        columns = left.shape[1]
        for rows in range(1, left.shape[0] - i + 1):
            free = np.flatnonzero(~left[i + rows - 1, j : j + columns])
            columns = free[0] if free.size else min(columns, left.shape[1] - j)
            if columns == 0:
                break
            shapes.append((rows, columns))
        rows, columns = max(shapes, key=lambda shape: shape[0] * shape[1])
        left[i : i + rows, j : j + columns] = False
        found.append((i, j, rows, columns))
    return found


def parse(picture: str, cell_size: float) -> Maze:
    """Reads a picture; ValueError where it is not a rectangle of known cells."""
    lines = picture.split()
    if not lines or {len(line) for line in lines} != {len(lines[0])} or set("".join(lines)) - set("#RGB."):
        raise ValueError("A maze picture has rows of equal length, made of the cells # R G B and . only.")
    grid = np.array([list(line) for line in lines])
    boxes = np.array(rectangles(grid == "#"), dtype=float).reshape(-1, 4)
    half = boxes[:, 2:] / 2
    walls = np.concatenate([boxes[:, :2] + half - 0.5, half], axis=1)
    starts, goals, balls = (np.argwhere(grid == cell) * cell_size for cell in "RGB")
    return Maze(starts, goals, balls, walls * cell_size, height=0.5 * cell_size)


def add_walls(spec: mujoco.MjSpec, maze: Maze) -> None:
    """Adds the walls to a model as boxes that collide with everything."""
    for x, y, half_x, half_y in maze.walls:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, maze.height / 2],
            size=[half_x, half_y, maze.height / 2],
            contype=1,
            conaffinity=1,
            rgba=[0.78, 0.68, 0.56, 1.0],
        )


class InMaze:
    """Puts a body into a maze: `class AntMaze(InMaze, Ant)`. Starts on a random R cell, goal on a random G cell."""

    cell_size: float = 4.0  # metres

    def __init__(self, layout: str, **kwargs):
        self.maze = parse(LAYOUTS[layout], self.cell_size)
        super().__init__(**kwargs)

    @property
    def camera(self) -> Camera:
        """From above, the whole maze in the picture."""
        low, high = (bound(self.maze.walls[:, :2], axis=0) for bound in (np.min, np.max))
        centre = (low + high) / 2
        distance = 1.4 * max((high - low) * (1.0, 0.75))  # films are 4 to 3
        return Camera(distance, -72.0, 180.0, (*centre, 0.0), marker_height=self.maze.height / 2)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        add_walls(spec, self.maze)
        return spec

    def sample_goal(self, key: jax.Array) -> jax.Array:
        return jax.random.choice(key, jnp.asarray(self.maze.goals))

    def start_position(self, key: jax.Array, goal: jax.Array) -> jax.Array:
        return jax.random.choice(key, jnp.asarray(self.maze.starts))


def add_mazes(body: str, constructor: Callable, *layouts: str) -> None:
    """Registers BODY_LAYOUT for every layout; constructor takes `layout` besides the usual arguments."""
    for layout in layouts:
        ENVS.add(f"{body}_{layout}", partial(constructor, layout=layout))
    MAZES[body] = layouts
