"""Where flags ask for a file to be written: what is wrong with the place is told before work begins."""

import os
from collections.abc import Sequence
from pathlib import Path

from goalax.flags import FlagError


def writable(name: str, value: str, suffixes: Sequence[str] = ()) -> Path:
    """The file that a flag names; FlagError where it cannot be written, as far as one can say. Nothing is written here.

    Args:
      name: of the flag, without dashes.
      suffixes: what the file may end in; none for anything.
    """
    path = Path(value)
    named = bool(path.name) and (not suffixes or path.suffix in suffixes)
    if not named or os.path.isdir(path) or not os.path.isdir(path.absolute().parent):
        ends = f" that ends in {', '.join(suffixes)}" if suffixes else ""
        raise FlagError(f"--{name} is {value!r}; it must name a file{ends}, in a directory that exists.")
    device = os.path.exists(path) and not os.path.isfile(path)  # into which `aside` writes, not beside it
    target = str(path) if device else os.path.realpath(path)
    places = [*[target] * os.path.exists(target), *[os.path.dirname(target)] * (not device)]
    if not all(os.access(place, os.W_OK) for place in places):
        raise FlagError(f"--{name} is {value!r}, which cannot be written.")
    return path
