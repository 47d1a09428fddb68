"""Heat maps of mazes: how often the goals of each cell are reached, and how much of the time is spent at them."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from goalax.flags import FlagError
from goalax.host import goal_cells
from goalax.host.goal_cells import GoalCells
from goalax.study.curves import NEAR, REACHED, plain
from goalax.study.experiments import Group
from goalax.whole import aside

WALL, FREE, COLOURS = "#8d99a6", "#e3e8ed", "viridis"
MEASURES = {REACHED: "reached", NEAR: "time_at_goal"}
INCHES = 0.62  # of a cell, and at most so many of a maze
WIDEST = 4.4


def figure(table: GoalCells, title: str) -> Figure:
    """A panel per measure, as the picture of the maze lies: rows down, columns to the right.

    A goal's cell has the colour of its share, the share in percent, and the number of episodes below it.
    """
    rows, columns = table.place.max(axis=0) + 2  # and the walls around
    scale = min(INCHES, WIDEST / columns)
    drawing = Figure(figsize=(2 * max(columns * scale, 2.4) + 1.2, rows * scale + 0.9), layout="constrained")
    panels = drawing.subplots(1, 2)
    for axes, (words, name) in zip(panels, MEASURES.items(), strict=True):
        panel(axes, table, getattr(table, name), (rows, columns), 14 * scale)
        axes.set_title(words, fontsize=10)
    drawing.colorbar(panels[-1].images[-1], ax=panels, fraction=0.05, aspect=12)
    drawing.suptitle(plain(title), fontsize=11)
    return drawing


def panel(axes: Axes, table: GoalCells, shares: np.ndarray, size: tuple[int, int], font: float) -> None:
    free, seen = np.zeros(size), np.full(size, np.nan)
    free[tuple(table.place.T)] = 1
    seen[tuple(table.place.T)] = shares
    axes.imshow(free, cmap=matplotlib.colors.ListedColormap([WALL, FREE]), vmin=0, vmax=1)
    image = axes.imshow(np.ma.masked_invalid(seen), cmap=COLOURS, vmin=0, vmax=1)
    for (row, column), episodes, share in zip(table.place, table.episodes, shares, strict=True):
        if episodes:
            colour = "black" if sum(image.cmap(share)[:3]) > 1.5 else "white"
            words = f"{share:.0%}\n{int(episodes)}"
            axes.text(column, row, words, ha="center", va="center", fontsize=font, color=colour, linespacing=1.1)
    axes.set_xticks([])
    axes.set_yticks([])


def draw(directory: Path, title: str) -> None:
    """Writes goals.png of a run from its goals.csv, if it has one that can be read."""
    try:
        table = goal_cells.read(directory)
    except FlagError:  # somebody has changed it: reports say so
        return
    if table is not None and table.episodes.any():
        with aside(directory / "goals.png") as part:
            figure(table, title).savefig(part, format="png", dpi=120)


def of_group(group: Group) -> tuple[GoalCells | None, list[str]]:
    """The last evaluations of all seeds together, None where there are none; and a sentence on each that is left out.

    Groups whose runs disagree about the maze have none, and a sentence about that.
    """
    tables, notes = [], []
    for run in group.runs:
        try:
            tables.append(goal_cells.read(run.directory))
        except FlagError as error:
            notes.append(f"{error} It is left out.")
    known = [table for table in tables if table is not None]
    found = goal_cells.merged(known)
    if known and found is None:
        notes.append(f"{group.label} in {group.env} has no heat map: its seeds tell of different mazes.")
    return (found if found is not None and found.episodes.any() else None), notes


def of_groups(groups: Sequence[Group]) -> tuple[list[tuple[Group, GoalCells]], list[str]]:
    """`of_group` of all that have heat maps."""
    found, notes = [], []
    for group in groups:
        table, more = of_group(group)
        notes += more
        if table is not None:
            found.append((group, table))
    return found, notes
