"""The films of a run directory: policy_STEPS.html while it trains, policy.html and policy.gif of its end."""

import os
from pathlib import Path

from goalax.core.rollout import Recording
from goalax.host import behind
from goalax.host.display import Display
from goalax.host.make import Run
from goalax.words import first_line

FINAL = ("policy.html", "policy.gif")


def film(run: Run, recording: Recording, steps: int, directory: Path, display: Display, last: bool) -> list[Path]:
    """Shows what an evaluation saw: policy_STEPS.html, or the final films after the last evaluation.

    What cannot be drawn is told and left out, for no picture is worth a run; a file that cannot be written ends it.
    Returns what was written, each of them as a whole.

    Args:
      steps: environment steps, and before them updates on a dataset.

    Raises:
      OSError: a file could not be written.
    """
    if run.config.vis_length == 0:
        return []
    from goalax.films import page, render, scene  # here, because they would make every start slower

    display.say("rendering the policy")
    caption = f"{run.config.eval_env}   {run.config.agent}   {behind.progress_in_words(run.config, steps)}"
    saved = []
    for name in FINAL if last else (f"policy_{steps}.html",):
        save = page.save if name.endswith(".html") else render.save_gif
        try:
            save(run.eval_env, scene.film(run.eval_env, recording, run.config.vis_length, caption), directory / name)
            saved.append(directory / name)
        except OSError:
            raise
        except Exception as error:  # whatever an environment's own body and goal points come up with
            display.note(f"No {name}: {first_line(error)}.")
    return saved


def missing(directory: Path) -> bool:
    """Whether a run that has ended has fewer films than it should."""
    return not all((directory / name).exists() for name in FINAL)


def put_aside(directory: Path, steps: int) -> None:
    """Of a run that goes on, final films become those of so many steps."""
    for name in FINAL:
        if (path := directory / name).exists():
            os.replace(path, path.with_stem(f"{path.stem}_{steps}"))
