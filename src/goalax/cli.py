"""The console command `goalax`: `goalax train`, `goalax report` and so on; each is a file of `goalax.commands`."""

import sys
from collections.abc import Sequence
from importlib import import_module

from goalax import __version__
from goalax.registry import choices

COMMANDS = {
    "train": "train an agent",
    "evaluate": "play fresh episodes with the policy of a run: every metric with its interval",
    "render": "show an environment or a policy: HTML page, GIF, MP4",
    "plot": "draw the learning curves of many runs",
    "report": "write one page about many runs: curves, tables, comparisons, films",
    "table": "write the final evaluations of many runs: Markdown, CSV, JSON",
    "sweep": "run a sweep file of wandb without wandb",
    "benchmark": "measure speed against the limit that physics and gradients set",
    "distances": "compare the distances that a run has learned in its maze with the shortest paths",
}


def run(command: str, argv: Sequence[str], prog: str) -> int:
    """Runs a command as a program of its own; returns the exit code.

    Args:
      prog: what its messages begin with.
    """
    module = import_module(f"goalax.commands.{command}")
    if hasattr(module, "start"):
        module.start()
    try:
        return module.main(list(argv), prog)
    except KeyboardInterrupt:
        return 130


def usage() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:<{width}}{words}" for name, words in COMMANDS.items()]
    return "\n".join(["goalax COMMAND [--help] ...", "", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(usage())
        return 0
    command, *rest = argv
    if command in ("--version", "-V"):
        print(f"goalax {__version__}")
        return 0
    if command not in COMMANDS:
        print(f"goalax: {command!r} is no command; choose from: {choices(command, list(COMMANDS))}.", file=sys.stderr)
        return 2
    return run(command, rest, f"goalax {command}")
