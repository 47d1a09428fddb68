#!/usr/bin/env python
"""Writes one HTML page about many runs: curves, final numbers with intervals, comparisons, flags, films."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import report
from src.experiments import Group, RunsConfig, script
from src.flags import flag


@dataclasses.dataclass(frozen=True)
class ReportConfig(RunsConfig):
    """What to report on, and where to."""

    out: str = flag("report.html", "HTML file to write")


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: ReportConfig) -> None:
    report.save(groups, notes, path)


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    description = "Writes one page about many runs, with everything inside."
    return script(argv, ReportConfig(), "report.py", description, (".html",), save)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
