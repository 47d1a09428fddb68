"""The rows of the results: which there are, what has been kept of them, and the tables that show them.

A row is a command line of training. What it left (metrics.csv and config.json of every seed, a few kilobytes) is kept
in a folder of the repository, and counts only as long as its flags are those of the row: change a flag, or a default
that the row relies on, and it is a row that has not run.
"""

import functools
import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from goalax.flags import COMPARED, FlagError, names_in
from goalax.host import runs
from goalax.host.config import Flags, completed, read_flags
from goalax.host.display import duration
from goalax.host.resolve import resolve
from goalax.study import experiments, markdown
from goalax.study.experiments import Group, Trained
from goalax.study.statistics import Estimate, interquartile_mean

GROUP = "results"
COLUMNS = (
    *("flags", "seeds", "steps", "updates per step", "episodes that reach the goal", "share of time at the goal"),
    *("steps to", "wall clock", "device"),
)


class Row(NamedTuple):
    """A command line of training, one run per seed."""

    section: str  # where the document shows it
    threshold: float  # share of the time at the goal, whose first steps the table tells
    argv: tuple[str, ...]
    flags: Flags
    agent_flags: Any
    data: tuple[tuple[str, ...], ...] = ()  # command lines of `goalax dataset` for the files that it reads

    @property
    def name(self) -> str:
        """A name for its runs, that tells it from every other row."""
        text = shlex.join(self.argv)
        return f"{self.flags.env_name}_{self.flags.agent}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def seeds(self) -> list[int]:
        return list(range(self.flags.seed, self.flags.seed + self.flags.num_seeds))

    @property
    def command(self) -> str:
        return shlex.join(["python", "training.py", *self.argv])

    @property
    def words(self) -> str:
        """Its flags but for those that all rows of a document share, the agent first."""
        hidden = {"env_name", "num_seeds", "num_evals", "vis_length", "visualization_interval", "num_timesteps"}
        parts = [part for part in re.split(r" (?=--)", shlex.join(self.argv)) if part[2:].split()[0] not in hidden]
        return " ".join(sorted(parts, key=lambda part: not part.startswith("--agent")))


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in order; FlagError that names the file and what is wrong.

    The file is YAML, a list of sections: `section` (a mark of the document), optional `flags` (of all its rows) and
    `threshold`, `rows`, a list of command lines, and optional `data`, command lines of `goalax dataset` for what they
    read.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise FlagError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise FlagError(f"{path} is no YAML{f' in line {mark.line + 1}' if mark else ''}.") from None
    if not isinstance(content, list):
        raise FlagError(f"{path} must be a list of sections, each with `section` and `rows`.")
    rows = []
    for number, part in enumerate(content, start=1):
        if not isinstance(part, dict) or not isinstance(part.get("section"), str):
            raise FlagError(f"{path}: part {number} needs a `section`, the name of its place in the document.")
        where = f"{path}: section {part['section']}"
        if unknown := sorted(map(str, part.keys() - {"section", "flags", "threshold", "rows", "data"})):
            words = "only section, flags, threshold, data and rows are understood"
            raise FlagError(f"{where} has `{unknown[0]}`; {words}.")
        threshold, common = part.get("threshold", 0.5), part.get("flags", "")
        if type(threshold) not in (int, float) or not 0 < threshold <= 1:
            raise FlagError(f"{where}: `threshold` is {threshold!r}; it must be a share of the time, such as 0.5.")
        lines: Any = part.get("rows")
        data: Any = part.get("data", [])
        for key, value in {"rows": lines, "data": data}.items():
            if not isinstance(value, list) or not all(isinstance(line, str) for line in [common, *value]):
                raise FlagError(f"{where}: `{key}` must be a list of command lines, and `flags` one of them.")
        made = tuple(tuple(shlex.split(line)) for line in data)
        if wrong := next((line for line, argv in zip(data, made, strict=True) if "--out" not in argv[:-1]), None):
            raise FlagError(f"{where}: the data {wrong!r} says no file; it needs an --out.")
        for line in lines:
            try:
                argv = tuple(shlex.split(f"{line} {common}"))
                flags, agent_flags = read_flags(argv)
            except ValueError as error:  # FlagError is one; the other is an open quote
                raise FlagError(f"{where}: the row {line!r} is no command line: {error}") from None
            rows.append(Row(part["section"], float(threshold), argv, flags, agent_flags, made))
    names = [row.name for row in rows]
    if twice := next((row for row in rows if names.count(row.name) > 1), None):
        raise FlagError(f"{path}: the row {twice.words!r} of {twice.flags.env_name} is there twice.")
    return rows


