"""The console command `goalax`: `goalax train`, `goalax report` and so on; each is a file of `goalax.commands`."""

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from goalax import __version__
from goalax.host import output
from goalax.registry import RegistryError
from goalax.words import choices

COMMANDS = {
    "train": "train an agent",
    "evaluate": "play fresh episodes with the policy of a run: every metric with its interval",
    "render": "show an environment or a policy: HTML page, GIF, MP4",
    "export": "write the policy of a run as a file that runs with JAX alone, and its card",
    "plot": "draw the learning curves of many runs",
    "report": "write one page about many runs: curves, tables, comparisons, films",
    "table": "write the final evaluations of many runs: Markdown, CSV, JSON",
    "dataset": "write the buffer of a run, or scripted walks through a maze, as a dataset",
    "sweep": "run a sweep file of wandb without wandb",
    "benchmark": "measure speed against the limit that physics and gradients set",
    "distances": "compare the distances that a run has learned in its maze with the shortest paths",
    "correct": "collect, train and evaluate correctors of the plans that a run of tdmpc2 follows",
}

WORK = ("train", "sweep", "results", "speed")  # commands whose work is in files, so that it succeeds whoever listens


def run(command: str, argv: Sequence[str], prog: str) -> int:
    """Runs a command as a program of its own; returns the exit code.

    Output that cannot be written stops no command: behind a closed pipe it ends as ever, behind a full disk it says so.

    Args:
      prog: what its messages begin with.
    """
    with output.protected() as stdout:
        try:
            try:
                module = load(command)
            except RegistryError as error:  # of a file that somebody has added
                print(f"{prog}: {error}", file=sys.stderr)
                return 2
            if hasattr(module, "start"):
                module.start()
            code = module.main(list(argv), prog)
        except KeyboardInterrupt:
            return 130
        stdout.flush()
        if stdout.problem:
            print(f"{prog}: standard output cannot be written: {stdout.problem}.", file=sys.stderr)
            return code or int(command not in WORK)
        return code


def load(command: str) -> ModuleType:
    """The module of a command. Nothing that the imports make is garbage: looking for it takes a sixth of their time."""
    gc.disable()
    try:
        return import_module(f"goalax.commands.{command}")
    finally:
        gc.freeze()
        gc.enable()


def usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{words}" for name, words in COMMANDS.items()]
    return "\n".join(["goalax COMMAND [--help] ...", "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("--help", "-h", "help"):
        with output.protected():
            print(usage())
        return 0
    command, *rest = argv
    if command in ("--version", "-V"):
        with output.protected():
            print(f"goalax {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"goalax: {command!r} is no command; choose from: {choices(command, list(COMMANDS))}.", file=sys.stderr)
        return 2
    return run(command, rest, f"goalax {command}")
