"""Where metrics go beside metrics.csv: Weights & Biases and TensorBoard. A failing logger is left, and stops no run."""

import contextlib
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from goalax.host import runs
from goalax.host.config import Flags
from goalax.host.runs import progress
from goalax.words import first_line

START_SECONDS, END_SECONDS = 30, 30  # how long a server that does not answer is waited for
STEP = "training/envsteps"
EVENTS = re.compile(r"events\.out\.tfevents\.([0-9]{10})\.")  # the second in which TensorBoard's file was begun
BEST = ("eval/episode_success", "eval/episode_success_any")  # whose maxima a sweep may want, beside the last values


class Logger(Protocol):
    """What mirrors one run directory somewhere else."""

    def log(self, row: dict[str, float], /) -> None: ...  # a new row of metrics.csv
    def artifact(
        self, kind: str, paths: Sequence[Path], steps: int, row: dict[str, float], last: bool, /
    ) -> None: ...  # files, with the newest row
    def finish(self, success: bool, /) -> None: ...


class Loggers(contextlib.AbstractContextManager):
    """The loggers of all runs of one program; use it in a `with`, and everything is sent at its end."""

    def __init__(self, config: Flags, directories: list[Path], note: Callable[[str], None]):
        """directories: one per seed, with a config.json each; note: takes the sentence about a logger that failed."""
        self.config, self.directories, self.note = config, directories, note
        self.rows: list[dict[str, float]] = [{} for _ in directories]
        self.loggers: dict[str, Sequence[Logger]] = {}  # one per seed
        if config.log_wandb:
            with self._guard("wandb"):
                self.loggers["wandb"] = open_wandb(config.wandb_mode, directories, note)
        if config.log_tensorboard:
            with self._guard("TensorBoard"):
                self.loggers["TensorBoard"] = [TensorBoard(directory) for directory in directories]

    @contextlib.contextmanager
    def _guard(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a logger and its network come up with
            self.loggers.pop(name, None)
            self.note(
                f"{name} failed ({first_line(error)}): training goes on without it, and metrics.csv has everything."
            )

    def _each(self, index: int, method: Literal["log", "artifact", "finish"], *arguments: Any) -> None:
        for name, loggers in list(self.loggers.items()):
            with self._guard(name):
                getattr(loggers[index], method)(*arguments)

    def log(self, rows: list[dict[str, float]]) -> None:
        """The new row of every run's metrics.csv."""
        self.rows = rows
        for index, row in enumerate(rows):
            self._each(index, "log", row)

    def artifact(self, index: int, kind: str, paths: Sequence[Path], steps: int, last: bool) -> None:
        """Files of one run (kind: policy or checkpoint) that show or hold what it has learned after so many steps."""
        if paths:
            self._each(index, "artifact", kind, paths, steps, self.rows[index], last)

    def __exit__(self, error_type, *_) -> None:
        for index in range(len(self.directories)):
            self._each(index, "finish", error_type is None)
        if self.config.log_wandb and "wandb" not in self.loggers:  # else it would complain again when Python ends
            with contextlib.suppress(Exception):
                import wandb

                wandb.teardown(exit_code=1)


def open_wandb(mode: str, directories: list[Path], note: Callable[[str], None]) -> list["Wandb"]:
    """A wandb run per directory; offline where there is no account or no server, which `note` is told once."""
    import wandb  # here, because only those who log pay the second that this takes

    wandb.setup(wandb.Settings(silent=True))
    later = "it writes into the run directory instead (`wandb sync` sends that later)"
    if mode == "online" and os.environ.get("WANDB_MODE") != "offline":
        if wandb.login(prompt=False, verify=False):
            try:
                loggers = [Wandb(directory, "online", new_id(index)) for index, directory in enumerate(directories)]
                note(f"wandb shows this at {', '.join(str(logger.run.url) for logger in loggers)}")
                return loggers
            except Exception as error:  # no network, no such server, no permission
                note(f"wandb cannot be reached ({first_line(error)}): {later}.")
                wandb.teardown()
                wandb.setup(wandb.Settings(silent=True))
        else:
            note(f"wandb knows no account here (`wandb login`): {later}.")
    return [Wandb(directory, "offline", new_id(index)) for index, directory in enumerate(directories)]


def new_id(index: int) -> str | None:
    """The id of a program's wandb run; None for the first one, whose id the agent of a sweep chooses."""
    return secrets.token_hex(4) if index else None


class Wandb:
    """A run in Weights & Biases that mirrors one run directory, and continues where that one was continued."""

    def __init__(self, directory: Path, mode: Literal["online", "offline"], new_id: str | None):
        """new_id: for a run directory that has no wandb run yet; None leaves the choice to wandb."""
        import wandb

        self.wandb, self.directory = wandb, directory
        content = json.loads((directory / "config.json").read_text())
        self.flags = content["flags"]
        past = sorted(path.name.split("run-", 1)[1] for path in directory.glob("wandb/*run-*-*"))  # DATE-ID
        self.run = wandb.init(
            project=self.flags["project_name"],
            group=self.flags["group_name"],
            name=directory.name,
            id=past[-1].split("-", 1)[1] if past else new_id,
            config={**self.flags, **content["agent_flags"], "versions": content["versions"]},
            dir=directory.absolute(),
            mode=mode,
            resume="allow",
            reinit="create_new",  # a run per seed, side by side
            settings=wandb.Settings(
                silent=True,
                console="off",  # it would take the place of the live bar
                init_timeout=START_SECONDS,
                finish_timeout=END_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        # The step that `log` gives: environment steps stay 0 while a run learns from a dataset. wandb keeps it of every
        # row, so that the rows from before a run was resumed have it, too, whichever version wrote them.
        self.run.define_metric("*", step_metric="_step")

    def log(self, row: dict[str, float]) -> None:
        # With a step of its own, a resumed run goes on behind its first part, and whichever part is sent first.
        self.run.log(row, step=int(progress(row)), commit=True)

    def artifact(self, kind: str, paths: Sequence[Path], steps: int, row: dict[str, float], last: bool) -> None:
        metadata = {"env": self.flags["env_name"], "agent": self.flags["agent"], "step": steps}
        metadata |= {name.removeprefix("eval/episode_"): row[name] for name in BEST if name in row}
        artifact = self.wandb.Artifact(f"{kind}-{self.run.id}", type=kind, metadata=metadata)
        for path in paths:
            add = artifact.add_dir if path.is_dir() else artifact.add_file
            add(str(path), name=str(path.relative_to(self.directory)))
        self.run.log_artifact(artifact, aliases=["latest", f"step-{steps}", *(["final"] if last else [])])

    def finish(self, success: bool) -> None:
        rows = runs.read_metrics(self.directory / "metrics.csv")
        for name in BEST:  # of environments with goals
            if values := [row[name] for row in rows if name in row]:
                self.run.summary[f"{name}_best"] = max(values)
        self.run.finish(exit_code=0 if success else 1)


class TensorBoard:
    """Event files in the run directory: `tensorboard --logdir runs` shows them under the name of the run.

    Written here and not by tensorboardX's SummaryWriter: its thread loses the end of a row when the process is killed,
    and dies without a word when the disk is full; its queue then keeps `add_scalar` waiting for ever.
    """

    def __init__(self, directory: Path):
        from tensorboardX import RecordWriter  # here, because it takes half a second

        self.directory = directory
        past = [int(name[1]) for path in directory.iterdir() if (name := EVENTS.match(path.name))]
        second = max([int(time.time()), *(one + 1 for one in past)])  # files are read in the order of their names
        self.records = RecordWriter(str(directory / f"events.out.tfevents.{second}.{socket.gethostname()}"))
        self.continues = bool(past)  # and has not said from where yet, which the first row tells
        with self._on_disk():
            self._write(0, file_version="brain.Event:2")
            if not self.continues:
                self._write_config(0)

    def log(self, row: dict[str, float]) -> None:
        with self._on_disk():
            if self.continues:
                self._continue(row)
                self.continues = False
            self._write_row(row)

    def artifact(self, *_: Any) -> None:
        """It has no place for files; they are in the run directory beside it."""

    def finish(self, _success: bool) -> None:
        self.records.close()

    def _continue(self, row: dict[str, float]) -> None:
        """Takes back what earlier files have and metrics.csv has no more, as it came after the checkpoint.

        row: the first one of this file. TensorBoard in Python forgets the steps from that of a START on, but not at the
        first START of a run, so there are two. Its faster server knows no START: each value makes it forget those of
        its name from the same step on, so the last row that stands is repeated.
        """
        from tensorboardX.proto.event_pb2 import SessionLog

        rows = [past for past in runs.read_metrics(self.directory / "metrics.csv") if STEP in past]
        last = [past for past in rows if progress(past) < progress(row)][-1:]  # none if it was killed before its first
        step = int(progress(last[0])) if last else 0
        for _ in range(2):
            self._write(step, session_log=SessionLog(status=SessionLog.START))
        self._write_config(step)
        for past in last:
            self._write_row(past)

    def _write_config(self, step: int) -> None:
        from tensorboardX.summary import text

        self._write(step, summary=text("config", f"```\n{(self.directory / 'config.json').read_text()}\n```"))

    def _write_row(self, row: dict[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary
        from tensorboardX.summary import scalar

        values = [value for name, number in row.items() for value in scalar(name, number).value]
        self._write(int(progress(row)), summary=Summary(value=values))  # one record: all of a row is there, or nothing

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self.records.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())

    @contextlib.contextmanager
    def _on_disk(self) -> Iterator[None]:
        """What is written in it is on disk at its end; where it cannot be, the file is closed."""
        try:
            yield
            self.records.flush()  # with fsync
        except Exception:
            with contextlib.suppress(Exception):  # else Python would try, and complain, once more when it is collected
                self.records.close()
            raise
