"""Maze layouts as pictures, and what turns a picture into walls, starts and goals. A new maze is a new picture."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from goalax.core.goals import Cells
from goalax.envs.base import ENVS, Camera, GoalEnv, set_numeric
from goalax.envs.corridors import CORRIDORS
from goalax.words import choices

MAZES: dict[str, tuple[str, ...]] = {}  # body -> its layouts
MAX_CONTACTS = 16  # of a body at once, the deepest; a walker in a corner has half as many

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
    "u_maze_single_eval": """
        #####
        #R..#
        ###.#
        #G..#
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
        #.#G.#G#
        #.GG#GG#
        ########""",
    "big_maze_scaling_eval": """
        ########
        #R.##GG#
        #..#..G#
        ##...###
        #..#...#
        #.#G.#G#
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
    "ball_u_maze": """
        #####
        #RGB#
        ###G#
        #GGG#
        #####""",
    "ball_big_maze": """
        ########
        #R.##GG#
        #..#GGG#
        ##BGB###
        #GG#GGG#
        #G#GG#G#
        #GGG#GG#
        ########""",
    **CORRIDORS,
}


class Maze(NamedTuple):
    """A layout in metres; cell (i, j) has its centre at (i, j) * cell_size."""

    starts: np.ndarray  # [n, 2] centres of R cells
    goals: np.ndarray  # [n, 2] centres of G cells
    balls: np.ndarray  # [n, 2] centres of B cells
    walls: np.ndarray  # [n, 2] centres of # cells
    free: np.ndarray  # [n, 2] centres of all others
    cell_size: float

    @property
    def height(self) -> float:
        return 0.5 * self.cell_size


def grid_of(picture: str, name: str = "") -> np.ndarray:
    """The cells [rows, columns] of a picture; ValueError that names the maze, the row and what is wrong with it."""
    maze = f"The maze {name}".strip()
    lines = [line.strip() for line in picture.strip().splitlines()] or [""]
    for row, line in enumerate(lines, 1):
        if len(line) != len(lines[0]):
            raise ValueError(
                f"{maze} is ragged: its row {row}, {line!r}, has length {len(line)}, and its row 1, {lines[0]!r}, has"
                f" length {len(lines[0])}."
            )
        if unknown := sorted(set(line) - set("#RGB.")):
            raise ValueError(f"{maze} has {unknown[0]!r} in its row {row}, {line!r}; cells are # R G B and . only.")
    for cell, what in (("R", "start"), ("G", "goal")):
        if not any(cell in line for line in lines):
            raise ValueError(
                f"{maze} has no {what}: none of its rows 1 to {len(lines)}, {' '.join(lines)!r}, has a cell {cell}."
            )
    return np.array([list(line) for line in lines])


def require_ways(grid: np.ndarray, maze: str) -> None:
    """ValueError unless walls surround the cells [rows, columns], and a way leads between all starts and goals."""
    free = np.pad(grid != "#", 1)  # around the picture there is nothing to stand on
    if (free[1] | free[-2]).any() or (free[:, 1] | free[:, -2]).any():
        raise ValueError(f"{maze} is open: there are cells at its border that are no walls.")
    ends = np.argwhere(np.isin(grid, ("R", "G"))) + 1
    near = np.zeros_like(free)
    near[tuple(ends[0])] = True
    for _ in range(free.sum()):  # steps that any way takes at most
        around = np.roll(near, 1, 0) | np.roll(near, -1, 0) | np.roll(near, 1, 1) | np.roll(near, -1, 1)
        near |= around & free
    if lost := [(row, column) for row, column in ends.tolist() if not near[row, column]]:
        (first, second), one = lost[0], ends[0].tolist()
        where = f"row {one[0]}, column {one[1]} to row {first}, column {second}"
        raise ValueError(f"{maze} has no way from its {where}: walls part them.")


def parse(picture: str, cell_size: float, name: str = "") -> Maze:
    """Reads a picture; ValueError, which tells its name, where it is not a rectangle of cells with start and goal,
    or nothing leads from one to the other."""
    grid = grid_of(picture, name)
    require_ways(grid, f"The maze {name}".strip())
    starts, goals, balls, walls = (np.argwhere(grid == cell) * cell_size for cell in "RGB#")
    return Maze(starts, goals, balls, walls, np.argwhere(grid != "#") * cell_size, cell_size)


