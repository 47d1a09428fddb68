"""Runs to compare: which directories hold one, their groups (equal flags but for the seed), and the groups' names."""

import contextlib
import csv
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goalax.flags import COMPARED, FlagError, names_in
from goalax.host import runs
from goalax.host.config import Flags
from goalax.host.display import track
from goalax.host.stored import completed
from goalax.study.experiments_data import DATA, by_content

NAMES = names_in(Flags, {"name"})
COMPARED_FLAGS = frozenset(names_in(Flags, COMPARED))
PROGRESS = {"training/envsteps", "training/walltime"}
GOALS = {"eval/episode_success", "eval/episode_success_any", "eval/final_dist", "eval/time_at_goal"}
NEEDED = PROGRESS | GOALS
REWARD = "eval/episode_reward"

ORIGIN = {"versions": dict, "device": str, "git_commit": str, "command": list, "resumed": list}
ORIGIN |= {f"{name}_sha256": str for name in DATA}


class Trained(NamedTuple):
    """What a run directory holds."""

    directory: Path
    seed: int
    settings: dict[str, Any]  # flags of the agent, and those of the run that say what is trained, that are set
    names: dict[str, Any]  # NAMES that are set
    origin: dict[str, Any]  # more of config.json, see ORIGIN; None where it is not known
    rows: list[dict[str, float]]  # of metrics.csv, with at least NEEDED, or without goals REWARD


class Group(NamedTuple):
    """Runs of equal flags whatever their names, one per seed, at the evaluations that all of them have."""

    label: str  # the agent, and what tells this group from others of its environment
    env: str
    settings: dict[str, Any]  # those of its runs, with NAMES if it needs them to be told apart
    runs: list[Trained]
    steps: np.ndarray  # [T] environment steps and updates on a dataset together

    def metric(self, name: str) -> np.ndarray:
        """Values [seeds, T]."""
        tables = [{runs.progress(row): row[name] for row in run.rows} for run in self.runs]
        return np.array([[table[step] for step in self.steps] for table in tables])

    @property
    def at(self) -> np.ndarray:
        """Where its evaluations lie, [T]: environment steps; those on a dataset before the first one end at 0; or
        updates, where it never makes a step."""
        last = next(row for row in self.runs[0].rows if runs.progress(row) == self.steps[-1])
        return self.steps - (last.get(runs.OFFLINE, 0) if last["training/envsteps"] else 0)

    def has(self, name: str) -> bool:
        """Whether all evaluations of all runs tell this; runs of older versions tell less."""
        return all(name in row for run in self.runs for row in run.rows if runs.progress(row) in self.steps)

    @property
    def has_goals(self) -> bool:
        return self.has("eval/time_at_goal")

    @property
    def reached(self) -> np.ndarray:
        """Share of episodes that reach the goal, [seeds, T]."""
        return self.metric("eval/episode_success_any")

    @property
    def near(self) -> np.ndarray:
        """Share of an episode's time at the goal, [seeds, T]."""
        return self.metric("eval/time_at_goal")


def directories(path: Path) -> list[Path]:
    """The path itself if it looks like a run, or like nothing; else what is below it, every directory once.

    Links are followed behind all else, so that what has two names is found by its own; not those to a folder that they
    lie in themselves, such as `latest -> .`.
    """
    found, links, seen = list[Path](), list[Path](), set[tuple[int, int]]()

    def search(folder: Path) -> None:
        try:
            place, children = folder.stat(), sorted(folder.iterdir())
        except (OSError, ValueError):  # it is none, may not be read, or its name is none for a file or too long
            found.append(folder)
            return
        if (place.st_dev, place.st_ino) in seen:
            return
        seen.add((place.st_dev, place.st_ino))
        folders = [child for child in children if os.path.isdir(child)]
        if not folders or {"config.json", "metrics.csv", "checkpoints"} & {child.name for child in children}:
            found.append(folder)
            return
        links.extend(child for child in folders if child.is_symlink())
        for child in folders:
            if not child.is_symlink():
                search(child)

    search(path)
    for link in links:  # which grow on the way
        if not Path(os.path.realpath(link.parent)).is_relative_to(os.path.realpath(link)):
            search(link)
    return found or [path]


