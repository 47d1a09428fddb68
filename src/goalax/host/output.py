"""Standard output and standard error that stop no work: what cannot be written there is dropped."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Stream:
    """A stream of text that falls silent at its first error: a closed pipe, a full disk, a terminal that is gone."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.error: Exception | None = None  # the first one

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with self._dropping():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self.stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # ValueError: it is closed
            self.error = self.error or error
            # What is still in its buffer, and what Python and libraries in C write there later, goes nowhere too.
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())

    @property
    def problem(self) -> str | None:
        """What went wrong, unless whoever listened has simply heard enough."""
        if self.error is None or isinstance(self.error, BrokenPipeError):
            return None
        return getattr(self.error, "strerror", None) or str(self.error)


@contextlib.contextmanager
def protected() -> Iterator[Stream]:
    """Standard output and standard error as `Stream`s, the first of which it returns, until the end of the `with`.

    Letters that their encoding lacks are written as escapes.
    """
    _open_closed()
    before = sys.stdout, sys.stderr
    try:
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is None or stream.closed:  # None: from the start
                stream = open(os.devnull, "w")  # noqa: SIM115
            if not isinstance(stream, Stream):
                if isinstance(stream, io.TextIOWrapper):
                    stream.reconfigure(errors="backslashreplace")
                setattr(sys, name, Stream(stream))
        yield cast(Stream, sys.stdout)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Opens nothing in the place of standard streams that are closed: a file of the run would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
