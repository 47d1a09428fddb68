"""Save and restore of RunState with Orbax: atomic, and a damaged newest checkpoint falls back to the one before."""

import contextlib
import functools
import gc
import logging
import sys
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from goalax.core.types import RunState
from goalax.host.devices import leads

if TYPE_CHECKING:
    # Functions import Orbax when they first need it: training starts without the 0.3 s that this takes.
    import orbax.checkpoint as ocp

KEEP = 2  # the newest, and the one to fall back to


class NoCheckpointError(FileNotFoundError):
    """There is no checkpoint that can be read, or none of this run."""


def manager(directory: Path) -> "ocp.CheckpointManager":
    """Writes checkpoints of one run in the background; close it (or use it in a `with`) to wait for the last one.

    Of several processes each one has its own: none waits for another.
    """
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    directory.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=KEEP, cleanup_tmp_directories=leads(), create=False, multiprocessing_options=alone()
    )
    return ocp.CheckpointManager(directory.absolute(), options=options)


def alone() -> "ocp.options.MultiprocessingOptions":
    """Orbax without other processes."""
    import orbax.checkpoint as ocp

    index = jax.process_index()
    return ocp.options.MultiprocessingOptions(index, {index}, f"process{index}")


def checksum(tree: Any) -> int:
    """CRC-32 of all leaves; the compressed files alone would not show every flipped bit."""
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).data, crc)
    return crc


def storable(tree: Any) -> Any:
    """The tree with a scalar in place of every array without entries (MJX has some), which Orbax refuses to write."""
    return jax.tree.map(lambda leaf: leaf if leaf.size else np.zeros((), leaf.dtype), tree)


def complete(tree: Any, template: Any) -> Any:
    """What `storable` was given, from what it returned; template: leaves of the same shapes."""
    return jax.tree.map(lambda leaf, like: leaf if like.size else np.zeros(like.shape, like.dtype), tree, template)


def save(saver: "ocp.CheckpointManager", state: RunState) -> None:
    """Starts to write the state, arrays of the host that nobody changes, under its number of environment steps."""
    import orbax.checkpoint as ocp

    step = int(state.env_steps)
    if step not in saver.all_steps():
        tree = storable(state._asdict())
        items = {"state": ocp.args.StandardSave(tree), "checksum": ocp.args.JsonSave({"crc32": checksum(tree)})}
        saver.save(step, args=ocp.args.Composite(**items))


def steps(directory: Path) -> list[int]:
    """Environment steps of the finished checkpoints of a run, newest first."""
    return sorted((int(path.name) for path in directory.glob("*") if path.name.isdigit()), reverse=True)


def shapes(tree: Any) -> list[tuple[int, ...]]:
    """Shapes of all leaves, whatever the containers are called."""
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def quiet_coroutines() -> Iterator[None]:
    """Orbax leaves a failed coroutine behind for every unreadable array; this hides what they print when collected."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook


def restore(directory: Path, template: RunState, at_most: int | None = None) -> RunState:
    """The newest readable state, on the host; warns about newer ones that are damaged.

    Args:
      directory: the checkpoints of one run.
      template: arrays or shapes (`jax.eval_shape`) of a state of equal structure.
      at_most: no newer than this many environment steps.

    Raises:
      NoCheckpointError: none can be read, or one has other sizes, which Orbax itself would not notice.
    """
    import orbax.checkpoint as ocp

    # Orbax restores like for like: arrays of the host. These take no memory, whatever their shape.
    wanted = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), template._asdict())
    wanted = storable(wanted)
    checkpointer = functools.partial(ocp.StandardCheckpointer, multiprocessing_options=alone())
    items = ocp.args.Composite(state=ocp.args.StandardRestore(wanted), checksum=ocp.args.JsonRestore())
    for step in steps(directory):
        if at_most is not None and step > at_most:
            continue
        with quiet_coroutines(), manager(directory) as reader, checkpointer() as described:
            try:
                stored = described.metadata((directory / str(step) / "state").absolute()).item_metadata.tree
                if shapes(stored) != shapes(wanted):
                    raise NoCheckpointError(
                        f"The checkpoint {directory / str(step)} does not fit the run: it has other sizes or agents."
                    )
                restored = reader.restore(step, args=items)
                if checksum(restored["state"]) == restored["checksum"]["crc32"]:
                    return complete(RunState(**restored["state"]), template)
                reason = "its checksum does not match"
            except NoCheckpointError:
                raise
            except Exception as error:  # whatever a damaged file makes Orbax raise
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
        warnings.warn(
            f"The checkpoint {directory / str(step)} is damaged ({reason}); trying the one before.", stacklevel=2
        )
    raise NoCheckpointError(f"There is no readable checkpoint in {directory}.")
