"""Performance profiles: which share of an agent's runs, over environments and seeds, ends above a score."""

from collections.abc import Sequence

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from goalax.flags import FlagError
from goalax.study import curves, measures
from goalax.study.experiments import Group
from goalax.study.hover import Curve, Drawing
from goalax.study.statistics import performance_profile

TAUS = np.linspace(0, 1, 101)
# Final scores [seeds] of a group, by what they are; OGBench's episodes end at the goal, and their success is both.
MEASURES = {
    curves.REACHED: lambda group: group.reached[:, -1],
    curves.NEAR: lambda group: measures.shares(group)[:, -1],
}


def by_label(groups: Sequence[Group]) -> dict[str, dict[str, Group]]:
    """label -> environment -> group."""
    found: dict[str, dict[str, Group]] = {}
    for group in groups:
        found.setdefault(group.label, {})[group.env] = group
    return found


def complete(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """label -> its groups, of agents that were trained in all environments: others would be compared on other tasks."""
    envs = {group.env for group in groups}
    return {label: list(found.values()) for label, found in by_label(groups).items() if found.keys() == envs}


def drawable(groups: Sequence[Group]) -> bool:
    """Whether there is an agent with several runs in all environments together: a profile of one run says nothing."""
    return any(sum(len(group.runs) for group in members) > 1 for members in complete(groups).values())


def compare(groups: Sequence[Group]) -> Drawing:
    """A panel per measure at the last evaluation, a line per agent with its 95% band (stratified bootstrap).

    Source: section 4 of arXiv 2108.13264.

    Raises:
      FlagError: no agent has several runs.
    """
    if not drawable(groups):
        raise FlagError("A performance profile needs an agent with at least two runs, in every environment one.")
    found, styles = complete(groups), curves.styles_of(groups)
    others = list(styles)[-1]
    legend = curves.Legend.of(dict.fromkeys(label if label in styles else others for label in found))
    figure = Figure(figsize=(10, 0.8 + legend.inches + 3), layout="constrained")
    panels = figure.subplots(1, 2)
    lines: dict[str, Line2D] = {}
    shown: list[Curve] = []
    for axes, (words, scores_of) in zip(panels, MEASURES.items(), strict=True):
        for label, members in found.items():
            estimate = performance_profile([scores_of(group) for group in members], TAUS)
            name = label if label in styles else others
            (lines[name],) = axes.step(TAUS, estimate.value, where="post", **styles[name])
            low, high, colour = estimate.low, estimate.high, styles[name]["color"]
            band = axes.fill_between(TAUS, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
            shown.append(Curve(name, axes, (lines[name], band), TAUS, estimate))
        axes.set(ylim=(-0.02, 1.02), xlim=(0, 1), xlabel=f"score: {words}", ylabel="share of runs above the score")
        curves.tidy(axes)
    legend.put(figure, lines)
    number = len({group.env for group in groups})
    words = f"Last evaluations, mean over {number} environment{'s' * (number > 1)}"
    figure.supxlabel(f"{words}, bands are 95% intervals (stratified bootstrap)", fontsize=9, alpha=0.8)
    return Drawing(figure, list(legend.names), shown)
