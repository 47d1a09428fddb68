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


class Origin(NamedTuple):
    """Where decisions were collected; a corrector keeps that of those that it learned from."""

    run: str  # name of its directory
    steps: int  # environment steps of its checkpoint
    exec_horizon: int
    mismatch: float
    teacher: str
    seed: int = -1  # what drew the starts; files of before do not say it


def origin_in(arrays: Mapping[str, Any]) -> Origin | None:
    """What a file says of it; None for one of before."""
    found = {name: arrays[ORIGIN + name].item() for name in Origin._fields if ORIGIN + name in arrays}
    return Origin(**found) if found.keys() >= set(Origin._fields) - Origin._field_defaults.keys() else None


def named(origin: Origin | None) -> dict[str, Any]:
    """The entries of a file that say it."""
    return {} if origin is None else {ORIGIN + name: value for name, value in origin._asdict().items()}


def require_npz(name: str, value: str, exists: bool) -> Path:
    """The path of a flag that names an npz file. FlagError if it is none, or does not exist or cannot be written."""
    path = Path(value)
    if path.suffix != ".npz":
        raise FlagError(f"--{name} is {value!r}; it must be an npz file.")
    if exists and not os.path.isfile(path):
        raise FlagError(f"--{name} is {value!r}; there is no such file.")
    if not exists and not os.path.isdir(path.parent):
        raise FlagError(f"--{name} is {value!r}; there is no folder {path.parent}.")
    return path


def read(name: str, path: Path, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of an npz file. FlagError if it cannot be read or lacks one."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # NumPy raises many kinds for a damaged file
        raise FlagError(f"--{name} is {str(path)!r}, which is no npz file that can be read.") from error
    if missing := [key for key in wanted if key not in arrays]:
        raise FlagError(f"--{name} is {str(path)!r}, which holds no {missing[0]}: another command has written it.")
    return arrays


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


def read_decisions(path: Path, history: int, held_out: float) -> tuple[Decisions, Samples, Samples, Origin | None]:
    """Decisions of a file, which of them by old plans are to be learned from, which are held out, and where from.

    Args:
      history: decisions that a corrector sees.
      held_out: share of the episodes, at least one.

    Raises:
      FlagError: it is no such file, or one of before without what lies between decisions by old plans.
    """
    arrays = read("data", path, [*Decisions._fields, "episode"])
    if history > 1 and "old" not in arrays:
        raise FlagError(
            f"--data is {str(path)!r}, which holds no decisions by new plans, and so no histories: collect it again, or"
            " train --architecture two_tower."
        )
    episode = arrays["episode"]
    old = arrays.get("old", np.ones(len(episode), bool))
    begins = np.append(True, episode[1:] != episode[:-1])
    number = np.arange(len(episode)) - np.maximum.accumulate(np.where(begins, np.arange(len(episode)), 0))
    episodes = np.unique(episode)
    apart = np.isin(episode, episodes[len(episodes) - max(1, round(held_out * len(episodes))) :])

    def samples(which: np.ndarray) -> Samples:
        row = np.flatnonzero(old & which)
        return Samples(jnp.asarray(row), jnp.asarray(np.minimum(number[row] + 1, history)))

    decisions = Decisions(*(jnp.asarray(arrays[name]) for name in Decisions._fields))
    return decisions, samples(~apart), samples(apart), origin_in(arrays)


def write_corrector(
    path: Path, params: Any, architecture: str, width: int, history: int, origin: Origin | None = None
) -> int:
    """Writes a corrector; returns how many parameters it has."""
    flat: Mapping[str, np.ndarray] = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    leaves: dict[str, Any] = {f"{PARAMETER}{name}": leaf for name, leaf in flat.items()}
    sizes = {"architecture": architecture, "width": width, "history": history}
    files.write(path, {name: np.asarray(value) for name, value in (leaves | named(origin) | sizes).items()})
    return sum(leaf.size for leaf in flat.values())


def read_corrector(path: Path, planner: Planner) -> tuple[Corrector, Origin | None]:
    """The corrector in a file, and what it learned from. FlagError if it is none, or one of a run with other sizes."""
    arrays = read("corrector", path, ["width"])
    origin = origin_in(arrays)
    known = {name: arrays.pop(name, np.array(value)).item() for name, value in BEFORE.items()}
    architecture, history = known["architecture"], known["history"]
    if architecture not in ARCHITECTURES:
        raise FlagError(f"--corrector is {str(path)!r}, whose architecture {architecture!r} is unknown here.")
    network = network_of(architecture, int(arrays.pop("width")))
    flat = {name.removeprefix(PARAMETER): leaf for name, leaf in arrays.items() if not name.startswith(ORIGIN)}
    params = traverse_util.unflatten_dict(flat, sep="/")
    seen = blank(1, history, planner.latent_size, planner.action_size)
    wanted = jax.eval_shape(network.init, jax.random.PRNGKey(0), *seen)
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, wanted):
        raise FlagError(f"--corrector is {str(path)!r}, which was trained for a run of other sizes.")
    return Corrector(lambda history: network.apply(params, *history), history), origin
