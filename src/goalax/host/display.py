"""What a person sees during training: a live bar on a terminal, plain lines elsewhere, a summary at the end."""

import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

T = TypeVar("T")
QUIET_SECONDS = 30.0  # where there is no bar, a line comes at least this often
OLD_SECONDS = 5.0  # words about progress that are older than this say how old they are


def duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def track(items: Iterable[T], words: str) -> Iterable[T]:
    """The items, with a bar on standard error while they are worked through, if that is a terminal."""
    console = Console(stderr=True)
    return progress.track(items, words, console=console, transient=True, disable=not console.is_terminal)


class Display:
    """Shows the progress of a run; use it in a `with`.

    Where there is no terminal, a thread repeats what is going on whenever nothing was printed for `QUIET_SECONDS`.
    The first `updates` of `total_steps` are updates on a dataset, which take another time than environment steps.
    """

    def __init__(self, total_steps: int, console: Console | None = None, updates: int = 0):
        self.console = console or Console(highlight=False)
        self.total_steps, self.updates = total_steps, updates
        self.success = ""
        self.steps = 0
        self.first: tuple[float, int] | None = None  # when and where the speed started to be measured
        self.unit = "steps"  # of that speed
        columns = [
            SpinnerColumn(),
            BarColumn(bar_width=30),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
        ]
        self.bar = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.bar.add_task("", total=total_steps)
        self.printed = time.monotonic()  # when the last line came
        self.phase: tuple[str, float] = "", self.printed  # what is going on, and since when
        self.reached: tuple[str, float] | None = None  # words about progress in it, and of when they are
        self.over = threading.Event()
        self.reminder = threading.Thread(target=self._remind, daemon=True)

    def __enter__(self) -> "Display":
        self.bar.start()
        if not (self.console.is_terminal or self.console.quiet):
            self.reminder.start()
        return self

    def __exit__(self, *_) -> None:
        self.over.set()
        if self.reminder.is_alive():
            self.reminder.join()
        self.bar.stop()

    def _remind(self) -> None:
        while not self.over.wait(max(0.0, self.printed + QUIET_SECONDS - time.monotonic())):
            if time.monotonic() >= self.printed + QUIET_SECONDS:
                self.note(self.now())

    def now(self) -> str:
        """What is going on."""
        (phase, since), reached = self.phase, self.reached
        if reached is None:
            return f"{phase}: {duration(time.monotonic() - since)} so far"
        text, when = reached
        age = time.monotonic() - when
        return text if age < OLD_SECONDS else f"{text}  {duration(age)} ago"

    def progress(self) -> tuple[str, float]:
        """`now`, and the share of all steps that is done."""
        return self.now(), min(1.0, self.steps / self.total_steps)

    def note(self, text: str) -> None:
        """A line that stays."""
        self.printed = time.monotonic()
        self.console.print(Text(text), soft_wrap=True)  # as Text: names of runs are no markup

    def say(self, text: str) -> None:
        """What is going on: beside the bar on a terminal, a line elsewhere."""
        self.phase, self.reached = (text, time.monotonic()), None
        if self.console.is_terminal:
            self.bar.update(self.task, description=text)
        else:
            self.note(text)

    def step(self, env_steps: int) -> str:
        """Takes note of progress; returns the words for it."""
        now, self.steps = time.monotonic(), env_steps
        offline = self.updates > 0 and env_steps <= self.updates
        before, total, unit = (0, self.updates, "updates") if offline else (self.updates, self.total_steps, "steps")
        if self.first is None or unit != self.unit:
            self.first, self.unit = (now, env_steps), unit
        words = [f"{env_steps - before:,} / {total - before:,} {unit}"]
        seconds, steps = now - self.first[0], env_steps - self.first[1]
        if steps > 0:
            left = max(total - env_steps, 0) * seconds / steps
            words += [f"{steps / seconds:,.0f} {unit}/s", f"{duration(left)} left"]
        text = "  ".join([*words, self.success])
        self.reached = text, now
        self.bar.update(self.task, completed=min(env_steps, self.total_steps), description=text)
        return text

    def evaluated(self, env_steps: int, metrics: dict[str, float]) -> None:
        """metrics: a row of metrics.csv, or nothing."""
        if metrics and "eval/time_at_goal" not in metrics:  # of an environment without goals
            self.success = f"reward {metrics['eval/episode_reward']:.1f}"
        elif metrics:
            reached, near = metrics["eval/episode_success_any"], metrics["eval/time_at_goal"]
            self.success = f"success {reached:.2f}  time at goal {near:.2f}"
        text = self.step(env_steps)
        if not self.console.is_terminal:
            self.note(text)

    def summary(self, title: str, numbers: dict[str, str], paths: list[Path]) -> None:
        """The table at the end: what came out, and where everything is."""
        table = Table(show_header=False)
        for name, value in numbers.items():
            table.add_row(name, value)
        self.console.print(Text(title), soft_wrap=True)
        self.console.print(table)
        for path in paths:
            self.console.print(Text(f"  {path}"), soft_wrap=True)
