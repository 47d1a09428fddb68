"""A state that is saved by itself, apart from a run that trains: beside an older one of as many steps, if there is."""

import shutil
from pathlib import Path

import jax

from goalax.core.types import RunState
from goalax.host import checkpoint, devices


def save(checkpoints: Path, state: RunState, step: int) -> None:
    """Writes the checkpoint STEP; one that is there already becomes STEP.earlier once the new one is whole.

    Raises:
      SaveError: it could not be written; what was there is as it was.
    """
    again = step in checkpoint.steps(checkpoints)
    place = checkpoints.with_name("again") if again else checkpoints
    if again:
        shutil.rmtree(place, ignore_errors=True)  # what a kill left
    with checkpoint.Saver(place) as saver:
        checkpoint.save(saver, jax.tree.map(devices.fetch, state), step)
    if again:
        checkpoint.put_aside(checkpoints, step, "earlier")
        (place / str(step)).rename(checkpoints / str(step))
        shutil.rmtree(place, ignore_errors=True)
