"""Trains the rows of a file one after the other, for days if it must, and writes their tables: `scripts/results.py`."""

import dataclasses
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TextIO

from goalax.flags import FlagError, flag, parse
from goalax.host import behind, checkpoint
from goalax.host.folders import ROOT
from goalax.host.interrupt import SIGNALS, listened
from goalax.host.lock import child, only_one, take
from goalax.study import results, results_document
from goalax.study.results import Row

PATIENCE = 60.0  # seconds until a file of rows that could not be read is read again
READINGS = 5  # of such a file, until the rows that it had before go on
STOPPED = {code for each in SIGNALS for code in (128 + each, -each)}  # exit codes of a training that was asked to stop


@dataclasses.dataclass(frozen=True)
class ResultsConfig:
    """Which rows, and where what they leave is kept."""

    rows: str = flag("benchmarks/results/rows.yml", "file with the rows, in order of their value")
    keep: str = flag("benchmarks/results", "folder for metrics.csv and config.json of finished rows")
    out: str = flag(
        "docs/results.md,docs/offline.md,docs/planning.md",
        "Markdown files, with commas between them, in which the tables of each section are replaced after every row",
    )
    core: int | None = flag(None, "processor core that everything runs on (default: any)", low=0, high=4095)
    list: bool = flag(False, "print what is finished and what is left, and run nothing")
    tables: bool = flag(False, "write the tables, and run nothing")
    readme: str | None = flag(
        None, "with --tables, Markdown files, with commas between them, whose tables of the best rows are replaced, too"
    )


class Queue:
    """The rows of a file and what is known of them."""

    command: ClassVar = (sys.executable, "-m", "goalax", "train")
    collect: ClassVar = (sys.executable, "-m", "goalax", "dataset")

    def __init__(self, config: ResultsConfig, prog: str):
        self.config, self.prog = config, prog
        self.keep = Path(config.keep)
        self.known: list[Row] = []  # what the file had when it could last be read
        self.failed: dict[str, str] = {}  # name of a row -> the last line that its training said
        self.child: subprocess.Popen[Any] | None = None
        self.stopping = False
        self.wake = threading.Event()  # set once it should stop

    def rows(self) -> list[Row]:
        """Read anew for every row, so that people may edit the file meanwhile."""
        return results.read_rows(Path(self.config.rows))

    def is_finished(self, row: Row) -> bool:
        return results.finished(results.kept(row, self.keep))

    def state(self, row: Row) -> str:
        """What to say of a row, in a few words."""
        if self.is_finished(row):
            return "finished"
        if row.name in self.failed:
            return f"failed: {self.failed[row.name]}"
        done = [program for program in row.programs if self.is_finished(program)]
        if done:
            return f"{len(done)} of {len(row.programs)} seeds"
        directories = [path for program in row.programs for path in results.newest_directories(program)]
        tables = [results.runs.read_metrics(path / "metrics.csv") for path in directories]
        if tables and all(tables):
            progress = min(results.runs.progress(table[-1]) for table in tables)
            return f"stopped at {behind.progress_in_words(row.flags, progress)}"
        return "not run"

    def next(self) -> Row | None:
        """The first row, or seed of one, that is neither finished nor has failed; waits while somebody edits the file
        of the rows, but not for ever: it may have flags that are newer than this process."""
        readings = 0
        while not self.stopping:
            try:
                self.known, problem = self.rows(), None
            except FlagError as error:
                problem, readings = error, readings + 1
            programs = (part for row in self.known if row.name not in self.failed for part in row.programs)
            left = next((part for part in programs if not self.is_finished(part)), None)
            if problem is None:
                return left
            if readings >= READINGS and left is not None:
                self.say(f"{problem} The rows that it had before go on.")
                return left
            self.say(f"{problem} It is read again in {PATIENCE:g} seconds.")
            self.wake.wait(PATIENCE)
        return None

    def run(self, row: Row) -> None:
        """Trains a row, or a seed of it, from where it was, and keeps it if it gets to its end."""
        argv = [*row.training, "--exp_name", row.name, "--group_name", results.GROUP]
        log = ROOT / results.GROUP / f"{row.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        self.say(f"{shlex.join(['python', 'training.py', *row.training])}; its output goes to {log}")
        with log.open("a") as output:
            self.wait_for(output)
            before = results.newest_directories(row)
            if before and all(checkpoint.steps(directory / "checkpoints") for directory in before):
                argv.append("--resume")
            code = next((code for data in missing(row) if (code := self.collected(data, output))), 0)
            code = code or self.call([*self.command, *argv], output)
        if code == 0:
            if directories := results.newest_directories(row):
                results.keep(row, directories, self.keep)
            if not directories:
                self.failed[row.name] = f"what it left is no run with the flags of the row, see {log}"
            elif not self.is_finished(row):
                self.failed[row.name] = f"it ended before its budget, see {log}"
        elif code not in STOPPED:
            lines = log.read_text(errors="replace").strip().splitlines()
            self.failed[row.name] = lines[-1] if lines else f"exit code {code}"
        self.say(f"{row.name}: {self.state(row)}")

    def wait_for(self, output: TextIO) -> None:
        """Until nobody else writes into a log: the training of a queue that was killed takes its time to save."""
        told = False
        while not take(output) and not self.wake.wait(0.2):
            if not told:
                self.say("the training of the queue before still saves its state; this one goes on behind it.")
            told = True

    def collected(self, data: Sequence[str], output: TextIO) -> int:
        """Makes a file of data, and notes beside it how; returns the exit code."""
        note_of(results.out_of(data)).write_text("")  # of data that are cut short
        if (code := self.call([*self.collect, *data], output)) == 0:
            note_of(results.out_of(data)).write_text(shlex.join(data))
        return code

    def call(self, command: Sequence[str], output: TextIO) -> int:
        """Runs a program to its end; returns its exit code."""
        if self.stopping:
            return 128 + signal.SIGINT
        self.child = child(command, output)
        if self.stopping:  # it was asked to while that one started
            self.child.terminate()
        code = self.child.wait()
        self.child = None
        return code

    def write(self) -> None:
        rows = self.rows()
        notes = {row.name: state for row in rows if (state := self.state(row)) != "finished"}
        documents = [Path(name) for name in self.config.out.split(",")]
        results_document.write_documents(documents, rows, self.keep, notes, "results.py")

    def stop(self, *_: Any) -> None:
        """Asks the training that runs to save and end, and lets nothing start after it."""
        self.stopping = True
        self.wake.set()
        if self.child is not None:
            self.child.terminate()

    def say(self, text: str) -> None:
        print(f"{self.prog}: {text}", flush=True)


