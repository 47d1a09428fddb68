"""How sentences about a wrong value show it, and what it may be."""

import difflib
import math
from typing import Any


def choices(name: str, valid: list[str]) -> str:
    """The valid names as one phrase, nearest to `name` first."""
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    return ", ".join(near + [other for other in valid if other not in near])


def first_line(error: Exception) -> str:
    """What an error says in its first line, without a full stop; its type if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(". ")


def shape_of(value: Any) -> str:
    """The shape of an array as [B, D]; `nothing` for what has none, such as a forgotten return."""
    return str(list(value.shape)) if hasattr(value, "shape") else "nothing"


def shown(value: Any) -> str:
    """A value as Python writes it, but a whole number that is too long for that by its size."""
    long = type(value) is int and abs(value) >= 10**15
    return f"{'-' * (value < 0)}1e{int(math.log10(abs(value)))} or more" if long else repr(value)
