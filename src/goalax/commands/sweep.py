"""Runs the sweep of a wandb sweep file without wandb: `python scripts/sweep.py scripts/sweep.yml --count 20`."""

import csv
import dataclasses
import functools
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from goalax.flags import FlagError, flag, parse
from goalax.host import checkpoint, lock, runs
from goalax.host.config import Flags
from goalax.study import sweep_file, sweeps
from goalax.study.sweeps import Job, SweepError

LEFT_OUT = ("log_wandb", "seed")  # this script takes the place of the one, and numbers the other


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """Which sweep, and how."""

    file: str | None = flag(None, "the sweep file, which may also be given without --file")
    count: int | None = flag(
        None,
        "runs in all, those of an interrupted call included (default: run_cap, or all of a grid)",
        low=1,
        high=100_000,
    )
    workers: int = flag(1, "programs at once", low=1, high=1000)
    out: str | None = flag(None, "directory for sweep.csv and the logs (default: sweeps/ and the name of the file)")


class Sweep:
    """A sweep and its directory; the same call goes on where an earlier one was interrupted."""

    def __init__(self, path: Path, out: Path, count: int | None):
        self.sweep, self.out = sweeps.read(path), out
        self.metric, self.program = self.sweep["metric"]["name"], self.sweep.get("program") or "training.py"
        self.command = [sys.executable, self.program]
        if not os.path.isfile(self.program):
            if os.path.basename(self.program) != "training.py":
                raise SweepError(f"{path}: there is no program {self.program} here.")
            self.command = [sys.executable, "-m", "goalax", "train"]  # the same, outside of a checkout
        try:
            self.count = sweeps.runs_of(self.sweep, count)
        except SweepError as error:
            raise SweepError(f"{path}: {error}") from None
        self.known: dict[int, tuple[list[str], Flags]] = {}
        for parameters in self.corners():
            self.read(Job(0, parameters, [parameters.pop("seed", 0)]))  # what is no flag ends it before it starts
        self.jobs = sweeps.grid(self.sweep, self.count) if self.sweep["method"] == "grid" else []

    def load(self) -> None:
        """Goes on with the jobs of an earlier call, if there was one."""
        jobs = sweeps.load(self.out / "sweep.json", self.sweep)
        if self.sweep["method"] == "grid":
            known = {(str(job.parameters), str(job.seeds)): job for job in jobs}
            jobs = [known.get((str(job.parameters), str(job.seeds)), job) for job in self.jobs]
        self.jobs = jobs

    def corners(self) -> Iterator[dict[str, Any]]:
        """Few sets of parameters that have every value of each, and the ends of its range, with every agent."""
        specs, method = self.sweep["parameters"], self.sweep["method"]
        columns = {name: sweep_file.extremes(name, spec, method) for name, spec in specs.items()}
        agents = columns.pop("agent", [None])
        for agent in agents:
            for index in range(max(map(len, columns.values()), default=1)):
                yield {"agent": agent} | {name: values[index % len(values)] for name, values in columns.items()}

    def read(self, job: Job) -> tuple[list[str], Flags]:
        """The command line of a job, and what it says; FlagError if it is none."""
        name = job.parameters.get("exp_name") or self.out.name
        given = {key: value for key, value in job.parameters.items() if key not in LEFT_OUT and value is not None}
        given |= {"exp_name": f"{name}_{job.number:03}", "seed": job.seeds[0], "num_seeds": len(job.seeds)}
        argv = [*sweep_file.arguments(self.sweep), *(f"--{key}={value}" for key, value in given.items())]
        return argv, sweep_file.read_flags(argv)

    def flags(self, job: Job) -> tuple[list[str], Flags]:
        """`read`, once for every job."""
        if job.number not in self.known:
            self.known[job.number] = self.read(job)
        argv, config = self.known[job.number]
        return [*argv], config

    def next(self) -> Job | None:
        """The job to start now, if there is one left."""
        for job in self.jobs:
            if job.state in ("waiting", "stopped"):
                return job
        if self.sweep["method"] == "grid" or len(self.jobs) >= self.count:
            return None
        self.jobs.append(sweeps.suggest(self.sweep, self.jobs))
        return self.jobs[-1]

    def start(self, job: Job, workers: int, note: Callable[[str], None]) -> subprocess.Popen:
        """Starts the program of a job, from its checkpoint if it was stopped."""
        environment = dict(os.environ)
        if workers > 1:  # JAX would give 75% of a GPU's memory to the first program
            environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / workers:.2f}")
        with self.log(job).open("a") as log:
            if not lock.take(log):  # the program of a killed call has it, and saves its state first
                note(f"run {job.number} of an earlier call still ends; this one waits for it")
                while not lock.take(log):
                    time.sleep(0.2)
            argv, config = self.flags(job)
            directories = self.directories(config)
            own = directories and not {str(path) for path in directories} & {*job.older}
            if job.state == "stopped" and own and all(checkpoint.steps(path / "checkpoints") for path in directories):
                argv.append("--resume")
            else:
                job.older = [str(path) for path in directories]
            job.state = "running"
            self.save()  # before it starts: what is killed now must not be begun twice
            command = [*self.command, *argv]
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lock.end_with_parent(),
            )

    def log(self, job: Job) -> Path:
        return self.out / f"{job.number:03}.log"

    def directories(self, config: Flags) -> list[Path]:
        try:
            return runs.find_all(config)
        except FlagError:
            return []

    def finish(self, job: Job, status: int) -> None:
        """Takes note of how a program ended."""
        if status == 0:
            tables = [runs.read_metrics(path / "metrics.csv") for path in self.directories(self.flags(job)[1])]
            values = [table[-1].get(self.metric, math.nan) for table in tables if table]
            job.values = [value for value in values if math.isfinite(value)]
            job.state = "finished" if len(job.values) == len(job.seeds) else "failed"
            job.reason = "" if job.state == "finished" else f"it logged no number as {self.metric}"
        else:
            lines = self.log(job).read_text(errors="replace").strip().splitlines()
            job.state, job.reason = "failed", lines[-1] if lines else f"exit code {status}"

    def save(self) -> None:
        sweeps.save(self.out / "sweep.json", self.sweep, self.jobs)
        names = [name for name in self.sweep["parameters"] if name not in LEFT_OUT]
        part = self.out / "sweep.csv.part"
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "state", self.metric, "seed", *names, "run_dir"])
            for job in self.jobs:
                found = [] if job.state == "waiting" else self.directories(self.flags(job)[1])
                directories: Sequence[Path | str] = found or [""] * len(job.seeds)
                for index, (seed, directory) in enumerate(zip(job.seeds, directories, strict=True)):
                    value = job.values[index] if job.state == "finished" else ""
                    parameters = [job.parameters[name] for name in names]
                    writer.writerow([job.number, job.state, value, seed, *parameters, directory])
        part.replace(self.out / "sweep.csv")

    def best(self) -> Job | None:
        sign = 1 if self.sweep["metric"]["goal"] == "maximize" else -1
        finished = [job for job in self.jobs if job.state == "finished"]
        return max(finished, key=lambda job: sign * mean(job.values), default=None)

    def table(self, room: int | None = None) -> Table:
        """What a person watches: how far every job is, and its flags that vary; with room for so many, the newest."""
        varied = [name for name, spec in self.sweep["parameters"].items() if "value" not in spec and name != "seed"]
        ended = sum(job.state in ("finished", "failed") for job in self.jobs)
        total = len(self.jobs) if self.sweep["method"] == "grid" else max(self.count, len(self.jobs))
        table = Table(title=f"{self.metric}: {ended} of {total} ended", title_justify="left")
        for name in ("run", "state", "steps", "value", "seeds"):
            table.add_column(name, no_wrap=True)
        table.add_column("flags")
        best, started = self.best(), [job for job in self.jobs if job.state != "waiting"]
        shown = started if room is None else started[-room:]
        if best is not None and best not in shown:
            shown = [best, *shown]
        for job in shown:
            directories = self.directories(self.flags(job)[1])
            rows = [row for path in directories[:1] for row in runs.read_metrics(path / "metrics.csv")]
            last = rows[-1] if rows and not job.reason else {}
            value = mean(job.values) if job.values else last.get(self.metric)
            steps = f"{last[runs.STEPS]:,}" if runs.STEPS in last else ""
            seeds = f"{job.seeds[0]} to {job.seeds[-1]}" if len(job.seeds) > 1 else job.seeds[0]
            flags = ", ".join(f"{name} {short(job.parameters[name])}" for name in varied)
            cells = map(str, (job.number, job.state, steps, short(value), seeds, flags))
            table.add_row(*cells, style="bold green" if job is best else "red" if job.reason else None)
        return table


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def run(sweep: Sweep, workers: int, console: Console) -> bool:
    """Runs what is left, `workers` programs at once; returns whether it was not interrupted."""
    running: dict[int, tuple[Job, subprocess.Popen]] = {}
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
                        sweep.finish(job, process.returncode)
                        sweep.save()
                        words = job.reason or f"{sweep.metric} {short(mean(job.values))}"
                        note(f"run {number} {job.state}: {words}")
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
        sweep = Sweep(path, Path(config.out or f"sweeps/{path.stem}"), config.count)
        for name in sweeps.ignored(sweep.sweep):
            print(f"{prog}: `{name}` of {path} is for wandb's server only.", file=sys.stderr)
        with lock.only_one(sweep.out, "A sweep runs in"):
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
    if sweep.best() is None:
        print(f"{prog}: No run finished; the logs are in {sweep.out}.", file=sys.stderr)
        return 1
    return 0


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def start() -> None:
    """What it does first where it is a program of its own."""
    signal.signal(signal.SIGTERM, interrupt)
