"""Learning curves: curves.png of one run, and groups of runs side by side with their intervals."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from goalax.host import runs
from goalax.host.display import track
from goalax.study import measures
from goalax.study.experiments import REWARD, Group
from goalax.study.hover import Curve, Drawing
from goalax.study.statistics import interquartile_mean
from goalax.whole import aside

REACHED, NEAR = "episodes that reach the goal", "share of time at the goal"
RETURN = "sum of the rewards of an episode"
SUCCESS = "success over the tasks"  # of OGBench
AXES = {"steps": "environment steps", "wall_clock": "wall clock in minutes"}
UPDATES = "updates"  # of runs that learn from a dataset alone
# Okabe and Ito 2008 (Color Universal Design), those that show on white and on black; lines tell more groups apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")
OTHERS = "#999999"
LEGENDS = {20: 4, 30: 3, 48: 2}  # longest label -> columns that fit side by side


def draw(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Draws `of_run` into a PNG file, all of it or nothing."""
    with aside(path) as part:
        of_run(rows, title).savefig(part, format="png", dpi=120)


def of_run(rows: list[dict[str, float]], title: str) -> Figure:
    """Success, or without goals rewards, and losses over environment steps, from the rows of metrics.csv."""
    last, marker = rows[-1], "o" if len(rows) == 1 else None  # a line of one point cannot be seen
    offline = 0 if not last["training/envsteps"] else last.get(runs.OFFLINE, 0)
    steps, title = [runs.progress(row) - offline for row in rows], plain(title)
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    success, losses = figure.subplots(1, 2)
    if all("eval/time_at_goal" in row for row in rows):
        success.plot(steps, [row["eval/episode_success_any"] for row in rows], label=REACHED, marker=marker)
        success.plot(steps, [row["eval/time_at_goal"] for row in rows], label=NEAR, marker=marker)
        success.set(ylim=(-0.02, 1.02), ylabel="success", title=title)
    else:  # of an environment without goals
        success.plot(steps, [row["eval/episode_reward"] for row in rows], label=RETURN, marker=marker)
        success.set(ylabel="reward", title=title)
    for name in ("critic_loss", "actor_loss"):
        if all(f"training/{name}" in row for row in rows):
            values = [row[f"training/{name}"] for row in rows]
            losses.plot(steps, values, label=name.replace("_", " "), marker=marker)
    losses.set(ylabel="loss", title="training")
    for axes in (success, losses):
        finish(axes, "steps", steps[0], [not last["training/envsteps"]])
        axes.legend(frameon=False)
    return figure


def along(x: str, first: float, offline: Sequence[bool]) -> str:
    """What the horizontal axis counts, of all that is drawn over it; arguments as of `finish`."""
    if x == "steps" and all(offline):
        return UPDATES
    if x != "steps" or (first >= 0 and not any(offline)):
        return AXES[x]
    if not any(offline):
        return f"{AXES[x]}, left of 0 {UPDATES} on a dataset"
    return f"{AXES[x]}, {'left of 0 and ' if first < 0 else ''}of offline runs {UPDATES}"


def finish(axes: Axes, x: str, first: float, offline: Sequence[bool]) -> None:
    """Names and cuts the horizontal axis.

    Args:
      first: leftmost of all points over steps, below 0 if some come before the first step.
      offline: of all that is drawn, whether it learns from a dataset alone.
    """
    axes.set_xlabel(along(x, first, offline))
    axes.set_xlim(left=min(first, 0) if x == "steps" else 0)
    if x == "steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    tidy(axes)


def tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)


def plain(text: str) -> str:
    """A text as Matplotlib shows it as it is: between two dollars it would read formulas."""
    return text.replace("$", r"\$")


class Legend(NamedTuple):
    """A legend above all panels, with long labels in several lines."""

    names: dict[str, str]  # label -> what is shown
    columns: int

    @classmethod
    def of(cls, labels: Iterable[str]) -> Self:
        names = {label: textwrap.fill(plain(label), 100, subsequent_indent="    ") for label in labels}
        longest = max(map(len, names.values()))
        return cls(names, min(next((LEGENDS[limit] for limit in LEGENDS if longest <= limit), 1), len(names)))

    @property
    def inches(self) -> float:
        """Its height."""
        return float(0.22 * np.ceil(sum(name.count("\n") + 1 for name in self.names.values()) / self.columns))

    def put(self, figure: Figure, lines: dict[str, Line2D]) -> None:
        handles, names = [lines[label] for label in self.names], list(self.names.values())
        figure.legend(handles, names, loc="outside upper center", ncols=self.columns, frameon=False)


