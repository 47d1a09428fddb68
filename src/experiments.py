"""Runs to compare: which directories hold one, their groups (equal flags but for the seed), and the groups' names."""

import contextlib
import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src import runs
from src.devices import HOSTS
from src.flags import FlagError

# Flags that say nothing about what is trained, beside the seed.
HOST = {"seed", "num_seeds", "resume", "run_dir", "project_name", "log_wandb", "wandb_mode", "log_tensorboard"}
HOST |= {"checkpoint_interval", "visualization_interval", "vis_length", "num_devices", *HOSTS}
NAMES = ("exp_name", "group_name")  # they tell groups apart, but a flag that differs says more
NEEDED = {"training/envsteps", "training/walltime", "eval/episode_success", "eval/episode_success_any"}
NEEDED |= {"eval/final_dist"}


class Trained(NamedTuple):
    """What a run directory holds."""

    directory: Path
    seed: int
    settings: dict[str, Any]  # flags of the run and of its agent, without HOST
    rows: list[dict[str, float]]  # of metrics.csv, with at least NEEDED


class Group(NamedTuple):
    """Runs of equal flags, one per seed, at the evaluations that all of them have."""

    label: str  # the agent, and what tells this group from others of its environment
    env: str
    runs: list[Trained]
    steps: np.ndarray  # [T] environment steps

    def metric(self, name: str) -> np.ndarray:
        """Values [seeds, T]."""
        tables = [{row["training/envsteps"]: row[name] for row in run.rows} for run in self.runs]
        return np.array([[table[step] for step in self.steps] for table in tables])

    @property
    def settings(self) -> dict[str, Any]:
        return self.runs[0].settings

    @property
    def reached(self) -> np.ndarray:
        """Share of episodes that reach the goal, [seeds, T]."""
        return self.metric("eval/episode_success_any")

    @property
    def near(self) -> np.ndarray:
        """Share of an episode's time at the goal, [seeds, T]."""
        return self.metric("eval/episode_success") / self.settings["episode_length"]


def directories(path: Path) -> list[Path]:
    """The path itself if it looks like a run, or like nothing; else what is below it."""
    if not path.is_dir():
        return [path]
    children = sorted(path.iterdir())
    folders = [child for child in children if child.is_dir()]
    if not folders or {"config.json", "metrics.csv", "checkpoints"} & {child.name for child in children}:
        return [path]
    return [found for folder in folders for found in directories(folder)]


def read_one(directory: Path) -> Trained:
    """A run; FlagError that says why there is none."""
    if not directory.is_dir():
        raise FlagError(f"There is no directory {directory}.")
    flags, agent_flags = runs.read_config(directory)
    try:
        settings = {name: value for name, value in {**flags, **agent_flags}.items() if name not in HOST}
    except TypeError:
        settings = {}
    if not {"env_name", "agent", "episode_length"} <= settings.keys() or "seed" not in flags:
        raise FlagError(f"The run {directory} was written by a version with other flags.")
    rows = []
    with contextlib.suppress(OSError, ValueError, csv.Error):
        rows = [row for row in runs.read_metrics(directory / "metrics.csv") if row.keys() >= NEEDED]
    if not rows:
        raise FlagError(f"The run {directory} has no evaluation in its metrics.csv.")
    return Trained(directory, flags["seed"], settings, rows)


def read(paths: Iterable[Path]) -> tuple[list[Trained], list[str]]:
    """The runs in directories, and one sentence for each directory without one.

    Args:
      paths: run directories, or folders whose runs are meant.
    """
    found = dict.fromkeys(directory for path in paths for directory in directories(path))
    trained, notes = [], []
    for directory in found:
        try:
            trained.append(read_one(directory))
        except FlagError as error:
            notes.append(f"{error} It is skipped.")
    return trained, notes


def take(run: Trained) -> int:
    """The k of a directory name_sSEED-k."""
    suffix = re.search(r"_s\d+-(\d+)$", run.directory.name)
    return int(suffix[1]) if suffix else 1


def group(trained: Sequence[Trained]) -> tuple[list[Group], list[str]]:
    """Groups in the order of their first runs, and one sentence for everything that is left out.

    A repeated seed would count as an independent one: only the newest run of equal flags and seed is taken.
    """
    by_settings, notes = defaultdict(dict), []
    for run in sorted(trained, key=take):
        seeds = by_settings[json.dumps(run.settings, sort_keys=True)]
        if run.seed in seeds:
            notes.append(f"{seeds[run.seed].directory} is left out: {run.directory} has the same flags and seed.")
        seeds[run.seed] = run
    order = {id(run): index for index, run in enumerate(trained)}
    members = [sorted(seeds.values(), key=lambda run: order[id(run)]) for seeds in by_settings.values()]
    members.sort(key=lambda together: order[id(together[0])])
    groups = []
    for label, together in zip(labels([seeds[0].settings for seeds in members]), members, strict=True):
        steps = [{row["training/envsteps"] for row in run.rows} for run in together]
        common = np.array(sorted(set.intersection(*steps)))
        if not common.size:
            notes.append(f"{together[0].directory} and its other seeds are left out: they share no evaluation.")
            continue
        if common[-1] < max(map(max, steps)):
            short = min(together, key=lambda run: run.rows[-1]["training/envsteps"])
            notes.append(f"{short.directory} stops at {common[-1]:,} steps: its group is compared up to there only.")
        groups.append(Group(label, env_of(together[0].settings), together, common))
    return groups, notes


def env_of(settings: dict[str, Any]) -> str:
    env, eval_env = settings["env_name"], settings.get("eval_env")
    return env if eval_env in (None, env) else f"{env}, evaluated in {eval_env}"


def differing(many: Sequence[dict[str, Any]]) -> list[str]:
    """Names of flags that do not have one value everywhere."""
    names = dict.fromkeys(name for settings in many for name in settings)
    return [name for name in names if len({json.dumps(settings.get(name)) for settings in many}) > 1]


def labels(many: Sequence[dict[str, Any]]) -> list[str]:
    """For each group's flags: its agent, and the flags in which groups of that agent in one environment differ.

    The same agent has the same label in every environment.
    """
    rivals = defaultdict(list)
    for settings in many:
        rivals[settings["agent"], env_of(settings)].append(settings)
    names = defaultdict(dict)
    for (agent, _), together in rivals.items():
        names[agent].update(dict.fromkeys(differing(together)))

    def label(settings: dict[str, Any], without: Sequence[str]) -> str:
        shown = [name for name in names[settings["agent"]] if name not in without]
        return ", ".join([settings["agent"], *(f"{name} {settings.get(name)}" for name in shown)])

    short = [label(settings, NAMES) for settings in many]
    unique = {(text, env_of(settings)) for text, settings in zip(short, many, strict=True)}
    return short if len(unique) == len(many) else [label(settings, ()) for settings in many]


def compare(paths: Iterable[Path]) -> tuple[list[Group], list[str]]:
    """`read` and `group`; FlagError if nothing is left, with what was skipped before it."""
    trained, skipped = read(paths)
    groups, left_out = group(trained)
    if not groups:
        raise FlagError(" ".join([*skipped, *left_out, "No run is left to show."]))
    return groups, skipped + left_out


def output(name: str, suffix: str) -> Path:
    """The file to write; FlagError if --out is none that can be."""
    path = Path(name)
    if path.suffix != suffix or not path.absolute().parent.is_dir():
        raise FlagError(f"--out is {name!r}; it must name a file that ends in {suffix}, in a directory that exists.")
    return path
