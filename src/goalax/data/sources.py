"""Where datasets come from: npz files of OGBench, by their paths or names, folders of ExORL's episodes, datasets of
Minari; read by their names, and files and Minari's written."""

import contextlib
import io
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from goalax.core.types import Spec
from goalax.data import exorl, files, minari
from goalax.data.files import Dataset, Labels, readable
from goalax.data.names import OGBENCH, is_ogbench
from goalax.flags import FlagError

FOLDER = Path("~/.ogbench/data")  # where the package ogbench keeps its datasets
OF_TASKS = re.compile(r"-singletask(-task\d+)?|-oraclerep")  # names in OGBench that have no files of their own


def path_of(name: str) -> Path:
    """The file or folder that a name stands for, there or not; Minari's have none."""
    if is_ogbench(name):
        return FOLDER.expanduser() / f"{OF_TASKS.sub('', name.removeprefix(OGBENCH))}.npz"
    return Path(name)


def is_minari(name: str) -> bool:
    return name.startswith(minari.PREFIX)


def fetch(name: str) -> None:
    """Has the package fetch the files of `ogbench:NAME`, unless they are there; FlagError where it cannot."""
    path = path_of(name)
    with readable(name):
        if path.exists():
            return
    about = f"--dataset: {name} is not in {path.parent}"
    try:
        import ogbench  # here: it is optional
    except ModuleNotFoundError:
        raise FlagError(f"{about}, and the package ogbench, which could fetch it, is not installed.") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            ogbench.download_datasets([path.stem], str(path.parent))
    except Exception as error:  # whatever the network, the server or the disk has
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FlagError(f"{about}, and the package ogbench could not fetch it: {reason}.") from None


def read(name: str, spec: Spec, min_rows: int = 2, reward_free: bool = False, labels: Labels | None = None) -> Dataset:
    """Reads what --dataset names for an environment: `minari:NAME`, `ogbench:NAME`, a folder, or a file.

    `rewards` and `goals` are those of the file where it has them. Without goals the goal of an episode is what its last
    state achieves; without rewards they are 1 where the next state is at the goal, else 0; without masks no action ends
    an episode for good. Rows after the last mark in `terminals` are an episode that was cut short.

    Args:
      spec: that of the environment.
      min_rows: episodes with fewer rows are left out; 2, or one more than an agent draws at once.
      reward_free: nobody looks at rewards: of an environment without goals they may be missing, and are 0.
      labels: where rewards and masks come from, in place of those of the file.

    Raises:
      FlagError: what is wrong with the file, or why it does not fit the environment.
    """
    if not name:
        raise FlagError("--dataset is empty; it must be a file, a folder, or a dataset of OGBench or Minari.")
    path = path_of(name)
    if is_ogbench(name):
        fetch(name)
    if is_minari(name):
        found = minari.load(name, spec)
    elif is_folder(name):
        found = exorl.load(path, spec)
    else:
        found = files.load(path, labels)
    return files.checked(found, spec, min_rows, reward_free, labels)


def is_folder(name: str) -> bool:
    """FlagError where nothing can be told of it, such as a name that is too long."""
    with readable(name):
        return path_of(name).is_dir()


def validation_name(name: str) -> str:
    """What the validation set of a dataset is called: NAME-val.npz beside NAME.npz, as OGBench has it; the folder
    NAME-val beside the folder NAME; minari:NAME-val-v0 of minari:NAME-v0."""
    if is_minari(name):
        head, version = name.rsplit("-v", 1) if "-v" in name else (name, "0")
        return f"{head}-val-v{version}"
    path = path_of(name)
    if is_folder(name):
        path = path.resolve() if path.name in ("", "..") else path.absolute()  # a link keeps its name
        return str(path.parent / f"{path.name}-val")
    return str(path.with_name(f"{path.stem}-val.npz"))


def validation(name: str) -> str | None:
    """The validation set of a dataset, where there is one."""
    beside = validation_name(name)
    with readable(beside):
        there = minari.exists(beside) if is_minari(name) else Path(beside).exists()
    return beside if there else None


def write(name: str, columns: Mapping[str, np.ndarray], goal_indices: Collection[int]) -> None:
    """Writes columns as what --out names, a file or a dataset of Minari; FlagError where it cannot be written.

    Args:
      goal_indices: the entries of a state that make up what it achieves.
    """
    if is_minari(name):
        minari.write(name, columns, goal_indices)
    else:
        files.write(name, columns)
