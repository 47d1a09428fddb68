"""What the report's script needs to tell the values of a drawing and to hide its lines: numbers and marks."""

import json
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from goalax.study.statistics import Estimate

DIGITS = 5  # of a number that the page holds


class Curve(NamedTuple):
    """A line of a drawing, with its numbers."""

    label: str  # equal labels are shown and hidden together
    axes: Axes
    artists: tuple[Artist, ...]  # the line and its band
    at: Any  # [N] horizontal
    estimate: Estimate  # [N] each


class Drawing(NamedTuple):
    """A figure and what can be pointed at in it."""

    figure: Figure
    labels: list[str]  # as its legend has them
    curves: list[Curve]


def mark(drawing: Drawing, name: str) -> None:
    """Gives ids to the lines and to the legend, which the SVG keeps; name: of the drawing, for no id may come twice."""
    for number, curve in enumerate(drawing.curves):
        for part, artist in enumerate(curve.artists):
            artist.set_gid(f"{name}-{number}-{part}")
    for legend in drawing.figure.legends:
        for number, pair in enumerate(zip(legend.legend_handles, legend.texts, strict=True)):
            for part, shown in enumerate(pair):
                if shown is not None:
                    shown.set_gid(f"{name}-legend-{number}-{part}")


def described(drawing: Drawing, name: str) -> str:
    """JSON on a figure that has been saved, so that its panels have their places.

    `panels`: box (left, top, right, bottom, in shares of the picture), limits of both axes, what is along the first;
    `labels` and `curves` (index of the label, of the panel, numbers), in the order of the ids that `mark` gave.
    """
    panels = list(dict.fromkeys(curve.axes for curve in drawing.curves))
    boxes = [axes.get_position() for axes in panels]
    content = {
        "name": name,
        "labels": drawing.labels,
        "panels": [
            {
                "box": [_number(edge) for edge in (box.x0, 1 - box.y1, box.x1, 1 - box.y0)],
                "x": [float(limit) for limit in axes.get_xlim()],
                "y": [float(limit) for limit in axes.get_ylim()],
                "along": axes.get_xlabel(),
            }
            for axes, box in zip(panels, boxes, strict=True)
        ],
        "curves": [
            {
                "label": drawing.labels.index(curve.label),
                "panel": panels.index(curve.axes),
                "x": [_number(value) for value in curve.at],
                "y": [[_number(value) for value in part] for part in curve.estimate],
            }
            for curve in drawing.curves
        ],
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _number(value: Any) -> float | None:
    """A number in few digits, a whole one (steps, say) as it is; None where there is none (an interval of one seed)."""
    if not np.isfinite(value):
        return None
    return float(value if float(value).is_integer() else f"{value:.{DIGITS}g}")
