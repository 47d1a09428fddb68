"""Datasets of the package Minari, which keeps them in a folder of its own: read, and written from columns.

The package is loaded where a dataset is named, as `minari:maze/walks-v0`.
"""

import bisect
import contextlib
import hashlib
import itertools
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from goalax.core.types import Spec
from goalax.data.files import Found, readable, the
from goalax.flags import FlagError

PREFIX = "minari:"  # before the name of a dataset
MISSING = "is a dataset of the package minari, which is not installed: pip install 'goalax[minari]'."
# Its names: folders, of which a single one has two letters or more, then the dataset with its version.
NAMES = re.compile(r"(?!\w/[^/]*$)(\w[-\w]*/)*\w[-\w]*-v\d+")
STATE, ACHIEVED, GOAL = "observation", "achieved_goal", "desired_goal"  # of environments with goals, as in Gymnasium


def package(flag: str, name: str) -> Any:
    """Minari, to read or write what a flag names; FlagError without it, and for what can be no name there."""
    try:
        import h5py  # noqa: F401 here: both are optional
        import minari
    except ImportError:
        raise FlagError(f"--{flag}: {name} {MISSING}") from None
    if not NAMES.fullmatch(name.removeprefix(PREFIX)):
        raise FlagError(f"--{flag}: {name} must be a name of Minari with a version, as minari:maze/walks-v0.")
    return minari


def folder(name: str) -> Path:
    """The folder of a dataset, whether there is one or not."""
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name.removeprefix(PREFIX)))


def exists(name: str) -> bool:
    """Whether there is such a dataset on this machine; FlagError as `package`."""
    package("dataset", name)
    return folder(name).exists()


def load(name: str, spec: Spec) -> Found:
    """The rows of a dataset's episodes, read one after another; nothing is downloaded.

    States are the observations, or their entry `observation`; then `desired_goal` is the commanded goal. The SHA-256 is
    that of those of its files but for metadata.json, in the order of their paths.

    Raises:
      FlagError: there is none, or what is wrong with it.
    """
    minari = package("dataset", name)
    own, episodes = name.removeprefix(PREFIX), []
    if not folder(name).exists():
        raise FlagError(f"{the(name)} is not in {folder('')}; `minari download {own}` gets it, if it is published.")
    with readable(name), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for episode in minari.load_dataset(own).iterate_episodes():
                episodes.append(_rows(name, episode, spec))
            digest = hashlib.sha256()
            for path in sorted(path for path in folder(name).rglob("*") if path.is_file()):
                if path.name != "metadata.json":
                    with path.open("rb") as file:
                        digest.update(hashlib.file_digest(file, "sha256").digest())
        except (AssertionError, TypeError, AttributeError) as error:  # of a package that meets what it did not write
            raise ValueError(str(error) or "unknown content") from None
    if not episodes:
        raise FlagError(f"{the(name)} has no episodes.")
    ends = list(itertools.accumulate(len(episode["terminals"]) for episode in episodes))
    arrays = {key: np.concatenate([episode.pop(key) for episode in episodes]) for key in list(episodes[0])}
    return Found(name, arrays, digest.hexdigest(), lambda row: f"episode {bisect.bisect_right(ends, row)}")


def _rows(name: str, episode: Any, spec: Spec) -> dict[str, np.ndarray]:
    """An episode under the keys of a file; the last row's action, which leads nowhere, is 0."""
    seen, about = episode.observations, f"{the(name)}, episode {episode.id},"
    if isinstance(seen, tuple) or (isinstance(seen, Mapping) and STATE not in seen):
        keys = ", ".join(seen) if isinstance(seen, Mapping) else "a tuple"
        raise FlagError(f"{about} has observations of {keys}; they must be an array, or have an entry {STATE}.")
    parts = seen if isinstance(seen, Mapping) else {STATE: seen}
    num = len(episode.rewards)
    columns = {
        "observations": (parts[STATE], [num + 1, spec.state_size]),
        "actions": (episode.actions, [num, spec.action_size]),
        "rewards": (episode.rewards, [num]),
        "masks": (1 - np.asarray(episode.terminations, np.float32), [num]),
    }
    if GOAL in parts:
        columns["goals"] = (parts[GOAL], [num + 1, spec.goal_size])
    rows = {"terminals": np.arange(num + 1) == num}
    for key, (values, shape) in columns.items():
        array = np.asarray(values)
        if list(array.shape) != shape:
            raise FlagError(
                f"{about} has {key} of shape {list(array.shape)}; for the environment and the rewards of the episode"
                f" they must be {shape}."
            )
        if array.dtype.kind not in "fiub":
            raise FlagError(f"{about} has {key} of type {array.dtype}; they must be numbers.")
        with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
            rows[key] = array.astype(np.float32)
        if len(array) == num:
            rows[key] = np.append(rows[key], np.full((1, *array.shape[1:]), key == "masks", np.float32), axis=0)
    return rows


def check_new(names: Collection[str]) -> None:
    """FlagError unless datasets can be written under these names of --out."""
    for name in names:
        package("out", name)
        if folder(name).exists():
            raise FlagError(f"--out is {name!r}, but {folder(name)} is there already; another version is another name.")


def remove(name: str) -> None:
    """Takes a dataset away, whole or in part, if it is there."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder(name))


def write(name: str, columns: Mapping[str, np.ndarray], goal_indices: Collection[int]) -> None:
    """Writes a dataset from the columns of a file, all of it or nothing; FlagError where it cannot be written.

    Observations are arrays, or with goals dicts as those of Gymnasium's goal environments. An episode that does not end
    for good is truncated.

    Args:
      goal_indices: the entries of a state that make up what it achieves; none without goals.
    """
    check_new([name])
    import gymnasium  # Minari's own
    import minari
    from minari.data_collector import EpisodeBuffer

    def box(size: int, limit: float) -> Any:
        return gymnasium.spaces.Box(-limit, limit, (size,), np.float32)

    states, goals = columns["observations"], columns["goals"]
    parts = {STATE: states, ACHIEVED: states[:, list(goal_indices)], GOAL: goals} if goals.shape[1] else {STATE: states}
    spaces: dict[str, Any] = {key: box(part.shape[1], np.inf) for key, part in parts.items()}
    space = gymnasium.spaces.Dict(spaces) if GOAL in parts else spaces[STATE]

    def episodes() -> Iterator[Any]:
        for start, end in itertools.pairwise([0, *np.flatnonzero(columns["terminals"]) + 1]):
            seen = {key: np.asarray(part[start:end], np.float32) for key, part in parts.items()}
            steps = slice(start, end - 1)
            over = columns["masks"][steps] == 0
            cut = np.arange(len(over)) == len(over) - 1
            yield EpisodeBuffer(
                observations=seen if GOAL in parts else seen[STATE],
                actions=np.asarray(columns["actions"][steps], np.float32),
                rewards=columns["rewards"][steps],
                terminations=over,
                truncations=cut & ~over,
            )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about an author, an address and other things that it could hold
            minari.create_dataset_from_buffers(
                name.removeprefix(PREFIX),
                list(episodes()),
                action_space=box(columns["actions"].shape[1], 1.0),
                observation_space=space,
                description="Written by goalax dataset.",
            )
    except BaseException as error:  # Ctrl-C, too: what it left could neither be read nor written again
        remove(name)
        if not isinstance(error, OSError | ValueError | RuntimeError):  # the last one is h5py's
            raise
        words = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise FlagError(f"--out is {name!r}, which cannot be written: {words}.") from None
