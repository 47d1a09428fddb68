"""The rows of the results: which there are, and what has been kept of them.

A row is a command line of training. What it left (metrics.csv, config.json and, of mazes, goals.csv of every seed, a
few kilobytes) is kept in a folder of the repository, and counts only as long as its flags are those of the row: change
a flag, or a default that the row relies on, and it is a row that has not run.
"""

import dataclasses
import functools
import hashlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from goalax import whole
from goalax.flags import COMPARED, FlagError, names_in
from goalax.host import folders, goal_cells, runs
from goalax.host.config import Flags, read_flags
from goalax.host.resolve import resolve
from goalax.host.stored import completed
from goalax.study import experiments, yaml_file
from goalax.study.experiments import Trained

GROUP = "results"


def out_of(argv: Sequence[str]) -> str:
    """The file that a command line of `goalax dataset` writes."""
    return argv[argv.index("--out") + 1]


class Row(NamedTuple):
    """A command line of training, one run per seed."""

    section: str  # where the document shows it
    threshold: float  # share of the time at the goal, whose first steps the table tells
    argv: tuple[str, ...]
    flags: Flags
    agent_flags: Any
    data: tuple[tuple[str, ...], ...] = ()  # command lines of `goalax dataset` for the files that it reads
    one_by_one: bool = False  # a program for each seed, after one another, in place of one for all

    @property
    def name(self) -> str:
        """A name for its runs, that tells it from every other row; how its data are made is part of it."""
        made = [shlex.join(argv) for argv in self.data if out_of(argv) in self.argv]
        text = "\n".join([shlex.join(self.argv), *made])
        env = self.flags.env_name.replace(":", "_")  # no part of file names everywhere
        return f"{env}_{self.flags.agent}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def seeds(self) -> list[int]:
        return list(range(self.flags.seed, self.flags.seed + self.flags.num_seeds))

    @property
    def programs(self) -> "list[Row]":
        """What one program trains each: the row, or rows of its name with a seed each."""
        if not self.one_by_one:
            return [self]
        return [self._replace(flags=dataclasses.replace(self.flags, seed=seed, num_seeds=1)) for seed in self.seeds]

    @property
    def training(self) -> list[str]:
        """The flags of its training: where it is one of several programs, those of its seed come last, and count."""
        alone = ["--seed", str(self.flags.seed), "--num_seeds", "1"] if self.one_by_one else []
        return [*self.argv, *alone]

    @property
    def command(self) -> str:
        return shlex.join(["python", "training.py", *self.argv])

    @property
    def parts(self) -> list[str]:
        """Its flags with their values, but for those that all rows of a document share, the agent first."""
        hidden = {"env_name", "num_seeds", "num_evals", "vis_length", "visualization_interval", "num_timesteps"}
        parts = [part for part in re.split(r" (?=--)", shlex.join(self.argv)) if part[2:].split()[0] not in hidden]
        return sorted(parts, key=lambda part: not part.startswith("--agent"))

    @property
    def words(self) -> str:
        return " ".join(self.parts)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in order; FlagError that names the file and what is wrong.

    The file is YAML, a list of sections: `section` (a mark of the document), optional `flags` (of all its rows) and
    `threshold`, `rows`, a list of command lines, and optional `data`, command lines of `goalax dataset` for what they
    read, and `one_by_one`, whether seeds are trained after one another, and kept one by one.
    """
    content = yaml_file.load(path)
    if not isinstance(content, list):
        raise FlagError(f"{path} must be a list of sections, each with `section` and `rows`.")
    rows = []
    for number, part in enumerate(content, start=1):
        if not isinstance(part, dict) or not isinstance(part.get("section"), str):
            raise FlagError(f"{path}: part {number} needs a `section`, the name of its place in the document.")
        where = f"{path}: section {part['section']}"
        if unknown := sorted(map(str, part.keys() - {"section", "flags", "threshold", "one_by_one", "rows", "data"})):
            words = "only section, flags, threshold, one_by_one, data and rows are understood"
            raise FlagError(f"{where} has `{unknown[0]}`; {words}.")
        threshold, common = part.get("threshold", 0.5), part.get("flags", "")
        if type(threshold) not in (int, float) or not 0 < threshold <= 1:
            raise FlagError(f"{where}: `threshold` is {threshold!r}; it must be a share of the time, such as 0.5.")
        if type(one_by_one := part.get("one_by_one", False)) is not bool:
            raise FlagError(f"{where}: `one_by_one` is {one_by_one!r}; it must be true or false.")
        lines: Any = part.get("rows")
        data: Any = part.get("data", [])
        for key, value in {"rows": lines, "data": data}.items():
            if not isinstance(value, list) or not all(isinstance(line, str) for line in [common, *value]):
                raise FlagError(f"{where}: `{key}` must be a list of command lines, and `flags` one of them.")
        try:
            made = tuple(tuple(shlex.split(line)) for line in data)
        except ValueError as error:  # an open quote
            raise FlagError(f"{where}: the data {data!r} are no command lines: {error}.") from None
        if wrong := next((argv for argv in made if not ("--out" in argv[:-1] and out_of(argv).endswith(".npz"))), None):
            raise FlagError(f"{where}: the data {shlex.join(wrong)!r} says no file; it needs an --out of an npz file.")
        for line in lines:
            try:
                argv = tuple(shlex.split(f"{line} {common}"))
                flags, agent_flags = read_flags(argv)
            except ValueError as error:  # FlagError is one; the other is an open quote
                raise FlagError(f"{where}: the row {line!r} is no command line: {error}") from None
            rows.append(Row(part["section"], float(threshold), argv, flags, agent_flags, made, one_by_one))
    names = [row.name for row in rows]
    if twice := next((row for row in rows if names.count(row.name) > 1), None):
        raise FlagError(f"{path}: the row {twice.words!r} of {twice.flags.env_name} is there twice.")
    alone = [(dataclasses.replace(row.flags, seed=0, num_seeds=1), row.agent_flags, row.data) for row in rows]
    if twice := next((row for row, flags in zip(rows, alone, strict=True) if alone.count(flags) > 1), None):
        words = f"the row {twice.words!r} of {twice.flags.env_name} is there with other seeds, too"
        raise FlagError(f"{path}: {words}; --num_seeds makes one row of them.")
    return rows


HERE = ("num_envs", "num_eval_envs")  # presets that depend on the machine


@functools.cache  # filling presets in makes the environment, which takes a second
def settings_of(row: Row, *here: Any) -> dict[str, Any]:
    """The flags that say what a row trains, presets filled in; FlagError where its environment is not installed.

    Args:
      here: presets HERE of the machine that it is trained on, if it is another one.
    """
    given = dict(zip(HERE, here, strict=False))
    unsaid: dict[str, Any] = {name: given[name] for name in given if getattr(row.flags, name) is None}
    config = resolve(dataclasses.replace(row.flags, **unsaid)).config
    return {name: getattr(config, name) for name in names_in(Flags, COMPARED)} | vars(row.agent_flags)


def fits(row: Row, content: dict[str, Any]) -> bool:
    """Whether a config.json is of the row as it is now; a flag that its version did not have must be at its default.

    Where the package of its environment is not installed, its name is believed, which has all flags that were given.
    """
    try:
        flags, agent_flags = completed(content["flags"], content["agent_flags"])
        stored = flags | agent_flags
    except (KeyError, TypeError):  # no run writes this
        return False
    try:
        wanted, here = settings_of(row), [stored.get(name) for name in HERE]
    except FlagError:
        return True
    if here != [wanted[name] for name in HERE]:  # of another machine, or another row
        wanted = settings_of(row, *here)
    return all(stored.get(name) == value for name, value in wanted.items())


def kept(row: Row, folder: Path) -> list[Trained]:
    """What a folder holds of the row: a run for every seed, or nothing."""
    found = []
    for seed in row.seeds:
        directory = folder / f"{row.name}_s{seed}"
        try:
            content = runs.read_content(directory)
            found.append(experiments.read_one(directory, rewards=True))
        except FlagError:
            return []
        if not fits(row, content):
            return []
    return found


def so_far(row: Row, folder: Path) -> list[Trained]:
    """The same of those of its programs that are kept, so of some of its seeds where they are trained one by one."""
    return [run for program in row.programs for run in kept(program, folder)]


def finished(trained: Sequence[Trained]) -> bool:
    """Whether runs that fit a row have reached its budget, which is theirs."""

    def is_over(run: Trained) -> bool:
        last, budget = run.rows[-1], run.settings
        steps, learned = last["training/envsteps"], last["training/gradient_steps"]
        updates = budget.get("offline_steps", 0) + budget.get("finetune_steps", 0)
        return bool(steps >= budget["num_timesteps"] and learned >= updates)

    return bool(trained) and all(map(is_over, trained))


def newest_directories(row: Row) -> list[Path]:
    """The run directories of a row's seeds that a queue has made here, if they are of the row as it is now."""
    flags = Flags(env_name=row.flags.env_name, agent=row.flags.agent, exp_name=row.name, group_name=GROUP)
    directories = []
    for seed in row.seeds:
        try:
            directory = folders.find(flags, seed)
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
        of_maze = [goal_cells.NAME] if (directory / goal_cells.NAME).exists() else []
        for name in ("metrics.csv", "config.json", *of_maze):
            whole.copy(directory / name, target / name)
