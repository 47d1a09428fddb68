"""Datasets in OGBench's npz format, read as a preloaded ring of one column, and written from the ring of a run.

A file holds the rows of its episodes one after another. Its convention is that of the ring (`core.types.Transition`):
an episode of L transitions is L + 1 rows, of which `terminals` marks the last one.
"""

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from goalax.core.types import BufferState, Spec, Transition
from goalax.flags import FlagError

# Key -> what it holds; T rows in all. qpos and qvel, the state of the simulator, are written and not read.
NEEDED = {"observations": "[T, S]", "actions": "[T, A]", "terminals": "[T]"}
OPTIONAL = {"rewards": "[T]", "masks": "[T]", "goals": "[T, G]"}
ROUNDING = 1e-5  # by which an action may be outside [-1, 1]
UNREADABLE = (
    *(OSError, EOFError, KeyError, MemoryError, OverflowError, ValueError),  # ValueError: pickles, broken headers
    *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: encrypted, or compressed in a way unknown here
)


class Dataset(NamedTuple):
    """A file as the ring that training reads; arrays of the host."""

    ring: BufferState  # rows [T, 1, ...], full
    episodes: int
    left_out: int  # rows of the file in episodes too short to draw from
    path: str
    sha256: str  # of the file

    @property
    def transitions(self) -> int:
        return len(self.ring.rows.reward) - self.episodes

    @property
    def words(self) -> str:
        """What it is, for people."""
        left_out = f" ({self.left_out:,} rows in shorter ones are left out)" if self.left_out else ""
        return f"{self.path}: {self.transitions:,} transitions in {self.episodes:,} episodes{left_out}"


def validation_path(path: Path) -> Path:
    """Where OGBench looks for the validation set of a dataset: NAME-val.npz beside NAME.npz."""
    return path.with_name(f"{path.stem}-val.npz")


def read(path: str | Path, spec: Spec, min_rows: int = 2, reward_free: bool = False) -> Dataset:
    """Reads a dataset for an environment.

    `rewards` and `goals` are those of the file where it has them. Without goals the goal of an episode is what its last
    state achieves; without rewards they are 1 where the next state is at the goal, else 0; without masks no action ends
    an episode for good. Rows after the last mark in `terminals` are an episode that was cut short.

    Args:
      spec: that of the environment.
      min_rows: episodes with fewer rows are left out; 2, or one more than an agent draws at once.
      reward_free: nobody looks at rewards: of an environment without goals they may be missing, and are 0.

    Raises:
      FlagError: what is wrong with the file, or why it does not fit the environment.
    """
    path = Path(path)
    arrays, sha256 = _load(path)
    for key in NEEDED.keys() - arrays.keys():
        raise FlagError(f"{_the(path)} has no {key}; a dataset has the keys {', '.join(NEEDED)}.")
    sizes = {"T": len(np.atleast_1d(arrays["terminals"])), "S": spec.state_size, "A": spec.action_size}
    sizes["G"] = spec.goal_size
    found = {
        key: _checked(path, key, arrays[key], shape, sizes)
        for key, shape in (NEEDED | OPTIONAL).items()
        if key in arrays
    }
    last = _last_rows(path, found["terminals"])
    outside = np.any(np.abs(found["actions"]) > 1 + ROUNDING, axis=1)
    if outside.any():
        raise FlagError(
            f"{_the(path)} has actions outside [-1, 1] in {outside.sum():,} of {len(outside):,} rows, the first in row"
            f" {outside.argmax():,}; divide them by their largest size."
        )
    if reward_free and not spec.goal_size and "rewards" not in found:
        found["rewards"] = np.zeros(sizes["T"], np.float32)
    return _dataset(path, found, last, sha256, spec, min_rows)


def _the(path: Path) -> str:
    return f"--dataset: {path}"


