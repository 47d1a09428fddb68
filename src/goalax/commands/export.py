"""Writes the policy of a run as a file that runs without Goalax (StableHLO or ONNX), and a card that describes it."""

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from goalax.flags import FlagError, flag, parse
from goalax.host import loading
from goalax.host.cache import enable_compilation_cache
from goalax.host.checkpoint import NoCheckpointError
from goalax.host.places import writable
from goalax.interop import card, export


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """What to export, and where to."""

    run: tuple[str, ...] = flag((), "run directory", positional=True)
    step: int | None = flag(None, "checkpoint, by its steps and updates on a dataset (default: the newest)", low=0)
    out: str = flag(
        "policy.stablehlo",
        "file to write, ONNX where it ends in .onnx; its description lies beside it, with .json behind its name",
    )
    card: str | None = flag(None, "Markdown file to write: metrics, command, film of the run, how to call the policy")


def card_beside(out: Path, value: str) -> Path:
    """The path of the card; FlagError where it, or the film beside it, would be written over the policy."""
    page = writable("card", value, (".md",))
    written = (page, *(page.with_suffix(Path(film).suffix) for film in card.FILMS))
    if os.path.realpath(out) in map(os.path.realpath, written):
        raise FlagError(f"--card is {value!r}, which would overwrite the policy that --out names, {str(out)!r}.")
    return page


def start() -> None:
    """What it does first where it is a program of its own."""
    enable_compilation_cache()


def main(argv: Sequence[str], prog: str = "export.py") -> int:
    """Runs a command line; returns the exit code."""
    try:
        description = "Writes the policy of a run as a file that runs with JAX or, as ONNX, without it."
        (config,) = parse(argv, ExportConfig(), others={}, prog=prog, description=description)
        if len(config.run) != 1:
            raise FlagError(f"It takes one run directory, but {len(config.run)} are given.")
        out = writable("out", config.out)
        writable("out", f"{config.out}.json")  # what somebody must know to call it
        page = None if config.card is None else card_beside(out, config.card)
        directory = Path(config.run[0])
        run, state = loading.load(directory, config.step, vis_length=0)
        try:
            written = list(export.write(run, state, out))
            if page is not None:
                written += card.write(run, state, directory, out, page)
        except OSError as error:
            raise FlagError(f"{error.filename or out} cannot be written: {error.strerror or error}.") from None
    except (FlagError, NoCheckpointError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0
