"""Writes one HTML page about many runs: curves, numbers with intervals, profiles, heat maps, comparisons, films."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from goalax.flags import flag
from goalax.study import report
from goalax.study.experiments import Group
from goalax.study.measures import MeasuresConfig
from goalax.study.script import script


@dataclasses.dataclass(frozen=True)
class ReportConfig(MeasuresConfig):
    """What to report on, and where to."""

    out: str = flag("report.html", "HTML file to write")


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: ReportConfig) -> None:
    report.save(groups, notes, path, config.threshold)


def main(argv: Sequence[str], prog: str = "report.py") -> int:
    """Runs a command line; returns the exit code."""
    description = "Writes one page about many runs, with everything inside."
    return script(argv, ReportConfig(), prog, description, (".html",), save)
