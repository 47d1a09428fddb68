"""curves.png: the learning curves of one run."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure


def draw(rows: list[dict[str, float]], episode_length: int, title: str, path: Path) -> None:
    """Draws success and losses over environment steps from the rows of metrics.csv."""
    steps = [row["training/envsteps"] for row in rows]
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    success, losses = figure.subplots(1, 2)
    success.plot(steps, [row["eval/episode_success_any"] for row in rows], label="episodes that reach the goal")
    near = [row["eval/episode_success"] / episode_length for row in rows]
    success.plot(steps, near, label="share of time at the goal")
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
