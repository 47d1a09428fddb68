"""Runs the sweep of a wandb sweep file without wandb: `python scripts/sweep.py scripts/sweep.yml --count 20`."""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from goalax.flags import FlagError, flag, parse
from goalax.host import lock, runs
from goalax.host.interrupt import end_as_ctrl_c
from goalax.study import sweeps
from goalax.study.sweep import Sweep, mean, short
from goalax.study.sweeps import Job, SweepError


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Which sweep, and how."""

    file: str | None = flag(None, "the sweep file; as the first word it may be given without --file")
    count: int | None = flag(
        None,
        "runs in all, those of an interrupted call included (default: run_cap, or all of a grid)",
        low=1,
        high=100_000,
    )
    workers: int = flag(1, "programs at once", low=1, high=1000)
    out: str | None = flag(None, "directory for sweep.csv and the logs (default: sweeps/ and the name of the file)")
    storage: str | None = flag(
        None,
        "share the search with other hosts: a journal file that all of them reach, or the URL of a database (Optuna)",
    )


def run(sweep: Sweep, workers: int, console: Console) -> bool:
    """Runs what is left, `workers` programs at once; returns whether it was not interrupted."""
    running: dict[int, tuple[Job, subprocess.Popen]] = {}
    ending: set[int] = set()  # numbers of those that were told to end early
    note = functools.partial(console.print, soft_wrap=True)

    def table() -> Table:
        return sweep.table(max(2, console.height // 3 - 2))  # lines of a terminal; a job takes two or three

    with Live(table(), console=console, auto_refresh=False, transient=True) as live:
        try:
            while True:
                while len(running) < workers and (job := sweep.next()) is not None:
                    running[job.number] = job, sweep.start(job, workers, note)
                    note(f"run {job.number} started, its output goes to {sweep.log(job)}")
                if not running:
                    return True
                time.sleep(0.5)
                for number, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[number]
                        sweep.finish(job, process.returncode, number in ending)
                        sweep.save()
                        words = job.reason or f"{sweep.metric} {short(mean(job.values))}"
                        note(f"run {number} {job.state}: {words}")
                    elif number not in ending and sweep.hopeless(job):
                        ending.add(number)
                        process.terminate()
                live.update(table(), refresh=console.is_terminal)
        except KeyboardInterrupt:
            return False
        finally:
            for job, process in running.values():  # they save their state first
                process.terminate()
                job.state = "stopped"
            for _, process in running.values():
                process.wait()
            sweep.save()


def main(argv: Sequence[str], prog: str = "sweep.py") -> int:
    """Runs a command line; returns the exit code."""
    argv = ["--file", *argv] if argv and not argv[0].startswith("-") else list(argv)
    console = Console(markup=False, emoji=False, highlight=False)  # names have brackets and colons
    try:
        description = "Runs a sweep file of wandb without wandb; the same call resumes an interrupted sweep."
        (config,) = parse(argv, SweepConfig(), others={}, prog=prog, description=description)
        if config.file is None:
            raise SweepError("Name a sweep file, such as scripts/sweep.yml.")
        path = Path(config.file)
        sweep = Sweep(path, Path(config.out or f"sweeps/{path.stem}"), config.count, config.storage)
        for name in sweeps.ignored(sweep.sweep):
            print(f"{prog}: `{name}` of {path} is for wandb's server only.", file=sys.stderr)
        with lock.only_one(sweep.out, "A sweep runs in"), runs.naming(sweep.out):
            sweep.load()
            complete = run(sweep, config.workers, console)
    except (FlagError, SweepError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{prog}: {error.filename} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    console.print(sweep.table())
    console.print(f"{sweep.out / 'sweep.csv'}", soft_wrap=True)
    if not complete:
        console.print("Interrupted; the same command goes on from here.")
        return 130
    if left := sweep.left():
        which = f"run{'s' if len(left) > 1 else ''} {', '.join(map(str, left))}"
        console.print(f"The same command goes on with {which}.", soft_wrap=True)
    if sweep.best() is None:
        print(f"{prog}: No run finished; the logs are in {sweep.out}.", file=sys.stderr)
        return 1
    return 0


def start() -> None:
    """What it does first where it is a program of its own."""
    end_as_ctrl_c()
