"""The films of a run directory: policy_STEPS.html while it trains, policy.html and policy.gif of its end."""

import os
from pathlib import Path

from goalax.core.rollout import Recording
from goalax.host.display import Display
from goalax.host.make import Run

FINAL = ("policy.html", "policy.gif")


def film(run: Run, recording: Recording, steps: int, directory: Path, display: Display, last: bool) -> list[Path]:
    """Shows what an evaluation saw: policy_STEPS.html, or the final films after the last evaluation.

    What cannot be drawn here is told and left out; returns what was written, each of them as a whole.
    """
    if run.config.vis_length == 0:
        return []
    from goalax.films import page, render, scene  # here, because they would make every start slower

    display.say("rendering the policy")
    caption = f"{run.config.eval_env}   {run.config.agent}   {steps:,} steps"
    shown = scene.film(run.eval_env, recording, run.config.vis_length, caption)
    names = FINAL if last else (f"policy_{steps}.html",)
    saved = []
    for name in names:
        save, part = page.save if name.endswith(".html") else render.save_gif, directory / f"part_of_{name}"
        try:
            save(run.eval_env, shown, part)
            os.replace(part, directory / name)
            saved.append(directory / name)
        except scene.RenderError as error:
            display.note(f"No {name}: {error}.")
    return saved


def missing(directory: Path) -> bool:
    """Whether a run that has ended has fewer films than it should."""
    return not all((directory / name).exists() for name in FINAL)


def put_aside(directory: Path, steps: int) -> None:
    """Of a run that goes on, final films become those of so many steps."""
    for name in FINAL:
        if (path := directory / name).exists():
            os.replace(path, path.with_stem(f"{path.stem}_{steps}"))
