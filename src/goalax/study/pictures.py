"""What is drawn of one run: the curves of its metrics.csv, and the goals of its maze."""

import warnings
from functools import partial
from pathlib import Path

from goalax.host import runs
from goalax.study import curves, experiments, heat_maps
from goalax.study.svg import svg

MAX_TITLE = 80  # characters


def draw(directory: Path) -> None:
    """Writes curves.png and, of a maze, goals.png into a run directory; nothing where it has no numbers for them."""
    if rows := _rows(directory):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a letter of the name that Matplotlib's font lacks
            curves.draw(rows, _title(directory), directory / "curves.png")
            heat_maps.draw(directory, _title(directory))


def curves_svg(directory: Path) -> str:
    """The curves for a page, which has the name of the run; empty where there are no numbers."""
    rows = _rows(directory)
    return svg(partial(curves.of_run, rows, ""), "Learning curves") if rows else ""


def _rows(directory: Path) -> list[dict[str, float]]:
    """Those that have all that curves show."""
    rows = runs.read_metrics(directory / "metrics.csv")
    no_goals = [row for row in rows if "eval/episode_reward" in row and "eval/episode_success" not in row]
    return [row for row in rows if row.keys() >= experiments.NEEDED] or no_goals


def _title(directory: Path) -> str:
    """The name of a run above its pictures: short enough."""
    name = directory.name
    return name if len(name) <= MAX_TITLE else f"{name[: MAX_TITLE - 1]}…"
