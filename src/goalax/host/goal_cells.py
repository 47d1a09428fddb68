"""goals.csv of a run in a maze: how often the last evaluation reached the goals of each cell."""

import contextlib
import csv
import io
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from goalax.core.goals import Cells, in_cells
from goalax.core.rollout import Outcomes
from goalax.flags import FlagError
from goalax.host import runs
from goalax.whole import aside

NAME = "goals.csv"
COLUMNS = ("row", "column", "x", "y", "episodes", "reached", "time_at_goal", "envsteps")
LARGEST = 1000  # rows and columns of a picture, counts are less than 2^53


class GoalCells(NamedTuple):
    """The C free cells of a maze, and the episodes whose goal was in each."""

    place: np.ndarray  # [C, 2] int, row and column in the picture of the maze
    centre: np.ndarray  # [C, 2] metres
    episodes: np.ndarray  # [C]
    reached: np.ndarray  # [C] share of these with at least one step at the goal; nan where there are none
    time_at_goal: np.ndarray  # [C] share of the time limit, mean over these; nan where there are none
    envsteps: int  # of training, before the evaluation, as in metrics.csv; older versions counted updates on a dataset

    @classmethod
    def of(cls, cells: Cells, outcomes: Outcomes, envsteps: int) -> Self:
        """Counts the episodes of one seed, leaves [E, ...]."""
        inside = np.asarray(in_cells(cells, outcomes.goal)).astype(float)  # [E, C]
        episodes = inside.sum(axis=0)
        shares = [ratio(np.asarray(each) @ inside, episodes) for each in (outcomes.reached, outcomes.time_at_goal)]
        return cls(cells.places, np.asarray(cells.centres, float), episodes, shares[0], shares[1], envsteps)


def ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, nan where nothing was counted."""
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


def merged(tables: list[GoalCells]) -> GoalCells | None:
    """All episodes of several seeds together; None where there are no tables, or their mazes differ."""
    if not tables or any(not np.array_equal(table.place, tables[0].place) for table in tables):
        return None
    episodes = np.sum([table.episodes for table in tables], axis=0)

    def together(name: str) -> np.ndarray:
        totals = [np.where(table.episodes > 0, getattr(table, name) * table.episodes, 0.0) for table in tables]
        return ratio(np.sum(totals, axis=0), episodes)

    steps = max(table.envsteps for table in tables)
    return tables[0]._replace(
        episodes=episodes, reached=together("reached"), time_at_goal=together("time_at_goal"), envsteps=steps
    )


def save(directory: Path, table: GoalCells) -> None:
    """Writes goals.csv, all of it or nothing; OSError names the file."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place, centre, episodes, *shares in zip(*table[:5], strict=True):
        words = ["" if np.isnan(share) else float(share) for share in shares]
        writer.writerow([*map(int, place), *map(float, centre), int(episodes), *words, table.envsteps])
    with aside(directory / NAME) as part:
        part.write_text(buffer.getvalue())


def read(directory: Path) -> GoalCells | None:
    """goals.csv of a run; None where it has none. FlagError where it is not what a run writes."""
    path = directory / NAME
    if not path.exists():
        return None
    try:
        with path.open(newline="") as file:
            names, *lines = csv.reader(file)
        if tuple(names) != COLUMNS:
            raise ValueError
        numbers = np.array([[float(value or "nan") for value in line] for line in lines])
        place, centre, (episodes, reached, near, steps) = numbers[:, :2].astype(int), numbers[:, 2:4], numbers[:, 4:].T
        shares = np.concatenate([reached[episodes > 0], near[episodes > 0]])
        whole = np.isfinite(numbers[:, [0, 1, 2, 3, 4, 7]]).all() and (place >= 0).all() and (place < LARGEST).all()
        if not whole or (episodes < 0).any() or not ((shares >= 0) & (shares <= 1)).all():
            raise ValueError
        return GoalCells(place, centre, episodes, reached, near, int(steps.max()))
    except (OSError, ValueError, IndexError, csv.Error):
        raise FlagError(f"{path} is not what a run writes.") from None


def is_old(directory: Path) -> bool:
    """Whether goals.csv of a run in a maze is not of the newest row of its metrics.csv."""
    with contextlib.suppress(FlagError):
        table, rows = read(directory), runs.read_metrics(directory / "metrics.csv")
        return not rows or table is None or table.envsteps != int(rows[-1][runs.STEPS])
    return True
