"""Datasets in OGBench's npz format, read as a preloaded ring of one column, and written from the ring of a run.

A file holds the rows of its episodes one after another. Its convention is that of the ring (`core.types.Transition`):
an episode of L transitions is L + 1 rows, of which `terminals` marks the last one.
"""

import contextlib
import hashlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from goalax.core.types import BufferState, Spec, Transition
from goalax.flags import FlagError
from goalax.whole import aside

# Key -> what it holds; T rows in all. qpos and qvel, the state of the simulator, are read by `Labels` only.
NEEDED = {"observations": "[T, S]", "actions": "[T, A]", "terminals": "[T]"}
OPTIONAL = {"rewards": "[T]", "masks": "[T]", "goals": "[T, G]"}
ROUNDING = 1e-5  # by which an action may be outside [-1, 1]
UNREADABLE = (
    *(OSError, EOFError, KeyError, MemoryError, OverflowError, ValueError),  # ValueError: pickles, broken headers
    *(RuntimeError, zipfile.BadZipFile, zlib.error),  # RuntimeError: encrypted, or compressed in a way unknown here
    tokenize.TokenError,  # headers without an end
)


class Dataset(NamedTuple):
    """A file as the ring that training reads; arrays of the host."""

    ring: BufferState  # rows [T, 1, ...], full
    episodes: int
    left_out: int  # rows of the file in episodes too short to draw from
    path: str
    sha256: str  # of the file
    commanded: bool  # whether it tells the goals that episodes were asked for

    @property
    def transitions(self) -> int:
        return len(self.ring.rows.reward) - self.episodes

    @property
    def words(self) -> str:
        """What it is, for people."""
        left_out = f" ({self.left_out:,} rows in shorter ones are left out)" if self.left_out else ""
        return f"{self.path}: {self.transitions:,} transitions in {self.episodes:,} episodes{left_out}"


class Labels(NamedTuple):
    """Rewards of a task, computed from the states of the simulator that a file holds."""

    columns: dict[str, int]  # key of the file -> its entries in a row
    of: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]  # {key: [T, columns]} -> rewards [T] and masks [T]


class Found(NamedTuple):
    """What a dataset holds, before anything of it is checked."""

    name: str
    arrays: dict[str, np.ndarray]  # by the keys of a file
    sha256: str
    place: Callable[[int], str] = "row {:,}".format  # where a row lies, for people


def checked(found: Found, spec: Spec, min_rows: int, reward_free: bool, labels: Labels | None) -> Dataset:
    """What was found as a ring; arguments and errors as those of `sources.read`."""
    name, arrays, sha256, place = found
    for key in NEEDED.keys() - arrays.keys():
        raise FlagError(f"{the(name)} has no {key}; a dataset has the keys {', '.join(NEEDED)}.")
    sizes = {"T": len(np.atleast_1d(arrays["terminals"])), "S": spec.state_size, "A": spec.action_size}
    sizes["G"] = spec.goal_size
    if labels is not None:
        own = {"rewards", "masks"}  # of whatever task the file was made for
        arrays = {key: value for key, value in arrays.items() if key not in own}
    if labels is not None and not reward_free:
        arrays |= _labelled(found, sizes["T"], labels)
    columns = {
        key: _column(found, key, arrays[key], shape, sizes)
        for key, shape in (NEEDED | OPTIONAL).items()
        if key in arrays
    }
    last = _last_rows(name, columns["terminals"])
    outside = np.any(np.abs(columns["actions"]) > 1 + ROUNDING, axis=1)
    if outside.any():
        raise FlagError(
            f"{the(name)} has actions outside [-1, 1] in {outside.sum():,} of {len(outside):,} rows, the first in"
            f" {place(int(outside.argmax()))}; divide them by their largest size."
        )
    if reward_free and not spec.goal_size and "rewards" not in columns:
        columns["rewards"] = np.zeros(sizes["T"], np.float32)
    return _dataset(name, columns, last, sha256, spec, min_rows)


def the(name: str | Path) -> str:
    """How a sentence about a dataset begins."""
    return f"--dataset: {name}"


@contextlib.contextmanager
def readable(name: str | Path) -> Iterator[None]:
    """FlagError for what cannot be read inside."""
    try:
        yield
    except FlagError:
        raise
    except UNREADABLE as error:
        words = " ".join(str(error).split())
        why = error.strerror if isinstance(error, OSError) and error.strerror else f"it is damaged ({words})"
        raise FlagError(f"{the(name)} cannot be read: {why}.") from None


def arrays_in(file: BinaryIO, name: str | Path, keys: Collection[str]) -> dict[str, np.ndarray]:
    """What an npz file holds under some keys; inside of `readable`."""
    if not zipfile.is_zipfile(file):
        raise FlagError(f"{the(name)} is no npz file, or its end is missing.")
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        found = {key: archive[key] for key in keys if key in archive}
    for key, array in found.items():
        if not isinstance(array, np.ndarray):  # NumPy gives the bytes of what does not begin as an array
            raise ValueError(f"{key} is no array")
    return found


