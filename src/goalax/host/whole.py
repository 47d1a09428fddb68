"""Files that somebody may have already: written aside and renamed, so that they are all new or as they were."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where to write what then becomes the file; it stays as it was where that fails. OSError names the file.

    Of two in one `with`, the second one becomes its file first.
    """
    target = Path(os.path.realpath(path))  # of a link, what it points to
    part = target.with_name(f"{target.name}.part")
    if target.exists() and not target.is_file():
        part = target  # a device or a directory cannot be replaced by a file
    try:
        yield part
        if part != target:
            os.replace(part, target)
    except BaseException as error:
        if part != target:
            with contextlib.suppress(OSError):
                part.unlink()
        if isinstance(error, OSError) and error.filename in (None, part, str(part)):
            error.filename = str(path)  # that of a full disk does not say where it happened
        raise
