"""One writer per run directory: a file `lock` in it names the process that writes, as long as that lives."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from goalax.flags import FlagError

NAME = "lock"
UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}  # what flock says where there is none


@contextlib.contextmanager
def only_writer(directories: Sequence[Path]) -> Iterator[None]:
    """Holds the locks of run directories; FlagError if another process holds one, or a directory cannot be written.

    The system lets go of the lock of a process that dies, however it does, and on whichever host. Where a file system
    knows no locks, the name in the file counts: it stands in the way while a process of that number lives here.
    """
    with contextlib.ExitStack() as stack:
        for directory in directories:
            stack.enter_context(_held(directory))
        yield


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    path = directory / NAME
    try:
        file = _take(path)
    except OSError as error:
        raise FlagError(f"The run directory {directory} cannot be written: {error.strerror}.") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the directory may be gone, or another one in its place
            if _is(path, file):
                path.unlink()
        file.close()


def _take(path: Path) -> TextIO:
    """The open lock file, locked, with this process in it."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner, unsupported = _owner(file), error.errno in UNSUPPORTED
            if not unsupported or _may_live(owner):
                file.close()
                if not unsupported and not isinstance(error, BlockingIOError):
                    raise
                raise FlagError(_taken(path, owner, unsupported)) from None
        if _is(path, file):
            file.truncate(0)
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
            file.flush()
            return file
        file.close()  # the one who held it has deleted it in between


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


def _taken(path: Path, owner: tuple[str, int] | None, unsupported: bool) -> str:
    who = "another process" if owner is None else f"process {owner[1]} on {owner[0]}"
    gone = f" (if it is gone, delete {path})" if unsupported else ""
    return f"The run directory {path.parent} is being written by {who}: wait until it ends, or stop it first{gone}."
