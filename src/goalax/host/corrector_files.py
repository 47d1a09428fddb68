"""The npz files of `goalax correct`: decisions by plans, and correctors that learned from them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from goalax.agents.correctors import ARCHITECTURES, Corrector, blank, network_of
from goalax.agents.distillation import Decisions, Samples
from goalax.agents.plans import Planner
from goalax.data import files
from goalax.flags import FlagError

ORIGIN = "origin/"  # what the names of an `Origin` begin with
PARAMETER = "corrector/"  # what the names of parameters begin with in a file
# What files of before there was another network lack: rows were decisions by old plans only, and these were all seen.
BEFORE = {"architecture": "two_tower", "history": 1}
MOST = {"width": 16_384, "history": 1024}  # that a corrector may have
# Type -> the kinds of NumPy that hold it, and its name for people.
KINDS = {float: ("fiu", "numbers"), int: ("iu", "whole numbers"), bool: ("b", "true and false"), str: ("U", "text")}
# What a file of decisions holds -> its shape and its type; R rows in all. Files of before have no `old`.
COLUMNS: dict[str, tuple[str, type]] = {
    "episode": ("[R]", int),
    "z": ("[R, Z]", float),
    "expected": ("[R, Z]", float),
    "action": ("[R, A]", float),
    "teacher": ("[R, A]", float),
    "old": ("[R]", bool),
}


class Origin(NamedTuple):
    """Where decisions were collected; a corrector keeps that of those that it learned from."""

    run: str  # name of its directory
    steps: int  # environment steps of its checkpoint
    exec_horizon: int
    mismatch: float
    teacher: str
    seed: int = -1  # what drew the starts; files of before do not say it


class File(NamedTuple):
    """What an npz file holds, before anything of it is checked."""

    the: str  # how a sentence about it begins
    arrays: dict[str, np.ndarray]

    def array(self, key: str, shape: tuple[int, ...], kind: type, must: str = "it must be") -> np.ndarray:
        """What it holds under a key that it has; FlagError unless these are finite, of this kind and in this shape.

        Args:
          must: what a sentence says between the shape that it has and the one that it must have.
        """
        array, (letters, noun) = self.arrays[key], KINDS[kind]
        if array.shape != shape:
            wanted = list(shape) if shape else "one value"
            raise FlagError(f"{self.the} has {key} of shape {list(array.shape)}; {must} {wanted}.")
        if array.dtype.kind not in letters:
            raise FlagError(f"{self.the} has {key} of type {array.dtype}; it must hold {noun}.")
        if kind is float:
            bad = ~finite(array)
            if bad.any():
                first = [int(place) for place in np.argwhere(bad)[0]]
                raise FlagError(
                    f"{self.the} has {key} that is not finite in {bad.sum():,} of {bad.size:,} entries, the first at"
                    f" {first}."
                )
        return array

    def one(self, key: str, kind: type) -> Any:
        """A single value; FlagError if it is none of this kind, or not within what `MOST` allows."""
        value = self.array(key, (), kind).item()
        if key in MOST and not 1 <= value <= MOST[key]:
            raise FlagError(f"{self.the} has {key} {value:,}; it must be from 1 to {MOST[key]:,}.")
        return value


def finite(array: np.ndarray) -> np.ndarray:
    """Which numbers are finite as float32."""
    with np.errstate(over="ignore"):
        return np.isfinite(array.astype(np.float32))


def origin_in(file: File) -> Origin | None:
    """What a file says of it; None for one of before. FlagError if it is nothing of that kind."""
    kinds = Origin.__annotations__
    found = {name: file.one(ORIGIN + name, kind) for name, kind in kinds.items() if ORIGIN + name in file.arrays}
    return Origin(**found) if found.keys() >= set(Origin._fields) - Origin._field_defaults.keys() else None


def named(origin: Origin | None) -> dict[str, Any]:
    """The entries of a file that say it."""
    return {} if origin is None else {ORIGIN + name: value for name, value in origin._asdict().items()}


def there(name: str, value: str) -> Path:
    """The npz file that a flag names; FlagError if it is none, or is not there."""
    path = Path(value)
    if path.suffix != ".npz":
        raise FlagError(f"--{name} is {value!r}; it must be an npz file.")
    if not os.path.isfile(path):
        raise FlagError(f"--{name} is {value!r}; there is no such file.")
    return path


def read(name: str, path: Path, wanted: Sequence[str]) -> File:
    """The arrays of the npz file of a flag. FlagError if it cannot be read or lacks one."""
    the = f"--{name} is {str(path)!r}, which"
    try:
        with np.load(path) as file:
            arrays = dict(file)
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise ValueError("NumPy gives the bytes of what does not begin as an array")
    except Exception as error:  # NumPy raises many kinds for a damaged file
        raise FlagError(f"{the} is no npz file that can be read.") from error
    if missing := [key for key in wanted if key not in arrays]:
        raise FlagError(f"{the} holds no {missing[0]}: another command has written it.")
    return File(the, arrays)


def write_decisions(
    path: Path, decisions: Decisions, made: np.ndarray, old: np.ndarray, origin: Origin | None = None
) -> None:
    """Writes decisions, leaves [T, N, ...] of N episodes, that were made, [T, N]: one episode after another.

    Args:
      old: [T, N] which of them were by an old plan.
    """
    episode = np.broadcast_to(np.arange(made.shape[1])[None], made.shape)
    leaves = {**decisions._asdict(), "old": old, "episode": episode}
    chosen = np.swapaxes(made, 0, 1)
    files.write(path, {name: np.swapaxes(leaf, 0, 1)[chosen] for name, leaf in leaves.items()} | named(origin))


def columns_of(file: File) -> dict[str, np.ndarray]:
    """The columns of a file of decisions; FlagError if one is not as `COLUMNS` says."""
    sizes = {
        "R": len(np.atleast_1d(file.arrays["episode"])),
        "Z": np.atleast_2d(file.arrays["z"]).shape[1],
        "A": np.atleast_2d(file.arrays["action"]).shape[1],
    }
    columns = {}
    for key, (shape, kind) in COLUMNS.items():
        if key in file.arrays:
            wanted = tuple(max(sizes[letter], 1) for letter in shape.strip("[]").split(", "))
            must = f"for the episode, z and action of the file it must be {shape} ="
            columns[key] = file.array(key, wanted, kind, must)
    return columns


def read_decisions(path: Path, history: int, held_out: float) -> tuple[Decisions, Samples, Samples, Origin | None]:
    """Decisions of a file, which of them by old plans are to be learned from, which are held out, and where from.

    Args:
      history: decisions that a corrector sees.
      held_out: share of the episodes, at least one.

    Raises:
      FlagError: it is no such file, or one of before without what lies between decisions by old plans.
    """
    file = read("data", path, [*Decisions._fields, "episode"])
    if history > 1 and "old" not in file.arrays:
        raise FlagError(
            f"{file.the} holds no decisions by new plans, and so no histories: collect it again, or train"
            " --architecture two_tower."
        )
    columns = columns_of(file)
    episode = columns["episode"]
    old = columns.get("old", np.ones(len(episode), bool))
    begins = np.append(True, episode[1:] != episode[:-1])
    number = np.arange(len(episode)) - np.maximum.accumulate(np.where(begins, np.arange(len(episode)), 0))
    episodes = np.unique(episode)
    apart = np.isin(episode, episodes[len(episodes) - max(1, round(held_out * len(episodes))) :])

    def samples(which: np.ndarray) -> Samples:
        row = np.flatnonzero(old & which)
        return Samples(jnp.asarray(row), jnp.asarray(np.minimum(number[row] + 1, history)))

    decisions = Decisions(*(jnp.asarray(columns[name], jnp.float32) for name in Decisions._fields))
    return decisions, samples(~apart), samples(apart), origin_in(file)


def write_corrector(
    path: Path, params: Any, architecture: str, width: int, history: int, origin: Origin | None = None
) -> int:
    """Writes a corrector; returns how many parameters it has. FlagError if one is not finite."""
    flat: Mapping[str, np.ndarray] = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    if not all(finite(leaf).all() for leaf in flat.values()):
        raise FlagError(
            f"--out is {str(path)!r}, which is not written: its weights are not finite after training; a lower"
            " --learning_rate may help."
        )
    leaves: dict[str, Any] = {f"{PARAMETER}{name}": leaf for name, leaf in flat.items()}
    sizes = {"architecture": architecture, "width": width, "history": history}
    files.write(path, {name: np.asarray(value) for name, value in (leaves | named(origin) | sizes).items()})
    return sum(leaf.size for leaf in flat.values())


def weights(file: File, wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The parameters of a file, by their names; FlagError if they are none of a network with parameters `wanted`."""
    found = {name.removeprefix(PARAMETER) for name in file.arrays if name.startswith(PARAMETER)}
    if missing := sorted(wanted.keys() - found):
        raise FlagError(f"{file.the} holds no {PARAMETER}{missing[0]}, which its architecture has.")
    if more := sorted(found - wanted.keys()):
        raise FlagError(f"{file.the} holds {PARAMETER}{more[0]}, which its architecture lacks.")
    for name, leaf in wanted.items():
        if (shape := file.arrays[PARAMETER + name].shape) != leaf.shape:
            raise FlagError(
                f"{file.the} was trained for a run of other sizes, or with another width: {PARAMETER}{name} has the"
                f" shape {list(shape)}, and {list(leaf.shape)} is wanted."
            )
    return {
        name: jnp.asarray(file.array(PARAMETER + name, leaf.shape, float), jnp.float32) for name, leaf in wanted.items()
    }


def read_corrector(path: Path, planner: Planner) -> tuple[Corrector, Origin | None]:
    """The corrector in a file, and what it learned from. FlagError if it is none, or one of a run with other sizes."""
    found = read("corrector", path, ["width"])
    before = {name: np.asarray(value) for name, value in BEFORE.items()}
    file = found._replace(arrays=before | found.arrays)
    architecture: str = file.one("architecture", str)
    if architecture not in ARCHITECTURES:
        raise FlagError(f"{file.the} has an architecture {architecture!r} that is unknown here.")
    width, history = file.one("width", int), file.one("history", int)
    try:
        network = network_of(architecture, width)
    except FlagError as error:
        raise FlagError(f"{file.the} cannot be used: {error}") from None
    seen = blank(1, history, planner.latent_size, planner.action_size)
    shapes = jax.eval_shape(network.init, jax.random.PRNGKey(0), *seen)
    flat = weights(file, traverse_util.flatten_dict(shapes, sep="/"))
    params = traverse_util.unflatten_dict(flat, sep="/")
    return Corrector(lambda history: network.apply(params, *history), history), origin_in(file)