@functools.cache  # filling presets in makes the environment, which takes a second
def settings_of(row: Row) -> dict[str, Any]:
    """The flags that say what a row trains, presets filled in."""
    config = resolve(row.flags).config
    return {name: getattr(config, name) for name in names_in(Flags, COMPARED)} | vars(row.agent_flags)


def fits(row: Row, content: dict[str, Any]) -> bool:
    """Whether a config.json is of the row as it is now; a flag that its version did not have must be at its default."""
    wanted = settings_of(row)
    flags, agent_flags = completed(content["flags"], content["agent_flags"])
    stored = flags | agent_flags
    return all(stored.get(name) == value for name, value in wanted.items())


def kept(row: Row, folder: Path) -> list[Trained]:
    """What a folder holds of the row: a run for every seed, or nothing."""
    found = []
    for seed in row.seeds:
        directory = folder / f"{row.name}_s{seed}"
        try:
            if not fits(row, runs.read_content(directory)):
                return []
            found.append(experiments.read_one(directory))
        except FlagError:
            return []
    return found


def finished(row: Row, trained: Sequence[Trained]) -> bool:
    """Whether runs of a row have reached its budget."""
    settings = settings_of(row)
    updates = settings["offline_steps"] + settings["finetune_steps"]

    def is_over(last: dict[str, float]) -> bool:
        steps, learned = last["training/envsteps"], last["training/gradient_steps"]
        return steps >= settings["num_timesteps"] and learned >= updates

    return bool(trained) and all(is_over(run.rows[-1]) for run in trained)


def newest_directories(row: Row) -> list[Path]:
    """The run directories of a row's seeds that a queue has made here, if they are of the row as it is now."""
    flags = Flags(env_name=row.flags.env_name, agent=row.flags.agent, exp_name=row.name, group_name=GROUP)
    directories = []
    for seed in row.seeds:
        try:
            directory = runs.find(flags, seed)
            if not fits(row, runs.read_content(directory)):
                return []
        except FlagError:
            return []
        directories.append(directory)
    return directories


def keep(row: Row, directories: Sequence[Path], folder: Path) -> None:
    """Copies the small files of finished runs; each is there as a whole or not at all."""
    for seed, directory in zip(row.seeds, directories, strict=True):
        target = folder / f"{row.name}_s{seed}"
        target.mkdir(parents=True, exist_ok=True)
        for name in ("metrics.csv", "config.json"):
            part = target / f"{name}.part"
            shutil.copyfile(directory / name, part)
            part.replace(target / name)


# ---- the document ----------------------------------------------------------------------------------------------------


def cell(estimate: Estimate) -> str:
    """A share and its interval; a single seed says nothing of that."""
    if np.isnan(estimate.low):
        return f"{estimate.value:.2f}"
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def unit_of(group: Group) -> str:
    """What its steps are: environment steps, or updates where nothing but them is done."""
    return "" if group.metric("training/envsteps")[:, -1].any() else " updates"


