#!/usr/bin/env python
"""Writes one HTML page about many runs: curves, final numbers with intervals, comparisons, flags, films."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import experiments, report
from src.flags import FlagError, flag, parse


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """What to report on, and where to."""

    runs: tuple[str, ...] = flag((), "run directories, or folders whose runs are meant", positional=True)
    out: str = flag("report.html", "HTML file to write")


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Writes one page about many runs, with everything inside."
        (config,) = parse(argv, ReportConfig(), others={}, prog="report.py", description=description)
        path = experiments.output(config.out, ".html")
        groups, notes = experiments.compare(map(Path, config.runs))
    except FlagError as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"report.py: {note}", file=sys.stderr)
    try:
        report.save(groups, notes, path)
    except OSError as error:  # a full disk, say
        print(f"report.py: {path} cannot be written: {error.strerror}.", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
