#!/usr/bin/env python
"""Draws learning curves of many runs: interquartile means over seeds with 95% bands, a row per environment."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src import curves
from src.experiments import Group, RunsConfig, script
from src.flags import flag


@dataclasses.dataclass(frozen=True)
class PlotConfig(RunsConfig):
    """What to draw, and where to."""

    x: str = flag("steps", "horizontal axis", valid=tuple(curves.AXES))
    out: str = flag("curves.png", "PNG file to write")


def save(groups: Sequence[Group], notes: Sequence[str], path: Path, config: PlotConfig) -> None:
    curves.compare(groups, config.x).savefig(path, dpi=120)


def main(argv: Sequence[str]) -> int:
    """Runs a command line; returns the exit code."""
    description = "Draws learning curves by group: runs whose flags differ in the seed only."
    return script(argv, PlotConfig(), "plot.py", description, (".png",), save)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
