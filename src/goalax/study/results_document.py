"""What documents show of the sections of results: tables, learning curves and commands; and the best rows."""

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from goalax.envs import ENVS
from goalax.envs.control import TASKS
from goalax.flags import FlagError
from goalax.host.display import duration
from goalax.host.resolve import resolve
from goalax.study import curves, experiments, markdown, measures
from goalax.study.experiments import REWARD, Group, Trained
from goalax.study.results import Row, finished, kept, so_far
from goalax.study.statistics import Estimate, interquartile_mean
from goalax.whole import aside

COLUMNS = (
    *("flags", "seeds", "steps", "updates per step", "episodes that reach the goal", "share of time at the goal"),
    *("steps to", "wall clock", "device"),
)
RETURNS = ("return, mean of the last three", "return at the last evaluation")  # where there are no goals
SUCCESSES = ("success over the tasks, mean of the last three", "success at the last evaluation")  # of OGBench
POOR, SOLVED = 0.1, 0.95  # shares of episodes at their goals: what is less than learned, and what is solved
CURVES = "curves"  # folder of the pictures, beside the document


def cell(estimate: Estimate, digits: int = 2) -> str:
    """A number and its interval; a single seed says nothing of that."""
    value, low, high = (f"{number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high))
    return value if np.isnan(estimate.low) else f"{value} ({low} to {high})"


def columns_of(env: str, groups: Sequence[Group], threshold: float) -> list[str]:
    """The head of the table of such groups, of one environment.

    Args:
      threshold: what `measures.shares` are compared with.
    """
    scores, what = COLUMNS[4:6], "of the time"
    if env in TASKS or any(not group.has_goals for group in groups):
        scores, what = RETURNS, "of the highest return"
    elif any(map(measures.has_tasks, groups)):
        scores, what = SUCCESSES, "of the episodes"
    columns = [*COLUMNS[:4], *scores, *COLUMNS[6:]]
    return [f"{column} {threshold:g} {what}" if column == "steps to" else column for column in columns]


def unit_of(group: Group) -> str:
    """What its steps are, where they are no environment steps."""
    return " updates" if measures.is_offline(group) else ""


def steps_to(group: Group, threshold: float) -> str:
    """Steps to the first evaluation with that share, the median over seeds."""
    middle, _ = measures.speed(group, threshold)
    return "not reached" if np.isinf(middle) else f"{int(middle):,}{unit_of(group)}"


def scores(group: Group) -> list[str]:
    """Two numbers of a group: success at goals over the last three evaluations, for one alone is noise; of returns and
    of OGBench's tasks, which compare with published ones, that mean and the last one."""
    tasks = measures.has_tasks(group)
    if tasks or not group.has_goals:
        values = group.metric(measures.TASKS if tasks else REWARD)
        digits = 2 if tasks else 0
        return [cell(interquartile_mean([each]), digits) for each in (values[:, -3:].mean(axis=1), values[:, -1])]
    return [cell(interquartile_mean([each[:, -3:].mean(axis=1)])) for each in (group.reached, group.near)]


def group_of(trained: Sequence[Trained]) -> Group:
    (group,), _ = experiments.group(trained)
    return group


def cells(row: Row, trained: Sequence[Trained], note: str) -> list[str]:
    """A line of the table; note: what to say where nothing is kept."""
    first = f"`{row.words}`"
    if not trained:
        return [first, str(len(row.seeds)), note, *[""] * (len(COLUMNS) - 3)]
    group = group_of(trained)
    content = json.loads((trained[0].directory / "config.json").read_text())
    last = trained[0].rows[-1]
    unit = unit_of(group)
    before = sum(group.settings.get(name, 0) for name in ("offline_steps", "finetune_steps"))
    ratio = 0 if unit else (last["training/gradient_steps"] - before) / last["training/envsteps"]
    steps = (
        f"{before:,} updates, {int(last['training/envsteps']):,}"
        if before and not unit
        else f"{group.steps[-1]:,}{unit}"
    )
    return [
        first,
        str(len(row.seeds)) if len(trained) == len(row.seeds) else f"{len(trained)} of {len(row.seeds)}",
        steps,
        f"1:{1 / ratio:.1f}" if ratio else "" if unit else "0",
        *scores(group),
        steps_to(group, row.threshold),
        duration(group.metric("training/walltime")[:, -1].max()),
        str(content.get("device", "")),
    ]


def apart(rows: Sequence[Row]) -> tuple[list[str], str]:
    """What tells each of some rows from the others, their agents in any case, and the flags that all of them have."""
    shared = set.intersection(*(set(row.parts) for row in rows))
    common = {part for part in shared if not part.startswith("--agent ")}
    telling = [" ".join(part for part in row.parts if part not in common) or row.words for row in rows]
    return telling, " ".join(part for part in rows[0].parts if part in common)


def labels(rows: Sequence[Row]) -> list[str]:
    """What a picture calls rows."""
    return [words.removeprefix("--agent ") for words in apart(rows)[0]]


def draw(rows: Sequence[Row], folder: Path, path: Path) -> bool:
    """Draws the learning curves of the rows of a section that are finished; returns whether there are any, and
    leaves no older picture where there are none. FlagError where the picture cannot be written."""
    pairs = zip(rows, labels(rows), strict=True)
    found = [(label, trained) for row, label in pairs if finished(trained := kept(row, folder))]
    with _told(path):
        if not found:
            path.unlink(missing_ok=True)
            return False
        path.parent.mkdir(exist_ok=True)
        groups = [group_of(trained)._replace(label=label) for label, trained in found]
        drawing = curves.compare(groups, "steps")
        with aside(path) as part:
            drawing.figure.savefig(part, format="png", dpi=90)
        return True


def section_text(rows: Sequence[Row], folder: Path, notes: dict[str, str], picture: str | None) -> str:
    """The tables of a section, one per environment, its learning curves and the commands of its rows.

    Args:
      notes: name of a row -> what to say of it where it has not finished.
      picture: the file with the curves, from the folder of the document.
    """
    parts = []
    for env in dict.fromkeys(row.flags.env_name for row in rows):
        members = [row for row in rows if row.flags.env_name == env]
        found = [so_far(row, folder) for row in members]
        groups = [group_of(trained) for trained in found if trained]
        telling, common = apart(members)
        lines = []
        for row, trained, words in zip(members, found, telling, strict=True):
            lines.append([f"`{words}`", *cells(row, trained, notes.get(row.name, "not run"))[1:]])
        head = f"#### `{env}`\n" + (f"\nAll with `{common}`.\n" if common else "")
        parts += [head, markdown.table(columns_of(env, groups, members[0].threshold), lines)]
    made = [shlex.join(["python", "scripts/dataset.py", *argv]) for argv in rows[0].data]
    commands = "\n".join([*made, *(row.command for row in rows)])
    shown = [f"![learning curves]({picture})\n"] if picture else []
    return "\n".join([*parts, *shown, f"```\n{commands}\n```\n"])


BEST = "best"  # the part of a document that `best_text` fills
LEARNED = "learned"  # that of `learned_text`


class Best(NamedTuple):
    """The best finished row of an environment."""

    row: Row
    group: Group
    line: list[str]  # of the table of its section

    @property
    def reached(self) -> float:
        """Share of episodes that reach the goal, mean over seeds and the last three evaluations."""
        return float(self.group.reached[:, -3:].mean())

    @property
    def score(self) -> tuple[bool, float]:
        """Whether its environment is solved, and then the time at the goal, or OGBench's success, as `reached`."""
        return self.reached >= SOLVED, float(measures.shares(self.group)[:, -3:].mean())

    @property
    def env(self) -> str:
        poor = self.reached < POOR
        note = ": not learned in these steps" if poor else ": not solved" if self.reached < SOLVED else ""
        return f"`{self.group.env}`{note}"


def best_rows(rows: Sequence[Row], folder: Path) -> list[Best]:
    """Of every environment with goals, by their scores; datasets apart, and episodes of another length."""
    found: dict[str, Best] = {}
    for row in rows:
        if row.flags.dataset is not None or row.flags.episode_length is not None:
            continue  # what it learns is of the data as much as of the environment, or it is another task
        if finished(trained := kept(row, folder)) and (group := group_of(trained)).has_goals:
            line = cells(row, trained, "")
            line[5] = "" if measures.has_tasks(group) else line[5]  # these episodes end at the goal
            best = Best(row, group, line)
            if group.env not in found or best.score > found[group.env].score:
                found[group.env] = best
    return list(found.values())


def best_text(rows: Sequence[Row], folder: Path) -> str:
    """A table of the best finished rows."""
    columns = ("environment", "agent", *COLUMNS[1:6], *COLUMNS[-2:], "command")
    lines = []
    for best in best_rows(rows, folder):
        _, *numbers, _, wall_clock, device = best.line
        lines.append([best.env, f"`{best.row.flags.agent}`", *numbers, wall_clock, device, f"`{best.row.command}`"])
    return markdown.table(columns, lines)


def learned_text(rows: Sequence[Row], folder: Path) -> str:
    """Which flags and budget learned an environment, beside its preset budget; and which have no finished row."""
    found = best_rows(rows, folder)
    columns = ("environment", "flags", "steps", "preset budget", *COLUMNS[3:6])
    lines = [[best.env, best.line[0], best.line[2], preset_of(best.row), *best.line[3:6]] for best in found]
    trained = {best.row.flags.env_name for best in found}
    others = [f"`{name}`" for name in ENVS if name not in trained and not name.endswith("_eval") and name not in TASKS]
    return f"{markdown.table(columns, lines)}\nNo row has finished in: {', '.join(others)}.\n"


def preset_of(row: Row) -> str:
    """The budget that its environment has where nobody says another one; empty where it has none."""
    steps = resolve(dataclasses.replace(row.flags, num_timesteps=None)).config.num_timesteps
    return f"{steps:,}" if steps else ""


def write_best(path: Path, rows: Sequence[Row], folder: Path, script: str) -> None:
    """Replaces the tables of the best rows in a document, long or short; FlagError if it has no place for one."""
    text = _read(path)
    long = markdown.marks(LEARNED, script)[0] in text
    name, made = (LEARNED, learned_text(rows, folder)) if long else (BEST, best_text(rows, folder))
    _write(path, markdown.replace(text, name, script, made))


def write_documents(
    paths: Sequence[Path], rows: Sequence[Row], folder: Path, notes: dict[str, str], script: str
) -> None:
    """Replaces the part of every section, in the document that has its marks; FlagError if none has."""
    texts = {path: _read(path) for path in paths}
    for section in dict.fromkeys(row.section for row in rows):
        start, _ = markdown.marks(section, script)
        path = next((path for path in paths if start in texts[path]), None)
        if path is None:
            raise FlagError(f"No place for {section} in {', '.join(map(str, paths))}: {start.strip()}")
        members = [row for row in rows if row.section == section]
        name = f"{CURVES}/{section}.png"
        picture = name if draw(members, folder, path.parent / name) else None
        made = section_text(members, folder, notes, picture)
        texts[path] = markdown.replace(texts[path], section, script, made)
    for path, text in texts.items():
        _write(path, text)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise FlagError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None


def _write(path: Path, text: str) -> None:
    """Replaces a document as a whole."""
    with _told(path), aside(path) as part:
        part.write_text(text)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system says while a file is written becomes a FlagError that names it: the rows go on without it."""
    try:
        yield
    except OSError as error:
        raise FlagError(f"{error.filename or path} cannot be written: {error.strerror}.") from None
