"""Trains an agent: `goalax train --env_name ant`; `--help` lists the flags, `--agent NAME --help` an agent's."""

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from goalax.core.rollout import Recording
from goalax.data import sources
from goalax.films import kept
from goalax.flags import FlagError
from goalax.host import behind, checkpoint, devices, goal_cells, memory, output, runs
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError, SaveError
from goalax.host.config import Config, read_flags
from goalax.host.display import Display, duration
from goalax.host.interrupt import Interrupt
from goalax.host.lock import only_writer
from goalax.host.loggers import Loggers
from goalax.host.make import Run, make_run
from goalax.host.origin import command_line
from goalax.host.session import Evaluation, NonFiniteError, Session
from goalax.host.stored import read_resumed_flags

if TYPE_CHECKING:
    from goalax.study.watch import Watch

REWARD = ("eval/episode_reward", "{:,.1f}".format)
NOTHING_YET = "Stopped before the first step: nothing has been trained, and nothing is lost."


def main(argv: Sequence[str] | None = None, prog: str = "training.py") -> int:
    """Runs a command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    with output.protected():
        try:
            return start_or_resume(argv, prog)
        except (FlagError, NoCheckpointError) as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 2
        except (NonFiniteError, UnwrittenError) as error:
            print(f"{prog}: {error}", file=sys.stderr)
            return 1


class UnwrittenError(Exception):
    """Training stopped because something could not be written; its text says what, what is safe, and how to go on."""


def start_or_resume(argv: list[str], prog: str) -> int:
    """Trains the run that a command line describes or resumes, as its only writer; returns the exit code."""
    with contextlib.ExitStack() as locks:
        flags, agent_config = read_flags(argv, prog=prog)
        devices.start(flags)
        directories: list[Path] = []
        if flags.resume:
            directories = runs.find_all(flags)
            if devices.leads():
                locks.enter_context(only_writer(directories))
            flags, agent_config = read_resumed_flags(argv, flags, directories)
        interrupt = locks.enter_context(Interrupt())
        run = make_run(flags, agent_config)
        if run.datasets["dataset"] is not None and flags.resume:  # both are read here, before there is a directory
            for directory in directories:
                run.require_dataset_of(directory)
        _ = run.held_out  # the same
        memory.check(run)
        (stopped,) = devices.highest(interrupt.signal or 0)
        if stopped:
            print(f"{prog}: {NOTHING_YET}", file=sys.stderr)
            return 128 + stopped
        seeds = range(run.config.seed, run.config.seed + run.config.num_seeds)
        if devices.leads() and not directories:
            directories = [runs.create(run.config, seed) for seed in seeds]
            locks.enter_context(only_writer(directories))
        try:
            return train(run, list(seeds), directories, prog, interrupt)
        except NoCheckpointError:  # is an OSError too
            raise
        except (SaveError, OSError) as error:
            raise UnwrittenError(unwritten(error, run.config, directories, prog)) from None


def train(
    run: Run,
    seeds: list[int],
    directories: list[Path],
    prog: str = "training.py",
    interrupt: Interrupt | None = None,
) -> int:
    """Trains from the start or from the newest checkpoint, and writes everything into the run directories.

    Args:
      directories: one per seed; a process that does not write needs them only to read what it resumes.
      interrupt: what listens for signals already, if anything does.
    """
    config, started = run.config, time.monotonic()
    enable_compilation_cache()
    session = Session(run, directories, seeds)
    written = session.written
    with contextlib.ExitStack() as stack:
        interrupt = interrupt or stack.enter_context(Interrupt())
        console = None if written else Console(quiet=True)
        display = stack.enter_context(Display(session.total_steps, console, session.offline_steps))
        session.note = display.note
        display.say(f"{describe(run)}; writes to {', '.join(map(str, written[:1]))}")
        phases = len(session.boundaries)
        if config.num_evals > phases:
            display.note(f"--num_evals is {config.num_evals}, but only {phases} learning phases fit into the budget.")
        state = session.restored() if config.resume else None
        if state is not None and session.position(state) < session.boundaries[-1]:
            for directory in written:
                kept.put_aside(directory, session.progress(state))
        for directory, seed in zip(written, seeds, strict=False):  # none in a process that does not write
            runs.write_config(directory, config, run.agent_config, seed, **run.datasets)
        shown = config if written else dataclasses.replace(config, log_wandb=False, log_tensorboard=False)
        loggers = stack.enter_context(Loggers(shown, written, display.note))
        page = stack.enter_context(watched(written, display)) if config.watch and written else None

        display.say("compiling (the next start of the same sizes takes seconds)")
        session.compile()
        (stopped,) = devices.highest(interrupt.signal or 0)
        if stopped:
            display.note(NOTHING_YET)
            return 128 + stopped
        if state is None:
            if run.dataset is not None:
                display.say(f"learning from {run.dataset.words}")
                if run.finetune_dataset is not None:
                    display.say(f"then from {run.finetune_dataset.words}")
                for name, held_out in run.held_out.items():
                    if held_out is not None and (learned := run.datasets[name]) is not None:
                        display.note(f"validating on {sources.validation_name(learned.path)}")
            elif prefill := run.sizes.prefill_unrolls * run.sizes.steps_per_unroll:
                display.say(f"collecting {prefill:,} steps before learning")
            state = session.fresh()

        def show(recording: Recording, steps: int, last: bool) -> None:
            for index, directory in enumerate(written):
                files = kept.film(run, session.of_seed(recording, index), steps, directory, display, last)
                loggers.artifact(index, "policy", files, steps, last)
                if page is not None and index == 0 and files:
                    page.filmed(files[0])

        ended = False
        for evaluation in stack.enter_context(contextlib.closing(session.run(state, interrupt, display.step))):
            loggers.log(evaluation.rows)
            keep_goals(run, session, evaluation)
            display.evaluated(evaluation.env_steps, evaluation.means)
            if page is not None:
                page.evaluated(numbers(written[0]))
            ended = evaluation.last
            due = config.visualization_interval and evaluation.number % config.visualization_interval == 0
            if evaluation.last or (due and not interrupt.signal):
                show(evaluation.recording, evaluation.env_steps, evaluation.last)
        unseen = not ended and any(map(kept.missing, written))
        if session.stopped_by is None and unseen and config.vis_length:  # it was killed as it made its films
            show(session.recording(), session.total_steps, last=True)
        finish(session, loggers)
    for directory in written:
        display.summary(directory.name, numbers(directory), files_of(directory))
    if session.stopped_by is None:
        display.note(f"Finished in {duration(time.monotonic() - started)}.")
        return 0
    display.note(f"Stopped and saved. To continue exactly here: {resuming(config, directories, prog)}")
    return 128 + session.stopped_by


def keep_goals(run: Run, session: Session, evaluation: Evaluation) -> None:
    """Writes goals.csv of every run in a maze: how often the goals of each cell were reached."""
    if (cells := getattr(run.eval_env, "cells", None)) is None:
        return
    for index, directory in enumerate(session.written):
        outcomes, steps = session.of_seed(evaluation.outcomes, index), int(evaluation.rows[index][runs.STEPS])
        goal_cells.save(directory, goal_cells.GoalCells.of(cells, outcomes, steps))


def finish(session: Session, loggers: Loggers) -> None:
    """Draws the curves of every run, and hands its newest checkpoint to the loggers."""
    from goalax.study import pictures  # here, because matplotlib would make every start slower

    for index, directory in enumerate(session.written):
        pictures.draw(directory)
        for steps in checkpoint.steps(directory / "checkpoints")[:1]:
            newest, last = directory / "checkpoints" / str(steps), session.stopped_by is None
            loggers.artifact(index, "checkpoint", [newest, directory / "config.json"], steps, last)


def watched(directories: list[Path], display: Display) -> "Watch":
    """The page of the first run."""
    from goalax.study.watch import Watch  # here, because matplotlib would make every start slower

    others = f" and {len(directories) - 1} more seeds, which are not shown" if len(directories) > 1 else ""
    return Watch(directories[0], f"{directories[0].name}{others}", display.progress, display.note)


def describe(run: Run) -> str:
    sizes = run.sizes
    updates = f"{sizes.updates_per_unroll} updates per {sizes.steps_per_unroll:,} steps"
    seeds = f", {run.config.num_seeds} seeds" if run.config.num_seeds > 1 else ""
    task = f"{run.config.agent} on {run.config.env_name} ({run.env.backend})"
    where = f" on {run.config.num_devices} devices" if run.config.num_devices > 1 else ""
    return f"{task}, {sizes.num_envs} environments{seeds}{where}, {updates}"


def numbers(directory: Path) -> dict[str, str]:
    """The last row of metrics.csv in words."""
    rows = runs.read_metrics(directory / "metrics.csv")
    if not rows:
        return {}
    unit = "steps" if rows[-1].get("training/envsteps") else "updates"  # on a dataset
    rewarded = {} if "eval/time_at_goal" in rows[-1] else {"rewards of an episode": REWARD}
    shown: dict[str, tuple[str, Callable[[float], str]]] = {
        "updates on the dataset": (runs.OFFLINE, "{:,}".format),
        "environment steps": ("training/envsteps", "{:,}".format),
        "episodes that reach the goal": ("eval/episode_success_any", "{:.3f}".format),
        "share of time at the goal": ("eval/time_at_goal", "{:.3f}".format),
        "distance at the end": ("eval/final_dist", "{:.3f}".format),
        **rewarded,
        "training speed": ("training/sps", f"{{:,.0f}} {unit}/s".format),
        "wall clock": ("training/walltime", duration),
    }
    # Somebody may have taken a column away.
    return {words: form(rows[-1][name]) for words, (name, form) in shown.items() if name in rows[-1]}


def files_of(directory: Path) -> list[Path]:
    names = (
        "config.json",
        "metrics.csv",
        "curves.png",
        "goals.csv",
        "goals.png",
        *reversed(kept.FINAL),
        "checkpoints",
    )
    return [directory / name for name in names if (directory / name).exists()]


def resuming(config: Config, directories: list[Path], prog: str) -> str:
    """The command line that goes on with these runs; one each where names would not say which, for newer ones have
    them, too."""
    group = ["--group_name", config.group_name] if config.group_name else []
    names = ["--exp_name", config.exp_name, *group, "--seed", str(config.seed), "--num_seeds", str(config.num_seeds)]
    whole = not directories or (config.num_seeds > 1 and runs.find_all(config) == directories)
    lines = [names] if whole else [["--run_dir", str(directory)] for directory in directories]
    return " && ".join(command_line([prog, "--resume", *line]) for line in lines)


def unwritten(error: Exception, config: Config, directories: list[Path], prog: str) -> str:
    """What to say where something could not be written."""
    if isinstance(error, OSError):
        what = f"{error.filename} cannot be written ({error.strerror})" if error.filename else str(error)
    else:
        what = str(error)
    found = [set(checkpoint.steps(directory / "checkpoints")) for directory in directories]
    if not any(found):
        return f"Training stopped: {what}; there is no checkpoint yet, so start it anew once that is mended."
    common = set.intersection(*found)
    if not common:
        alone = "its seeds have no checkpoint in common, and go on one by one with --resume --run_dir"
        return f"Training stopped: {what}; {alone}."
    command = resuming(config, directories, prog)
    safe = f"everything up to the checkpoint at {behind.progress_in_words(config, max(common))} is safe"
    return f"Training stopped: {what}; {safe}, and once that is mended, this continues from there: {command}"


def start() -> None:
    """What it does first where it is a program of its own: a signal before there is anything to save ends it.

    At once, and by no exception: a callback of JAX, which Python's garbage collector calls, would swallow it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
