"""A sweep and its directory: its jobs, the programs that run them, and what came of them (sweep.csv)."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from goalax.host import behind, checkpoint, lock, runs
from goalax.host.config import Flags
from goalax.study import early_stop, sweep_file, sweep_runs, sweeps
from goalax.study.shared_search import SharedSearch
from goalax.study.sweeps import Job, SweepError
from goalax.whole import aside

LEFT_OUT = ("log_wandb", "seed")  # a local sweep takes the place of the one, and numbers the other
NO_NUMBER = "it logged no number as"
RESUMED = 1  # times that one call goes on with a job after signals: one that takes too much memory is killed every time


class Sweep:
    """A sweep and its directory; the same call goes on where an earlier one was interrupted."""

    def __init__(self, path: Path, out: Path, count: int | None, storage: str | None = None):
        """storage: an Optuna storage (a URL, or the path of a journal) whose search hosts share."""
        self.sweep, self.out = sweeps.read(path), out
        self.sign = 1 if self.sweep["metric"]["goal"] == "maximize" else -1
        self.metric, self.program = self.sweep["metric"]["name"], self.sweep.get("program") or "training.py"
        self.command = [sys.executable, self.program]
        if not os.path.isfile(self.program):
            if os.path.basename(self.program) != "training.py":
                raise SweepError(f"{path}: there is no program {self.program} here.")
            self.command = [sys.executable, "-m", "goalax", "train"]  # the same, outside of a checkout
        try:
            self.count = sweeps.runs_of(self.sweep, count)
            self.halving = early_stop.of_sweep(self.sweep)
        except SweepError as error:
            raise SweepError(f"{path}: {error}") from None
        self.known: dict[int, tuple[list[str], Flags]] = {}
        for parameters in self.corners():
            self.read(Job(0, parameters, [parameters.pop("seed", 0)]))  # what is no flag ends it before it starts
        self.jobs: list[Job] = []
        self.seen: dict[int, int] = {}  # number of a job -> its evaluations
        self.passed: dict[int, int] = {}  # number of a job -> the last bracket at which it was compared
        self.killed: Counter[int] = Counter()  # number of a job -> signals that ended its program in this call
        self.again: set[int] = set()  # numbers of those that failed in an earlier call, and are tried again in this one
        self.shared, self.token = None, None
        if storage is not None:
            name = self.sweep.get("name") or path.stem
            self.shared = SharedSearch(storage, name, self.sweep, self.count)
            self.token = self.shared.token
        elif self.sweep["method"] == "grid":
            self.jobs = sweeps.grid(self.sweep, self.count)

    def load(self) -> None:
        """Goes on with the jobs of an earlier call, if there was one; new ones of a grid are numbered after these."""
        jobs = sweeps.load(self.out / "sweep.json", self.sweep, self.shared is not None, self.token)
        self.again = {job.number for job in jobs if self.may_be_mended(job)}
        if self.shared is not None:
            for job in jobs:  # what a call that was killed did not tell
                if job.state in sweeps.ENDED and job.number not in self.again:
                    self.shared.tell(job)
        elif self.sweep["method"] == "grid":
            jobs = sweeps.begun(jobs)  # all of them, of a larger --count, too
            jobs += sweeps.grid(self.sweep, self.count, jobs)
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
        given = {key: value for key, value in job.parameters.items() if key not in LEFT_OUT and value is not None}
        given |= {"exp_name": job.name or self.plain_name(job), "seed": job.seeds[0], "num_seeds": len(job.seeds)}
        argv = [*sweep_file.arguments(self.sweep), *(f"--{key}={value}" for key, value in given.items())]
        # wandb is what LEFT_OUT leaves out, but where `command` asks for it; else how it logs means nothing.
        silent = sweep_file.without(argv, "wandb_mode")
        config = sweep_file.read_flags(silent)
        return (argv, sweep_file.read_flags(argv)) if config.log_wandb and silent != argv else (silent, config)

    def plain_name(self, job: Job) -> str:
        """What runs of a job are called where they have no name of their own; those of another sweep may be, too."""
        # Of `.` and `..`, too, which have none; but a link keeps its own, by which an earlier call named its runs.
        name = job.parameters.get("exp_name") or os.path.basename(os.path.abspath(self.out))
        return f"{name}_{job.number:03}"

    def flags(self, job: Job) -> tuple[list[str], Flags]:
        """`read`, once for every job."""
        if job.number not in self.known:
            self.known[job.number] = self.read(job)
        argv, config = self.known[job.number]
        return [*argv], config

    def next(self) -> Job | None:
        """The job to start now, if there is one left; those that a signal ended in this call come behind all others."""
        ready = [job for job in self.counted() if job.state in ("waiting", "stopped") or job.number in self.again]
        first = next((job for job in ready if job.number not in self.killed), None)
        if first is not None or (first := self.new()) is not None:
            return first
        return next((job for job in ready if self.killed[job.number] <= RESUMED), None)

    def counted(self) -> list[Job]:
        """The jobs that --count has room for: of an earlier call with a larger one the last ones wait."""
        room = math.inf if self.shared is not None else self.count  # that of hosts which share counts other jobs, too
        jobs = []
        for job in self.jobs:
            if room > 0:
                jobs.append(job)
            room -= len(job.seeds)
        return jobs

    def new(self) -> Job | None:
        """A job that was not there before, if the search has one left."""
        if self.shared is not None:
            if (taken := self.shared.take()) is not None:
                self.jobs.append(taken)
            return taken
        if self.sweep["method"] == "grid" or len(self.jobs) >= self.count:
            return None
        self.jobs.append(sweeps.suggest(self.sweep, self.jobs))
        return self.jobs[-1]

    def has_checkpoints(self, job: Job) -> bool:
        """Whether all runs of a job can go on."""
        begun = self.own(job)
        if begun != sweep_runs.newest(self.flags(job)[1]):  # --resume would go on with others
            return False
        return bool(begun) and all(checkpoint.steps(path / "checkpoints") for path in begun)

    def may_be_mended(self, job: Job) -> bool:
        """Whether the next call tries a failed job again: its program ended with 1, and left a checkpoint.

        So it ends at a full disk, which somebody may have cleared by then. So it does where a loss is not finite, which
        costs every call the way from the checkpoint. With 2 a flag is wrong, and will be.
        """
        if job.state != "failed" or job.code not in (1, None) or job.reason.startswith(NO_NUMBER):
            return False
        return self.has_checkpoints(job)

    def left(self) -> list[int]:
        """Numbers of the jobs that another call goes on with."""
        return [job.number for job in self.counted() if job.state == "stopped" or self.may_be_mended(job)]

    def start(self, job: Job, workers: int, note: Callable[[str], None]) -> subprocess.Popen:
        """Starts the program of a job, from its checkpoint if it was started before."""
        environment = dict(os.environ)
        if workers > 1:  # JAX would give 75% of a GPU's memory to the first program
            environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / workers:.2f}")
        with self.log(job).open("a") as log:
            if not lock.take(log):  # the program of a killed call has it, and saves its state first
                note(f"run {job.number} of an earlier call still ends; this one waits for it")
                while not lock.take(log):
                    time.sleep(0.2)
            resumed = job.state != "waiting" and self.has_checkpoints(job)
            if not resumed:
                job.name, job.older = sweep_runs.new_name(self.plain_name(job)), []
                self.known.pop(job.number, None)
            job.state, job.reason, job.code = "running", "", None
            self.again.discard(job.number)
            self.save()  # before it starts: what is killed now must not be begun twice
            command = [*self.command, *self.flags(job)[0], *(["--resume"] if resumed else [])]
            return lock.child(command, log, environment)

    def curve(self, job: Job) -> list[float]:
        """The metric of a job's evaluations so far, mean over its seeds, larger = better."""
        tables = [runs.read_metrics(path / "metrics.csv") for path in self.own(job)]
        columns = [[row[self.metric] for row in table if self.metric in row] for table in tables]
        if len(columns) < len(job.seeds):
            return []
        return [self.sign * mean(list(values)) for values in zip(*columns, strict=False)]

    def hopeless(self, job: Job) -> bool:
        """Whether a job that runs should end, as `early_terminate` has it; asks once at every bracket."""
        curve = self.curve(job)
        if len(curve) == self.seen.get(job.number, 0):
            return False
        self.seen[job.number] = len(curve)
        if self.shared is not None:
            self.shared.report(job, [self.sign * value for value in curve])
        if self.halving is None:
            return False
        # All that it came to since the last look: a fast run may come to several between two.
        new = [each for each in self.halving.brackets(len(curve)) if each > self.passed.get(job.number, 0)]
        if not new:
            return False
        self.passed[job.number] = new[-1]
        if self.shared is None:
            others = [self.curve(other) for other in self.jobs if other is not job and other.state != "waiting"]
        else:
            curves = self.shared.curves()
            others = [[self.sign * value for value in curves[n]] for n in curves if n != job.number]
        return any(self.halving.hopeless(curve, others, bracket) for bracket in new)

    def log(self, job: Job) -> Path:
        return self.out / f"{job.number:03}.log"

    def own(self, job: Job) -> list[Path]:
        """The run directories of a job, one for every seed; none if a seed has none."""
        return sweep_runs.of_job(job, *self.flags(job))

    def finish(self, job: Job, status: int, early: bool = False) -> None:
        """Takes note of how a program ended; early: because it was hopeless."""
        job.code = status
        if early and status != 0 and (curve := self.curve(job)):
            job.state, job.evaluations, job.values = "ended early", len(curve), [self.sign * curve[-1]]
            job.reason = f"after {len(curve)} evaluations others are ahead"
        elif status == 0:
            tables = [runs.read_metrics(path / "metrics.csv") for path in self.own(job)]
            values = [table[-1].get(self.metric, math.nan) for table in tables if table]
            job.values = [value for value in values if math.isfinite(value)]
            job.state = "finished" if len(job.values) == len(job.seeds) else "failed"
            job.reason = "" if job.state == "finished" else f"{NO_NUMBER} {self.metric}"
        elif number := signal_of(status):
            self.killed[job.number] += 1
            job.state, job.reason = "stopped", f"signal {number} ({signal.strsignal(number)}) ended it"
        else:
            lines = self.log(job).read_text(errors="replace").strip().splitlines()
            job.state, job.reason = "failed", lines[-1] if lines else f"exit code {status}"
        if self.shared is not None:
            self.shared.report(job, [self.sign * value for value in self.curve(job)])
            if job.state in sweeps.ENDED and not self.may_be_mended(job):  # what is told cannot be taken back
                self.shared.tell(job)

    def save(self) -> None:
        """Writes sweep.json and sweep.csv, each replaced as a whole; OSError names the file."""
        sweeps.save(self.out / "sweep.json", self.sweep, self.jobs, self.token)
        names = [name for name in self.sweep["parameters"] if name not in LEFT_OUT]
        with aside(self.out / "sweep.csv") as part, part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["run", "state", self.metric, "seed", *names, "run_dir"])
            for job in self.jobs:
                found = [] if job.state == "waiting" else self.own(job)
                directories: Sequence[Path | str] = found or [""] * len(job.seeds)
                for index, (seed, directory) in enumerate(zip(job.seeds, directories, strict=True)):
                    value = job.values[index] if job.state == "finished" else ""
                    parameters = [job.parameters[name] for name in names]
                    writer.writerow([job.number, job.state, value, seed, *parameters, directory])

    def best(self) -> Job | None:
        finished = [job for job in self.jobs if job.state == "finished"]
        return max(finished, key=lambda job: self.sign * mean(job.values), default=None)

    def table(self, room: int | None = None) -> Table:
        """What a person watches: how far every job is, and its flags that vary; with room for so many, the newest."""
        varied = [name for name, spec in self.sweep["parameters"].items() if "value" not in spec and name != "seed"]
        ended = sum(job.state in sweeps.ENDED for job in self.jobs)
        grid = self.sweep["method"] == "grid" and self.shared is None
        total = f"{len(self.jobs) if grid else max(self.count, len(self.jobs))} ended"
        table = Table(title=f"{self.metric}: {ended} of {total}{' here' if self.shared else ''}", title_justify="left")
        for name in ("run", "state", "steps", "value", "seeds"):
            table.add_column(name, no_wrap=True)
        table.add_column("flags")
        best, started = self.best(), [job for job in self.jobs if job.state != "waiting"]
        shown = started if room is None else started[-room:]
        if best is not None and best not in shown:
            shown = [best, *shown]
        for job in shown:
            directories = self.own(job)
            rows = [row for path in directories[:1] for row in runs.read_metrics(path / "metrics.csv")]
            last = rows[-1] if rows and (job.state == "stopped" or not job.reason) else {}
            value = mean(job.values) if job.values else last.get(self.metric)
            steps = behind.progress_in_words(self.flags(job)[1], runs.progress(last), "") if runs.STEPS in last else ""
            seeds = f"{job.seeds[0]} to {job.seeds[-1]}" if len(job.seeds) > 1 else job.seeds[0]
            flags = ", ".join(f"{name} {short(job.parameters[name])}" for name in varied)
            cells = map(str, (job.number, job.state, steps.strip(), short(value), seeds, flags))
            table.add_row(*cells, style="bold green" if job is best else "red" if job.reason else None)
        return table


def signal_of(status: int) -> int | None:
    """The signal that ended a program; None if its exit code tells of none.

    A training that is asked to stop, and a shell whose program was killed, end with 128 + signal.
    """
    number = -status if status < 0 else status - 128
    return number if number in signal.valid_signals() else None


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
