"""Draws imgs/envs/NAME.png of environments and mazes and imgs/grid.png of all, and writes their tables into docs/."""

import json
import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from goalax.envs import ENVS, GoalEnv, create_env
from goalax.envs.control import TASKS
from goalax.envs.maze import MAZES, InMaze, Maze
from goalax.envs.stitching import MARK, Stitching
from goalax.films import render, scene
from goalax.flags import FlagError
from goalax.study import markdown
from goalax.whole import aside

ROOT = Path(__file__).resolve().parents[3]  # the checkout whose pictures and documents are made
DOCUMENTS = {  # which table is where
    "environments": "docs/environments.md",
    "mazes": "docs/environments.md",
    "speeds": "docs/performance.md",
}
DRAWS = 16
TILE, GAP, TEXT = (240, 180), 8, 30  # pixels of the grid: a picture, between two, for the name below
COLUMNS = ("", "name", "task", "state, goal, action", "at the goal within", "episode, budget", "backends", "steps/s")
MAZE_COLUMNS = ("", "maze", "cells", "goals", "environments", "steps/s")
COMPARISON = ("name", "backend", "environments", "steps/s", "Brax's own", "ratio")


def families(names: Iterable[str]) -> dict[str, list[str]]:
    """Environments that share a row, by the first of them: those of one class in different mazes, or one alone."""
    in_mazes = {f"{body}_{layout}" for body, layouts in MAZES.items() for layout in layouts}
    first: dict[Any, str] = {}
    rows: dict[str, list[str]] = {}
    for name in names:
        shared = getattr(ENVS[name], "func", name) if name in in_mazes else name  # the class that `add_maze` registers
        rows.setdefault(first.setdefault(shared, name), []).append(name)
    return rows


