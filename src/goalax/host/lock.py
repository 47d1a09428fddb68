"""One process at a time in a folder, and children that do not outlive their parent."""

import contextlib
import ctypes
import fcntl
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from goalax.flags import FlagError


def take(file: IO[Any]) -> bool:
    """Locks an open file and returns whether nobody else holds it.

    The lock ends when this process and all children that were given the file have closed it or are dead.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: no reason to refuse work
        pass
    return True


@contextlib.contextmanager
def only_one(folder: Path, what: str = "A queue trains into") -> Iterator[None]:
    """Refuses, with a FlagError, a second process that would work in a folder; a dead one's lock is gone with it.

    Args:
      what: what the other process does with the folder, in words that end before its name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "queue.lock").open("a+") as file:
        if not take(file):
            file.seek(0)
            other = file.read().strip() or "another process"
            raise FlagError(f"{what} {folder} already ({other}); let it end, or end it.")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {os.uname().nodename}")
        file.flush()
        yield


def end_with_parent() -> Callable[[], None]:
    """What a child must call first (`preexec_fn`) so that on Linux it gets SIGTERM when its parent dies.

    A training that goes on alone would meet its successor.
    """
    if sys.platform != "linux":
        return _nothing
    return functools.partial(_end_with, ctypes.CDLL(None).prctl, os.getpid())  # loaded before the fork


def _end_with(prctl: Callable[[int, int], int], parent: int) -> None:
    prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died meanwhile
        os.kill(os.getpid(), signal.SIGTERM)


def _nothing() -> None:
    pass
