"""Markdown that scripts write: tables, and the part of a document between two marks, which is written anew."""

from collections.abc import Sequence

from goalax.flags import FlagError


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |\n" for cells in lines)


def marks(name: str, script: str) -> tuple[str, str]:
    """The lines around the part of this name, which the script makes."""
    return f"<!-- {name}: made by scripts/{script} -->\n", f"<!-- end of {name} -->\n"


def replace(text: str, name: str, script: str, part: str) -> str:
    """The text with another part of this name; FlagError if it has no place for it."""
    start, end = marks(name, script)
    before, found, rest = text.partition(start)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise FlagError(f"The document is without a place for {name}: {start.strip()}")
    return before + start + part + end + after
