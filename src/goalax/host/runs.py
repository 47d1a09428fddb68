"""What lies in a run directory: config.json, metrics.csv, and what a resumed run needs of them."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from goalax import __version__
from goalax.agents import AGENTS
from goalax.flags import FlagError, Flagged, names_in
from goalax.host.origin import git_commit
from goalax.whole import aside

if TYPE_CHECKING:
    from goalax.data.files import Dataset
    from goalax.host.config import Flags  # which reads runs, with this module

STEPS = "training/envsteps"
OFFLINE = "training/offline_updates"  # of runs that learn from a dataset before they collect
PACKAGES = ("jax", "jaxlib", "brax", "mujoco", "mujoco-mjx", "flax", "optax", "orbax-checkpoint", "numpy")


def progress(row: Mapping[str, float]) -> float:
    """What orders the rows of metrics.csv: environment steps, and before them updates on a dataset."""
    return row[STEPS] + row.get(OFFLINE, 0)


def write_config(
    directory: Path, config: "Flags", agent_config: Flagged, seed: int, **datasets: "Dataset | None"
) -> None:
    """config.json: all flags that mean something to the agent, as if this seed had run alone on one device; versions,
    device, git commit and command, and those of later parts; SHA-256 of datasets, by the names of their flags."""
    unused = names_in(config, AGENTS[config.agent].unused)
    meant = {name: value for name, value in vars(config).items() if name not in unused}
    alone = {"seed": seed, "num_seeds": 1, "resume": False, "run_dir": None}
    alone |= dict.fromkeys(names_in(config, {"devices"}))
    versions = {"goalax": __version__, "python": platform.python_version()}
    made: dict[str, Any] = {
        "versions": versions | {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{config.num_devices} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "git_commit": git_commit(),
        "command": [program(), *sys.argv[1:]],
    }
    if (directory / "config.json").exists():
        before = read_content(directory)
        earlier = before.get("resumed")
        later = [*(earlier if isinstance(earlier, list) else []), *([made] if config.resume else [])]
        made = {name: before.get(name) for name in made} | ({"resumed": later} if later else {})
    content = {"flags": {**meant, **alone}, "agent_flags": dataclasses.asdict(agent_config), **made}
    content |= {f"{name}_sha256": dataset.sha256 for name, dataset in datasets.items() if dataset is not None}
    _write(directory / "config.json", json.dumps(content, indent=2) + "\n")


def program() -> str:
    """What was called, without the folders of this machine: `goalax`, `training.py` or a program of the user."""
    name = Path(sys.argv[0]).name
    return "goalax" if name == "__main__.py" else name


def read_content(directory: Path) -> dict[str, Any]:
    """All of a run's config.json."""
    try:
        content = json.loads((directory / "config.json").read_text())
        if {"flags", "agent_flags"} <= content.keys():
            return content
    except (OSError, ValueError, AttributeError, RecursionError):
        pass
    raise FlagError(f"There is no run in {directory}: its config.json cannot be read.")


def read_config(directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run flags and the agent flags of a run."""
    content = read_content(directory)
    return content["flags"], content["agent_flags"]


def version_of(directory: Path) -> str:
    """Which version of this project wrote a run, in words."""
    versions = read_content(directory).get("versions")
    version = versions.get("goalax") if isinstance(versions, dict) else None
    return f"goalax {version}" if version else "a version before goalax 0.2"


def _write(path: Path, text: str) -> None:
    """Writes all of the file or nothing, whatever kills the process."""
    with aside(path) as part:
        part.write_text(text)


class MetricsFile:
    """metrics.csv: one row per evaluation, on disk when `append` returns.

    What it did not write itself is never lost: before it writes over such a file, it keeps it under another name.
    """

    def __init__(self, directory: Path, keep_until: int, note: Callable[[str], object] = warnings.warn):
        """Opens the file of a run, without the rows past `keep_until` steps (`progress`).

        note: takes a sentence about a file that was not as it should be.
        """
        self.path, self.note = directory / "metrics.csv", note
        self.columns: list[str] = []  # of the file
        self.size: int | None = None  # of the file, as it was left here, in bytes
        rows, strange = _parse(self.path)
        usable = [row for row in rows if STEPS in row]
        self.rows = [row for row in usable if progress(row) <= keep_until]
        if strange or len(usable) < len(rows):
            went_on = f"{len(self.rows)} rows of it could be read and go on" if self.rows else "a new one begins"
            self.note(f"{self.path} holds what no run writes: it is kept as {self._keep()}; {went_on}.")
        if self.path.exists():
            self._rewrite()

    @property
    def walltime(self) -> float:
        """Seconds of training up to the last row."""
        return self.rows[-1].get("training/walltime", 0.0) if self.rows else 0.0

    def append(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        size = self._size()
        if size != self.size:
            became = "was deleted" if size is None else f"was changed by somebody else, and is kept as {self._keep()}"
            self._rewrite()
            self.note(f"{self.path} {became}: it is written anew, with all rows.")
            return
        if list(row) != self.columns:
            self._rewrite()
            return
        with naming(self.path), self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.columns).writerow(row)
            file.flush()
            os.fsync(file.fileno())
        self.size = self._size()

    def _size(self) -> int | None:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return None

    def _keep(self) -> str:
        """Copies the file to metrics.csv.bak-K with the first free K; returns that name."""
        k = 1
        while True:
            kept = self.path.with_name(f"{self.path.name}.bak-{k}")
            with contextlib.suppress(FileExistsError), naming(kept), kept.open("xb") as file:
                file.write(self.path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
                return kept.name
            k += 1

    def _rewrite(self) -> None:
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with aside(self.path) as part, part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
            file.flush()
            os.fsync(file.fileno())
        self.size = self._size()


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the path to errors of the system that do not say where they happened, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, as far as they are numbers; a row that a crash cut short is left out.

    Versions before 0.2 wrote no share of time at the goal: it is added where the run's flags say how long it could be.
    """
    rows = _parse(path)[0]
    if any("eval/episode_success" in row and "eval/time_at_goal" not in row for row in rows):
        with contextlib.suppress(FlagError, KeyError, TypeError, ZeroDivisionError):
            length = read_config(path.parent)[0]["episode_length"]
            rows = [{"eval/time_at_goal": row["eval/episode_success"] / length, **row} for row in rows]
    return rows


def _parse(path: Path) -> tuple[list[dict[str, float]], bool]:
    """The numbers of every row, and whether there is anything that no run writes: words, other separators.

    Spaces around a value and a byte order mark change nothing; rows with too few or too many values are left out, and a
    last one without the end of its line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        return [], False
    first = text.partition("\n")[0]
    separator = next((mark for mark in ";\t" if mark in first and "," not in first), ",")
    strange, rows, lines = separator != ",", list[dict[str, float]](), list[list[str]]()
    try:
        lines += [line for line in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if line]
    except csv.Error:
        strange = True
    names = [name.strip() for name in lines[0]] if lines else []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(names):
            strange |= number < len(lines)  # a crash may cut the last one short
            continue
        if number == len(lines) and not text.endswith(("\n", "\r")):
            strange = True  # it was cut inside its last value, or somebody's editor ends files so: then it is kept
            continue
        row = {}
        for name, value in zip(names, map(str.strip, line), strict=True):
            try:
                if value:
                    row[name] = _number(value.replace(",", ".") if separator != "," else value)
            except ValueError:
                strange = True
        if row:
            rows.append(row)
    return rows, strange


def _number(text: str) -> float:
    value = float(text)
    return int(text) if text.isdigit() and math.isfinite(value) else value
