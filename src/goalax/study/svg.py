"""Drawings inside pages: SVG in the text colour of the page."""

import html
import io
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.figure import Figure

INK = "#010203"  # stands for the page's text colour, which is another one in the dark


def svg(draw: Callable[[], Figure], label: str) -> str:
    """A drawing as SVG in the text colour of the page, not larger than it is; label: for those who cannot see it."""
    names = ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # Any: newer versions of matplotlib list the names that there are.
    style: dict[Any, str] = {**dict.fromkeys(names, INK), "svg.fonttype": "none", "font.family": "sans-serif"}
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure = draw()
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    text = buffer.getvalue().replace(INK, "currentColor")
    attributes = f'role="img" aria-label="{html.escape(label)}" style="max-width: {110 * figure.get_figwidth():.0f}px"'
    return text[text.index("<svg") :].replace("<svg", f"<svg {attributes}", 1)
