"""Shows what a run has learned of its maze: how far its critic thinks places are, against the shortest paths."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.stats import spearmanr

matplotlib.use("Agg")
from matplotlib.figure import Figure

from goalax.core.types import RunState
from goalax.envs.maze import InMaze, Maze
from goalax.flags import FlagError, flag, parse
from goalax.host import behind
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.loading import load
from goalax.host.make import Run
from goalax.whole import aside


@dataclasses.dataclass(frozen=True)
class DistancesConfig:
    """What to look at."""

    run: str | None = flag(None, "run directory; writes distances.png and distances.json into it")
    step: int | None = flag(None, "checkpoint, by its steps and updates on a dataset (default: the newest)", low=0)
    resolution: int = flag(4, "places along the side of a cell", low=1, high=16)


def places(maze: Maze, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid over a maze: which places are free, bool [rows, columns], and where they are, [rows, columns, 2]."""
    cells = np.round(maze.walls / maze.cell_size).astype(int)
    free = np.ones(cells.max(axis=0) + 1, bool)
    free[tuple(cells.T)] = False
    free = free.repeat(resolution, axis=0).repeat(resolution, axis=1)
    index = np.stack(np.meshgrid(*map(np.arange, free.shape), indexing="ij"), axis=-1)
    return free, ((index + 0.5) / resolution - 0.5) * maze.cell_size


def shortest_paths(free: np.ndarray, spacing: float) -> np.ndarray:
    """Metres from each free place to each, [P, P], over straight and diagonal neighbours; diagonals cut no corner."""
    number = np.where(free, np.cumsum(free).reshape(free.shape) - 1, -1)
    rows, columns, lengths = [], [], []
    for di, dj in ((0, 1), (1, 0), (1, 1), (1, -1)):
        here = np.argwhere(free)
        there = here + np.array([di, dj])
        inside = np.all((there >= 0) & (there < free.shape), axis=1)
        here, there = here[inside], there[inside]
        passable = free[tuple(there.T)] & free[there[:, 0], here[:, 1]] & free[here[:, 0], there[:, 1]]
        rows += [number[tuple(here[passable].T)]]
        columns += [number[tuple(there[passable].T)]]
        lengths += [np.full(passable.sum(), np.hypot(di, dj) * spacing)]
    edges = np.concatenate(lengths), (np.concatenate(rows), np.concatenate(columns))
    return dijkstra(coo_array(edges, shape=(free.sum(), free.sum())), directed=False)


def learned_distances(run: Run, state: RunState, positions: np.ndarray) -> np.ndarray:
    """Minus the critic's score between all positions [P, 2], [P, P]; elsewhere states are as a reset leaves them."""
    score = run.train.score
    assert score is not None  # as `measure` requires
    reset = jax.jit(run.env.reset)(jax.random.PRNGKey(0)).obs[: run.env.state_dim]
    states = jnp.tile(reset, (len(positions), 1)).at[:, jnp.array(run.env.goal_indices)].set(positions)

    def row(here):  # one start at a time, for all pairs may not fit into memory
        return score(state, jnp.broadcast_to(here, states.shape), states)

    return -np.asarray(jax.jit(lambda: jax.lax.map(row, states))())


def draw(free: np.ndarray, learned: np.ndarray, paths: np.ndarray, start: int, title: str, path: Path) -> None:
    """Distances from one start, how much farther the way there is than back, and all distances over shortest paths."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, 3)
    there, back = learned[start], learned[:, start]
    for axes, values, name, colours in (
        (panels[0], there, "d(start, g)", "viridis"),
        (panels[1], there - back, "d(start, g) - d(g, start)", "coolwarm"),
    ):
        grid = np.full(free.shape, np.nan)
        grid[free] = values
        most = np.nanmax(np.abs(values)) if colours == "coolwarm" else None
        picture = axes.imshow(grid, cmap=colours, vmin=None if most is None else -most, vmax=most)
        axes.plot(*np.argwhere(free)[start][::-1], "w*", markersize=12, markeredgecolor="black")
        axes.set(title=name, xticks=[], yticks=[], facecolor="0.35")
        figure.colorbar(picture, ax=axes, shrink=0.8)
    panels[2].hexbin(paths.ravel(), learned.ravel(), gridsize=40, mincnt=1, bins="log", cmap="magma_r")
    panels[2].set(xlabel="shortest path (m)", ylabel="learned distance", title="all pairs of places")
    figure.savefig(path, format="png", dpi=120)


def measure(config: DistancesConfig) -> dict[str, Any]:
    """Loads the run, writes the picture and the numbers, and returns them; FlagError where there is nothing to see."""
    if config.run is None:
        raise FlagError("--run must name a run directory.")
    folder = Path(config.run)
    run, state = load(folder, config.step)
    flags = run.config
    if not isinstance(run.env, InMaze) or run.env.goal_dim != 2:
        raise FlagError(f"--run is a run in {flags.env_name}, which is no maze with goals in the plane.")
    if run.train.score is None:
        raise FlagError(f"--run is a run of {flags.agent}, which learns no distance.")

    free, where = places(run.env.maze, config.resolution)
    positions = where[free]
    paths = shortest_paths(free, run.env.maze.cell_size / config.resolution)
    learned = learned_distances(run, state, positions)
    start = int(np.argmin(np.linalg.norm(positions - run.env.maze.starts[0], axis=1)))
    others = ~np.eye(len(paths), dtype=bool)
    numbers = {
        "env_name": flags.env_name,
        "agent": flags.agent,
        "env_steps": int(state.env_steps),
        "gradient_steps": int(state.gradient_steps),
        "places": len(positions),
        "spearman": float(spearmanr(learned[others], paths[others])[0]),
        "spearman_from_start": float(spearmanr(learned[start], paths[start])[0]),
        "mean_asymmetry": float(np.mean(np.abs(learned - learned.T)[others])),
        "mean_distance": float(np.mean(learned[others])),
    }
    trained = behind.in_words(flags, state)
    title = f"{flags.agent} on {flags.env_name}, {trained}: Spearman {numbers['spearman']:.2f}"
    try:
        with aside(folder / "distances.png") as picture, aside(folder / "distances.json") as words:
            draw(free, learned, paths, start, title, picture)
            words.write_text(json.dumps(numbers, indent=1) + "\n")
    except OSError as error:
        raise FlagError(f"{error.filename or folder} cannot be written: {error.strerror}.") from None
    return numbers


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "distances.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Compares the distances that a run has learned in its maze with the shortest paths."
        (config,) = parse(argv, DistancesConfig(), others={}, prog=prog, description=description)
        numbers = measure(config)
    except (FlagError, NoCheckpointError) as error:
        print(f"{prog}: {str(error).rstrip('.')}.", file=sys.stderr)
        return 2
    for name, value in numbers.items():
        print(f"{name}: {value:.3f}" if isinstance(value, float) else f"{name}: {value}")
    return 0
