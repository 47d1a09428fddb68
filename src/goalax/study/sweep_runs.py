"""Which run directories are those of a sweep's job: its runs have a name that no others have, of whichever sweep."""

import os
import secrets
from pathlib import Path

from goalax.flags import FlagError
from goalax.host import folders, runs
from goalax.host.config import Flags
from goalax.study.sweep_file import without
from goalax.study.sweeps import Job


def new_name(name: str) -> str:
    """A name that no run has, not even of a sweep with an equal file that begins in this moment."""
    return f"{name}_{secrets.token_hex(4)}"


def newest(config: Flags) -> list[Path]:
    """The runs that `--resume` goes on with, one for every seed; none if a seed has none."""
    try:
        return folders.find_all(config)
    except FlagError:
        return []


def of_job(job: Job, argv: list[str], config: Flags) -> list[Path]:
    """The run directories of a job, one for every seed; none if a seed has none.

    Args:
      argv: the command line of the job; config: what it says.
    """
    if not job.name:
        return _proven(job, argv, config)
    # The first of this name: where somebody trains by the same command line again, that run is called NAME-2.
    folder = folders.ROOT / (config.group_name or "")
    found = [folder / f"{config.run_name}_s{seed}" for seed in job.seeds]
    return found if all(os.path.isfile(path / "config.json") for path in found) else []


def _proven(job: Job, argv: list[str], config: Flags) -> list[Path]:
    """The same of a job whose runs have no name of their own, as those of older versions: the newest of that name, if
    they began after the job, and by its command line; older versions said in it how wandb, which is off, would log."""
    found, wanted = newest(config), without(argv, "wandb_mode")
    if {str(path) for path in found} & {*job.older}:
        return []
    return found if all(without(_command(path), "wandb_mode")[-len(wanted) :] == wanted for path in found) else []


def _command(directory: Path) -> list[str]:
    """The command line by which a run began, empty if its config.json does not say."""
    try:
        command = runs.read_content(directory).get("command")
    except FlagError:
        return []
    words = command if isinstance(command, list) else []
    return [str(word) for word in words if word != "--resume"]  # older versions wrote down how it was resumed
