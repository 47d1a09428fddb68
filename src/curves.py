"""Learning curves: curves.png of one run, and groups of runs side by side with their intervals."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

from src.experiments import Group
from src.statistics import interquartile_mean

REACHED, NEAR = "episodes that reach the goal", "share of time at the goal"
AXES = {"steps": "environment steps", "wall_clock": "wall clock in minutes"}
# Okabe and Ito 2008 (Color Universal Design), those that show on white and on black; lines tell more groups apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", ":", "-.")


def draw(rows: list[dict[str, float]], episode_length: int, title: str, path: Path) -> None:
    """Draws success and losses over environment steps from the rows of metrics.csv."""
    steps = [row["training/envsteps"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    success, losses = figure.subplots(1, 2)
    success.plot(steps, [row["eval/episode_success_any"] for row in rows], label=REACHED)
    near = [row["eval/episode_success"] / episode_length for row in rows]
    success.plot(steps, near, label=NEAR)
    success.set(ylim=(-0.02, 1.02), ylabel="success", title=title)
    for name in ("critic_loss", "actor_loss"):
        if all(f"training/{name}" in row for row in rows):
            losses.plot(steps, [row[f"training/{name}"] for row in rows], label=name.replace("_", " "))
    losses.set(ylabel="loss", title="training")
    for axes in (success, losses):
        axes.set_xlabel("environment steps")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def compare(groups: Sequence[Group], x: str) -> Figure:
    """Interquartile means over seeds with 95% bands: a row of panels per environment, a column per measure.

    Args:
      x: a name of AXES; the wall clock is the mean over seeds.
    """
    envs = list(dict.fromkeys(group.env for group in groups))
    styles = {label: index for index, label in enumerate(dict.fromkeys(group.label for group in groups))}
    figure = Figure(figsize=(10, 0.5 + 0.25 * -(-len(styles) // 2) + 3 * len(envs)), layout="constrained")
    panels = figure.subplots(len(envs), 2, squeeze=False)
    lines = {}
    for group in groups:
        at = group.steps if x == "steps" else group.metric("training/walltime").mean(0) / 60
        index = styles[group.label]
        style = {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[index // len(COLOURS) % len(LINES)]}
        for axes, scores in zip(panels[envs.index(group.env)], (group.reached, group.near), strict=True):
            estimate = interquartile_mean([scores])
            marker = "o" if len(at) == 1 else None
            (lines[group.label],) = axes.plot(at, estimate.value, marker=marker, **style)
            axes.fill_between(at, estimate.low, estimate.high, color=style["color"], alpha=0.2, linewidth=0)
    for env, row in zip(envs, panels, strict=True):
        for axes, words in zip(row, (REACHED, NEAR), strict=True):
            axes.set(ylim=(-0.02, 1.02), ylabel=words, xlabel=AXES[x], title=env)
            axes.grid(alpha=0.3)
    figure.legend(lines.values(), lines.keys(), loc="outside upper center", ncols=min(2, len(lines)), frameon=False)
    return figure
