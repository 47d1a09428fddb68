#!/usr/bin/env python
"""Draws learning curves of many runs: interquartile means over seeds with 95% bands, a row per environment."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import curves, experiments
from src.flags import FlagError, flag, parse


@dataclasses.dataclass(frozen=True)
class PlotConfig:
    """What to draw, and where to."""

    runs: tuple[str, ...] = flag((), "run directories, or folders whose runs are meant", positional=True)
    x: str = flag("steps", "horizontal axis", valid=tuple(curves.AXES))
    out: str = flag("curves.png", "PNG file to write")


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Draws learning curves by group: runs whose flags differ in the seed only."
        (config,) = parse(argv, PlotConfig(), others={}, prog="plot.py", description=description)
        path = experiments.output(config.out, ".png")
        groups, notes = experiments.compare(map(Path, config.runs))
    except FlagError as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"plot.py: {note}", file=sys.stderr)
    try:
        curves.compare(groups, config.x).savefig(path, dpi=120)
    except OSError as error:  # a full disk, say
        print(f"plot.py: {path} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
