"""Draws imgs/envs/NAME.png of every environment and imgs/grid.png of all, and writes their tables into README.md."""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from goalax.envs import ENVS, GoalEnv, create_env
from goalax.films import render, scene
from goalax.study import markdown

ROOT = Path(__file__).resolve().parents[3]  # the checkout whose pictures and documents are made
DOCUMENTS = {"environments": "docs/environments.md", "speeds": "docs/performance.md"}  # which table is where
DRAWS = 16
TILE, GAP, TEXT = (240, 180), 8, 30  # pixels of the grid: a picture, between two, for the name below
COLUMNS = ("", "name", "task", "state, goal, action", "at the goal within", "episode, budget", "backends", "steps/s")
COMPARISON = ("name", "backend", "environments", "steps/s", "Brax's own", "ratio")


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
    """imgs/envs/NAME.png of every environment, and imgs/grid.png of those that are not for evaluation only."""
    tiles = []
    for name, env in envs.items():
        (picture,) = render.pictures(env, still(env))
        save_png(picture, ROOT / "imgs" / "envs" / f"{name}.png")
        if not name.endswith("_eval"):
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
    picture.quantize(palette=render.palette_of([picture]), dither=Image.Dither.NONE).save(path, optimize=True)


def measured() -> list[tuple[str, list[dict[str, Any]]]]:
    """(device, results) of every `--all_envs` in benchmarks/: DEVICE/envs.json and DEVICE/envs/ENV.json."""
    paths = sorted((ROOT / "benchmarks").glob("*/envs.json")) + sorted((ROOT / "benchmarks").glob("*/envs/*.json"))
    files = [json.loads(path.read_text()) for path in paths]
    return [(re.sub(r"^\d+ x | \((gpu|cpu)\)$", "", file["machine"]["device"]), file["results"]) for file in files]


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


def row(name: str, env: GoalEnv, steps_per_second: str) -> list[str]:
    """The cells of one environment, one per column."""
    others = [("easy", env.goal_easy_thresh), ("hard", env.goal_hard_thresh)]
    also = "".join(f", {word} {limit:g} m" for word, limit in others if limit is not None)
    return [
        f'<img src="../imgs/envs/{name}.png" width="120" alt="{name}">',
        f"`{name}`",
        env.help,
        f"{env.state_dim}, {env.goal_dim}, {env.action_size}",
        f"{env.goal_reach_thresh:g} m{also}",
        f"{env.episode_length:,}, {env.num_timesteps:,}",
        ", ".join(env.backends),
        steps_per_second,
    ]


def table(envs: Mapping[str, GoalEnv]) -> str:
    """The table of environments in Markdown; backends have the default first, and its speed."""
    known = speeds()
    return markdown.table(
        COLUMNS, [row(name, env, known.get((name, env.backends[0]), "")) for name, env in envs.items()]
    )


def main(argv: Sequence[str], prog: str = "gallery.py") -> int:
    """Runs a command line, which has no arguments; returns the exit code."""
    envs = {name: create_env(name) for name in ENVS}
    for name, content in {"environments": table(envs), "speeds": comparison()}.items():
        path = ROOT / DOCUMENTS[name]
        path.write_text(markdown.replace(path.read_text(), name, "gallery.py", content))
    try:
        save_pictures(envs)
    except scene.RenderError as error:
        print(f"{prog}: {error}.", file=sys.stderr)
        return 2
    return 0
