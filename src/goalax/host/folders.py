"""Run directories: a free name for every new run, and the one that is resumed."""

import contextlib
import re
from pathlib import Path

from goalax.flags import FlagError
from goalax.host import checkpoint
from goalax.host.config import Flags

ROOT = Path("runs")


def _base(config: Flags, seed: int) -> Path:
    return ROOT / (config.group_name or "") / f"{config.run_name}_s{seed}"


def create(config: Flags, seed: int) -> Path:
    """A new directory runs/[group/]name_sSEED[-k] with the first free k; FlagError where it cannot be written."""
    base = _base(config, seed)
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        k = 1
        while True:
            directory = base if k == 1 else base.with_name(f"{base.name}-{k}")
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                return directory
            k += 1
    except OSError as error:
        raise FlagError(
            f"--group_name and --exp_name name the run directory {base}, which cannot be written: {error.strerror}."
        ) from None


def find(config: Flags, seed: int) -> Path:
    """The newest run of the config's name, of those with checkpoints if there are any, or its --run_dir; FlagError if
    there is nothing to resume."""
    if config.run_dir is not None:
        directory = Path(config.run_dir)
        if not _is_run(directory):
            raise FlagError(f"--run_dir is {config.run_dir!r}; there is no run to resume in it.")
        return directory
    base = _base(config, seed)
    runs = {}
    with contextlib.suppress(OSError):  # no such folder, or none that can be read
        for path in base.parent.iterdir():
            suffix = re.fullmatch(r"(?:-([0-9]+))?", path.name.removeprefix(base.name))
            if suffix and path.name.startswith(base.name) and _is_run(path):
                runs[int(suffix[1] or 1)] = path
    if not runs:
        raise FlagError(f"--resume found no run {base}; there is nothing to resume (--run_dir names one exactly).")
    # Others were stopped before their first.
    saved = [number for number, path in runs.items() if checkpoint.steps(path / "checkpoints")]
    return runs[max(saved or runs)]


def _is_run(directory: Path) -> bool:
    try:
        return (directory / "config.json").is_file()
    except OSError:  # its name is too long for the file system, or it may not be read
        return False


def require_one(config: Flags) -> None:
    """FlagError if --run_dir names one run where several, or a new one, are meant."""
    if config.run_dir is not None and (not config.resume or config.num_seeds > 1):
        raise FlagError("--run_dir names the one run to continue; it must come with --resume and without --num_seeds.")


def find_all(config: Flags) -> list[Path]:
    """`find` for every seed of the config."""
    require_one(config)
    return [find(config, seed) for seed in range(config.seed, config.seed + config.num_seeds)]
