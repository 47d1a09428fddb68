"""Where metrics go beside metrics.csv: Weights & Biases and TensorBoard. A failing logger is left, and stops no run."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from goalax.host import runs
from goalax.host.config import Flags
from goalax.host.runs import progress

START_SECONDS, END_SECONDS = 30, 30  # how long a server that does not answer is waited for
STEP = "training/envsteps"
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
            self.note(f"{name} failed ({words(error)}): training goes on without it, and metrics.csv has everything.")

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


def words(error: Exception) -> str:
    """The first line of an error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(". ")


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
                note(f"wandb cannot be reached ({words(error)}): {later}.")
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
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)

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
    """An event file in the run directory: `tensorboard --logdir runs` shows it under the name of the run."""

    def __init__(self, directory: Path):
        from tensorboardX import SummaryWriter  # here, because it takes half a second

        self.writer = SummaryWriter(str(directory))
        self.writer.add_text("config", f"```\n{(directory / 'config.json').read_text()}\n```")

    def log(self, row: dict[str, float]) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, progress(row))
        self.writer.flush()

    def artifact(self, *_: Any) -> None:
        """It has no place for files; they are in the run directory beside it."""

    def finish(self, _success: bool) -> None:
        self.writer.close()
