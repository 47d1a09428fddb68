"""Writes a dataset, in OGBench's format or Minari's: what a run holds in its buffer, or scripted walks in a maze."""

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np

from goalax.core.types import BufferState
from goalax.data import collect, files, minari, sources
from goalax.data.names import is_ogbench
from goalax.envs import create_env
from goalax.envs.maze import MAZES
from goalax.envs.simple import SimpleMaze
from goalax.flags import FlagError, flag, parse
from goalax.host import loading, ogbench_walks
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.interrupt import end_as_ctrl_c
from goalax.host.names import EnvNames
from goalax.host.places import writable

NUM_ENVS = 64  # environments that are collected in at once
VALIDATION = 0.1  # of the transitions, more of them, in a file beside


@dataclasses.dataclass(frozen=True)
class DatasetConfig:
    """What to write, and where."""

    run: tuple[str, ...] = flag((), "run directory, whose buffer is written", positional=True)
    out: str = flag("", "npz file to write, or minari:NAME-v0 for a dataset of the package Minari")
    step: int | None = flag(None, "checkpoint, by its steps and updates on a dataset (default: the newest)", low=0)
    newest: int | None = flag(None, "of a run, its newest rows alone, so many of all environments", low=2)
    oldest: int | None = flag(None, "of a run, its oldest rows alone, so many of all environments", low=2)
    env_name: str | None = flag(None, "maze of a point mass to collect in, in place of a run", valid=EnvNames())
    style: str | None = flag(None, "how a script walks (default: navigate)", valid=tuple(collect.STYLES))
    steps: int | None = flag(
        None, "transitions to collect (default: 1,000,000); a tenth more for validation", low=1, most=1e8
    )
    seed: int | None = flag(None, "draws starts, goals and noise (default: 0)", low=0, high=2**30)


def check(config: DatasetConfig) -> None:
    """FlagError if the flags do not fit each other."""
    if not config.out.endswith(".npz") and not sources.is_minari(config.out):
        raise FlagError(f"--out is {config.out!r}; it must be the npz file to write, or minari:NAME-v0.")
    if (config.env_name is None) != (len(config.run) == 1) or len(config.run) > 1:
        given = "both are given" if config.run and config.env_name else f"{len(config.run)} directories are given"
        raise FlagError(f"It takes one run directory or --env_name, but {given}.")
    of_walks = {"style": "is how a script walks", "steps": "is how far it walks", "seed": "draws a script's walks"}
    of_run = {"step": "is a checkpoint of a run", "newest": "are rows of a run", "oldest": "are rows of a run"}
    for name, words in (of_walks if config.env_name is None else of_run).items():
        if getattr(config, name) is not None:
            other = "a run directory" if config.env_name is None else "--env_name"
            raise FlagError(f"--{name} {words}; leave it out with {other}.")
    if config.newest is not None and config.oldest is not None:
        raise FlagError("--newest and --oldest are different rows of a run; give one of them.")
    if sources.is_minari(config.out):
        if is_ogbench(config.env_name):
            raise FlagError(f"--out is {config.out!r}; walks in OGBench's mazes have no rewards: name an npz file.")
        both = config.env_name is not None
        minari.check_new([config.out, sources.validation_name(config.out)] if both else [config.out])
        return
    for name in [config.out, *[sources.validation_name(config.out)] * (config.env_name is not None)]:
        writable("out", name, (".npz",))


def write_run(config: DatasetConfig) -> None:
    """Writes the buffer of a run."""
    run, state = loading.load(Path(config.run[0]), config.step)
    if not isinstance(state.buffer, BufferState):
        raise FlagError(f"The run {config.run[0]} has no buffer: --agent {run.config.agent} learns without.")
    ring = jax.device_get(state.buffer)
    if int(ring.count) == 0:
        raise FlagError(f"The buffer of the run {config.run[0]} is empty at this checkpoint.")
    columns = files.columns_of(ring, config.newest, config.oldest)
    if len(columns["observations"]) == 0:  # one row of each environment, say
        name, value = ("newest", config.newest) if config.oldest is None else ("oldest", config.oldest)
        raise FlagError(
            f"--{name} is {value}; of {run.config.num_envs} environments these rows hold no transition: it must be"
            " larger."
        )
    write(config.out, columns, run.spec.goal_indices)


def write_walks(config: DatasetConfig) -> None:
    """Collects in a maze, and writes training and validation set."""
    collected, goal_indices = walks_in(config.env_name or "", config.style or "navigate")
    beside, length = sources.validation_name(config.out), config.steps or 1_000_000
    for name, steps, number in ((config.out, length, 0), (beside, max(1, round(VALIDATION * length)), 1)):
        seed = 2 * (config.seed or 0) + number  # of its own for each set
        try:
            parts = list(collected(seed, steps))
            write(name, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}, goal_indices)
        except BaseException:  # Ctrl-C, too: Minari refuses a name that is there, so half a pair stood in the way
            if number and sources.is_minari(config.out):
                minari.remove(config.out)
            raise


# (seed, transitions) -> parts of a file
Collected = Callable[[int, int], Iterator[dict[str, np.ndarray]]]


def walks_in(name: str, style: str) -> tuple[Collected, Sequence[int]]:
    """What collects in an environment, and its goal indices; FlagError where no script can walk."""
    if is_ogbench(name):
        maze = ogbench_walks.environment(name)
        return partial(ogbench_walks.collect, maze, style), maze.goal_indices
    env = create_env(name)
    if not isinstance(env, SimpleMaze) or env.cells is None:
        names = ", ".join(f"simple_{layout}" for layout in MAZES["simple"][:4])
        raise FlagError(f"--env_name is {name!r}; a script walks with point masses only, such as {names}.")
    try:
        collect.ways_of(env.cells)
    except ValueError as error:
        raise FlagError(f"--env_name is {name!r}; {error}") from None
    return partial(collect.collect, env, style, num_envs=NUM_ENVS), env.goal_indices


def write(name: str, columns: dict[str, np.ndarray], goal_indices: Sequence[int]) -> None:
    sources.write(name, columns, goal_indices)
    num, episodes = len(columns["terminals"]), int(columns["terminals"].sum())
    print(f"{name}: {num:,} rows, {episodes:,} episodes, {num - episodes:,} transitions")


def start() -> None:
    """What it does first where it is a program of its own."""
    end_as_ctrl_c()  # so that none leaves half of Minari's datasets behind
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "dataset.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Writes a dataset: the buffer of a run, or scripted walks of a point mass through a maze."
        (config,) = parse(argv, DatasetConfig(), others={}, prog=prog, description=description)
        check(config)
        (write_walks if config.env_name else write_run)(config)
    except (FlagError, NoCheckpointError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return 0
