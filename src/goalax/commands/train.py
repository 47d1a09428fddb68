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

from goalax.core.rollout import Outcomes, Recording
from goalax.data import sources
from goalax.films import kept
from goalax.flags import FlagError
from goalax.host import checkpoint, devices, folders, goal_cells, memory, output, resuming, runs
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError, SaveError
from goalax.host.config import read_flags
from goalax.host.display import Display, duration
from goalax.host.interrupt import Interrupt
from goalax.host.lock import only_writer
from goalax.host.loggers import Loggers
from goalax.host.make import Run, make_run
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
            directories = folders.find_all(flags)
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
            directories = [folders.create(run.config, seed) for seed in seeds]
            locks.enter_context(only_writer(directories))
        try:
            return train(run, list(seeds), directories, prog, interrupt)
        except NoCheckpointError:  # is an OSError too
            raise
        except (SaveError, OSError) as error:
            raise UnwrittenError(resuming.unwritten(error, run.config, directories, prog)) from None


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
        logged = config if written else dataclasses.replace(config, log_wandb=False, log_tensorboard=False)
        loggers = stack.enter_context(Loggers(logged, written, display.note))
        shown = Shown(run, session, display, loggers)
        if config.watch and written:
            stack.enter_context(shown.watch())

        display.say("compiling (the next start of the same sizes takes seconds)")
        session.compile()
        (stopped,) = devices.highest(interrupt.signal or 0)
        if stopped:
            display.note(NOTHING_YET)
            return 128 + stopped
        if state is None:
            shown.beginning()
            state = session.fresh()
        ended = False
        for evaluation in stack.enter_context(contextlib.closing(session.run(state, interrupt, display.step))):
            ended = evaluation.last
            due = config.visualization_interval > 0 and evaluation.number % config.visualization_interval == 0
            shown.evaluated(evaluation)
            if ended or (due and not interrupt.signal):
                shown.film(evaluation.recording, evaluation.env_steps, ended)
        if session.stopped_by is None and not ended:  # it was killed behind its last evaluation
            shown.again()
        shown.finish()
    for directory in written:
        display.summary(directory.name, numbers(directory), files_of(directory))
    if session.stopped_by is None:
        display.note(f"Finished in {duration(time.monotonic() - started)}.")
        return 0
    display.note(f"Stopped and saved. To continue exactly here: {resuming.command(config, directories, prog)}")
    return 128 + session.stopped_by


class Shown:
    """What is seen of a run, and what it leaves behind besides its rows and checkpoints: words, films, pictures."""

    def __init__(self, run: Run, session: Session, display: Display, loggers: Loggers):
        self.run, self.session, self.display, self.loggers = run, session, display, loggers
        self.cells = getattr(run.eval_env, "cells", None)  # of a maze
        self.page: Watch | None = None  # of the first run

    def watch(self) -> contextlib.AbstractContextManager[object]:
        """Opens the page of the first run."""
        from goalax.study.watch import Watch  # here, because matplotlib would make every start slower

        first, *others = self.session.written
        more = f" and {len(others)} more seeds, which are not shown" if others else ""
        self.page = Watch(first, f"{first.name}{more}", self.display.progress, self.display.note)
        return self.page

    def beginning(self) -> None:
        """Says what comes before the first evaluation."""
        run, display = self.run, self.display
        if run.dataset is None:
            if prefill := run.sizes.prefill_unrolls * run.sizes.steps_per_unroll:
                display.say(f"collecting {prefill:,} steps before learning")
            return
        display.say(f"learning from {run.dataset.words}")
        if run.finetune_dataset is not None:
            display.say(f"then from {run.finetune_dataset.words}")
        for name, held_out in run.held_out.items():
            if held_out is not None and (learned := run.datasets[name]) is not None:
                display.note(f"validating on {sources.validation_name(learned.path)}")

    def evaluated(self, evaluation: Evaluation) -> None:
        """Hands an evaluation on, which is in metrics.csv already."""
        self.goals(evaluation.outcomes, evaluation.rows)
        self.loggers.log(evaluation.rows)
        self.display.evaluated(evaluation.env_steps, evaluation.means)
        if self.page is not None:
            self.page.evaluated(numbers(self.session.written[0]))

    def goals(self, outcomes: Outcomes, rows: list[dict[str, float]]) -> None:
        """In a maze, writes goals.csv: how often the goals of each cell were reached; rows: those of metrics.csv."""
        if self.cells is not None:
            for index, (directory, row) in enumerate(zip(self.session.written, rows, strict=True)):
                seen = self.session.of_seed(outcomes, index)
                goal_cells.save(directory, goal_cells.GoalCells.of(self.cells, seen, int(row[runs.STEPS])))

    def again(self) -> None:
        """What is missing of the last evaluation of a run that had ended: its goals.csv, its films."""
        written = self.session.written
        unseen = self.run.config.vis_length > 0 and any(map(kept.missing, written))
        old = self.cells is not None and any(map(goal_cells.is_old, written))
        (missing,) = devices.highest(int(unseen or old))  # all processes evaluate, or none
        if missing:
            recording, outcomes = self.session.seen()
            self.goals(outcomes, [runs.read_metrics(directory / "metrics.csv")[-1] for directory in written])
            if unseen:
                self.film(recording, self.session.total_steps, last=True)

    def film(self, recording: Recording, steps: int, last: bool) -> None:
        for index, directory in enumerate(self.session.written):
            files = kept.film(self.run, self.session.of_seed(recording, index), steps, directory, self.display, last)
            self.loggers.artifact(index, "policy", files, steps, last)
            if self.page is not None and index == 0 and files:
                self.page.filmed(files[0])

    def finish(self) -> None:
        """Draws the curves of every run, and hands its newest checkpoint to the loggers."""
        from goalax.study import pictures  # here, because matplotlib would make every start slower

        for index, directory in enumerate(self.session.written):
            pictures.draw(directory)
            for steps in checkpoint.steps(directory / "checkpoints")[:1]:
                newest, last = directory / "checkpoints" / str(steps), self.session.stopped_by is None
                self.loggers.artifact(index, "checkpoint", [newest, directory / "config.json"], steps, last)


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


def start() -> None:
    """What it does first where it is a program of its own: a signal before there is anything to save ends it.

    At once, and by no exception: a callback of JAX, which Python's garbage collector calls, would swallow it.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os._exit(128 + number))