def read_one(directory: Path, rewards: bool = False) -> Trained:
    """A run, with `rewards` also of an environment without goals; FlagError that says why there is none."""
    if not os.path.isdir(directory):  # unlike the path's own method, for names of any length
        raise FlagError(f"There is no directory {directory}.")
    content = runs.read_content(directory)
    try:
        flags, agent_flags = completed(content["flags"], content["agent_flags"])
        flags |= agent_flags
        flags = {name: value for name, value in flags.items() if value is not None}
        kinds = {"env_name": str, "agent": str, "episode_length": int, "seed": int}
        readable = all(type(flags[name]) is kind for name, kind in kinds.items()) and flags["episode_length"] > 0
    except (KeyError, TypeError):
        readable = False
    if not readable:
        raise FlagError(f"The run {directory} was written by {runs.version_of(directory)}, which has other flags.")
    rows = []
    with contextlib.suppress(OSError, ValueError, csv.Error):
        rows = [row for row in runs.read_metrics(directory / "metrics.csv") if is_told(row, rewards)]
    if not rows:
        with contextlib.suppress(OSError, ValueError, csv.Error):
            rows = runs.read_metrics(directory / "metrics.csv")
        if any(REWARD in row and "eval/episode_success" not in row for row in rows):
            raise FlagError(f"The run {directory} has no goals; what is compared here is success at goals.")
        raise FlagError(f"The run {directory} has no evaluation in its metrics.csv.")
    if not all(math.isfinite(row[name]) for row in rows for name in NEEDED & row.keys()):
        raise FlagError(f"The run {directory} has numbers that are not finite in its metrics.csv.")
    settings = {name: value for name, value in flags.items() if name in COMPARED_FLAGS or name in agent_flags}
    names = {name: flags[name] for name in NAMES if name in flags}
    origin = {name: content.get(name) if isinstance(content.get(name), kind) else None for name, kind in ORIGIN.items()}
    return Trained(directory, flags["seed"], settings, names, origin, rows)


def is_told(row: dict[str, float], rewards: bool) -> bool:
    """Whether an evaluation tells what is compared."""
    return row.keys() >= NEEDED or (rewards and row.keys() >= PROGRESS | {REWARD} and not row.keys() & GOALS)


def read(paths: Iterable[Path]) -> tuple[list[Trained], list[str]]:
    """The runs in directories, and one sentence for each directory without one.

    Args:
      paths: run directories, or folders whose runs are meant.
    """
    found = dict.fromkeys(directory for path in paths for directory in directories(path))
    trained, notes = [], []
    for directory in track(found, "reading runs"):
        try:
            trained.append(read_one(directory))
        except FlagError as error:
            notes.append(f"{error} It is skipped.")
    return trained, notes


def by_worth(trained: Sequence[Trained]) -> list[Trained]:
    """Runs of equal flags and seed, the one that counts last: that which came farthest, of such the newest.

    The k of a directory name_sSEED-k tells which is newer, across folders the time of the last row.
    """
    one_folder = len({run.directory.parent for run in trained}) == 1

    def worth(run: Trained) -> tuple[float, int, float]:
        suffix = re.search(r"_s\d+-(\d+)$", run.directory.name)
        number = int(suffix[1]) if suffix else 1
        written = (run.directory / "metrics.csv").stat().st_mtime
        return runs.progress(run.rows[-1]), number if one_folder else 0, written

    return sorted(trained, key=worth)


def together(trained: Sequence[Trained]) -> list[tuple[dict[str, Any], list[Trained]]]:
    """(settings, runs) of every group. Where the same seed has several names, names tell groups apart as flags do."""
    by_settings: dict[str, list[tuple[dict[str, Any], Trained]]] = defaultdict(list)
    by_names: dict[str, list[tuple[dict[str, Any], Trained]]] = defaultdict(list)
    named_alike = by_content([(run.settings, run.origin) for run in trained])
    for settings, run in zip(named_alike, trained, strict=True):
        by_settings[key(settings)].append((settings, run))
    for members in by_settings.values():
        name_of: dict[int, set[str]] = defaultdict(set)
        for _, run in members:
            name_of[run.seed].add(key(run.names))
        named = max(map(len, name_of.values())) > 1
        for settings, run in members:
            settings = settings | run.names if named else settings
            by_names[key(settings)].append((settings, run))
    return [(members[0][0], [run for _, run in members]) for members in by_names.values()]


