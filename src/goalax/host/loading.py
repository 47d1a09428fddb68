"""A run that was trained before, made again from its directory: its environments, functions and a checkpoint."""

import dataclasses
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

from goalax.core.types import RunState
from goalax.flags import FlagError
from goalax.host import checkpoint
from goalax.host.make import Run, make_run
from goalax.host.policy import Policy
from goalax.host.stored import read_run


def load_policy(directory: str | Path, step: int | None = None) -> Policy:
    """The policy of a run directory, (state, goal) -> action; errors and arguments as those of `load`."""
    run, state = load(Path(directory), step)
    return run.policy(state)


def load(directory: Path, step: int | None = None, env_name: str | None = None, **changes: Any) -> tuple[Run, RunState]:
    """The run, and its state at a checkpoint; says on standard error which newer checkpoints are damaged.

    Args:
      directory: a run directory.
      step: environment steps of the checkpoint; None takes the newest one that can be read.
      env_name: environment to evaluate in; None takes that of the run.
      changes: flags in place of those of the run, such as vis_length; none that changes what the state looks like.

    Raises:
      FlagError: no run, no such checkpoint, or changes that do not fit the run.
      NoCheckpointError: no checkpoint can be read, or none is of this run.
    """
    flags, agent_config = read_run(directory)
    folder = directory / "checkpoints"
    there = checkpoint.steps(folder)
    if step is not None and step not in there:
        raise FlagError(f"--step is {step}; {folder} holds: {', '.join(map(str, there)) or 'nothing'}.")
    flags = dataclasses.replace(flags, num_devices=1, **changes)
    if env_name is None:
        run = make_run(flags, agent_config)
    else:
        try:
            run = make_run(dataclasses.replace(flags, eval_env=env_name), agent_config)
        except FlagError as error:  # --env_name is what commands call it
            told = str(error).replace("--env_name", "the run's").replace("--eval_env", "--env_name")
            raise FlagError(told) from None
    template = jax.eval_shape(run.train.init, jax.random.PRNGKey(0))
    with warnings.catch_warnings(record=True) as damaged:
        warnings.simplefilter("always")
        state = checkpoint.restore(folder, template, step)
    for warning in damaged:
        print(warning.message, file=sys.stderr)
    return run, state
