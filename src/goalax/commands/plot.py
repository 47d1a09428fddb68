"""Draws learning curves of many runs: interquartile means over seeds with 95% bands, a row per environment."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from goalax.flags import flag
from goalax.study import curves
from goalax.study.experiments import Group, RunsConfig, script


@dataclasses.dataclass(frozen=True)
class PlotConfig(RunsConfig):
    """What to draw, and where to."""

    x: str = flag("steps", "horizontal axis", valid=tuple(curves.AXES))
    out: str = flag("curves.png", "PNG file to write")


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: PlotConfig) -> None:
    curves.compare(groups, config.x).savefig(path, dpi=120)


def main(argv: Sequence[str], prog: str = "plot.py") -> int:
    """Runs a command line; returns the exit code."""
    description = "Draws learning curves by group: runs whose flags differ in the seed only."
    return script(argv, PlotConfig(), prog, description, (".png",), save)