def key(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)


def group(trained: Sequence[Trained]) -> tuple[list[Group], list[str]]:
    """Groups in the order of their first runs, and one sentence for everything that is left out.

    A repeated seed would count as an independent one: of runs of equal flags and seed, one is taken (`by_worth`).
    """
    groups, notes = [], []
    found = together(trained)
    for label, (settings, members) in zip(labels([settings for settings, _ in found]), found, strict=True):
        seeds: dict[int, Trained] = {}
        for seed in dict.fromkeys(run.seed for run in members):
            *others, seeds[seed] = by_worth([run for run in members if run.seed == seed])
            kept = seeds[seed].directory
            notes += [f"{run.directory} is left out: {kept} has the same flags and seed." for run in others]
        members = [run for run in members if seeds[run.seed] is run]
        steps = [{runs.progress(row) for row in run.rows} for run in members]
        common = np.array(sorted(set.intersection(*steps)))
        if not common.size:
            notes.append(f"{members[0].directory} and its other seeds are left out: they share no evaluation.")
            continue
        if common[-1] < max(map(max, steps)):
            first = min(members, key=lambda run: runs.progress(run.rows[-1]))
            last = next(row for row in first.rows if runs.progress(row) == common[-1])
            updates = f"{common[-1]:,.0f} updates"  # on a dataset, before any step
            where = f"{last[runs.STEPS]:,.0f} steps" if last[runs.STEPS] else updates
            notes.append(f"{first.directory} stops at {where}: its group is compared up to there only.")
        groups.append(Group(label, env_of(settings), settings, members, common))
    return groups, notes


def env_of(settings: dict[str, Any]) -> str:
    env, eval_env = settings["env_name"], settings.get("eval_env")
    return env if eval_env in (None, env) else f"{env}, evaluated in {eval_env}"


def differing(many: Sequence[dict[str, Any]]) -> list[str]:
    """Names of flags that do not have one value everywhere, of flags of an agent: wherever that agent is."""
    known: dict[str, dict[str, Any]] = defaultdict(dict)
    values: dict[str, set[str]] = defaultdict(set)
    for settings in many:
        known[settings["agent"]].update(settings)
    for settings in many:
        for name in known[settings["agent"]]:
            values[name].add(json.dumps(settings.get(name)))
    return [name for name, found in values.items() if len(found) > 1]


def short(value: Any) -> str:
    """A flag's value, floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)


def labels(many: Sequence[dict[str, Any]]) -> list[str]:
    """For each group's flags: its agent, and the flags in which groups of that agent in one environment differ.

    The same agent has the same label in every environment.
    """
    rivals: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for settings in many:
        rivals[settings["agent"], env_of(settings)].append(settings)
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for (agent, _), groups in rivals.items():
        names[agent].update(dict.fromkeys(differing(groups)))
    for show in (short, str):
        found = [
            ", ".join([s["agent"], *(f"{name} {show(s[name])}" for name in names[s["agent"]] if name in s)])
            for s in many
        ]
        if len({(label, env_of(settings)) for label, settings in zip(found, many, strict=True)}) == len(many):
            break
    return found


def compare(paths: Iterable[Path]) -> tuple[list[Group], list[str]]:
    """`read` and `group`; FlagError if nothing is named, or nothing is left, with what was skipped before it."""
    if not (paths := list(paths)):
        raise FlagError("RUNS is missing; name run directories, or folders whose runs are meant, such as runs.")
    trained, skipped = read(paths)
    groups, left_out = group(trained)
    if not groups:
        raise FlagError(" ".join([*skipped, *left_out, "No run is left to show."]))
    return groups, skipped + left_out