def mazes(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Layout -> body -> the environment, of those environments that are in mazes."""
    names, rows = set(names), dict[str, dict[str, str]]()
    for body, layouts in MAZES.items():
        for layout in layouts:
            if f"{body}_{layout}" in names:
                rows.setdefault(layout, {})[body] = f"{body}_{layout}"
    return rows


def pictured(names: Iterable[str]) -> list[str]:
    """The environments that have a picture: the first of each family, and one for every maze."""
    names = list(names)
    shown = {*families(names), *(next(iter(envs.values())) for envs in mazes(names).values())}
    return [name for name in names if name in shown]


def still(env: GoalEnv) -> scene.Film:
    """One frame: of a few fresh starts, the one whose goal lies furthest away from the body."""

    def draw(key):
        goal_key, start_key = jax.random.split(key)
        goal = env.sample_goal(goal_key)
        return env.sample_start(start_key, goal)[0], goal

    starts, goals = jax.vmap(draw)(jax.random.split(jax.random.PRNGKey(0), DRAWS))
    q, points = np.asarray(starts), np.asarray(env.goal_points(goals))
    order, zeros = np.arange(DRAWS), np.zeros(DRAWS, int)
    film = scene.Film(q, points, zeros > 0, order, zeros + 1, 1.0, "")
    views = scene.views(env, scene.model_of(env), film)
    best = np.argmax([np.linalg.norm(view.data.mocap_pos[0] - view.data.xpos[1]) for view in views])
    return film.taken(slice(best, best + 1))


def save_pictures(envs: Mapping[str, GoalEnv]) -> None:
    """imgs/envs/NAME.png of environments, and imgs/grid.png of those that are neither evaluations nor splits."""
    tiles = []
    for name, env in envs.items():
        (picture,) = render.pictures(env, still(env))
        save_png(picture, ROOT / "imgs" / "envs" / f"{name}.png")
        if not name.endswith("_eval") and MARK not in name:
            tiles.append((name, picture.resize(TILE, Image.Resampling.LANCZOS)))
    columns = math.ceil(math.sqrt(len(tiles)))
    width, height = TILE[0] + GAP, TILE[1] + TEXT
    grid = Image.new("RGB", (columns * width - GAP, -(-len(tiles) // columns) * height), "white")
    draw = ImageDraw.Draw(grid)
    for index, (name, tile) in enumerate(tiles):
        x, y = index % columns * width, index // columns * height
        grid.paste(tile, (x, y))
        draw.text((x + TILE[0] / 2, y + TILE[1] + 4), name, (40, 48, 56), ImageFont.load_default(15), anchor="ma")
    save_png(grid, ROOT / "imgs" / "grid.png")


def save_png(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    reduced = picture.quantize(palette=render.palette_of([picture]), dither=Image.Dither.NONE)
    with aside(path) as part:
        reduced.save(part, "PNG", optimize=True)


def measured() -> list[tuple[str, list[dict[str, Any]]]]:
    """(device, results) of every `--all_envs` in benchmarks/: DEVICE/envs.json and DEVICE/envs/ENV.json."""
    paths = sorted((ROOT / "benchmarks").glob("*/envs.json")) + sorted((ROOT / "benchmarks").glob("*/envs/*.json"))
    found = []
    for path in paths:
        try:
            file = json.loads(path.read_text())
            device = re.sub(r"^\d+ x | \((gpu|cpu)\)$", "", file["machine"]["device"])
            for result in file["results"]:
                _ = float(result["steps"]["median"]), result["env_name"], result["backend"]  # what the tables read
        except (ValueError, KeyError, TypeError):
            raise FlagError(f"{path} must be a file of `goalax benchmark --all_envs --out FILE`") from None
        found.append((device, file["results"]))
    return found


def speeds() -> dict[tuple[str, str], str]:
    """(environment, backend) -> environment steps per second for each number of environments, and device."""
    words: dict[tuple[str, str], list[str]] = {}
    for device, results in measured():
        rates: dict[tuple[str, str], list[str]] = {}
        for result in results:
            key = result["env_name"], result["backend"]
            rates.setdefault(key, []).append(f"{result['steps']['median']:,.0f}")
        for key, numbers in rates.items():
            words.setdefault(key, []).append(f"{' / '.join(numbers)} ({device})")
    return {key: ", ".join(devices) for key, devices in words.items()}


def comparison() -> str:
    """The table of environments that Brax has too in Markdown: speed against Brax's own, from benchmarks/."""
    rows = [
        [
            f"`{result['env_name']}`",
            result["backend"],
            f"{result['num_envs']} ({device})",
            *(f"{result[part]['median']:,.0f}" for part in ("steps", "brax")),
            "{median:.2f} ({min:.2f} to {max:.2f})".format(**result["ratio"]),
        ]
        for device, results in measured()
        for result in results
        if "brax" in result
    ]
    return markdown.table(COMPARISON, rows)


def picture(name: str) -> str:
    return f'<img src="../imgs/envs/{name}.png" width="120" alt="{name}">'


def row(name: str, more: int, env: GoalEnv, steps_per_second: str) -> list[str]:
    """The cells of one environment, one per column, of which `more` have other mazes."""
    others = [("easy", env.goal_easy_thresh), ("hard", env.goal_hard_thresh)]
    also = "".join(f", {word} {limit:g} m" for word, limit in others if limit is not None)
    return [
        picture(name),
        f"`{name}`" + (f" and {more} more, in other [mazes](#mazes)" if more else ""),
        env.help,
        f"{env.state_dim}, {env.goal_dim}, {env.action_size}",
        f"{env.goal_reach_thresh:g} m{also}",
        f"{env.episode_length:,}, {env.num_timesteps:,}",
        ", ".join(env.backends),
        steps_per_second,
    ]


def table(envs: Mapping[str, GoalEnv], names: Iterable[str]) -> str:
    """The table of environments, a row for every family of `names`; backends have the default first, and its speed."""
    known, rows = speeds(), families(names)
    return markdown.table(
        COLUMNS,
        [
            row(name, len(rows[name]) - 1, envs[name], known.get((name, envs[name].backends[0]), ""))
            for name in rows
            if name in envs
        ],
    )


def cells_away(maze: Maze) -> list[int]:
    """How many steps from cell to cell each goal is away from the nearest start, fewest first."""
    centres = (maze.walls, maze.goals, maze.starts)
    walls, goals, here = ({(i, j) for i, j in np.rint(points / maze.cell_size).astype(int)} for points in centres)
    away: list[int] = []
    seen, steps = set(here), 0
    while here and len(away) < len(goals):
        away += [steps] * len(here & goals)
        here = {(i + a, j + b) for i, j in here for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0))} - walls - seen
        seen, steps = seen | here, steps + 1
    return away