def picture_of(layout: str) -> str:
    """The picture of a layout; ValueError that lists the choices if there is none."""
    if layout not in LAYOUTS:
        raise ValueError(f"Unknown maze layout: {layout}. Choose from: {choices(layout, list(LAYOUTS))}.")
    return LAYOUTS[layout]


def add_walls(spec: mujoco.MjSpec, maze: Maze, parts: int | None = None) -> None:
    """Adds the walls to a model, one box a cell, that collide with everything.

    Of all pairs of a wall and a part of the body MJX looks closely at the nearest only. It measures between centres,
    so walls must be square. A part between walls touches at most three, and parts are small enough that nothing farther
    away comes before these.

    Args:
      parts: of the body that touch walls at once at most; None: all that collide.
    """
    if parts is None:
        parts = sum(1 for body in spec.bodies[1:] for geom in body.geoms if geom.contype or geom.conaffinity)
    set_numeric(spec, max_geom_pairs=[3 * parts], max_contact_points=[MAX_CONTACTS])
    half = maze.cell_size / 2
    for x, y in maze.walls:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[x, y, maze.height / 2],
            size=[half, half, maze.height / 2],
            contype=1,
            conaffinity=1,
            rgba=[0.78, 0.68, 0.56, 1.0],
        )


def overview(maze: Maze) -> Camera:
    """From above, the whole maze in the picture."""
    low, high = (bound(maze.walls, axis=0) for bound in (np.min, np.max))
    centre = (low + high) / 2
    distance = 1.4 * max((high - low) * (1.0, 0.75))  # films are 4 to 3
    walls = maze.height / 4
    return Camera(distance, -80.0, 180.0, (*centre, 0.0), marker_height=walls / 2, wall_height=walls)


class InMaze(GoalEnv):
    """Puts a body into a maze: `class AntMaze(InMaze, Ant)`. Starts on a random R cell, goal on a random G cell."""

    cell_size: float = 4.0  # metres
    parts_at_walls: int | None = None  # see `add_walls`

    def __init__(self, layout: str, **kwargs):
        self.maze = parse(picture_of(layout), self.cell_size, layout)
        self.camera = overview(self.maze)
        self.cells = Cells(self.maze.free, self.cell_size)
        super().__init__(**kwargs)

    def body(self) -> mujoco.MjSpec:
        spec = super().body()
        self.collide(spec)
        add_walls(spec, self.maze, self.parts_at_walls)
        return spec

    def collide(self, spec: mujoco.MjSpec) -> None:
        """Makes parts of the body collide that do not where there are no walls."""

    def sample_goal(self, key: jax.Array) -> jax.Array:
        return self.goal_position(key)

    def goal_position(self, key: jax.Array) -> jax.Array:
        """The cell of a goal [2], metres."""
        return jax.random.choice(key, jnp.asarray(self.maze.goals))

    def start_position(self, key: jax.Array, goal: jax.Array) -> jax.Array:
        return jax.random.choice(key, jnp.asarray(self.maze.starts))


def add_maze(body: str, layout: str, constructor: Callable[..., GoalEnv]) -> None:
    """Registers BODY_LAYOUT; the constructor takes `layout` besides the usual arguments."""
    ENVS.add(f"{body}_{layout}", partial(constructor, layout=layout))
    MAZES[body] = (*MAZES.get(body, ()), layout)


def add_mazes(body: str, constructor: Callable[..., GoalEnv], balls: bool = False, evals: bool = False) -> None:
    """Registers BODY_LAYOUT for every picture that suits a body.

    Args:
      body: what the names begin with.
      constructor: takes `layout` besides the usual arguments.
      balls: whether the body needs ball cells; pictures that have some are for such bodies only.
      evals: whether pictures for evaluation (`_eval`) are among them.
    """
    for layout, picture in LAYOUTS.items():
        if ("B" in picture) == balls and (evals or not layout.endswith("_eval")):
            add_maze(body, layout, constructor)