def compare(groups: Sequence[Group], x: str) -> Drawing:
    """Interquartile means over seeds with 95% bands: a row of panels per environment, a column per measure.

    Args:
      x: a name of AXES; the wall clock is the mean over seeds.
    """
    envs = list(dict.fromkeys(group.env for group in groups))
    styles = styles_of(groups)
    legend = Legend.of(styles)
    figure = Figure(figsize=(10, 0.8 + legend.inches + 3 * len(envs)), layout="constrained")
    panels = figure.subplots(len(envs), 2, squeeze=False)
    lines: dict[str, Line2D] = {}
    shown: list[Curve] = []
    alpha = min(0.2, 1.6 / len(styles))
    for group in track(groups, "drawing"):
        at = group.at if x == "steps" else group.metric("training/walltime").mean(0) / 60
        label = group.label if group.label in styles else list(styles)[-1]
        for axes, scores in zip(panels[envs.index(group.env)], scores_of(group).values(), strict=False):
            estimate = interquartile_mean([scores])
            marker = "o" if len(at) == 1 else None
            (lines[label],) = axes.plot(at, estimate.value, marker=marker, **styles[label])
            low, high, colour = estimate.low, estimate.high, styles[label]["color"]
            # Of one point a band has no width.
            band = axes.fill_between(at, low, high, color=colour, alpha=alpha, linewidth=6 if len(at) == 1 else 0)
            shown.append(Curve(label, axes, (lines[label], band), at, estimate))
    for env, row in zip(envs, panels, strict=True):
        members = [group for group in groups if group.env == env]
        for axes, words in zip(row, scores_of(members[0]), strict=False):
            axes.set(ylabel=words, title=env.replace(", ", ",\n"))  # two names are wider than a picture
            if members[0].has_goals:
                axes.set_ylim(-0.02, 1.02)
            finish(axes, x, *starts(members))
        row[1].set_visible(len(scores_of(members[0])) == 2)
    legend.put(figure, lines)
    seeds = sorted({len(group.runs) for group in groups})
    number = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    bands = ", bands are 95% intervals (stratified bootstrap)" if seeds[-1] > 1 else ""
    words = f"Interquartile mean over {number} seed{'s' * (seeds[-1] > 1)}{bands}"
    figure.supxlabel(words, fontsize=9, alpha=0.8)
    return Drawing(figure, list(legend.names), shown)


def starts(groups: Sequence[Group]) -> tuple[float, list[bool]]:
    """What `finish` is told of groups: where the first of them begins, and which of them learn from a dataset alone."""
    return min(float(group.at[0]) for group in groups), [measures.is_offline(group) for group in groups]


def scores_of(group: Group) -> dict[str, np.ndarray]:
    """What is drawn of a group, in words, [seeds, T] each; the last one tells which is best."""
    if measures.has_tasks(group):  # whose episodes end at the goal
        return {SUCCESS: group.metric(measures.TASKS)}
    if group.has_goals:
        return {REACHED: group.reached, NEAR: group.near}
    return {RETURN: group.metric(REWARD)}


def styles_of(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """label -> keywords of its lines. With more labels than styles, all but the best at the end share one in grey."""
    final: dict[str, list[float]] = {}
    for group in groups:
        *_, scores = scores_of(group).values()
        final.setdefault(group.label, []).append(scores[:, -1].mean())
    pairs: list[dict[str, Any]] = [{"color": colour, "linestyle": line} for line in LINES for colour in COLOURS]
    labels = list(final)
    if len(labels) > len(pairs):
        best = sorted(labels, key=lambda label: -np.mean(final[label]))[: len(pairs)]
        labels = [label for label in labels if label in best]
    styles = dict(zip(labels, pairs, strict=False))
    if len(final) > len(labels):
        styles[f"{len(final) - len(labels)} others, which end lower"] = {"color": OTHERS, "linewidth": 0.6, "zorder": 1}
    return styles
