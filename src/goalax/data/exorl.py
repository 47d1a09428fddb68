"""Datasets of ExORL (arXiv 2201.13425): a folder of npz files, one for each episode.

In a file, action, reward and discount of row t are those of the step that led to its observation t; those of row 0 are
of no step. In the ring they lie in the row of the state that the step was taken in.
"""

import bisect
import hashlib
import io
import itertools
from pathlib import Path

import numpy as np

from goalax.core.types import Spec
from goalax.data.files import Found, arrays_in, readable, the
from goalax.flags import FlagError

# `physics`, the state of the simulator, may lie beside them, and is not read: rewards are those of the files.
KEYS = ("observation", "action", "reward", "discount")


def load(folder: Path, spec: Spec) -> Found:
    """The rows of a folder's episodes, in the order of the names of their files, one file in memory at a time.

    The SHA-256 is that of those of the files, one after another.

    Raises:
      FlagError: there are no files, or what is wrong with one.
    """
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise FlagError(f"{the(folder)} is a folder without npz files; it must hold one for each episode.")
    digest, episodes = hashlib.sha256(), []
    for path in paths:
        with readable(path):
            content = path.read_bytes()
            digest.update(hashlib.sha256(content).digest())
            stored = arrays_in(io.BytesIO(content), path, KEYS)
        episodes.append(_rows(path, stored, spec))
    ends = list(itertools.accumulate(len(episode["terminals"]) for episode in episodes))
    arrays = {key: np.concatenate([episode.pop(key) for episode in episodes]) for key in list(episodes[0])}
    return Found(str(folder), arrays, digest.hexdigest(), lambda row: paths[bisect.bisect_right(ends, row)].name)


def _rows(path: Path, stored: dict[str, np.ndarray], spec: Spec) -> dict[str, np.ndarray]:
    """An episode under the keys of a file; the last row's action, which leads nowhere, is 0."""
    for key in KEYS:
        if key not in stored:
            raise FlagError(f"{the(path)} has no {key}; an episode of ExORL has the keys {', '.join(KEYS)}.")
    num = len(np.atleast_1d(stored["observation"]))
    for key, size in zip(KEYS, (spec.state_size, spec.action_size, 1, 1), strict=True):
        array, fitting = stored[key], ([num, size], [num]) if key in KEYS[2:] else ([num, size],)
        if list(array.shape) not in fitting or num == 0:
            raise FlagError(
                f"{the(path)} has {key} of shape {list(array.shape)}; for the environment and the observations of the"
                f" file it must be {[max(num, 1), size]}."
            )
        if array.dtype.kind not in "fiub":
            raise FlagError(f"{the(path)} has {key} of type {array.dtype}; it must be numbers.")
    reward, discount = (stored[key].reshape(num) for key in KEYS[2:])
    if not np.isin(discount[1:], (0, 1)).all():
        raise FlagError(f"{the(path)} has discounts other than 0 and 1; the discount of a run is --discounting.")
    with np.errstate(over="ignore"):  # what is too large for float32 is refused as not finite
        return {
            "observations": stored["observation"].astype(np.float32),
            "actions": np.append(stored["action"][1:], np.zeros((1, spec.action_size)), axis=0).astype(np.float32),
            "terminals": np.arange(num) == num - 1,
            "rewards": np.append(reward[1:], 0).astype(np.float32),
            "masks": np.append(discount[1:], 1).astype(np.float32),
        }