def _load(path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a file that mean something here, and its SHA-256."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            if not zipfile.is_zipfile(file):
                raise FlagError(f"{_the(path)} is no npz file, or its end is missing.")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                return {key: archive[key] for key in NEEDED | OPTIONAL if key in archive}, sha256
    except FlagError:
        raise
    except UNREADABLE as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else f"it is damaged ({error})"
        raise FlagError(f"{_the(path)} cannot be read: {why}.") from None


def _checked(path: Path, key: str, array: np.ndarray, shape: str, sizes: dict[str, int]) -> np.ndarray:
    """An array as float32; FlagError unless it holds finite numbers in the shape that the environment asks for."""
    letters = shape.strip("[]").split(", ")
    wanted = tuple(sizes[letter] for letter in letters)
    if array.shape != wanted:
        raise FlagError(
            f"{_the(path)} has {key} of shape {list(array.shape)}; for the environment and the terminals of the file"
            f" they must be {shape} = {list(wanted)}."
        )
    if array.dtype.kind not in "fiub":
        raise FlagError(f"{_the(path)} has {key} of type {array.dtype}; they must be numbers.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        raise FlagError(
            f"{_the(path)} has {key} that are not finite in {bad.sum():,} rows, the first {bad.argmax():,}."
        )
    if key in ("terminals", "masks") and not np.isin(array, (0, 1)).all():
        raise FlagError(f"{_the(path)} has {key} other than 0 and 1.")
    return array


def _last_rows(path: Path, terminals: np.ndarray) -> np.ndarray:
    """Numbers of the last rows of all episodes, [E]."""
    last = np.flatnonzero(terminals)
    if not len(last):
        raise FlagError(
            f"{_the(path)} has terminals that mark no row; they must be 1 in the last row of every episode."
        )
    return last if last[-1] == len(terminals) - 1 else np.append(last, len(terminals) - 1)


def _dataset(
    path: Path, found: Mapping[str, np.ndarray], last: np.ndarray, sha256: str, spec: Spec, min_rows: int
) -> Dataset:
    """The ring of checked arrays; last: rows that end episodes, [E]."""
    lengths = np.diff(last, prepend=-1)
    long = lengths >= min_rows
    if not long.any():
        raise FlagError(f"{_the(path)} has no episode of {min_rows} rows or more; its longest has {lengths.max()}.")
    left_out = int(lengths[~long].sum())
    if left_out:
        kept = np.repeat(long, lengths)
        found, lengths = {key: array[kept] for key, array in found.items()}, lengths[long]
        last = np.cumsum(lengths) - 1
    state, num = found["observations"], len(found["observations"])
    achieved = state[:, list(spec.goal_indices)]
    goal = found["goals"] if "goals" in found else np.repeat(achieved[last], lengths, axis=0)
    if not spec.goal_size and "rewards" not in found:
        raise FlagError(f"{_the(path)} has no rewards, which nothing else tells of an environment without goals.")
    reward = found["rewards"] if "rewards" in found else _rewards(achieved, goal, last, spec.goal_reach_thresh)
    leaves: dict[str, Any] = {
        "state": state,
        "goal": goal,
        "action": found["actions"],
        "reward": reward,
        "terminal": 1 - found["masks"] if "masks" in found else np.zeros(num, np.float32),
        "episode_start": np.repeat(last - lengths + 1, lengths).astype(np.int32),
    }
    count: Any = np.int32(num)
    ring = BufferState(Transition(**{name: leaf[:, None] for name, leaf in leaves.items()}), count)
    return Dataset(ring, len(last), left_out, str(path), sha256)


def _rewards(achieved: np.ndarray, goal: np.ndarray, last: np.ndarray, threshold: float) -> np.ndarray:
    """1 where the next state is at the goal of the row, else 0, [T]; 0 in last rows, which have no next state."""
    reward = np.zeros(len(goal), np.float32)
    reward[:-1] = np.linalg.norm(achieved[1:] - goal[:-1], axis=1) < threshold
    reward[last] = 0
    return reward


def columns_of(ring: BufferState) -> dict[str, np.ndarray]:
    """What a file holds, from a ring on the host: one environment after another, each from its oldest row on.

    The oldest and the newest episode of an environment may be parts of one. Episodes of one row are left out, for they
    have no transition.
    """
    capacity, num_envs = ring.rows.reward.shape
    count = int(ring.count)
    slots = np.arange(max(count - capacity, 0), count) % capacity

    def in_line(leaf: Any) -> Any:
        return np.swapaxes(np.asarray(leaf)[slots], 0, 1).reshape(len(slots) * num_envs, *leaf.shape[2:])

    rows = Transition(*map(in_line, ring.rows))
    starts = np.asarray(rows.episode_start)
    ends = np.append(starts[1:] != starts[:-1], True)
    ends[len(slots) - 1 :: len(slots)] = True  # of an environment; the next one's first may have the same number
    alone = ends & np.insert(ends[:-1], 0, True)
    columns = {
        "observations": rows.state,
        "actions": rows.action,
        "terminals": ends,
        "rewards": np.where(ends, 0, rows.reward).astype(np.float32),
        "masks": np.where(ends, 1, 1 - rows.terminal).astype(np.float32),
        "goals": rows.goal,
    }
    return {key: np.asarray(column)[~alone] for key, column in columns.items()}


def write(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Writes a file, all of it or nothing; FlagError where it cannot be written."""
    path = Path(path)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            np.savez_compressed(file, **dict(columns))  # type: ignore[arg-type]
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise FlagError(f"--out is {str(path)!r}, which cannot be written: {error.strerror or error}.") from None
