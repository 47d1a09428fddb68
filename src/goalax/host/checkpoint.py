"""Save and restore of RunState with Orbax: atomic, and a damaged newest checkpoint falls back to the one before."""

import contextlib
import functools
import gc
import glob
import json
import logging
import os
import re
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from goalax import __version__
from goalax.core.types import RunState
from goalax.flags import FlagError
from goalax.host import runs
from goalax.host.devices import leads

if TYPE_CHECKING:
    # Functions import Orbax when they first need it: training starts without the 0.3 s that this takes.
    import orbax.checkpoint as ocp

KEEP = 2  # the newest, and the one to fall back to


class NoCheckpointError(FileNotFoundError):
    """There is no checkpoint that can be read, or none of this run."""


class ProblemError(Exception):
    """Found here, not by Orbax; its text is the cause."""


class SaveError(Exception):
    """A checkpoint could not be written."""


@contextlib.contextmanager
def searchable(folder: Path) -> Iterator[Path]:
    """An absolute path of the folder for Orbax, which looks for files by patterns and takes a `[` for one of them."""
    absolute = folder.absolute()
    if glob.escape(str(absolute)) == str(absolute):
        yield absolute
        return
    places = [place for place in (tempfile.gettempdir(), "/tmp", "/dev/shm") if glob.escape(place) == place]
    with tempfile.TemporaryDirectory(prefix="goalax-", dir=places[0]) as place:
        link = Path(place).absolute() / "checkpoints"
        link.symlink_to(absolute, target_is_directory=True)
        yield link


class Saver(contextlib.AbstractContextManager):
    """Writes checkpoints of one run in the background; use it in a `with`, whose end waits for the last one.

    Of several processes each one has its own: none waits for another.
    """

    def __init__(self, directory: Path):
        import orbax.checkpoint as ocp

        quiet()
        directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, cleanup_tmp_directories=leads(), create=False, multiprocessing_options=alone()
        )
        self.directory = directory
        self.last: int | None = None  # environment steps of the newest one that was begun
        with contextlib.ExitStack() as stack:
            self.manager = ocp.CheckpointManager(stack.enter_context(searchable(directory)), options=options)
            self.stack = stack.pop_all()

    def wait(self) -> None:
        """Until the last one is there; SaveError if it could not be written."""
        with self._telling(self.last):
            self.manager.wait_until_finished()

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Starts to write what is not there yet; SaveError if it, or the one before it, cannot be written."""
        import orbax.checkpoint as ocp

        self.wait()  # so that what goes wrong belongs to the one before
        with self._telling(step):
            if step not in steps(self.directory) and not self.manager.save(step, args=ocp.args.Composite(**items)):
                raise ProblemError("there are newer ones")
        self.last = step

    def __exit__(self, kind: object, *_: object) -> None:
        with self.stack:
            if kind is not None:  # that error is the one to tell
                with contextlib.suppress(Exception):
                    self.manager.close()
                return
            with self._telling(self.last):
                self.manager.close()
                if self.last is not None and self.last not in steps(self.directory):
                    raise ProblemError("it is not there")

    @contextlib.contextmanager
    def _telling(self, step: int | None) -> Iterator[None]:
        """Turns whatever goes wrong into a SaveError."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore have errors of many kinds for a full disk
            raise SaveError(
                f"the checkpoint {self.directory / str(step)} cannot be written ({reason(error)})"
            ) from None


@functools.cache
def quiet() -> None:
    """Hides the pages that Orbax prints about what is told in a sentence here; once and for the whole process.

    Where a file cannot be written, its threads go on after the event loop that they report to has been closed.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def show(what: Any) -> None:
        if not (isinstance(what.exc_value, RuntimeError) and str(what.exc_value) == "Event loop is closed"):
            hook(what)

    sys.unraisablehook = show


def reason(error: Exception) -> str:
    """The cause of an error in a few words."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ProblemError):
        return str(error)
    if code := re.search(r"\[os_error_code='(\d+)'\]", str(error)):  # so TensorStore ends its page
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


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


def save(saver: Saver, state: RunState, step: int, seconds: float = 0.0) -> None:
    """Starts to write the state, arrays of the host that nobody changes, under its number of environment steps; before
    them come the updates on a dataset.

    seconds: of training since the last row of metrics.csv, for `seconds_of`.

    Raises:
      SaveError: it cannot be written, or the one before it was not; the end of the saver's `with` tells of the last.
    """
    import orbax.checkpoint as ocp

    tree = storable(state._asdict())
    about = {"crc32": checksum(tree), "seconds": seconds}
    items = {"state": ocp.args.StandardSave(tree), "checksum": ocp.args.JsonSave(about)}
    saver.save(step, items)