def load(path: Path, labels: Labels | None) -> Found:
    """The arrays of a file that mean something here."""
    keys = [*NEEDED, *OPTIONAL, *(labels.columns if labels else ())]
    with readable(path), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        return Found(str(path), arrays_in(file, path, keys), sha256)


def _labelled(found: Found, rows: int, labels: Labels) -> dict[str, np.ndarray]:
    """Rewards and masks of a task; FlagError where the states of the simulator are missing."""
    states = {}
    for key, size in labels.columns.items():
        if key not in found.arrays:
            raise FlagError(f"{the(found.name)} has no {key}, from which the rewards of the task are computed.")
        _column(found, key, found.arrays[key], "[T, N]", {"T": rows, "N": size})
        states[key] = found.arrays[key]  # with all its digits
    return labels.of(states)


def _column(found: Found, key: str, array: np.ndarray, shape: str, sizes: dict[str, int]) -> np.ndarray:
    """An array as float32; FlagError unless it holds finite numbers in the shape that the environment asks for."""
    letters = shape.strip("[]").split(", ")
    wanted = tuple(sizes[letter] for letter in letters)
    if array.shape != wanted:
        raise FlagError(
            f"{the(found.name)} has {key} of shape {list(array.shape)}; for the environment and the terminals of the"
            f" file they must be {shape} = {list(wanted)}."
        )
    if array.dtype.kind not in "fiub":
        raise FlagError(f"{the(found.name)} has {key} of type {array.dtype}; they must be numbers.")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        raise FlagError(
            f"{the(found.name)} has {key} that are not finite in {bad.sum():,} rows, the first in"
            f" {found.place(int(bad.argmax()))}."
        )
    if key in ("terminals", "masks") and not np.isin(array, (0, 1)).all():
        raise FlagError(f"{the(found.name)} has {key} other than 0 and 1.")
    return array


def _last_rows(name: str, terminals: np.ndarray) -> np.ndarray:
    """Numbers of the last rows of all episodes, [E]."""
    last = np.flatnonzero(terminals)
    if not len(last):
        raise FlagError(f"{the(name)} has terminals that mark no row; they must be 1 in the last row of every episode.")
    return last if last[-1] == len(terminals) - 1 else np.append(last, len(terminals) - 1)


def _dataset(
    name: str, found: Mapping[str, np.ndarray], last: np.ndarray, sha256: str, spec: Spec, min_rows: int
) -> Dataset:
    """The ring of checked arrays; last: rows that end episodes, [E]."""
    lengths = np.diff(last, prepend=-1)
    long = lengths >= min_rows
    if not long.any():
        raise FlagError(f"{the(name)} has no episode of {min_rows} rows or more; its longest has {lengths.max()}.")
    left_out = int(lengths[~long].sum())
    if left_out:
        kept = np.repeat(long, lengths)
        found, lengths = {key: array[kept] for key, array in found.items()}, lengths[long]
        last = np.cumsum(lengths) - 1
    state, num = found["observations"], len(found["observations"])
    achieved = state[:, list(spec.goal_indices)]
    goal = found["goals"] if "goals" in found else np.repeat(achieved[last], lengths, axis=0)
    if not spec.goal_size and "rewards" not in found:
        raise FlagError(f"{the(name)} has no rewards, which nothing else tells of an environment without goals.")
    reward = found["rewards"] if "rewards" in found else _rewards(achieved, goal, last, spec)
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
    return Dataset(ring, len(last), left_out, name, sha256, "goals" in found)


def _rewards(achieved: np.ndarray, goal: np.ndarray, last: np.ndarray, spec: Spec) -> np.ndarray:
    """1 where the next state is at the goal of the row, else 0, [T]; 0 in last rows, which have no next state."""
    reward = np.zeros(len(goal), np.float32)
    between = (achieved[1:] - goal[:-1]).reshape(len(goal) - 1, spec.goal_parts, goal.shape[1] // spec.goal_parts)
    reward[:-1] = np.max(np.linalg.norm(between, axis=2), axis=1) < spec.goal_reach_thresh
    reward[last] = 0
    return reward


def columns_of(ring: BufferState, newest: int | None = None, oldest: int | None = None) -> dict[str, np.ndarray]:
    """What a file holds, from a ring on the host: one environment after another, each from its oldest row on.

    Args:
      newest, oldest: so many rows alone, of all environments together, rounded up to as many of each.

    The oldest and the newest episode of an environment may be parts of one. Episodes of one row are left out, for they
    have no transition.
    """
    capacity, num_envs = ring.rows.reward.shape
    count = int(ring.count)
    held = np.arange(max(count - capacity, 0), count)
    if newest is not None:
        held = held[-math.ceil(newest / num_envs) :]
    if oldest is not None:
        held = held[: math.ceil(oldest / num_envs)]
    slots = held % capacity

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
    try:
        with aside(Path(path)) as part, part.open("wb") as file:
            np.savez_compressed(file, **dict(columns))  # type: ignore[arg-type]
    except OSError as error:
        raise FlagError(f"--out is {str(path)!r}, which cannot be written: {error.strerror or error}.") from None
