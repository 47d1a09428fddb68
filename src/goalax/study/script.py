"""Scripts about many runs: their flags, and the one file that each of them writes."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from goalax.flags import FlagError, Flagged, flag, parse
from goalax.host.places import writable
from goalax.study.experiments import Group, compare


@dataclasses.dataclass(frozen=True)
class RunsConfig:
    """The flag that scripts about many runs share; each adds `out`."""

    runs: tuple[str, ...] = flag((), "run directories, or folders whose runs are meant", positional=True)


class ScriptConfig(Flagged, Protocol):
    """What a script about many runs is told: the flags of RunsConfig, and where it writes to."""

    @property
    def runs(self) -> tuple[str, ...]: ...
    @property
    def out(self) -> str: ...


S = TypeVar("S", bound=ScriptConfig)


def script(
    argv: Sequence[str],
    config: S,
    prog: str,
    description: str,
    suffixes: Sequence[str],
    save: Callable[[Sequence[Group], Sequence[str], Path, S], None],
) -> int:
    """A script that writes one file about many runs; returns the exit code.

    Args:
      config: the defaults of its flags.
      suffixes: what --out may end in.
      save: (groups, notes, path, config), writes the file.
    """
    try:
        (config,) = parse(argv, config, others={}, prog=prog, description=description)
        path = writable("out", config.out, suffixes)
        groups, notes = compare(map(Path, config.runs))
    except FlagError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    for note in notes:
        print(f"{prog}: {note}", file=sys.stderr)
    try:
        save(groups, notes, path, config)
    except FlagError as error:  # what is asked for, these runs cannot show
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, say, whose error names no file
        name = str(error.filename or path)
        what = "written" if name == str(path) else "read or written"
        print(f"{prog}: {name} cannot be {what}: {error.strerror}.", file=sys.stderr)
        return 2
    print(path)
    return 0