def seconds_of(directory: Path, step: int) -> float:
    """What `save` was told; 0 for a checkpoint of a version that did not tell."""
    try:
        return float(json.loads((directory / str(step) / "checksum" / "metadata").read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def steps(directory: Path) -> list[int]:
    """Environment steps of the finished checkpoints of a run, newest first; Orbax renames a folder when it is whole."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return sorted((int(name) for name in names if re.fullmatch("[0-9]+", name)), reverse=True)


def put_aside(directory: Path, step: int, word: str) -> Path:
    """Renames a checkpoint to STEP.WORD[-k] with the first free k, out of the way of those that are saved next."""
    k = 1
    while (aside := directory / f"{step}.{word}{'' if k == 1 else f'-{k}'}").exists():
        k += 1
    return (directory / str(step)).rename(aside)


def shapes(tree: Any) -> list[tuple[int, ...]]:
    """Shapes of all leaves, whatever the containers are called."""
    return sorted(tuple(leaf.shape) for leaf in jax.tree.leaves(tree))


@contextlib.contextmanager
def quiet_coroutines(failed: bool) -> Iterator[None]:
    """Orbax leaves a failed coroutine behind for every unreadable array; this hides what they print when collected.

    failed: a read has failed before this one. Collecting looks at all objects of the process, which takes seconds in
      a large one.
    """
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        yield
        if failed:
            gc.collect()
    finally:
        sys.unraisablehook = hook


def misfit(run: Path) -> str:
    """Why a checkpoint may not fit the run that lies in a directory, in words."""
    version, here = "", f"goalax {__version__}"
    with contextlib.suppress(FlagError):
        version = runs.version_of(run)
    if version in ("", here):
        return "it has other sizes or agents"
    return f"it was written by {version}, whose states are other ones than those of {here}"


def restore(
    directory: Path, template: RunState, at_most: int | None = None, damaged: set[Path] | None = None
) -> RunState:
    """The newest readable state, on the host; warns about newer ones that are damaged. Writes nothing.

    Args:
      directory: the checkpoints of one run; it may be one that is training.
      template: arrays or shapes (`jax.eval_shape`) of a state of equal structure.
      at_most: no newer than this many environment steps.
      damaged: takes the folders of the damaged ones.

    Raises:
      NoCheckpointError: none can be read, or one has other sizes, which Orbax itself would not notice.
    """
    quiet()  # here, for `quiet_coroutines` puts back the hook that it finds
    # Orbax restores like for like: arrays of the host. These take no memory, whatever their shape.
    wanted = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), template._asdict())
    wanted = storable(wanted)
    tried: set[int] = set()
    # Listed anew each time: a run that trains saves new ones and deletes old ones.
    while left := [step for step in steps(directory) if step not in tried and (at_most is None or step <= at_most)]:
        step = left[0]
        tried.add(step)
        folder = directory / str(step)
        try:
            with quiet_coroutines(len(tried) > 1), searchable(directory) as place:
                state = read(place / str(step), wanted)
        except Exception as error:  # whatever a damaged file makes Orbax raise
            why = reason(error)
        else:
            if state is None:
                raise NoCheckpointError(f"The checkpoint {folder} does not fit the run: {misfit(directory.parent)}.")
            return complete(RunState(**state), template)
        if folder.exists():  # else it was deleted as it was read
            if damaged is not None:
                damaged.add(folder)
            warnings.warn(f"The checkpoint {folder} is damaged ({why}); trying the one before.", stacklevel=2)
    raise NoCheckpointError(f"There is no readable checkpoint in {directory}.")


def read(folder: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
    """The state in a checkpoint; None if it has other shapes than wanted. Without a manager, which would clean up."""
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer(multiprocessing_options=alone()) as reader:
        stored = reader.metadata(folder / "state").item_metadata.tree
        if shapes(stored) != shapes(wanted):
            return None
        state = reader.restore(folder / "state", wanted)
    if checksum(state) != json.loads((folder / "checksum" / "metadata").read_text())["crc32"]:
        raise ProblemError("its checksum does not match")
    return state
