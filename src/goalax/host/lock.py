"""One process at a time in a folder, by a lock file that names it; and children that do not outlive their parent."""

import contextlib
import ctypes
import errno
import fcntl
import functools
import os
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TextIO

from goalax.flags import FlagError

UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}  # what flock says where there is none


def take(file: IO[Any]) -> bool:
    """Locks an open file and returns whether nobody else holds it.

    The lock ends when this process and all children that were given the file have closed it or are dead. On a file
    system without locks every file is free.
    """
    return _flock(file) is not False


@contextlib.contextmanager
def only_one(folder: Path, what: str = "A queue trains into") -> Iterator[None]:
    """Refuses a second process that would work in a folder, which is made if it is not there.

    Args:
      what: what the other process does with the folder, in words that end before its name.

    Raises:
      FlagError: another process does, or the folder cannot be written.
    """
    with contextlib.suppress(OSError):  # the lock file tells of it
        folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / "queue.lock", f"{what} {folder}"):
        yield


@contextlib.contextmanager
def only_writer(directories: Sequence[Path]) -> Iterator[None]:
    """The same for run directories, which must be there."""
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(_held(directory / "lock", f"A training writes into {directory}"))
        yield


@contextlib.contextmanager
def _held(path: Path, what: str) -> Iterator[None]:
    """Holds a lock file, which names this process.

    The system lets go of the lock of a process that dies, however it does, and on whichever host. Where a file system
    knows no locks, the name in the file counts: it stands in the way while a process of that number lives here.
    """
    try:
        file = _take(path, what)
    except OSError as error:
        raise FlagError(f"The directory {path.parent} cannot be written: {error.strerror}.") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the directory may be gone, or another one in its place
            if _is(path, file):
                path.unlink()
        file.close()


def _take(path: Path, what: str) -> TextIO:
    """The open lock file, locked, with this process in it."""
    while True:
        file = path.open("a+", errors="replace")
        locked, owner = _flock(file), _owner(file)
        if locked is False or (locked is None and _may_live(owner)):
            file.close()
            who = "another process" if owner is None else f"process {owner[1]} on {owner[0]}"
            gone = f" (if it is gone, delete {path})" if locked is None else ""
            raise FlagError(f"{what} already ({who}): wait until it ends, or stop it first{gone}.")
        if _is(path, file):
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
            file.flush()
            return file
        file.close()  # the one who held it has deleted it in between


def _flock(file: IO[Any]) -> bool | None:
    """Whether nobody else holds it; None where the file system knows no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in UNSUPPORTED:
            return None
        raise
    return True


def _is(path: Path, file: TextIO) -> bool:
    """Whether an open file still is what the path names."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _owner(file: TextIO) -> tuple[str, int] | None:
    """Host and process in a lock file; None if it names none."""
    file.seek(0)
    host, _, process = file.read(1000).strip().rpartition(" ")
    return (host, int(process)) if host and process.isdecimal() else None


def _may_live(owner: tuple[str, int] | None) -> bool:
    """Whether a process may still be there: one of another host may, for all that can be seen from here."""
    if owner is None:
        return False
    host, process = owner
    if host != socket.gethostname():
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def child(command: Sequence[str], output: TextIO, env: Mapping[str, str] | None = None) -> "subprocess.Popen[Any]":
    """A program that has started, which reads nothing, writes to `output`, and on Linux ends when this process dies."""
    with warnings.catch_warnings():
        # Python warns of forking beside the threads of JAX; between fork and exec this child makes one system call.
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        nothing = subprocess.DEVNULL
        return subprocess.Popen(
            command, env=env, stdin=nothing, stdout=output, stderr=output, preexec_fn=end_with_parent()
        )


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