def steps_to(group: Group, threshold: float) -> str:
    """Steps to the first evaluation with that share of the time at the goal, of the median seed."""
    first = [group.steps[np.argmax(near >= threshold)] if (near >= threshold).any() else np.inf for near in group.near]
    middle = sorted(first)[len(first) // 2]
    return "not reached" if np.isinf(middle) else f"{int(middle):,}{unit_of(group)}"


def group_of(row: Row, trained: Sequence[Trained]) -> Group:
    (group,), _ = experiments.group(trained)
    return group._replace(label=row.words.removeprefix("--agent "))


def cells(row: Row, trained: Sequence[Trained], note: str) -> list[str]:
    """A line of the table; note: what to say where nothing is kept."""
    first = f"`{row.words}`"
    if not trained:
        return [first, str(len(row.seeds)), note, *[""] * (len(COLUMNS) - 3)]
    group = group_of(row, trained)
    content = json.loads((trained[0].directory / "config.json").read_text())
    measures = [cell(interquartile_mean([scores[:, -1]])) for scores in (group.reached, group.near)]
    last = trained[0].rows[-1]
    unit = unit_of(group)
    ratio = 0 if unit else last["training/gradient_steps"] / last["training/envsteps"]
    return [
        first,
        str(len(row.seeds)),
        f"{group.steps[-1]:,}{unit}",
        f"1:{1 / ratio:.1f}" if ratio else "" if unit else "0",
        *measures,
        steps_to(group, row.threshold),
        duration(group.metric("training/walltime")[:, -1].max()),
        str(content.get("device", "")),
    ]


def section_text(rows: Sequence[Row], folder: Path, notes: dict[str, str]) -> str:
    """The tables of a section, one per environment, and the commands of its rows.

    Args:
      notes: name of a row -> what to say of it where it has not finished.
    """
    parts = []
    for env in dict.fromkeys(row.flags.env_name for row in rows):
        members = [row for row in rows if row.flags.env_name == env]
        threshold = members[0].threshold
        columns = [f"{column} {threshold:g} of the time" if column == "steps to" else column for column in COLUMNS]
        lines = [cells(row, kept(row, folder), notes.get(row.name, "not run")) for row in members]
        parts += [f"#### `{env}`\n", markdown.table(columns, lines)]
    made = [shlex.join(["python", "scripts/dataset.py", *argv]) for argv in rows[0].data]
    commands = "\n".join([*made, *(row.command for row in rows)])
    return "\n".join([*parts, f"```\n{commands}\n```\n"])


BEST = "best"  # the part of a document that `best_text` fills


def best_text(rows: Sequence[Row], folder: Path) -> str:
    """A table of the best finished row of every environment, by the time at the goal at the last evaluation."""
    found: dict[str, tuple[float, list[str]]] = {}
    for row in rows:
        if not finished(row, trained := kept(row, folder)):
            continue
        group = group_of(row, trained)
        score = float(interquartile_mean([group.near[:, -1]]).value)
        if group.env not in found or score > found[group.env][0]:
            _, *line, _, wall_clock, _ = cells(row, trained, "")
            words = row.words if row.words.startswith("--agent") else f"--agent {row.flags.agent} {row.words}"
            found[group.env] = score, [f"`{group.env}`", f"`{words}`", *line, wall_clock]
    columns = ("environment", *COLUMNS[:6], "wall clock")
    return markdown.table(columns, [line for _, line in found.values()])


def write_best(path: Path, rows: Sequence[Row], folder: Path, script: str) -> None:
    """Replaces the table of the best rows in a document; FlagError if it has no place for one."""
    _rewrite(path, lambda text: markdown.replace(text, BEST, script, best_text(rows, folder)))


def write_document(path: Path, rows: Sequence[Row], folder: Path, notes: dict[str, str], script: str) -> None:
    """Replaces the part of every section in a document; FlagError if it has no place for one."""

    def replaced(text: str) -> str:
        for section in dict.fromkeys(row.section for row in rows):
            members = [row for row in rows if row.section == section]
            text = markdown.replace(text, section, script, section_text(members, folder, notes))
        return text

    _rewrite(path, replaced)


def _rewrite(path: Path, replaced: Callable[[str], str]) -> None:
    """Replaces a document as a whole."""
    try:
        text = replaced(path.read_text())
    except OSError as error:
        raise FlagError(f"{path} cannot be read: {error.strerror}.") from None
    part = path.with_name(f"{path.name}.part")
    part.write_text(text)
    part.replace(path)