def goals_of(env: InMaze) -> str:
    """How many goals a maze has and how far away they are, in words; of a split, how many pairs of start and goal."""
    if isinstance(env, Stitching):
        starts, goals = np.nonzero(env.pairs)
        nearest, farthest, many, where = min(goals - starts), max(goals - starts), f"{len(goals)} pairs", "ahead"
    else:
        away = cells_away(env.maze)
        nearest, farthest, many, where = away[0], away[-1], str(len(away)), "away"
    reach = f"{nearest} to {farthest}" if farthest > nearest else str(nearest)
    return f"{many}, {reach} {'cell' if farthest == 1 else 'cells'} {where}"


def maze_table(envs: Mapping[str, GoalEnv], names: Iterable[str]) -> str:
    """The table of mazes in Markdown, a row for each that one of `names` is in; speeds as in the other table."""
    known, rows = speeds(), []
    for layout, bodies in mazes(names).items():
        name, *_ = bodies.values()
        env = envs[name]
        assert isinstance(env, InMaze)  # as every entry of MAZES
        rates = [
            f"{body} {known[other, env.backends[0]]}"
            for body, other in bodies.items()
            if (other, env.backends[0]) in known
        ]
        rows_and_columns = np.rint(np.ptp(env.maze.walls, axis=0) / env.cell_size).astype(int) + 1
        listed = ", ".join(f"`{other}`" for other in bodies.values())
        rows.append(
            [
                picture(name),
                f"`{layout}`",
                " x ".join(map(str, rows_and_columns)),
                goals_of(env),
                listed,
                "; ".join(rates),
            ]
        )
    return markdown.table(MAZE_COLUMNS, rows)


def replaced(path: Path, name: str, content: str) -> str:
    """The text of a document with another table of this name; FlagError that names it, if it has no place for it."""
    try:
        return markdown.replace(path.read_text(), name, "gallery.py", content)
    except FlagError as error:
        raise FlagError(f"{path}: {error}") from None


def main(argv: Sequence[str], prog: str = "gallery.py") -> int:
    """Runs a command line, which has no arguments; returns the exit code."""
    if argv:
        print(f"{prog}: it takes no arguments; it writes pictures, and tables into documents.", file=sys.stderr)
        return 2
    try:
        measured()  # what is wrong with a file is told before minutes of drawing
        for name, document in DOCUMENTS.items():
            replaced(ROOT / document, name, "")
        names = [name for name in ENVS if name not in TASKS]
        envs = {name: create_env(name) for name in pictured(names)}
        save_pictures(envs)
        parts = {"environments": table(envs, names), "mazes": maze_table(envs, names), "speeds": comparison()}
        for name, content in parts.items():
            path = ROOT / DOCUMENTS[name]
            text = replaced(path, name, content)
            with aside(path) as part:
                part.write_text(text)
    except (FlagError, scene.RenderError) as error:
        print(f"{prog}: {str(error).rstrip('.')}.", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{prog}: {error.filename or 'a file'} cannot be read or written: {error.strerror}.", file=sys.stderr)
        return 2
    return 0
