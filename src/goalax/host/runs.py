"""The run directory: a free name for every run, config.json, metrics.csv, and what a resumed run needs of them."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from goalax import __version__
from goalax.agents import AGENTS
from goalax.flags import FlagError, Flagged, names_in

if TYPE_CHECKING:
    from goalax.host.config import Flags  # which reads runs, with this module

ROOT = Path("runs")
PACKAGES = ("jax", "jaxlib", "brax", "mujoco", "mujoco-mjx", "flax", "optax", "orbax-checkpoint", "numpy")


def _base(config: "Flags", seed: int) -> Path:
    name = config.exp_name or f"{config.env_name}_{config.agent}"
    return ROOT / (config.group_name or "") / f"{name}_s{seed}"


def create(config: "Flags", seed: int) -> Path:
    """A new directory runs/[group/]name_sSEED[-k] with the first free k; FlagError where it cannot be written."""
    base = _base(config, seed)
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        k = 1
        while True:
            directory = base if k == 1 else base.with_name(f"{base.name}-{k}")
            with contextlib.suppress(FileExistsError):
                directory.mkdir()
                return directory
            k += 1
    except OSError as error:
        raise FlagError(
            f"--group_name and --exp_name name the run directory {base}, which cannot be written: {error.strerror}."
        ) from None


def find(config: "Flags", seed: int) -> Path:
    """The newest run of the config's name, or its --run_dir; FlagError if there is nothing to resume."""
    if config.run_dir is not None:
        directory = Path(config.run_dir)
        if not (directory / "config.json").is_file():
            raise FlagError(f"--run_dir is {config.run_dir!r}; there is no run to resume in it.")
        return directory
    base = _base(config, seed)
    runs = {}
    for path in base.parent.glob(f"{base.name}*"):
        suffix = re.fullmatch(r"(?:-(\d+))?", path.name.removeprefix(base.name))
        if suffix and (path / "config.json").is_file():
            runs[int(suffix[1] or 1)] = path
    if not runs:
        raise FlagError(f"--resume found no run {base}; there is nothing to resume (--run_dir names one exactly).")
    return runs[max(runs)]


def find_all(config: "Flags") -> list[Path]:
    """`find` for every seed of the config."""
    return [find(config, seed) for seed in range(config.seed, config.seed + config.num_seeds)]


def write_config(directory: Path, config: "Flags", agent_config: Flagged, seed: int) -> None:
    """config.json: all flags that mean something to the agent, as if this seed had run alone on one device, versions,
    devices, git commit."""
    unused = names_in(config, AGENTS[config.agent].unused)
    meant = {name: value for name, value in vars(config).items() if name not in unused}
    alone = {"seed": seed, "num_seeds": 1, "resume": False, "run_dir": None}
    alone |= dict.fromkeys(names_in(config, {"devices"}))
    content = {
        "flags": {**meant, **alone},
        "agent_flags": dataclasses.asdict(agent_config),
        "versions": {
            "goalax": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "device": f"{config.num_devices} x {jax.devices()[0].device_kind} ({jax.default_backend()})",
        "git_commit": _git_commit(),
        "command": sys.argv,
    }
    _write(directory / "config.json", json.dumps(content, indent=2) + "\n")


def read_content(directory: Path) -> dict[str, Any]:
    """All of a run's config.json."""
    try:
        content = json.loads((directory / "config.json").read_text())
        if {"flags", "agent_flags"} <= content.keys():
            return content
    except (OSError, ValueError, AttributeError):
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


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return None


def _write(path: Path, text: str) -> None:
    """Writes all of the file or nothing, whatever kills the process."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


class MetricsFile:
    """metrics.csv: one row per evaluation, on disk when `append` returns."""

    def __init__(self, directory: Path, keep_until: int):
        """Opens the file of a run, without the rows past `keep_until` environment steps."""
        self.path = directory / "metrics.csv"
        self.rows = [row for row in read_metrics(self.path) if row["training/envsteps"] <= keep_until]
        if self.path.exists():
            self._rewrite()

    @property
    def walltime(self) -> float:
        return self.rows[-1]["training/walltime"] if self.rows else 0.0

    def append(self, row: dict[str, float]) -> None:
        known = list(self.rows[0]) if self.rows else None
        self.rows.append(row)
        if known != list(row):
            self._rewrite()
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, known).writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _rewrite(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with self.path.with_name("metrics.csv.part").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self.rows)
        os.replace(self.path.with_name("metrics.csv.part"), self.path)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv; a last row that a crash cut short is left out.

    Versions before 0.2 wrote no share of time at the goal: it is added where the run's flags say how long it could be.
    """
    if not path.exists():
        return []
    rows = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file, restval="cut short"):
            with contextlib.suppress(TypeError, ValueError):
                rows.append({name: _number(value) for name, value in row.items() if value != ""})
    if any("eval/episode_success" in row and "eval/time_at_goal" not in row for row in rows):
        with contextlib.suppress(FlagError, KeyError, TypeError, ZeroDivisionError):
            length = read_config(path.parent)[0]["episode_length"]
            rows = [{"eval/time_at_goal": row["eval/episode_success"] / length, **row} for row in rows]
    return rows


def _number(text: str) -> float:
    return int(text) if text.isdigit() else float(text)
