"""Files that somebody may have already: written aside and renamed, so that they are all new or as they were."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

MAX_NAME = 230  # bytes; with what is added they fit into a name of a disk, 255


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where to write what then becomes the file; it stays as it was where that fails. OSError names the file.

    The name of that place does not end as the file's: what goes by the ending must be told the format. Of two in one
    `with`, the second one becomes its file first.
    """
    target = Path(os.path.realpath(path))  # of a link, what it points to
    part = part_of(target)
    if path.exists() and not path.is_file():
        part = target = path  # a device, a pipe or a directory cannot be replaced by a file
    try:
        yield part
        if part != target:
            with contextlib.suppress(OSError):
                shutil.copymode(target, part)  # who may read it stays as it was
            os.replace(part, target)
    except BaseException as error:
        if part != target:
            with contextlib.suppress(OSError):
                part.unlink()
        if isinstance(error, OSError) and error.filename in (None, part, str(part)):
            try:
                error.filename = str(path)  # that of a full disk does not say where it happened
            except AttributeError:  # an error of PyAV, whose file cannot be set
                raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def part_of(target: Path) -> Path:
    """Where this process writes what becomes a file: beside it, under a name that is none of another process."""
    name = os.fsdecode(os.fsencode(target.name)[:MAX_NAME])
    return target.with_name(f"{name}.{os.getpid()}.part")


def copy(source: Path, path: Path) -> None:
    """Copies the content of a file, all of it or nothing; OSError names the one that cannot be read or written."""
    content = source.read_bytes()
    with aside(path) as part:
        part.write_bytes(content)
