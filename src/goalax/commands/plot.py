"""Draws learning curves of many runs, a row per environment, or performance profiles; with 95% bands."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from goalax.flags import flag
from goalax.study import curves, profiles
from goalax.study.experiments import Group
from goalax.study.script import RunsConfig, script
from goalax.whole import aside


@dataclasses.dataclass(frozen=True)
class PlotConfig(RunsConfig):
    """What to draw, and where to."""

    x: str = flag("steps", "horizontal axis; score: performance profiles", valid=(*curves.AXES, "score"))
    out: str = flag("curves.png", "PNG file to write")


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: PlotConfig) -> None:
    drawing = profiles.compare(groups) if config.x == "score" else curves.compare(groups, config.x)
    with aside(path) as part:
        drawing.figure.savefig(part, format="png", dpi=120)


def main(argv: Sequence[str], prog: str = "plot.py") -> int:
    """Runs a command line; returns the exit code."""
    description = "Draws learning curves, or profiles, by group: runs whose flags differ in the seed only."
    return script(argv, PlotConfig(), prog, description, (".png",), save)
