"""Reads a file of YAML that people write, a sweep or the rows of the results: what is wrong with it is one sentence."""

from pathlib import Path
from typing import Any

import yaml

from goalax.flags import FlagError


def load(path: Path) -> Any:
    """What a file of YAML in UTF-8 holds; FlagError that names it where it cannot be read, or is none."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FlagError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise FlagError(f"{path} is no text in UTF-8: byte {error.start + 1} is not.") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # ValueError: dates such as 2020-13-01
        mark = getattr(error, "problem_mark", None)
        raise FlagError(f"{path} is no YAML{f' in line {mark.line + 1}' if mark else ''}.") from None