def note_of(out: str) -> Path:
    """Where it says how a file of data was made."""
    return Path(f"{out}.command")


def missing(row: Row) -> list[tuple[str, ...]]:
    """The command lines for data of a row that is not here yet, or that another one made; makes the folders for it."""
    lines = []
    for argv in row.data:
        path, note = Path(results.out_of(argv)), note_of(results.out_of(argv))
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or (note.exists() and note.read_text() != shlex.join(argv)):
            lines.append(argv)
    return lines


def main(argv: Sequence[str], prog: str = "results.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Trains the rows that are left, in order, and writes their tables; call it again after any stop."
        (config,) = parse(argv, ResultsConfig(), others={}, prog=prog, description=description)
        queue = Queue(config, prog)
        if config.list:
            for row in queue.rows():
                print(f"{queue.state(row):<27} {row.command}")
            return 0
        if config.readme is not None and not config.tables:
            raise FlagError("--readme is written with --tables; give both.")
        if config.tables:
            if config.keep != ResultsConfig.keep and not queue.keep.is_dir():  # before its first row it has no other
                raise FlagError(f"--keep is {config.keep!r}; there is no such folder to write the tables from.")
            queue.write()
            for name in config.readme.split(",") if config.readme else []:
                results_document.write_best(Path(name), queue.rows(), queue.keep, "results.py")
            return 0
        if config.core is not None:
            pin(config.core)
        queue.rows()  # what is wrong with them ends it before it makes a folder
        with only_one(ROOT / results.GROUP):
            return work(queue)
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2


def pin(core: int) -> None:
    """Everything from here on runs on one core; FlagError if there is none of this number."""
    if not hasattr(os, "sched_setaffinity"):
        raise FlagError(f"--core is {core}; this system cannot hold programs on a core: leave it out.")
    try:
        os.sched_setaffinity(0, {core})
    except OSError:
        there = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise FlagError(f"--core is {core}; choose from: {there}.") from None


def work(queue: Queue) -> int:
    """Runs row after row; returns the exit code: 1 if rows failed."""
    handlers = {number: signal.signal(number, queue.stop) for number in listened()}
    try:
        queue.write()  # before the first hour of work: the documents must have places for all sections
        while not queue.stopping and (row := queue.next()) is not None:
            try:
                queue.run(row)
            except OSError as error:  # a full disk, say
                queue.failed[row.name] = f"{error.filename or 'a file'} cannot be written ({error.strerror})"
            try:
                queue.write()
            except FlagError as error:  # a section that has no place yet, say: no reason for a core to idle
                queue.say(f"the tables are not written: {error}")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if queue.stopping:
        queue.say("stopped; the same call goes on from here.")
        return 130
    for name, reason in queue.failed.items():
        print(f"{queue.prog}: {name} failed: {reason}", file=sys.stderr)
    return 1 if queue.failed else 0
