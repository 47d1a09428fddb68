"""Scripted data of OGBench's point mazes, which its package steps: `navigate`, `stitch` and `explore` by its own laws.

Source: arXiv 2410.20092, appendix on datasets. A script goes straight to the centre of the next cell on a shortest
path, and noise is added to its action; where two paths are equally short, it may be the other one.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from goalax.core.goals import Cells
from goalax.data.collect import HOLD, STYLES, Style, Ways, ways_of
from goalax.flags import FlagError
from goalax.host.ogbench import SINGLE, OGBenchEnv, seeded

ROWS = {"navigate": 1001, "stitch": 201, "explore": 501}  # of an episode
GIANT = 2001  # of `navigate` in mazes of this name
POINTS = "pointmaze"  # part of names of mazes with a point mass, whose action is the direction that it moves in


class Paths(NamedTuple):
    """The cells of a maze by number, and shortest paths between them."""

    cells: np.ndarray  # [C, 2] row and column
    number: np.ndarray  # [rows, columns] of the cell there, -1 in walls
    centres: np.ndarray  # [C, 2]
    ways: Ways


def paths_of(maze: Any) -> Paths:
    """Those of an environment of the package."""
    cells = np.argwhere(maze.maze_map == 0)
    number = np.full(maze.maze_map.shape, -1)
    number[tuple(cells.T)] = np.arange(len(cells))
    centres = np.array([maze.ij_to_xy(tuple(cell)) for cell in cells])
    return Paths(cells, number, centres, jax.device_get(ways_of(Cells(cells.astype(float), 1.0))))


def towards(maze: Any, paths: Paths, place: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """The direction, [2], from a place to the centre of the next cell on the way to a goal.

    In the goal's cell to the centre of that, not to the goal: so does OGBench's script, whose walks stay there unless
    noise brings them to the goal.
    """
    here, there = (paths.number[tuple(maze.xy_to_ij(point))] for point in (place, goal))
    target = paths.centres[paths.ways.next_cell[here, there]]
    return (target - place) / max(float(np.linalg.norm(target - place)), 1e-6)


def episode(
    maze: Any, paths: Paths, law: Style, rows: int, rng: np.random.Generator, seed: int
) -> dict[str, np.ndarray]:
    """The rows of an episode by the keys of a file, [rows, ...]; seed: of the environment."""

    def drawn() -> tuple[int, int]:
        start, goal = law.start(paths.ways, jax.random.PRNGKey(rng.integers(2**31)))
        return int(start), int(goal)

    def ij(cell: int) -> tuple[int, ...]:
        return tuple(map(int, paths.cells[cell]))

    start, goal = drawn()
    state, _ = maze.reset(seed=seed, options={"task_info": {"init_ij": ij(start), "goal_ij": ij(goal)}})
    direction, lines = np.zeros(2), []
    for step in range(rows):
        place = maze.get_xy()
        if law.directed:
            direction = towards(maze, paths, place, maze.cur_goal_xy)
        elif step % HOLD == 0:
            angle = rng.uniform(0, 2 * np.pi)
            direction = np.array([np.cos(angle), np.sin(angle)])
        action = np.clip(direction + law.noise * rng.normal(size=2), -1, 1)
        lines.append((state, action, maze.data.qpos.copy(), maze.data.qvel.copy()))
        state, _, _, _, told = maze.step(action)
        if law.again and told["success"]:
            maze.set_goal(goal_xy=maze.add_noise(maze.ij_to_xy(ij(drawn()[1]))))
    columns = zip(("observations", "actions", "qpos", "qvel"), zip(*lines, strict=True), strict=True)
    return {name: np.array(values, np.float32) for name, values in columns} | {"terminals": np.arange(rows) == rows - 1}


def environment(name: str) -> OGBenchEnv:
    """One that a script can walk in; FlagError where there is none of this name, or no maze of a point mass."""
    if POINTS not in name:
        raise FlagError(
            f"--env_name is {name!r}; a script walks with point masses only, ogbench:pointmaze-medium-v0 say."
        )
    if SINGLE in name:  # whose starts are all the same
        raise FlagError(f"--env_name is {name!r}; leave -{SINGLE} out: the file of the maze is for its tasks, too.")
    try:
        env = OGBenchEnv(name)
        paths_of(env.made[0].unwrapped)
        return env
    except ValueError as error:
        raise FlagError(f"--env_name is {name!r}; {error}") from None


def collect(env: OGBenchEnv, style: str, seed: int, steps: int) -> Iterator[dict[str, np.ndarray]]:
    """Episodes of an `environment` by the keys of a file, `steps` transitions in all or up to an episode more.

    Equal seeds give equal files.
    """
    law, maze, rng = STYLES[style], env.made[0].unwrapped, np.random.default_rng(seed)
    law, paths = law._replace(start=jax.jit(law.start)), paths_of(maze)
    rows = GIANT if style == "navigate" and "giant" in env.name else ROWS[style]
    maze.action_space.seed(seed)  # it moves at random before a start
    for _ in range(-(-steps // (rows - 1))):
        number = int(rng.integers(2**31))
        with seeded(number):
            one = episode(maze, paths, law, rows, rng, number)
        yield one
