"""Where a run comes from: the commit of this project, and its command line as somebody can run it again."""

import contextlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def git_commit() -> str | None:
    """The commit of this project's files; None where they are in no repository, or lie in one of something else, such
    as in a virtual environment within somebody's project."""
    file = Path(__file__)

    def git(*words: str) -> str:
        command = ["git", "-C", str(file.parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        git("ls-files", "--error-unmatch", file.name)  # fails where the repository does not know the file
        return git("describe", "--always", "--dirty", "--abbrev=40")
    return None


def command_line(command: Sequence[Any]) -> str:
    """The `command` of a config.json, which has the bare name of a program, as a shell takes it."""
    words = [*map(str, command)]
    python = ["python"] if words and words[0].endswith(".py") else []
    return shlex.join(python + words)
