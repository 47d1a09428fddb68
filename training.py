#!/usr/bin/env python
"""Trains an agent: `python training.py --env_name ant`; `--help` lists the flags, `--agent NAME --help` an agent's."""

import contextlib
import dataclasses
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from src import checkpoint, devices, memory, runs
from src.checkpoint import NoCheckpointError
from src.display import Display, duration
from src.flags import FlagError
from src.loggers import Loggers
from src.rollout import Recording
from src.session import NonFiniteError, Session
from utils import Config, Run, enable_compilation_cache, make_run, read_flags, read_resumed_flags


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        config, agent_config = read_flags(argv)
        devices.start(config)
        directories = []
        if config.resume:
            directories = runs.find_all(config)
            config, agent_config = read_resumed_flags(argv, config, directories[0])
        run = make_run(config, agent_config)
        memory.check(run)
        seeds = range(config.seed, config.seed + config.num_seeds)
        if devices.leads():
            directories = directories or [runs.create(run.config, seed) for seed in seeds]
        return train(run, list(seeds), directories)
    except (FlagError, NoCheckpointError) as error:
        print(f"training.py: {error}", file=sys.stderr)
        return 2
    except NonFiniteError as error:
        print(f"training.py: {error}", file=sys.stderr)
        return 1


def train(run: Run, seeds: list[int], directories: list[Path]) -> int:
    """Trains from the start or from the newest checkpoint, and writes everything into the run directories.

    Args:
      directories: one per seed; a process that does not write needs them only to read what it resumes.
    """
    config, started = run.config, time.monotonic()
    enable_compilation_cache()
    session = Session(run, directories, seeds)
    written = session.written
    if not written:
        config = dataclasses.replace(config, log_wandb=False, log_tensorboard=False)
    with contextlib.ExitStack() as stack:
        console = None if written else Console(quiet=True)
        display = stack.enter_context(Display(session.total_steps, config.episode_length, console))
        display.say(f"{describe(run)}; writes to {', '.join(map(str, written[:1]))}")
        phases = len(session.boundaries)
        if config.num_evals > phases:
            display.note(f"--num_evals is {config.num_evals}, but only {phases} learning phases fit into the budget.")
        state = session.restored() if config.resume else None
        for directory, seed in zip(written, seeds, strict=False):  # none in a process that does not write
            runs.write_config(directory, config, run.agent_config, seed)
        loggers = stack.enter_context(Loggers(config, written, display.note))

        def on_evaluation(number: int, recording: Recording) -> None:
            steps, last = session.env_steps(session.boundaries[number - 1]), number == phases
            due = config.visualization_interval and number % config.visualization_interval == 0
            if last or due:
                for index, directory in enumerate(written):
                    files = film(run, session.of_seed(recording, index), steps, directory, display, last)
                    loggers.artifact(index, "policy", files, steps, last)

        display.say("compiling (the next start of the same sizes takes seconds)")
        session.compile()
        if state is None:
            if prefill := run.sizes.prefill_unrolls * run.sizes.steps_per_unroll:
                display.say(f"collecting {prefill:,} steps before learning")
            state = session.fresh()
        state, stopped_by = session.run(state, display, loggers.log, on_evaluation)
        from src import curves  # here, because matplotlib would make every start slower

        for index, directory in enumerate(written):
            rows = runs.read_metrics(directory / "metrics.csv")
            if rows:
                curves.draw(rows, config.episode_length, directory.name, directory / "curves.png")
            steps = checkpoint.steps(directory / "checkpoints")[0]
            newest = directory / "checkpoints" / str(steps)
            loggers.artifact(index, "checkpoint", [newest, directory / "config.json"], steps, stopped_by is None)
    for directory in written:
        display.summary(directory.name, numbers(directory, config), files_of(directory))
    if stopped_by is None:
        display.note(f"Finished in {duration(time.monotonic() - started)}.")
        return 0
    display.note(f"Stopped and saved. To continue exactly here: python training.py {resume_flags(config, directories)}")
    return 128 + stopped_by


def film(run: Run, recording: Recording, steps: int, directory: Path, display: Display, last: bool) -> list[Path]:
    """Shows what an evaluation saw: policy_STEPS.html, or policy.html and policy.gif after the last evaluation.

    What cannot be drawn here is told and left out; returns what was written.
    """
    if run.config.vis_length == 0:
        return []
    from src import page, render, scene  # here, because they would make every start slower

    display.say("rendering the policy")
    caption = f"{run.config.eval_env}   {run.config.agent}   {steps:,} steps"
    shown = scene.film(run.eval_env, recording, run.config.vis_length, caption)
    files = {"policy.html": page.save, "policy.gif": render.save_gif} if last else {f"policy_{steps}.html": page.save}
    saved = []
    for name, save in files.items():
        try:
            save(run.eval_env, shown, directory / name)
            saved.append(directory / name)
        except scene.RenderError as error:
            display.note(f"No {name}: {error}.")
    return saved


def describe(run: Run) -> str:
    sizes = run.sizes
    updates = f"{sizes.updates_per_unroll} updates per {sizes.steps_per_unroll:,} steps"
    seeds = f", {run.config.num_seeds} seeds" if run.config.num_seeds > 1 else ""
    task = f"{run.config.agent} on {run.config.env_name} ({run.env.backend})"
    where = f" on {run.config.num_devices} devices" if run.config.num_devices > 1 else ""
    return f"{task}, {sizes.num_envs} environments{seeds}{where}, {updates}"


def numbers(directory: Path, config: Config) -> dict[str, str]:
    """The last row of metrics.csv in words."""
    rows = runs.read_metrics(directory / "metrics.csv")
    if not rows:
        return {}
    row = rows[-1]
    return {
        "environment steps": f"{row['training/envsteps']:,}",
        "episodes that reach the goal": f"{row['eval/episode_success_any']:.3f}",
        "share of time at the goal": f"{row['eval/episode_success'] / config.episode_length:.3f}",
        "distance at the end": f"{row['eval/final_dist']:.3f}",
        "training speed": f"{row['training/sps']:,.0f} steps/s",
        "wall clock": duration(row["training/walltime"]),
    }


def files_of(directory: Path) -> list[Path]:
    names = ("config.json", "metrics.csv", "curves.png", "policy.gif", "policy.html", "checkpoints")
    return [directory / name for name in names if (directory / name).exists()]


def resume_flags(config: Config, directories: list[Path]) -> str:
    if config.num_seeds == 1 and directories:
        return f"--resume --run_dir {directories[0]}"
    group = f" --group_name {config.group_name}" if config.group_name else ""
    return f"--resume --exp_name {config.exp_name}{group} --seed {config.seed} --num_seeds {config.num_seeds}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # before there is anything to save
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
