"""Plays fresh episodes with the policy of a run, and prints every evaluation metric with its 95% interval."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from goalax.core.types import RunState
from goalax.data.names import is_ogbench
from goalax.flags import FlagError, flag, parse
from goalax.host import behind, given, loading, ogbench
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.display import track
from goalax.host.make import Run
from goalax.host.names import EnvNames
from goalax.host.stored import read_run
from goalax.study import statistics

BATCH = 128  # episodes at once


@dataclasses.dataclass(frozen=True)
class EvaluateConfig(given.GivenFlags):
    """What to evaluate, and how long."""

    run: tuple[str, ...] = flag((), "run directory", positional=True)
    env_name: str | None = flag(
        None, "another environment of equal sizes (default: the run's eval_env)", valid=EnvNames()
    )
    episodes: int = flag(BATCH, "fresh episodes to play", low=2)
    step: int | None = flag(None, "checkpoint, by its steps and updates on a dataset (default: the newest)", low=0)
    seed: int = flag(0, "draws starts and goals, the same ones for every run", low=0, high=2**31 - 1)


def play(run: Run, state: RunState, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """Evaluation metrics of single episodes, [episodes] each.

    Args:
      run: with num_eval_envs 1, so that its evaluation is one episode.
    """

    def episode(state, key):
        return run.train.evaluate(state._replace(key=key))[0]

    batch = min(episodes, BATCH)
    keys = jax.random.split(jax.random.PRNGKey(seed), (-(-episodes // batch), batch))
    play_batch = jax.jit(jax.vmap(episode, in_axes=(None, 0)), compiler_options=run.train.compiler_options)
    batches = [jax.device_get(play_batch(state, key)) for key in track(keys, "playing")]
    names = [name for name in batches[0] if name.startswith("eval/")]
    return {name: np.concatenate([metrics[name] for metrics in batches])[:episodes] for name in names}


def play_tasks(
    run: Run, env: ogbench.OGBenchEnv, state: RunState, episodes: int, seed: int
) -> tuple[dict[str, np.ndarray], int]:
    """As `play`, in an environment of OGBench, and how many there were: as many of each task, up to whole ones."""
    episodes = -(-episodes // env.num_tasks) * env.num_tasks
    played = ogbench.play(env, run.policy(state), episodes, seed)
    return ogbench.by_episode(played, env.episode_length) | ogbench.by_task(played), episodes


def show(metrics: dict[str, np.ndarray], console: Console) -> None:
    table = Table("metric", "mean", "95% interval")
    for name, values in sorted(metrics.items()):
        yes_or_no = name.endswith(("_any", "/falls", "/success")) or name.startswith("eval/task")
        estimate = (statistics.share if yes_or_no else statistics.mean)(values)
        table.add_row(name, f"{estimate.value:.4g}", f"{estimate.low:.4g} to {estimate.high:.4g}")
    console.print(table)


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "evaluate.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Plays fresh episodes with the policy of a run and prints all evaluation metrics."
        (config,) = parse(argv, EvaluateConfig(), others={}, prog=prog, description=description)
        if len(config.run) != 1:
            raise FlagError(f"It takes one run directory, but {len(config.run)} are given.")
        one = None if is_ogbench(read_run(Path(config.run[0]))[0].env_name) else 1
        run, state = loading.load(Path(config.run[0]), config.step, config.env_name, num_eval_envs=one, vis_length=0)
        if isinstance(run.eval_env, ogbench.OGBenchEnv):
            for name in ("goal", "goal_cell", "start"):
                if getattr(config, name) is not None:
                    raise FlagError(f"--{name} is given; OGBench's tasks have starts and goals of their own.")
            metrics, episodes = play_tasks(run, run.eval_env, state, config.episodes, config.seed)
        else:
            given.fix(run.eval_env, *given.from_flags(run.eval_env, config))
            metrics, episodes = play(run, state, config.episodes, config.seed), config.episodes
    except (FlagError, NoCheckpointError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    if (replans := getattr(run.agent_config, "replans", 1.0)) < 1:
        note = "episodes are played one by one here, so each decision may get a new plan"
        print(f"{prog}: note: --replans is {replans:g}; {note}.", file=sys.stderr)
    console = Console(highlight=False)
    trained = behind.in_words(run.config, state)
    words = f"{run.config.agent} in {run.config.eval_env}, {trained}, {episodes} episodes"
    console.print(Text(f"{config.run[0]}: {words}"), soft_wrap=True)  # as Text: a name may have brackets
    show(metrics, console)
    return 0
