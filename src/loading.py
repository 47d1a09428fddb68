"""A run that was trained before, made again from its directory: its environments, functions and a checkpoint."""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

from src import checkpoint
from src.flags import FlagError
from src.types import RunState
from utils import Run, make_run, read_run


def load(directory: Path, step: int | None = None, **changes: Any) -> tuple[Run, RunState]:
    """The run, and its state at a checkpoint; says on standard error which newer checkpoints are damaged.

    Args:
      directory: a run directory.
      step: environment steps of the checkpoint; None takes the newest one that can be read.
      changes: flags in place of those of the run, such as eval_env; none that changes what the state looks like.

    Raises:
      FlagError: no run, no such checkpoint, or changes that do not fit the run.
      NoCheckpointError: no checkpoint can be read, or none is of this run.
    """
    config, agent_config = read_run(directory)
    folder = directory / "checkpoints"
    there = checkpoint.steps(folder)
    if step is not None and step not in there:
        raise FlagError(f"--step is {step}; {folder} holds: {', '.join(map(str, there)) or 'nothing'}.")
    run = make_run(dataclasses.replace(config, num_devices=1, **changes), agent_config)
    template = jax.eval_shape(run.train.init, jax.random.PRNGKey(0))
    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always")
        state = checkpoint.restore(folder, template, step)
    for warning in damaged:
        print(warning.message, file=sys.stderr)
    return run, state
